//! Host to guest.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::SafeAction;

/// One message to the guest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type")]
pub enum HostMessage {
    /// Run one of the fixed actions. Parameters stand flat beside `action`.
    SafeCommand {
        /// Echoed in the answer.
        id: String,
        /// The action and its parameters.
        command_type: SafeAction,
        /// Always null on the wire: the agents in the field want the key.
        #[serde(default)]
        params: Option<serde_json::Value>,
        /// Seconds.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        timeout: Option<u32>,
    },
    /// Run a shell line.
    UnsafeCommand {
        /// Echoed in the answer.
        id: String,
        /// The line.
        raw_command: String,
        /// The shell to use.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        shell: Option<String>,
        /// Seconds. Without it an agent may block for ever: always sent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        timeout: Option<u32>,
        /// Where to run it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        working_dir: Option<String>,
        /// Added to its environment.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        env_vars: Option<BTreeMap<String, String>>,
    },
    /// Ask for a metrics frame at once.
    Metrics,
    /// Opens the sealed exchange; only ever in an envelope. An extension of ours, sent to agents that
    /// asked for it in their handshake.
    Seal {
        /// The host's question, a UUID, which the agent's next handshake has to name.
        challenge: String,
        /// The agent's question.
        answers: String,
    },
    /// Answer to `keep_alive`.
    #[serde(rename = "keep_alive_response")]
    KeepAliveResponse {
        /// From the `keep_alive`.
        sequence_number: u32,
        /// Our clock.
        timestamp: DateTime<Utc>,
    },
}

impl HostMessage {
    /// The line to send, newline included; to be handed to the channel in one write.
    ///
    /// # Panics
    /// Never: these types have no map with keys other than strings.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut line = serde_json::to_vec(self).expect("plain data serialises");
        line.push(b'\n');
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wire_is_as_agents_in_the_field_expect() {
        let message = HostMessage::SafeCommand {
            id: "1".into(),
            command_type: SafeAction::PackageInstall { package: "vim".into() },
            params: None,
            timeout: Some(30),
        };
        assert_eq!(
            String::from_utf8(message.encode()).unwrap(),
            "{\"type\":\"SafeCommand\",\"id\":\"1\",\"command_type\":{\"action\":\"PackageInstall\",\"package\":\"vim\"},\"params\":null,\"timeout\":30}\n"
        );
        assert_eq!(HostMessage::Metrics.encode(), b"{\"type\":\"Metrics\"}\n");
    }
}
