//! `/metrics`: how the controller does, for Prometheus.
//!
//! What happens is counted where it happens, through the `metrics` facade; this door shows these
//! figures, and adds what is only looked up when somebody asks: VMs and agents by state, what each
//! guest sent that was refused, and the process itself. It is for admins, for it tells of every VM.
//! A scrape is cheap however often it comes: what costs is looked up every few seconds at most, and
//! the number of series is bounded by the links and by fixed lists of words. It also has to work
//! when the database does not, since that is when somebody looks.

mod admission;
mod catalogue;
mod exposition;
mod fleet;
mod process;
mod telemetry;

use std::{sync::Arc, time::Duration};

use axum::{
    http::{HeaderMap, header},
    response::{IntoResponse, Response},
};
use tokio::{sync::Mutex, time::Instant};

use self::{admission::Admission, exposition::Page};
use super::{ApiContext, doors::Doors, error::ApiError};
use crate::store::AskedFrom;

pub use self::telemetry::Telemetry;

/// How long what was looked up stays good.
const FRESH: Duration = Duration::from_secs(5);

/// The text format, and that nobody on the way keeps it.
const HEADERS: [(header::HeaderName, &str); 2] =
    [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8"), (header::CACHE_CONTROL, "no-store")];

/// What scrapes share. Clones share it.
#[derive(Debug, Clone, Default)]
pub(super) struct Scrapes {
    admission: Arc<Admission>,
    last: Arc<Mutex<Option<LookedUp>>>,
}

/// What was looked up last, as text.
#[derive(Debug)]
struct LookedUp {
    at: Instant,
    text: Arc<str>,
}

impl Scrapes {
    pub(super) async fn answer(&self, doors: &Doors, headers: &HeaderMap, from: AskedFrom) -> Response {
        match self.page(doors, headers, from).await {
            Ok(page) => (HEADERS, page).into_response(),
            Err(refused) => refused.into_http(),
        }
    }

    async fn page(&self, doors: &Doors, headers: &HeaderMap, from: AskedFrom) -> Result<String, ApiError> {
        self.admission.check(doors, headers, from).await?;
        let api = &doors.api;
        let looked_up = self.looked_up(api).await;
        let mut page = api.telemetry.render();
        page.push_str(&looked_up);
        Ok(page)
    }

    /// One look serves everybody who asks within a moment.
    async fn looked_up(&self, api: &ApiContext) -> Arc<str> {
        let mut last = self.last.lock().await;
        if let Some(LookedUp { at, text }) = &*last
            && at.elapsed() < FRESH
        {
            return Arc::clone(text);
        }
        let mut page = Page::default();
        fleet::write(&mut page, api).await;
        process::write(&mut page, api.telemetry.started_at()).await;
        let text: Arc<str> = page.into_text().into();
        *last = Some(LookedUp { at: Instant::now(), text: Arc::clone(&text) });
        text
    }
}
