//! What clients are told, and in which shape: every event is `{ vmId, timestamp, data }`, and every
//! question is answered by its acknowledgement; a refusal also comes as `vm:error`, for clients that
//! asked for none.

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::{Value, json, value::RawValue};
use socketioxide::extract::{AckSender, SocketRef};

use crate::{
    api::{error::ApiError, types},
    store::VmView,
    vm::{MetricsSample, VmEvent, VmId},
};

/// An event as it is sent.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Told<T> {
    vm_id: Option<VmId>,
    timestamp: DateTime<Utc>,
    data: T,
}

/// `metrics`: a reading, whole (but see `getVmMetrics` for large ones), at the guest's time.
pub(super) fn reading(sample: &MetricsSample) -> Result<Told<Box<RawValue>>, serde_json::Error> {
    let data = RawValue::from_string(sample.frame.as_str().to_owned())?;
    Ok(Told { vm_id: Some(sample.vm), timestamp: sample.timestamp, data })
}

/// `vm:…`: what happened to a VM.
pub(super) fn event(event: &VmEvent) -> Told<Value> {
    let (timestamp, data) = types::told(event);
    Told { vm_id: Some(event.vm()), timestamp, data }
}

/// `vm:error` that is ours: `data` has a `code`, which those of guests have not.
pub(super) fn refusal(vm: Option<VmId>, refused: &ApiError) -> Told<Value> {
    let data = json!({ "code": refused.code(), "error": refused.message() });
    Told { vm_id: vm, timestamp: Utc::now(), data }
}

/// A question that was granted.
pub(super) struct Ok {
    pub(super) vm: VmId,
    pub(super) state: Option<State>,
}

/// How a VM is when it begins to be listened to.
pub(super) struct State(Value);

impl State {
    pub(super) fn of(view: &VmView) -> Self {
        let status = view.status.as_ref();
        Self(json!({ "phase": status.map(|it| &it.phase), "agent": status.map(|it| &it.agent) }))
    }
}

/// Answers a question about a VM.
pub(super) fn answer(socket: &SocketRef, ack: AckSender, asked: Option<VmId>, answer: Result<Ok, ApiError>) {
    let sent = match answer {
        Ok(Ok { vm, state }) => ack.send(&json!({ "ok": true, "vmId": vm, "state": state.map(|it| it.0) })),
        Err(refused) => {
            let words = refusal(asked, &refused);
            let told = socket.emit("vm:error", &words);
            told.and(ack.send(
                &json!({ "ok": false, "vmId": asked, "code": refused.code(), "error": refused.message() }),
            ))
        }
    };
    if let Err(error) = sent {
        tracing::debug!(%error, "a client of Socket.IO does not hear the answer");
    }
}
