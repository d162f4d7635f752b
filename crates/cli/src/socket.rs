//! What is told as it happens: subscriptions over graphql-transport-ws.

use std::{sync::Arc, time::Duration};

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::{
    Connector, MaybeTlsStream, WebSocketStream, connect_async_tls_with_config,
    tungstenite::{
        Error, Message, Utf8Bytes,
        client::IntoClientRequest as _,
        http::{HeaderValue, StatusCode, header},
        protocol::WebSocketConfig,
    },
};

use crate::{
    client::{CONNECT, Client, refusal},
    documents::Document,
    failure::Failure,
    tls,
};

/// The longest message that is read, in bytes.
const LONGEST: usize = 16 << 20;
/// How long the daemon may be silent before it is asked whether it is there.
const SILENCE: Duration = Duration::from_secs(30);
/// How many such questions may go unanswered.
const UNANSWERED: u32 = 2;

/// One connection, with any number of subscriptions.
pub struct Socket {
    stream: WebSocketStream<MaybeTlsStream<TcpStream>>,
}

/// What came of a subscription.
#[derive(Debug)]
pub enum Said {
    /// What stands in the document's field, whole.
    Next(Value),
    /// It ended: what it was about is gone.
    Complete,
    /// It was refused, at once or later: what it is about is not there, or not for this token any more.
    Refused(Failure),
}

fn broken(what: &str) -> Failure {
    Failure::Unreachable(format!("the connection to the daemon broke: {what}"))
}

impl Socket {
    /// Connects and introduces the client.
    ///
    /// # Errors
    /// Where the daemon is not reached, or refuses the token.
    pub async fn connect(client: &Client) -> Result<Self, Failure> {
        let opened = tokio::time::timeout(CONNECT, Self::open(client)).await;
        let mut socket = opened.map_err(|_| broken("it took too long to come about"))??;
        socket.send(&json!({ "type": "connection_init" })).await?;
        loop {
            let message = socket.message().await?;
            if message["type"] == "connection_ack" {
                return Ok(socket);
            }
        }
    }

    async fn open(client: &Client) -> Result<Self, Failure> {
        let mut url = client.base.join("graphql/ws").map_err(|error| broken(&error.to_string()))?;
        let scheme = if url.scheme() == "https" { "wss" } else { "ws" };
        url.set_scheme(scheme).map_err(|()| broken("its URL is of neither http nor https"))?;
        let mut request = url.as_str().into_client_request().map_err(|error| broken(&error.to_string()))?;
        let token = HeaderValue::from_str(&format!("Bearer {}", client.token));
        let token = token.map_err(|_| Failure::Profile("the token is none".into()))?;
        request.headers_mut().insert(header::AUTHORIZATION, token);
        request
            .headers_mut()
            .insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static("graphql-transport-ws"));
        let config = WebSocketConfig::default().max_message_size(Some(LONGEST)).max_frame_size(Some(LONGEST));
        let tls = Connector::Rustls(Arc::clone(&client.tls));
        match connect_async_tls_with_config(request, Some(config), true, Some(tls)).await {
            Ok((stream, _)) => Ok(Self { stream }),
            Err(Error::Http(answer)) => Err(refused(answer.status(), answer.body().as_deref())),
            Err(error) => Err(match tls::disbelief(&error) {
                Some(reason) => Failure::Untrusted(format!("{} is not believed: {reason}", client.base)),
                None => Failure::Unreachable(format!("{} cannot be reached: {error}", client.base)),
            }),
        }
    }

    /// Begins a subscription under an id of one's choice.
    ///
    /// # Errors
    /// Where the connection broke.
    pub async fn begin(&mut self, id: &str, document: &Document, variables: &Value) -> Result<(), Failure> {
        let payload = json!({ "query": document.text, "variables": variables });
        self.send(&json!({ "id": id, "type": "subscribe", "payload": payload })).await
    }

    /// The next of any subscription, with its id.
    ///
    /// # Errors
    /// Where the connection broke.
    pub async fn next(&mut self) -> Result<(String, Said), Failure> {
        loop {
            let mut message = self.message().await?;
            let id = message["id"].as_str().unwrap_or_default().to_owned();
            match message["type"].as_str() {
                Some("next") => {
                    let mut payload = message["payload"].take();
                    let refused = refusal(&payload).map(Said::Refused);
                    return Ok((id, refused.unwrap_or_else(|| Said::Next(payload["data"].take()))));
                }
                Some("error") => {
                    let failure = refusal(&json!({ "errors": message["payload"].take() }));
                    let silent = || Failure::Answer("a subscription was refused without a reason".into());
                    return Ok((id, Said::Refused(failure.unwrap_or_else(silent))));
                }
                Some("complete") => return Ok((id, Said::Complete)),
                _ => {}
            }
        }
    }

    async fn send(&mut self, message: &Value) -> Result<(), Failure> {
        self.stream.send(Message::text(message.to_string())).await.map_err(|error| broken(&error.to_string()))
    }

    /// The next message of the protocol; its own questions are answered here.
    async fn message(&mut self) -> Result<Value, Failure> {
        let mut unanswered = 0;
        loop {
            let Ok(read) = tokio::time::timeout(SILENCE, self.stream.next()).await else {
                unanswered += 1;
                if unanswered > UNANSWERED {
                    return Err(broken("nothing is heard of it any more"));
                }
                let ping = self.stream.send(Message::Ping(Vec::new().into())).await;
                ping.map_err(|error| broken(&error.to_string()))?;
                continue;
            };
            unanswered = 0;
            let text = match read {
                Some(Ok(Message::Text(text))) => text,
                Some(Ok(Message::Close(frame))) => {
                    let (code, reason) =
                        frame.map_or((1006, Utf8Bytes::default()), |it| (it.code.into(), it.reason));
                    return Err(closed(code, &reason));
                }
                Some(Ok(_)) => continue,
                Some(Err(error)) => return Err(broken(&error.to_string())),
                None => return Err(closed(1006, "")),
            };
            let message: Value = serde_json::from_str(&text)
                .map_err(|_| Failure::Answer("the daemon says what is no JSON".into()))?;
            if message["type"] == "ping" {
                self.send(&json!({ "type": "pong" })).await?;
                continue;
            }
            return Ok(message);
        }
    }
}

/// The connection was not made.
fn refused(status: StatusCode, body: Option<&[u8]>) -> Failure {
    let told = body.and_then(|body| serde_json::from_slice::<Value>(body).ok());
    told.as_ref().and_then(refusal).unwrap_or_else(|| match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => unauthenticated(),
        status if status.is_server_error() => Failure::Unreachable(format!("the daemon answered {status}")),
        status => Failure::Answer(format!("the daemon answered {status} instead of a subscription")),
    })
}

fn unauthenticated() -> Failure {
    Failure::Api {
        code: "UNAUTHENTICATED".into(),
        message: "a valid token is needed".into(),
        field: None,
        correlation: None,
    }
}

/// The connection was ended.
fn closed(code: u16, reason: &str) -> Failure {
    match code {
        4401 | 4403 => unauthenticated(),
        1001 => broken("the daemon stops"),
        code => broken(&format!("it was closed ({code}) {reason}")),
    }
}
