//! `/readyz`: whether to send requests here: libvirt, the database and the directory of the agents' sockets,
//! each with its reason, and not while the controller stops.
//!
//! As with `/healthz` anybody may ask, so an answer is kept for a moment and one question at a time looks.

use std::{io, path::PathBuf, sync::Arc, time::Duration};

use axum::{
    Json,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};
use tokio::{
    sync::Mutex,
    time::{Instant, timeout},
};

use super::{ApiContext, health};

/// How long the file system is waited for.
const LIMIT: Duration = Duration::from_secs(3);
/// How long an answer stays good.
const FRESH: Duration = Duration::from_secs(1);

/// The last answer. Clones share it.
#[derive(Debug, Clone, Default)]
pub(super) struct Readiness {
    last: Arc<Mutex<Option<(Instant, Report)>>>,
}

#[derive(Debug, Clone)]
struct Report {
    database: Result<(), String>,
    libvirt: Result<(), String>,
    sockets: Result<(), String>,
}

impl Readiness {
    pub(super) async fn answer(&self, api: &ApiContext) -> Response {
        let report = self.report(api).await;
        let draining = api.front.draining.is_cancelled();
        let (status, body) = report.told(draining);
        (status, [(header::CACHE_CONTROL, "no-store")], Json(body)).into_response()
    }

    async fn report(&self, api: &ApiContext) -> Report {
        let mut last = self.last.lock().await;
        if let Some((at, report)) = &*last
            && at.elapsed() < FRESH
        {
            return report.clone();
        }
        let (database, sockets) = tokio::join!(health::database(api), sockets(api.front.socket_dir.clone()));
        // libvirt itself is not asked: a call that hangs would hold its place.
        let reachable = api.hypervisor.is_reachable();
        let report = Report {
            database: database.map_err(str::to_owned),
            libvirt: if reachable { Ok(()) } else { Err("libvirt is not reachable".to_owned()) },
            sockets,
        };
        *last = Some((Instant::now(), report.clone()));
        report
    }
}

/// Whether links can be looked for. The path is nobody's business who may merely ask.
async fn sockets(dir: PathBuf) -> Result<(), String> {
    let look = tokio::task::spawn_blocking(move || std::fs::read_dir(dir).map(drop));
    match timeout(LIMIT, look).await {
        Ok(Ok(Ok(()))) => Ok(()),
        Ok(Ok(Err(error))) => Err(match error.kind() {
            io::ErrorKind::NotFound => "the directory of the agents' sockets is not there".to_owned(),
            io::ErrorKind::NotADirectory => "the agents' sockets have no directory, but a file".to_owned(),
            io::ErrorKind::PermissionDenied => {
                "the directory of the agents' sockets may not be read".to_owned()
            }
            _ => {
                tracing::warn!(%error, "the directory of the agents' sockets cannot be read");
                "the directory of the agents' sockets cannot be read".to_owned()
            }
        }),
        Ok(Err(_)) | Err(_) => Err("the directory of the agents' sockets does not answer in time".to_owned()),
    }
}

impl Report {
    fn told(self, draining: bool) -> (StatusCode, Value) {
        let part = |what: &Result<(), String>| match what {
            Ok(()) => json!({ "ready": true }),
            Err(reason) => json!({ "ready": false, "reason": reason }),
        };
        let parts = [&self.database, &self.libvirt, &self.sockets];
        let ready = !draining && parts.iter().all(|part| part.is_ok());
        let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        let controller = if draining { Err("the controller is stopping".to_owned()) } else { Ok(()) };
        let body = json!({
            "ready": ready, "controller": part(&controller), "database": part(&self.database),
            "libvirt": part(&self.libvirt), "socketDirectory": part(&self.sockets),
        });
        (status, body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_has_to_be_ready() {
        let good = Report { database: Ok(()), libvirt: Ok(()), sockets: Ok(()) };
        assert_eq!(good.clone().told(false).0, StatusCode::OK);
        let (status, body) = good.clone().told(true);
        assert_eq!(
            (status, &body["controller"]["reason"]),
            (StatusCode::SERVICE_UNAVAILABLE, &json!("the controller is stopping"))
        );
        let away = || Err("away".to_owned());
        for (name, report) in [
            ("database", Report { database: away(), ..good.clone() }),
            ("libvirt", Report { libvirt: away(), ..good.clone() }),
            ("socketDirectory", Report { sockets: away(), ..good.clone() }),
        ] {
            let (status, body) = report.told(false);
            assert_eq!(
                (status, &body[name]),
                (StatusCode::SERVICE_UNAVAILABLE, &json!({ "ready": false, "reason": "away" }))
            );
            assert_eq!(body["ready"], false);
        }
    }
}
