//! `GET /vms/{id}/screenshot`: what a VM shows on its screen, as the hypervisor's own picture. A
//! door beside GraphQL, because a picture is no JSON.

use axum::{
    extract::{Path, Request, State},
    http::{HeaderName, header, request::Parts},
    response::{IntoResponse, Response},
};
use uuid::Uuid;

use super::{audited, auth::Call, caller::asked_from, doors::Doors, error::ApiError, http::admitted};
use crate::{
    hypervisor::{HypervisorError, Screenshot},
    vm::{VmId, VmPhase},
};

/// It is the moment's, and whoever may not ask must not find it kept.
const HEADERS: [(HeaderName, &str); 3] = [
    (header::CACHE_CONTROL, "no-store"),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::CONTENT_SECURITY_POLICY, "default-src 'none'"),
];

pub(super) async fn screenshot(
    State(doors): State<Doors>,
    Path(id): Path<String>,
    request: Request,
) -> Response {
    let (parts, _body) = request.into_parts();
    let taking = tokio::time::timeout(doors.api.config.request_timeout, take(&doors, &id, &parts));
    let taken = taking.await.unwrap_or_else(|_| {
        Err(ApiError::new("REQUEST_TIMEOUT", "the hypervisor gave no picture in time; try again"))
    });
    match taken {
        Ok(picture) => (HEADERS, [(header::CONTENT_TYPE, picture.media_type)], picture.bytes).into_response(),
        Err(refused) => refused.into_http(),
    }
}

async fn take(doors: &Doors, id: &str, parts: &Parts) -> Result<Screenshot, ApiError> {
    let (_token, actor) = admitted(doors, parts).await?;
    let vm = Uuid::parse_str(id).map(VmId).map_err(|_| ApiError::invalid("id", "is no UUID"))?;
    let view = match (Call { api: &doors.api, actor: &actor }).visible(vm).await {
        Ok(view) => view,
        Err(refused) => {
            let origin = asked_from(&parts.extensions);
            let at = audited::At { door: "/screenshot", user: Some(actor.user), vm: Some(vm), origin };
            audited::refused_at(&doors.ledger, at, &refused).await;
            return Err(refused);
        }
    };
    let phase = view.status.map(|status| status.phase);
    let shows = matches!(
        phase,
        Some(
            VmPhase::Running | VmPhase::Installing | VmPhase::Starting | VmPhase::Stopping | VmPhase::Paused
        )
    );
    let dark = || ApiError::new("WRONG_STATE", "the VM shows nothing: it does not run, or has no screen");
    if !shows || view.record.host != doors.api.host {
        return Err(dark());
    }
    let _turn = doors.screens.acquire().await.map_err(|closed| ApiError::internal(&closed))?;
    match doors.api.hypervisor.screenshot(vm).await {
        Ok(picture) => Ok(picture),
        Err(HypervisorError::Refused { operation, source }) => {
            tracing::info!(%vm, operation, error = %source, "a picture was refused");
            Err(dark())
        }
        Err(HypervisorError::NotFound { .. }) => Err(dark()),
        Err(error) => Err(error.into()),
    }
}
