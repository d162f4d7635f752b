//! A shell line: whatever the host's users are allowed to do to a whole machine.

use std::{collections::BTreeMap, path::Path, time::Duration};

use super::{
    answer::{Failure, Outcome},
    process::{self, Job, KEEP_BYTES},
};

const DEFAULT_SHELL: &str = "/bin/sh";
const SHELLS: [&str; 5] = ["sh", "bash", "dash", "zsh", "ash"];
/// Seconds.
const DEFAULT_TIMEOUT: u32 = 30;
const MAX_TIMEOUT: u32 = 3600;
const MAX_VARIABLES: usize = 256;

/// One line and how to run it.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) raw_command: String,
    pub(super) shell: Option<String>,
    pub(super) timeout: Option<u32>,
    pub(super) working_dir: Option<String>,
    pub(super) env_vars: Option<BTreeMap<String, String>>,
}

/// The time that a command has.
pub(super) fn limit(timeout: Option<u32>, default: u32) -> Duration {
    Duration::from_secs(timeout.unwrap_or(default).clamp(1, MAX_TIMEOUT).into())
}

/// Runs it. A failure of the line is a failure of the command; output is kept in both cases.
pub(super) fn run(line: &Line) -> Result<Outcome, Failure> {
    let shell = check(line)?;
    // A leading hyphen would be an option to the shell, a leading space is nothing to it.
    let guarded;
    let text = if line.raw_command.starts_with('-') {
        guarded = format!(" {}", line.raw_command);
        &guarded
    } else {
        &line.raw_command
    };
    let job = Job {
        program: shell,
        arguments: &["-c", text],
        directory: line.working_dir.as_deref().map(Path::new),
        environment: line.env_vars.as_ref(),
        limit: limit(line.timeout, DEFAULT_TIMEOUT),
        keep: KEEP_BYTES,
    };
    let finished = process::run(&job).map_err(|e| Failure::spawn(shell, &e))?;
    if finished.timed_out {
        return Err(Failure::timeout(finished));
    }
    if finished.succeeded() {
        return Ok(Outcome { data: None, process: Some(finished) });
    }
    let message = match (finished.exit_code, finished.signal) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(signal)) => format!("ended by signal {signal}"),
        (None, None) => "ended without a status".to_owned(),
    };
    Err(Failure { code: "COMMAND_FAILED", message, process: Some(Box::new(finished)) })
}

/// The shell to use, if everything is in order.
fn check(line: &Line) -> Result<&str, Failure> {
    let bad = |message: String| Failure::new("BAD_PARAMETERS", message);
    if line.raw_command.trim().is_empty() {
        return Err(bad("raw_command is empty".to_owned()));
    }
    let shell = line.shell.as_deref().unwrap_or(DEFAULT_SHELL);
    if !shell.starts_with('/') && !SHELLS.contains(&shell) {
        return Err(bad(format!("shell must be an absolute path or one of {}", SHELLS.join(", "))));
    }
    let has_nul = |text: &str| text.contains('\0');
    if has_nul(&line.raw_command) || has_nul(shell) {
        return Err(bad("a NUL character cannot be passed to a process".to_owned()));
    }
    if let Some(directory) = &line.working_dir
        && (!directory.starts_with('/') || has_nul(directory) || !Path::new(directory).is_dir())
    {
        return Err(bad("working_dir must be the absolute path of a directory that exists".to_owned()));
    }
    let variables = line.env_vars.iter().flatten();
    let name = |name: &str| !name.is_empty() && !name.contains(['=', '\0']);
    for (count, (key, value)) in variables.enumerate() {
        if count >= MAX_VARIABLES || !name(key) || has_nul(value) {
            return Err(bad(format!("env_vars must be at most {MAX_VARIABLES} proper names and values")));
        }
    }
    Ok(shell)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(raw_command: &str) -> Line {
        Line {
            raw_command: raw_command.into(),
            shell: None,
            timeout: None,
            working_dir: None,
            env_vars: None,
        }
    }

    #[test]
    fn directory_environment_and_shell_are_used() {
        let mut line = line("pwd; printf %s \"$GREETING\"; cat");
        line.shell = Some("sh".into());
        line.working_dir = Some("/proc".into());
        line.env_vars = Some(BTreeMap::from([("GREETING".into(), "a 'b' $c".into())]));
        let process = run(&line).unwrap().process.unwrap();
        assert_eq!(process.stdout.text(), "/proc\na 'b' $c");
    }

    #[test]
    fn what_cannot_be_right_is_refused() {
        let vars = |k: &str, v: &str| Some(BTreeMap::from([(k.to_owned(), v.to_owned())]));
        let table = [
            Line { raw_command: "  ".into(), ..line("") },
            Line { shell: Some("python3".into()), ..line("x") },
            Line { shell: Some("../sh".into()), ..line("x") },
            Line { working_dir: Some("tmp".into()), ..line("x") },
            Line { working_dir: Some("/nowhere/at/all".into()), ..line("x") },
            Line { env_vars: vars("A=B", "x"), ..line("x") },
            Line { env_vars: vars("", "x"), ..line("x") },
            Line { env_vars: vars("A", "x\0"), ..line("x") },
            line("a\0b"),
        ];
        for line in table {
            assert_eq!(run(&line).unwrap_err().code, "BAD_PARAMETERS", "{line:?}");
        }
        let missing = Line { shell: Some("/nowhere/sh".into()), ..line("x") };
        assert_eq!(run(&missing).unwrap_err().code, "CANNOT_START");
    }

    #[test]
    fn a_leading_hyphen_is_no_option() {
        let failure = run(&line("-c")).unwrap_err();
        assert_eq!(failure.message, "exit status 127");
    }

    #[test]
    fn times_are_bounded() {
        assert_eq!(limit(None, 30).as_secs(), 30);
        assert_eq!(limit(Some(0), 30).as_secs(), 1);
        assert_eq!(limit(Some(u32::MAX), 30).as_secs(), 3600);
    }
}
