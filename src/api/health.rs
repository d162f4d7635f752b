//! `/healthz`: whether this controller can do its work.
//!
//! Anybody may ask, so an answer is kept for a moment, only one question at a time reaches the
//! database, and none reaches libvirt: whether there is a connection is known without asking.

use std::{sync::Arc, time::Duration};

use axum::{
    Json,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};
use tokio::{
    sync::Mutex,
    time::{Instant, timeout},
};

use super::ApiContext;
use crate::vm::chain;

/// How long the database is waited for.
const LIMIT: Duration = Duration::from_secs(3);
/// How long an answer stays good.
const FRESH: Duration = Duration::from_secs(2);

/// The last answer. Clones share it.
#[derive(Debug, Clone, Default)]
pub(super) struct Health {
    last: Arc<Mutex<Option<(Instant, Report)>>>,
}

#[derive(Debug, Clone, Copy)]
struct Report {
    /// What is wrong with the database.
    database: Result<(), &'static str>,
    /// What is wrong with the hypervisor.
    hypervisor: Result<(), &'static str>,
}

impl Health {
    pub(super) async fn answer(&self, api: &ApiContext) -> Response {
        let (status, body) = self.report(api).await.told();
        (status, Json(body)).into_response()
    }

    async fn report(&self, api: &ApiContext) -> Report {
        let mut last = self.last.lock().await;
        if let Some((at, report)) = *last
            && at.elapsed() < FRESH
        {
            return report;
        }
        let report = look(api).await;
        *last = Some((Instant::now(), report));
        report
    }
}

/// Whether the database answers.
pub(super) async fn database(api: &ApiContext) -> Result<(), &'static str> {
    match timeout(LIMIT, api.store.ping()).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => {
            tracing::warn!(error = chain(&error), "the database does not answer");
            Err("the database does not answer")
        }
        Err(_) => Err("the database does not answer in time"),
    }
}

async fn look(api: &ApiContext) -> Report {
    // libvirt itself is not asked: anybody may come here, and a call that hangs holds its place.
    let hypervisor = if api.hypervisor.is_reachable() { Ok(()) } else { Err("libvirt is not reachable") };
    Report { database: database(api).await, hypervisor }
}

impl Report {
    fn told(self) -> (StatusCode, Value) {
        let word = |what: Result<(), &'static str>| what.err().unwrap_or("ok");
        // Without libvirt the controller still answers and waits for it: that is no reason to
        // have it restarted.
        let (status, overall) = match self.database {
            Ok(()) => (StatusCode::OK, "ok"),
            Err(_) => (StatusCode::SERVICE_UNAVAILABLE, "failing"),
        };
        let mut body = json!({
            "status": overall, "database": word(self.database), "hypervisor": word(self.hypervisor),
        });
        if let Err(reason) = self.database {
            body["reason"] = json!(reason);
        }
        (status, body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_database_makes_it_fail() {
        let (status, body) = Report { database: Ok(()), hypervisor: Err("away") }.told();
        assert_eq!(status, StatusCode::OK);
        assert_eq!(body, json!({ "status": "ok", "database": "ok", "hypervisor": "away" }));
        let (status, body) = Report { database: Err("gone"), hypervisor: Ok(()) }.told();
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(body["reason"], "gone");
    }
}
