//! One attempt at a URL.
//!
//! Each hop's name is resolved once, every address it has is judged, and the connection goes to
//! one of just these: a name that leads elsewhere a moment later leads nowhere. Redirects are
//! followed by hand for that. Proxies of the environment are not used: behind one, nobody could
//! tell where a name leads.

mod answer;
mod hop;

use std::{io, net::SocketAddr, pin::Pin, sync::Arc, time::Duration};

use reqwest::{Client, Response, Url, header, redirect};
use tokio::time::{Instant, timeout, timeout_at};

use super::{
    failure::{Failure, Stop},
    intake::Intake,
};
use crate::{config::MediaConfig, vm::chain};
use answer::{Part, contradicts, is_passing, part, validator};
pub(super) use hop::checked as checked_url;
use hop::{host_of, next, parse};

/// Redirects that are followed.
const MAX_HOPS: usize = 5;
/// How long a name may take to be resolved, and a connection to stand.
const CONNECT: Duration = Duration::from_secs(15);

/// From a name and a port to addresses.
type Resolving = Pin<Box<dyn Future<Output = io::Result<Vec<SocketAddr>>> + Send>>;
pub(super) type Resolver = Arc<dyn Fn(String, u16) -> Resolving + Send + Sync>;

/// Reads URLs. Clones share the resolver.
#[derive(Clone)]
pub(super) struct Fetcher {
    config: MediaConfig,
    resolver: Resolver,
}

/// The host's own way to resolve names.
pub(super) fn system_resolver() -> Resolver {
    Arc::new(|host, port| {
        Box::pin(async move { tokio::net::lookup_host((host, port)).await.map(Iterator::collect) })
    })
}

impl Fetcher {
    pub(super) fn new(config: MediaConfig, resolver: Resolver) -> Self {
        Self { config, resolver }
    }

    /// Reads the rest of a URL into the intake. With `checked`, the whole will be held against a
    /// checksum, so that it matters less who said what on the way.
    pub(super) async fn fetch(&self, url: &str, checked: bool, intake: &mut Intake) -> Result<(), Stop> {
        // Without either, what comes now may not belong to what came before.
        if intake.done() > 0 && intake.validator.is_none() && !checked {
            intake.restart().await?;
        }
        let from = intake.done();
        // Cut off between the last byte and what follows: there is nothing to ask for.
        if from > 0 && intake.total == Some(from) {
            return Ok(());
        }
        let condition = intake.validator.as_deref().filter(|_| from > 0);
        let response = self.open(parse(url)?, from, condition, checked).await?;
        let status = response.status();
        if let Some(coding) = response.headers().get(header::CONTENT_ENCODING)
            && coding.as_bytes() != b"identity"
        {
            let words = "the server sends the file compressed, although it was asked not to";
            return Err(Failure::mendable("HTTP_FAILED", words).into());
        }
        match part(status, response.headers(), from) {
            Part::Whole => {
                if from > 0 {
                    intake.restart().await?;
                }
                intake.validator = validator(response.headers());
                intake.expect(response.content_length()).await?;
            }
            // Not every server heeds the condition.
            Part::Rest(total)
                if contradicts(response.headers(), intake.validator.as_deref())
                    || total.zip(intake.total).is_some_and(|(now, before)| now != before) =>
            {
                return Err(changed(intake).await?.into());
            }
            Part::Rest(total) => {
                if intake.validator.is_none() {
                    intake.validator = validator(response.headers());
                }
                intake.expect(total).await?;
            }
            Part::Another => return Err(changed(intake).await?.into()),
            Part::Refused => {
                let words = format!("the server answers with status {}", status.as_u16());
                let failure = Failure::mendable("HTTP_FAILED", words);
                return Err(Failure { again: is_passing(status), ..failure }.into());
            }
        }
        self.stream(response, intake).await
    }

