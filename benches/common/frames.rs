//! The frames of a run, as the fleet sends them, and what a bare loop makes of one.

use agent_protocol::GuestMessage;
use chrono::Utc;
use fleet::Frames;
use infinibay::vm::{Redactor, VmId};
use serde_json::Value;
use uuid::Uuid;

/// The compression that is weighed against; what is stored may be packed better.
const LEVEL: i32 = 3;

/// One guest's lines.
pub(crate) struct GuestLines {
    pub(crate) vm: VmId,
    pub(crate) lines: Vec<Vec<u8>>,
}

/// What the fleet sends that is started with these ids in this order and `--seed SEED`.
pub(crate) fn of_fleet(vms: &[Uuid], seed: u64, each: usize) -> Vec<GuestLines> {
    let guest = |(vm, seed): (&Uuid, u64)| {
        let lines = Frames::render(seed, each).iter().map(|frame| frame.at(Utc::now())).collect();
        GuestLines { vm: VmId::from(*vm), lines }
    };
    vms.iter().zip(seed..).map(guest).collect()
}

/// `data.system` of a line as it may be stored: decoded, secrets hidden.
pub(crate) fn decode_and_redact(line: &[u8], redactor: &Redactor) -> Value {
    let Ok(GuestMessage::Metrics(metrics)) = GuestMessage::decode(line) else { panic!("no reading") };
    let mut system: Value = serde_json::from_str(&metrics.system.text).expect("JSON");
    for process in system["processes"].as_array_mut().into_iter().flatten() {
        if let Value::String(line) = &mut process["command_line"] {
            *line = redactor.hide(line);
        }
    }
    system
}

/// What a bare loop does to a line before the database gets it; the bytes of the outcome.
pub(crate) fn bare(line: &[u8], redactor: &Redactor) -> usize {
    let system = decode_and_redact(line, redactor).to_string();
    zstd::bulk::compress(system.as_bytes(), LEVEL).expect("memory").len()
}
