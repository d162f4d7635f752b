//! One delivery to the webhook, signed by the specification of Standard Webhooks
//! (<https://www.standardwebhooks.com>), scheme `v1`.

use std::{error::Error as _, io, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use chrono::{DateTime, Utc};
use hmac::{Hmac, Mac as _};
use reqwest::{
    Client, Response, StatusCode,
    header::{CONTENT_TYPE, RETRY_AFTER},
    redirect,
};
use sha2::Sha256;

use super::AlertsError;
use crate::config::WebhookTarget;

/// What is read of an answer, so that its connection can be used again; it is looked at by
/// nobody.
const MAX_ANSWER: usize = 1 << 10;

/// Connections kept open at most.
const MAX_IDLE: usize = 2;

/// The receiver.
#[derive(Debug)]
pub(super) struct Webhook {
    client: Client,
    target: WebhookTarget,
}

/// What came of an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    /// The receiver has it.
    Taken,
    /// It does not want it, ever.
    Gone,
    /// It may want it later.
    Failed {
        /// Why, in a word or two of ours: what libraries say may name the receiver's host.
        error: String,
        /// How long the receiver wants to be left alone.
        retry_after: Option<Duration>,
    },
}

impl Webhook {
    pub(super) fn new(target: WebhookTarget, timeout: Duration) -> Result<Self, AlertsError> {
        let client = Client::builder()
            .user_agent(concat!("infinibayd/", env!("CARGO_PKG_VERSION")))
            // What is signed is for the one who was named, not for whom he names.
            .redirect(redirect::Policy::none())
            .timeout(timeout)
            .pool_max_idle_per_host(MAX_IDLE)
            .build()
            .map_err(|error| AlertsError::Client(error.without_url()))?;
        Ok(Self { client, target })
    }

    /// Sends one message; takes as long as the timeout at most.
    pub(super) async fn send(&self, id: &str, body: &str, now: DateTime<Utc>) -> Answer {
        let timestamp = now.timestamp();
        let request = self
            .client
            .post(self.target.url.clone())
            .header(CONTENT_TYPE, "application/json")
            .header("webhook-id", id)
            .header("webhook-timestamp", timestamp)
            .header("webhook-signature", signature(&self.target.key, id, timestamp, body))
            .body(body.to_owned());
        match request.send().await {
            Ok(response) => answer(response, now).await,
            Err(error) => Answer::Failed { error: class(&error).to_owned(), retry_after: None },
        }
    }
}

/// What kind of failure it is.
fn class(error: &reqwest::Error) -> &'static str {
    if error.is_timeout() {
        "timeout"
    } else if is_of_tls(error) {
        "tls"
    } else if error.is_connect() {
        "connect"
    } else {
        // The connection broke between request and answer, or no HTTP came back.
        "broken"
    }
}