    /// Follows redirects to an answer that is none.
    async fn open(
        &self,
        mut url: Url,
        from: u64,
        condition: Option<&str>,
        checked: bool,
    ) -> Result<Response, Failure> {
        for _ in 0..=MAX_HOPS {
            let response = self.ask(&url, from, condition).await?;
            if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
                return Ok(response);
            }
            url = next(&url, response.headers().get(header::LOCATION), checked)?;
        }
        Err(Failure::mendable("REDIRECT_REFUSED", format!("there are more than {MAX_HOPS} redirects")))
    }

    /// One request to one of the addresses that the name has now.
    async fn ask(&self, url: &Url, from: u64, condition: Option<&str>) -> Result<Response, Failure> {
        let (host, port) = host_of(url)?;
        let addresses = self.addresses(&host, port).await?;
        let client = Client::builder()
            .user_agent(concat!("infinibayd/", env!("CARGO_PKG_VERSION")))
            .redirect(redirect::Policy::none())
            .no_proxy()
            .connect_timeout(CONNECT)
            .resolve_to_addrs(&host, &addresses)
            .build()
            .map_err(|error| Failure::passing("UNREACHABLE", chain(&error.without_url())))?;
        let mut request = client.get(url.clone()).header(header::ACCEPT_ENCODING, "identity");
        if from > 0 {
            request = request.header(header::RANGE, format!("bytes={from}-"));
            if let Some(condition) = condition {
                request = request.header(header::IF_RANGE, condition);
            }
        }
        let response = match timeout(self.config.stall_timeout, request.send()).await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => return Err(Failure::passing("UNREACHABLE", chain(&error.without_url()))),
            Err(_) => {
                let words = format!("the server did not answer within {:?}", self.config.stall_timeout);
                return Err(Failure::passing("TOO_SLOW", words));
            }
        };
        // Said once more by the connection itself.
        match response.remote_addr() {
            Some(reached) if addresses.iter().any(|address| address.ip() == reached.ip()) => Ok(response),
            _ => {
                Err(Failure::over("ADDRESS_REFUSED", "the connection went to another address than it should"))
            }
        }
    }

    /// The addresses of a name, each of them one that may be reached.
    async fn addresses(&self, host: &str, port: u16) -> Result<Vec<SocketAddr>, Failure> {
        let literal = host.trim_start_matches('[').trim_end_matches(']').parse().ok();
        let addresses = match literal {
            Some(address) => vec![SocketAddr::new(address, port)],
            None => match timeout(CONNECT, (self.resolver)(host.to_owned(), port)).await {
                Ok(Ok(addresses)) => addresses,
                Ok(Err(error)) => {
                    return Err(Failure::passing(
                        "UNREACHABLE",
                        format!("{host} cannot be resolved: {error}"),
                    ));
                }
                Err(_) => {
                    return Err(Failure::passing("UNREACHABLE", format!("{host} is not resolved in time")));
                }
            },
        };
        if addresses.is_empty() {
            return Err(Failure::passing("UNREACHABLE", format!("{host} has no address")));
        }
        for address in &addresses {
            let ip = address.ip();
            if let Some(why) = super::address::private(ip)
                && !self.config.allow_addresses.contains(ip)
            {
                // The address itself is not told: names would tell strangers of this network.
                let words = format!(
                    "{host} leads to an address that is {why}; an operator can allow it in media.allow_addresses"
                );
                return Err(Failure::mendable("ADDRESS_REFUSED", words));
            }
        }
        Ok(addresses)
    }

    /// Takes what comes, as long as enough of it does.
    async fn stream(&self, mut response: Response, intake: &mut Intake) -> Result<(), Stop> {
        let window = self.config.stall_timeout;
        let least = u64::from(self.config.min_bytes_per_second).saturating_mul(window.as_secs().max(1));
        let (mut end, mut came) = (Instant::now() + window, 0_u64);
        loop {
            let chunk = timeout_at(end, response.chunk()).await;
            let now = Instant::now();
            match chunk {
                Ok(Ok(Some(chunk))) => {
                    came = came.saturating_add(chunk.len() as u64);
                    intake.take(&chunk).await?;
                    if let Some(total) = intake.total.filter(|total| intake.done() > *total) {
                        let words = format!("more comes than the {total} bytes that the server announced");
                        return Err(Failure::over("HTTP_FAILED", words).into());
                    }
                }
                Ok(Ok(None)) => break,
                Ok(Err(error)) => {
                    let words = format!(
                        "the connection ended after {} bytes: {}",
                        intake.done(),
                        chain(&error.without_url())
                    );
                    return Err(Failure::passing("TRUNCATED", words).into());
                }
                Err(_) => {}
            }
            if now >= end {
                if came < least {
                    let words = format!("{came} bytes came within {window:?}; {least} are the least");
                    return Err(Failure::passing("TOO_SLOW", words).into());
                }
                (end, came) = (Instant::now() + window, 0);
            }
        }
        match intake.total {
            Some(total) if intake.done() < total => {
                let words = format!("{} of {total} bytes came", intake.done());
                Err(Failure::passing("TRUNCATED", words).into())
            }
            _ => Ok(()),
        }
    }
}

/// What came before is of no use: the server has another file.
async fn changed(intake: &mut Intake) -> Result<Failure, Stop> {
    intake.restart().await?;
    intake.validator = None;
    intake.total = None;
    Ok(Failure::passing("SOURCE_CHANGED", "the server has another file now; it is read from its beginning"))
}

#[cfg(test)]
mod tests;
