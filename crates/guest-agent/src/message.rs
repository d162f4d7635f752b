//! The lines that the agent sends of its own accord, within the frame limit.

use agent_protocol::{FirstBootReport, Handshake, KeepAlive, MAX_FRAME_BYTES, SealOffer};
use chrono::Utc;
use serde::Serialize;
use serde_json::Value;

use crate::{commands::OFFERED, settings::Settings};

/// What this agent can do, in the handshake's words.
const CAPABILITIES: [&str; 6] =
    ["metrics", "safe_commands", "unsafe_commands", "keep_alive", "concurrent_commands", "first_boot"];
/// What it can do besides where it has a key.
const SEALED: &str = "sealed";

/// A message with the `type` that its own struct does not carry.
#[derive(Debug, Serialize)]
struct Typed<'a, T> {
    #[serde(rename = "type")]
    kind: &'a str,
    #[serde(flatten)]
    body: &'a T,
}

/// Why a message cannot be sent.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EncodeError {
    /// Not JSON after all.
    #[error("encode a {kind} message: {source}")]
    Json {
        /// The message's type.
        kind: &'static str,
        /// serde's words.
        #[source]
        source: serde_json::Error,
    },
    /// The host would drop it.
    #[error("a {kind} message of {length} bytes exceeds the frame limit")]
    TooLong {
        /// The message's type.
        kind: &'static str,
        /// Its length.
        length: usize,
    },
}

/// One line, newline included.
pub(crate) fn line<T: Serialize>(kind: &'static str, body: &T) -> Result<Vec<u8>, EncodeError> {
    let mut line =
        serde_json::to_vec(&Typed { kind, body }).map_err(|source| EncodeError::Json { kind, source })?;
    if line.len() > MAX_FRAME_BYTES {
        return Err(EncodeError::TooLong { kind, length: line.len() });
    }
    line.push(b'\n');
    Ok(line)
}

/// The agent introduces itself.
pub(crate) fn handshake(
    settings: &Settings,
    first_boot: &FirstBootReport,
    seal: Option<SealOffer>,
) -> Result<Vec<u8>, EncodeError> {
    let sealed = seal.as_ref().map(|_| SEALED);
    let handshake = Handshake {
        timestamp: Utc::now(),
        vm_id: settings.vm_id.clone(),
        version: Some(env!("CARGO_PKG_VERSION").to_owned()),
        platform: Some("linux".to_owned()),
        capabilities: CAPABILITIES.into_iter().chain(sealed).map(str::to_owned).collect(),
        max_concurrent_commands: u32::try_from(settings.max_commands).ok(),
        actions: Some(OFFERED.map(str::to_owned).to_vec()),
        first_boot: Some(first_boot.clone()),
        seal,
    };
    line("handshake", &handshake)
}

/// The agent's sign of life.
pub(crate) fn keep_alive(sequence_number: u32) -> Result<Vec<u8>, EncodeError> {
    line("keep_alive", &KeepAlive { sequence_number, timestamp: Utc::now().timestamp() })
}

/// A reading, `system` being what the host finds under `data.system`.
pub(crate) fn metrics(system: &Value) -> Result<Vec<u8>, EncodeError> {
    line("metrics", &serde_json::json!({ "timestamp": Utc::now(), "data": { "system": system } }))
}

#[cfg(test)]
mod tests {
    use agent_protocol::GuestMessage;
    use serde_json::json;

    use super::*;
    use crate::settings::{FirstBootMode, SealMode};

    #[test]
    fn the_host_reads_what_we_send() {
        let settings = Settings {
            vm_id: Some("x".into()),
            device: None,
            metrics_interval: std::time::Duration::from_secs(30),
            keep_alive_interval: std::time::Duration::from_secs(20),
            max_commands: 4,
            first_boot: FirstBootMode::None,
            seal: SealMode::Accept,
            seal_key: "/nowhere".into(),
        };
        let report = FirstBootReport { finished: true, errors: Vec::new() };
        let decode = |line: Vec<u8>| GuestMessage::decode(line.strip_suffix(b"\n").unwrap()).unwrap();
        let GuestMessage::Handshake(hello) = decode(handshake(&settings, &report, None).unwrap()) else {
            panic!()
        };
        assert_eq!((hello.seal, hello.capabilities.len()), (None, CAPABILITIES.len()));
        let offer = SealOffer { challenge: Some("c".into()), answers: None };
        let GuestMessage::Handshake(sealed) =
            decode(handshake(&settings, &report, Some(offer.clone())).unwrap())
        else {
            panic!()
        };
        assert_eq!(
            (sealed.seal, sealed.capabilities.last().map(String::as_str)),
            (Some(offer), Some(SEALED))
        );
        assert_eq!(hello.platform.as_deref(), Some("linux"));
        assert_eq!((hello.max_concurrent_commands, hello.first_boot), (Some(4), Some(report)));
        assert_eq!(hello.actions, Some(OFFERED.map(str::to_owned).to_vec()));
        let GuestMessage::KeepAlive(alive) = decode(keep_alive(u32::MAX).unwrap()) else { panic!() };
        assert_eq!(alive.sequence_number, u32::MAX);
        let GuestMessage::Metrics(frame) = decode(metrics(&json!({"cpu": {}})).unwrap()) else { panic!() };
        assert_eq!(&*frame.system.text, r#"{"cpu":{}}"#);
        assert!(matches!(
            metrics(&json!("x".repeat(MAX_FRAME_BYTES))),
            Err(EncodeError::TooLong { kind: "metrics", .. })
        ));
    }
}
