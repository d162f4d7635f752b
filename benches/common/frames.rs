//! The frames of a run, as the fleet sends them, and what a bare loop makes of one.

use std::hint::black_box;

use agent_protocol::{GuestMessage, rewrite_values};
use chrono::Utc;
use fleet::Frames;
use infinibay::vm::{Redactor, VmId};
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

/// `data.system` of a line as it may be stored: decoded, secrets hidden, by what the product itself
/// uses for both.
pub(crate) fn decode_and_redact(line: &[u8], redactor: &Redactor) -> String {
    let Ok(GuestMessage::Metrics(metrics)) = GuestMessage::decode(line) else { panic!("no reading") };
    let names = ["command_line", "cmdline", "command"];
    rewrite_values(&metrics.system.text, &names, |line| redactor.hide(line)).into_owned()
}

/// What a bare loop does to lines before the database gets them; the bytes of the outcome.
pub(crate) fn bare<'a>(lines: impl Iterator<Item = &'a Vec<u8>>, redactor: &Redactor) -> usize {
    let mut compressor = zstd::bulk::Compressor::new(LEVEL).expect("memory");
    let pack = |line: &Vec<u8>| {
        let packed = compressor.compress(decode_and_redact(line, redactor).as_bytes());
        black_box(packed.expect("memory")).len()
    };
    lines.map(pack).sum()
}
