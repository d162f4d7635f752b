//! A receiver of alerts, which checks each delivery as a receiver should, with nothing of ours.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, StatusCode, Uri, header},
    response::{IntoResponse, Response},
    routing::any,
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use hmac::{Hmac, Mac as _};
use serde_json::Value;
use sha2::Sha256;
use tokio::{net::TcpListener, task::JoinHandle};

use super::guest::eventually;

/// What the receiver and the sender share.
pub(crate) const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// How the receiver answers.
#[derive(Debug, Clone)]
pub(crate) enum Mood {
    /// With this status.
    Answers(u16),
    /// With 503, asking to be left alone for so many seconds.
    Busy(u64),
    /// With a redirect to its own `/elsewhere`.
    Redirects,
    /// With 200 after so long.
    Slow(Duration),
}

#[derive(Debug)]
struct Seen {
    mood: Mood,
    /// Every delivery, in order.
    deliveries: Vec<Value>,
    faults: Vec<String>,
    under_way: usize,
    most_under_way: usize,
}

/// Listens while it lives.
pub(crate) struct Receiver {
    pub(crate) address: SocketAddr,
    seen: Arc<Mutex<Seen>>,
    task: JoinHandle<()>,
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Receiver {
    pub(crate) async fn new() -> Self {
        Self::on(quiet_address().await).await
    }

    /// On this very address.
    pub(crate) async fn on(address: SocketAddr) -> Self {
        let listener = TcpListener::bind(address).await.expect("the receiver's address");
        let address = listener.local_addr().expect("an address");
        let seen = Arc::new(Mutex::new(Seen {
            mood: Mood::Answers(204),
            deliveries: Vec::new(),
            faults: Vec::new(),
            under_way: 0,
            most_under_way: 0,
        }));
        let app = Router::new().fallback(any(receive)).with_state(Arc::clone(&seen));
        let task = tokio::spawn(async move { axum::serve(listener, app).await.expect("serving") });
        Self { address, seen, task }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/hook?token=hunter2", self.address)
    }

    pub(crate) fn mood(&self, mood: Mood) {
        self.seen.lock().unwrap().mood = mood;
    }

    /// Every delivery so far, repetitions too; all of them were well signed.
    pub(crate) fn deliveries(&self) -> Vec<Value> {
        let seen = self.seen.lock().unwrap();
        assert!(seen.faults.is_empty(), "{:?}", seen.faults);
        seen.deliveries.clone()
    }

    /// What arrived, each message once, as `(type, kind, count)`.
    pub(crate) fn told(&self) -> Vec<(String, String, u64)> {
        let mut ids = std::collections::HashSet::new();
        let word = |value: &Value| value.as_str().expect("a word").to_owned();
        let mut messages = self.deliveries();
        messages.retain(|message| ids.insert(message["id"].clone()));
        messages
            .iter()
            .map(|message| {
                let data = &message["data"];
                (word(&message["type"]), word(&data["kind"]), data["count"].as_u64().expect("a count"))
            })
            .collect()
    }

    pub(crate) fn most_under_way(&self) -> usize {
        self.seen.lock().unwrap().most_under_way
    }

    /// Waits for a delivery of this type and kind.
    pub(crate) async fn receives(&self, message: &str, kind: &str) -> Value {
        eventually(&format!("{message} of {kind}"), || {
            let fits = |seen: &Value| seen["type"] == message && seen["data"]["kind"] == kind;
            self.deliveries().into_iter().find(fits)
        })
        .await
    }
}

/// A loopback address that no other story uses.
pub(crate) async fn quiet_address() -> SocketAddr {
    let [a, b, ..] = *uuid::Uuid::new_v4().as_bytes();
    let listener =
        TcpListener::bind(SocketAddr::from(([127, 77, a, b.max(1)], 0))).await.expect("a loopback address");
    listener.local_addr().expect("an address")
}

async fn receive(
    State(seen): State<Arc<Mutex<Seen>>>,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let mood = {
        let mut seen = seen.lock().unwrap();
        if uri.path() != "/hook" {
            seen.faults.push(format!("{uri} was never named"));
        }
        match check(&headers, &body) {
            Ok(message) => seen.deliveries.push(message),
            Err(fault) => seen.faults.push(fault),
        }
        seen.under_way += 1;
        seen.most_under_way = seen.most_under_way.max(seen.under_way);
        seen.mood.clone()
    };
    if let Mood::Slow(pause) = mood {
        tokio::time::sleep(pause).await;
    }
    seen.lock().unwrap().under_way -= 1;
    match mood {
        // Far more than anybody should read.
        Mood::Answers(status) if status >= 500 => {
            (StatusCode::from_u16(status).unwrap(), "x".repeat(1 << 20)).into_response()
        }
        Mood::Answers(status) => StatusCode::from_u16(status).unwrap().into_response(),
        Mood::Busy(seconds) => {
            (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, seconds.to_string())]).into_response()
        }
        Mood::Redirects => {
            (StatusCode::TEMPORARY_REDIRECT, [(header::LOCATION, "/elsewhere")]).into_response()
        }
        Mood::Slow(_) => StatusCode::OK.into_response(),
    }
}

/// As the specification says: HMAC-SHA256 of `id.timestamp.body`, and a timestamp that is not old.
fn check(headers: &HeaderMap, body: &[u8]) -> Result<Value, String> {
    let header = |name: &str| {
        let value = headers.get(name).and_then(|value| value.to_str().ok());
        value.ok_or_else(|| format!("no {name}"))
    };
    let (id, timestamp) = (header("webhook-id")?, header("webhook-timestamp")?);
    let key = STANDARD.decode(SECRET.trim_start_matches("whsec_")).expect("base64");
    let mut mac = Hmac::<Sha256>::new_from_slice(&key).expect("a key");
    mac.update(format!("{id}.{timestamp}.").as_bytes());
    mac.update(body);
    let expected = format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()));
    if header("webhook-signature")? != expected {
        return Err(format!("{id} is not signed well"));
    }
    let at: i64 = timestamp.parse().map_err(|_| format!("{timestamp} is no timestamp"))?;
    if (chrono::Utc::now().timestamp() - at).abs() > 60 {
        return Err(format!("{id} is of another time"));
    }
    let message: Value = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    if message["id"] != id || header("content-type")? != "application/json" {
        return Err(format!("{id} is not what it says: {message}"));
    }
    Ok(message)
}
