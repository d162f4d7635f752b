//! What may be asked of a guest at all, whoever asks.

use std::time::Duration;

use crate::{
    agents::encode_command,
    vm::{CommandId, GuestCommand, UnsafeCommand},
};

const MAX_RAW_BYTES: usize = 64 << 10;
const MAX_PATH_BYTES: usize = 4096;
const MAX_ENV: usize = 64;
const MAX_ENV_KEY_BYTES: usize = 256;
const MAX_ENV_VALUE_BYTES: usize = 32 << 10;
const MIN_TIMEOUT: Duration = Duration::from_secs(1);

/// What is wrong with a command, in words for its author.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Wrong {
    /// The input's field, as the API names it; none where it is the whole.
    pub(super) field: Option<&'static str>,
    pub(super) reason: String,
}

fn wrong<T>(field: &'static str, reason: impl Into<String>) -> Result<T, Wrong> {
    Err(Wrong { field: Some(field), reason: reason.into() })
}

/// Gives a command's bytes on the wire, or what is wrong with it.
pub(super) fn check(
    id: CommandId,
    command: &GuestCommand,
    timeout: Duration,
    max_timeout: Duration,
) -> Result<usize, Wrong> {
    if timeout < MIN_TIMEOUT || timeout > max_timeout {
        let (min, max) = (MIN_TIMEOUT.as_secs(), max_timeout.as_secs());
        return wrong("timeoutSeconds", format!("the timeout must be {min} to {max} seconds"));
    }
    match command {
        GuestCommand::Safe(action) => {
            action.check().map_err(|error| Wrong { field: None, reason: error.to_string() })?;
        }
        GuestCommand::Unsafe(command) => check_unsafe(command)?,
    }
    let max = agent_protocol::MAX_FRAME_BYTES;
    let line = encode_command(id, command, timeout);
    let bytes = line.len();
    // It may have to go in an envelope, in which every quote takes twice its room. Its newline does not.
    if agent_protocol::sealed_bytes(&String::from_utf8_lossy(&line[..bytes - 1])) > max {
        let reason = format!("the command has more than {max} bytes on the wire");
        return Err(Wrong { field: None, reason });
    }
    Ok(bytes)
}

fn check_unsafe(command: &UnsafeCommand) -> Result<(), Wrong> {
    let UnsafeCommand { raw_command, shell, working_dir, env_vars } = command;
    if raw_command.trim().is_empty() {
        return wrong("rawCommand", "the command is empty");
    }
    text("rawCommand", "the command", raw_command, MAX_RAW_BYTES)?;
    for (field, what, path) in
        [("shell", "the shell", shell), ("workingDir", "the working directory", working_dir)]
    {
        if let Some(path) = path {
            if path.is_empty() {
                return wrong(field, format!("{what} is empty"));
            }
            text(field, what, path, MAX_PATH_BYTES)?;
        }
    }
    if env_vars.len() > MAX_ENV {
        return wrong("envVars", format!("at most {MAX_ENV} environment variables"));
    }
    for (key, value) in env_vars {
        let mut chars = key.chars();
        let named = chars.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
            && chars.all(|c| c.is_ascii_alphanumeric() || c == '_')
            && key.len() <= MAX_ENV_KEY_BYTES;
        if !named {
            return wrong(
                "envVars",
                format!(
                    "an environment variable's name has letters, digits and '_', no digit first, and at most \
                     {MAX_ENV_KEY_BYTES} characters"
                ),
            );
        }
        text("envVars", "an environment variable's value", value, MAX_ENV_VALUE_BYTES)?;
    }
    Ok(())
}

fn text(field: &'static str, what: &str, text: &str, max: usize) -> Result<(), Wrong> {
    if text.contains('\0') {
        return wrong(field, format!("{what} holds a NUL"));
    }
    if text.len() > max {
        return wrong(field, format!("{what} has more than {max} bytes"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vm::SafeAction;

    const MAX_TIMEOUT: Duration = Duration::from_secs(3600);

    fn judge(command: &GuestCommand, timeout: Duration) -> Result<(), Wrong> {
        check(CommandId::generate(), command, timeout, MAX_TIMEOUT).map(drop)
    }

    fn shell(change: impl FnOnce(&mut UnsafeCommand)) -> GuestCommand {
        let mut command = UnsafeCommand {
            raw_command: "uptime".to_owned(),
            shell: Some("/bin/bash".to_owned()),
            working_dir: Some("C:\\Windows".to_owned()),
            env_vars: [("_A1".to_owned(), "x".repeat(MAX_ENV_VALUE_BYTES))].into(),
        };
        change(&mut command);
        GuestCommand::Unsafe(command)
    }

    #[test]
    fn what_is_fine_passes() {
        assert_eq!(judge(&shell(|_| {}), MIN_TIMEOUT), Ok(()));
        assert_eq!(judge(&shell(|c| c.raw_command = "x".repeat(MAX_RAW_BYTES)), MAX_TIMEOUT), Ok(()));
        assert_eq!(judge(&GuestCommand::Safe(SafeAction::OsInfo), MAX_TIMEOUT), Ok(()));
    }

    #[test]
    fn each_rule_is_kept() {
        let wrong = [
            shell(|c| c.raw_command = String::new()),
            shell(|c| c.raw_command = " \n\t".to_owned()),
            shell(|c| c.raw_command = "a\0b".to_owned()),
            shell(|c| c.raw_command = "x".repeat(MAX_RAW_BYTES + 1)),
            shell(|c| c.shell = Some(String::new())),
            shell(|c| c.shell = Some("/bin/\0".to_owned())),
            shell(|c| c.working_dir = Some("x".repeat(5000))),
            shell(|c| c.env_vars = (0..65).map(|n| (format!("A{n}"), String::new())).collect()),
            shell(|c| c.env_vars = [(String::new(), String::new())].into()),
            shell(|c| c.env_vars = [("1A".to_owned(), String::new())].into()),
            shell(|c| c.env_vars = [("A=B".to_owned(), String::new())].into()),
            shell(|c| c.env_vars = [("Ä".to_owned(), String::new())].into()),
            shell(|c| c.env_vars = [("A".repeat(257), String::new())].into()),
            shell(|c| c.env_vars = [("A".to_owned(), "\0".to_owned())].into()),
            shell(|c| c.env_vars = [("A".to_owned(), "x".repeat(MAX_ENV_VALUE_BYTES + 1))].into()),
            // Each value is within its bound, all together are not.
            shell(|c| {
                c.env_vars = (0..40).map(|n| (format!("A{n}"), "x".repeat(MAX_ENV_VALUE_BYTES))).collect();
            }),
            GuestCommand::Safe(SafeAction::PackageInstall { package: "-y".to_owned() }),
        ];
        for (index, command) in wrong.iter().enumerate() {
            assert!(judge(command, MIN_TIMEOUT).is_err(), "number {index} passed");
        }
        for timeout in [Duration::ZERO, Duration::from_millis(999), MAX_TIMEOUT + Duration::from_secs(1)] {
            assert!(judge(&shell(|_| {}), timeout).is_err(), "{timeout:?} passed");
        }
    }

    #[test]
    fn a_refusal_never_repeats_what_may_be_secret() {
        let command = shell(|c| c.env_vars = [("se cret".to_owned(), "hunter2\0".to_owned())].into());
        let why = judge(&command, MIN_TIMEOUT).unwrap_err().reason;
        assert!(!why.contains("hunter2") && !why.contains("se cret"), "{why}");
    }
}
