//! Commands as they stand on the wire.

use std::time::Duration;

use agent_protocol::HostMessage;

use crate::vm::{CommandId, GuestCommand};

/// The whole line, newline included. The agent is told the time that is left, in whole seconds,
/// at least one: without a timeout it could block for ever.
pub(crate) fn encode_command(id: CommandId, command: &GuestCommand, left: Duration) -> Vec<u8> {
    let seconds = left.as_secs() + u64::from(left.subsec_nanos() > 0);
    let timeout = Some(u32::try_from(seconds.max(1)).unwrap_or(u32::MAX));
    let id = id.to_string();
    match command {
        GuestCommand::Safe(action) => {
            HostMessage::SafeCommand { id, command_type: action.clone(), params: None, timeout }
        }
        GuestCommand::Unsafe(command) => HostMessage::UnsafeCommand {
            id,
            raw_command: command.raw_command.clone(),
            shell: command.shell.clone(),
            timeout,
            working_dir: command.working_dir.clone(),
            env_vars: (!command.env_vars.is_empty()).then(|| command.env_vars.clone()),
        },
    }
    .encode()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::vm::{SafeAction, UnsafeCommand};

    #[test]
    fn a_command_always_carries_its_time_left_in_seconds() {
        let id = CommandId::generate();
        for (left, seconds) in [(0, 1), (1, 1), (1_000, 1), (1_001, 2), (30_000, 30)] {
            for command in [
                GuestCommand::Safe(SafeAction::OsInfo),
                GuestCommand::Unsafe(UnsafeCommand {
                    raw_command: "true".to_owned(),
                    shell: None,
                    working_dir: None,
                    env_vars: [("A".to_owned(), "b\n".to_owned())].into(),
                }),
            ] {
                let line = encode_command(id, &command, Duration::from_millis(left));
                assert_eq!(line.iter().filter(|&&b| b == b'\n').count(), 1, "one line");
                let value: Value = serde_json::from_slice(&line).unwrap();
                assert_eq!((&value["timeout"], &value["id"]), (&json!(seconds), &json!(id.to_string())));
            }
        }
    }
}