/// Whether the other end could not be agreed with: a broken or untrusted handshake is the one error
/// on the way to an answer that calls bytes of the wire invalid.
fn is_of_tls(error: &reqwest::Error) -> bool {
    let mut cause = error.source();
    while let Some(error) = cause {
        let of_io = error.downcast_ref::<io::Error>();
        if of_io.is_some_and(|error| error.kind() == io::ErrorKind::InvalidData) {
            return true;
        }
        // An I/O error's source is that of the error in it, which would be left out.
        cause = match of_io.and_then(io::Error::get_ref) {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    false
}

/// `v1,` and the HMAC-SHA256 of `id.timestamp.body`.
fn signature(key: &[u8], id: &str, timestamp: i64, body: &str) -> String {
    #[expect(clippy::expect_used, reason = "HMAC takes keys of any length")]
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("a key of any length");
    for part in [id, ".", &timestamp.to_string(), ".", body] {
        mac.update(part.as_bytes());
    }
    format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
}

async fn answer(mut response: Response, now: DateTime<Utc>) -> Answer {
    let status = response.status();
    let asked = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
    let retry_after = asked.and_then(|text| retry_after(text, now));
    let mut read = 0;
    while let Ok(Some(chunk)) = response.chunk().await {
        read += chunk.len();
        if read > MAX_ANSWER {
            break;
        }
    }
    if status.is_success() {
        Answer::Taken
    } else if status == StatusCode::GONE {
        Answer::Gone
    } else {
        Answer::Failed { error: format!("status {}", status.as_u16()), retry_after }
    }
}

/// Seconds, or a date.
fn retry_after(text: &str, now: DateTime<Utc>) -> Option<Duration> {
    let text = text.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = DateTime::parse_from_rfc2822(text).ok()?;
    (date.to_utc() - now).to_std().ok()
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[test]
    fn the_specifications_example_is_signed_as_there() {
        // From the specification's reference libraries.
        let key = STANDARD.decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let signed = signature(&key, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, "{\"test\": 2432232314}");
        assert_eq!(signed, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    /// What is said of a receiver that does this with its connections.
    async fn said(scheme: &str, receive: impl AsyncFn(tokio::net::TcpStream) + Send + 'static) -> Answer {
        said_within(Duration::from_secs(1), scheme, receive).await
    }

    async fn said_within(
        limit: Duration,
        scheme: &str,
        receive: impl AsyncFn(tokio::net::TcpStream) + Send + 'static,
    ) -> Answer {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let url = format!("{scheme}://localhost:{}/hook", listener.local_addr().unwrap().port());
        let target = WebhookTarget { url: url.parse().unwrap(), key: vec![1; 32] };
        let webhook = Webhook::new(target, limit).unwrap();
        let receiving = async {
            loop {
                receive(listener.accept().await.unwrap().0).await;
            }
        };
        tokio::select! {
            answer = webhook.send("msg_1", "{}", Utc::now()) => answer,
            () = receiving => unreachable!("it receives for ever"),
        }
    }

    #[tokio::test]
    async fn a_failure_is_told_in_words_of_ours() {
        let failed = |word: &str| Answer::Failed { error: word.to_owned(), retry_after: None };
        let says = async |mut stream: tokio::net::TcpStream, text: &str| {
            let mut buffer = [0; 1024];
            assert!(stream.read(&mut buffer).await.unwrap() > 0);
            stream.write_all(text.as_bytes()).await.unwrap();
        };
        let busy = async move |stream| says(stream, "HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n").await;
        assert_eq!(said("http", busy).await, failed("status 503"));
        assert_eq!(said("https", busy).await, failed("tls"));
        assert_eq!(
            said("http", async move |stream| says(stream, "SSH-2.0\r\n").await).await,
            failed("broken")
        );
        assert_eq!(said("http", async |_| std::future::pending().await).await, failed("timeout"));
    }

    #[tokio::test]
    async fn a_redirect_is_not_followed_and_an_answer_without_end_is_left() {
        let says = async |stream: &mut tokio::net::TcpStream, text: &str| {
            let mut buffer = [0; 4096];
            let read = stream.read(&mut buffer).await.unwrap();
            stream.write_all(text.as_bytes()).await.unwrap();
            String::from_utf8_lossy(&buffer[..read]).into_owned()
        };
        let elsewhere = async move |mut stream: tokio::net::TcpStream| {
            let moved = "HTTP/1.1 307 Moved\r\nlocation: /elsewhere\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
            let asked = says(&mut stream, moved).await;
            assert!(asked.starts_with("POST /hook "), "{asked}");
        };
        let failed = Answer::Failed { error: "status 307".to_owned(), retry_after: None };
        assert_eq!(said("http", elsewhere).await, failed);

        // It says more than is read, and then nothing any more.
        let (limit, began) = (Duration::from_secs(60), std::time::Instant::now());
        let endless = async move |mut stream: tokio::net::TcpStream| {
            says(&mut stream, "HTTP/1.1 200 OK\r\ncontent-length: 1000000000\r\n\r\n").await;
            stream.write_all(&[b'x'; 4 * MAX_ANSWER]).await.unwrap();
            std::future::pending().await
        };
        assert_eq!(said_within(limit, "http", endless).await, Answer::Taken);
        assert!(began.elapsed() < limit / 2, "it was waited for");
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now: DateTime<Utc> = "2015-10-21T07:27:00Z".parse().unwrap();
        let seconds = |text| retry_after(text, now).map(|wait| wait.as_secs());
        assert_eq!(seconds("120"), Some(120));
        assert_eq!(seconds("Wed, 21 Oct 2015 07:28:00 GMT"), Some(60));
        for none in ["", "-1", "soon", "Wed, 21 Oct 2015 07:26:00 GMT", "99999999999999999999999"] {
            assert_eq!(seconds(none), None, "{none:?}");
        }
    }
}
