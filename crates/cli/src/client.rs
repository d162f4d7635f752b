//! Questions to the API over HTTP.

use std::{sync::Arc, time::Duration};

use reqwest::{Url, redirect};
use rustls::ClientConfig;
use serde_json::{Value, json};

use crate::{
    documents::Document,
    failure::Failure,
    tls::{self, Authority},
};

/// How long a connection may take to come about.
pub const CONNECT: Duration = Duration::from_secs(10);
/// How long an ordinary answer may take.
const ANSWER: Duration = Duration::from_secs(60);
/// The longest answer that is read, in bytes.
const LONGEST: usize = 64 << 20;

/// Somebody who may ask.
#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    /// Where the daemon is: scheme, host, port, and a path that ends in `/`.
    pub base: Url,
    /// The bearer token.
    pub token: String,
    /// How https is spoken.
    pub tls: Arc<ClientConfig>,
}

impl Client {
    /// For the daemon at `base`, which `authority` vouches for; the public ones, where there is none.
    ///
    /// # Errors
    /// Where TLS cannot be set up.
    pub fn new(base: Url, token: String, authority: Option<&Authority>) -> Result<Self, Failure> {
        let tls = tls::config(authority)?;
        let http = reqwest::Client::builder()
            .connect_timeout(CONNECT)
            // A token is for one place: neither another host nor a proxy is shown it.
            .redirect(redirect::Policy::none())
            .no_proxy()
            .use_preconfigured_tls(ClientConfig::clone(&tls))
            .user_agent(concat!("infinibay/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| Failure::Answer(format!("TLS cannot be set up: {error}")))?;
        Ok(Self { http, base, token, tls })
    }

    /// Asks; gives what stands in the document's field.
    ///
    /// # Errors
    /// Where the daemon is not reached, or refuses.
    pub async fn ask(&self, document: &Document, variables: Value) -> Result<Value, Failure> {
        self.ask_within(ANSWER, document, variables).await
    }

    /// The same with another time for the answer.
    ///
    /// # Errors
    /// Where the daemon is not reached, or refuses.
    pub async fn ask_within(
        &self,
        limit: Duration,
        document: &Document,
        variables: Value,
    ) -> Result<Value, Failure> {
        let body = json!({ "query": document.text, "variables": variables });
        let mut answer = self.post("graphql", Some(&self.token), &body, limit).await?;
        Ok(answer["data"][document.field].take())
    }

    /// One POST of JSON to one of the daemon's doors.
    ///
    /// # Errors
    /// Where the daemon is not reached, or refuses.
    pub async fn post(
        &self,
        door: &str,
        token: Option<&str>,
        body: &Value,
        limit: Duration,
    ) -> Result<Value, Failure> {
        let url =
            self.base.join(door).map_err(|error| Failure::Profile(format!("{}: {error}", self.base)))?;
        let mut request = self.http.post(url).timeout(limit).json(body);
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        let mut answer = request.send().await.map_err(|error| self.unreachable(&error))?;
        let status = answer.status();
        let mut bytes = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(|error| self.unreachable(&error))? {
            if bytes.len() + chunk.len() > LONGEST {
                return Err(Failure::Answer(format!("the answer is longer than {LONGEST} bytes")));
            }
            bytes.extend_from_slice(&chunk);
        }
        let Ok(answer) = serde_json::from_slice::<Value>(&bytes) else {
            let words = format!("{} answered {status}, and not as the daemon does", self.base);
            return Err(if status.is_server_error() {
                Failure::Unreachable(words)
            } else {
                Failure::Answer(words)
            });
        };
        if let Some(failure) = refusal(&answer) {
            return Err(failure);
        }
        if !status.is_success() {
            return Err(Failure::Answer(format!("{} answered {status}", self.base)));
        }
        Ok(answer)
    }

    fn unreachable(&self, error: &reqwest::Error) -> Failure {
        use std::error::Error as _;
        if error.is_timeout() && !error.is_connect() {
            return Failure::TimedOut(format!("{} did not answer in time", self.base));
        }
        if let Some(reason) = tls::disbelief(error) {
            return Failure::Untrusted(format!("{} is not believed: {reason}", self.base));
        }
        // The cause says what a person can do something about.
        let mut cause = error.source();
        while let Some(deeper) = cause.and_then(|error| error.source()) {
            cause = Some(deeper);
        }
        let cause = cause.map_or_else(|| error.to_string(), ToString::to_string);
        Failure::Unreachable(format!("{} cannot be reached: {cause}", self.base))
    }
}

/// The first of an answer's errors.
#[must_use]
pub fn refusal(answer: &Value) -> Option<Failure> {
    let error = answer.get("errors")?.get(0)?;
    let word = |value: &Value| value.as_str().map(str::to_owned);
    let more = &error["extensions"];
    Some(Failure::Api {
        code: word(&more["code"]).unwrap_or_else(|| "INTERNAL".into()),
        message: word(&error["message"]).unwrap_or_else(|| "no reason was given".into()),
        field: word(&more["field"]),
        correlation: word(&more["correlationId"]),
    })
}
