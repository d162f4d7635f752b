//! A WebSocket client that speaks graphql-transport-ws, and what stories of the doors share.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream,
    tungstenite::{Error, Message, client::IntoClientRequest, http::StatusCode},
};

use super::daemon::Daemon;

/// How long a story waits for the next message.
pub const SOON: Duration = Duration::from_secs(20);

/// One connection.
pub struct Socket {
    stream: WebSocketStream<MaybeTlsStream<TcpStream>>,
}

/// What the server said.
#[derive(Debug)]
pub enum Said {
    /// A message of the protocol.
    Message(Value),
    /// The end, with its code; 1006 where there was none.
    Closed(u16),
}

impl Socket {
    /// Connects, without a word; the HTTP status where that is refused.
    pub async fn open(
        daemon: &Daemon,
        path: &str,
        headers: &[(&'static str, String)],
    ) -> Result<Self, StatusCode> {
        let url = format!("{}{path}", daemon.url.replacen("http", "ws", 1));
        let mut request = url.into_client_request().unwrap();
        request.headers_mut().insert("sec-websocket-protocol", "graphql-transport-ws".parse().unwrap());
        for (name, value) in headers {
            request.headers_mut().insert(*name, value.parse().unwrap());
        }
        match tokio_tungstenite::connect_async(request).await {
            Ok((stream, _)) => Ok(Self { stream }),
            Err(Error::Http(refused)) => Err(refused.status()),
            Err(error) => panic!("connecting to {path}: {error}"),
        }
    }

    /// Connects and introduces itself with this token.
    pub async fn introduced(daemon: &Daemon, token: &str) -> Self {
        let mut socket = Self::open(daemon, "/graphql/ws", &[]).await.expect("a WebSocket");
        let answer = socket.introduce(json!({ "authorization": format!("Bearer {token}") })).await;
        assert!(matches!(&answer, Said::Message(m) if m["type"] == "connection_ack"), "{answer:?}");
        socket
    }

    /// The same, with next to no room for what was not read yet.
    pub async fn narrow(daemon: &Daemon, token: &str) -> Self {
        let address = daemon.url.trim_start_matches("http://");
        let tcp = tokio::net::TcpSocket::new_v4().unwrap();
        tcp.set_recv_buffer_size(4096).unwrap();
        let tcp = tcp.connect(address.parse().unwrap()).await.expect("a connection");
        let mut request = format!("ws://{address}/graphql/ws").into_client_request().unwrap();
        request.headers_mut().insert("sec-websocket-protocol", "graphql-transport-ws".parse().unwrap());
        let (stream, _) =
            tokio_tungstenite::client_async(request, MaybeTlsStream::Plain(tcp)).await.expect("a WebSocket");
        let mut socket = Self { stream };
        let answer = socket.introduce(json!({ "token": token })).await;
        assert!(matches!(&answer, Said::Message(m) if m["type"] == "connection_ack"), "{answer:?}");
        socket
    }

    /// Introduces itself with this payload; the answer.
    pub async fn introduce(&mut self, payload: Value) -> Said {
        self.send(json!({ "type": "connection_init", "payload": payload })).await;
        self.next().await
    }

    pub async fn send(&mut self, message: Value) {
        self.stream.send(Message::text(message.to_string())).await.expect("sending on the WebSocket");
    }

    /// Begins an operation.
    pub async fn begin(&mut self, id: &str, query: &str, variables: Value) {
        let payload = json!({ "query": query, "variables": variables });
        self.send(json!({ "type": "subscribe", "id": id, "payload": payload })).await;
    }

    pub async fn next(&mut self) -> Said {
        self.next_within(SOON).await
    }

    /// The next message of the protocol, or the end.
    pub async fn next_within(&mut self, limit: Duration) -> Said {
        let next = async {
            loop {
                return match self.stream.next().await {
                    Some(Ok(Message::Text(text))) => Said::Message(serde_json::from_str(&text).unwrap()),
                    Some(Ok(Message::Ping(_) | Message::Pong(_))) => continue,
                    Some(Ok(Message::Close(Some(frame)))) => Said::Closed(frame.code.into()),
                    Some(Ok(Message::Close(None)) | Err(_)) | None => Said::Closed(1006),
                    Some(Ok(other)) => panic!("the server sent {other:?}"),
                };
            }
        };
        tokio::time::timeout(limit, next)
            .await
            .unwrap_or_else(|_| panic!("the server said nothing in {limit:?}"))
    }

    /// The next message, which has to be one.
    pub async fn message(&mut self) -> Value {
        match self.next().await {
            Said::Message(message) => message,
            Said::Closed(code) => panic!("the server closed with {code}"),
        }
    }

    /// The data of the next answer to the operation `id`.
    pub async fn data(&mut self, id: &str) -> Value {
        let mut message = self.message().await;
        assert_eq!((&message["type"], &message["id"]), (&json!("next"), &json!(id)), "{message}");
        assert!(message["payload"].get("errors").is_none(), "{message}");
        message["payload"]["data"].take()
    }

    /// The code with which the operation `id` is refused, and its end.
    pub async fn refused(&mut self, id: &str) -> String {
        let message = self.message().await;
        assert_eq!(message["id"], id, "{message}");
        // A refusal of the whole request comes as `error`, one of a field as `next`.
        let errors =
            if message["type"] == "error" { &message["payload"] } else { &message["payload"]["errors"] };
        let code = errors[0]["extensions"]["code"]
            .as_str()
            .unwrap_or_else(|| panic!("no code: {message}"))
            .to_owned();
        if message["type"] == "next" {
            let end = self.message().await;
            assert_eq!(end["type"], "complete", "{end}");
        }
        code
    }

    /// The code of the end, which has to come.
    pub async fn closed(&mut self) -> u16 {
        match self.next().await {
            Said::Closed(code) => code,
            Said::Message(message) => panic!("the server went on: {message}"),
        }
    }
}
