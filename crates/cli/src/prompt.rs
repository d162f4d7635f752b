//! Questions to a person, and secrets that he types.

use std::{
    fs::{File, OpenOptions},
    io::{self, BufRead as _, BufReader, IsTerminal as _, Write as _},
};

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};

use crate::{clean, failure::Failure};

/// The longest answer that is read, in bytes.
const LONGEST: u64 = 4096;

fn failed(error: io::Error) -> Failure {
    Failure::Local("the terminal".into(), error)
}

/// The terminal, not shown what is typed while this lives.
struct Hidden {
    terminal: File,
    before: Termios,
}

impl Hidden {
    fn new(terminal: File) -> io::Result<Self> {
        let before = tcgetattr(&terminal)?;
        let mut hidden = before.clone();
        hidden.local_modes.remove(LocalModes::ECHO);
        tcsetattr(&terminal, OptionalActions::Flush, &hidden)?;
        Ok(Self { terminal, before })
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        // A terminal that is gone needs no echo.
        let _ = tcsetattr(&self.terminal, OptionalActions::Flush, &self.before);
        // The line feed was not shown, or not typed.
        let _ = writeln!(&self.terminal);
    }
}

fn terminal() -> io::Result<File> {
    OpenOptions::new().read(true).write(true).open("/dev/tty")
}

/// A question that stands on a line which nobody has ended yet.
struct Open;

impl Drop for Open {
    fn drop(&mut self) {
        // Nobody is left to tell where standard error is closed.
        let _ = writeln!(io::stderr());
    }
}

/// None, where there is no more.
fn first_line(from: impl io::Read) -> io::Result<Option<String>> {
    let mut line = String::new();
    let read = BufReader::new(from.take(LONGEST)).read_line(&mut line)?;
    Ok((read > 0).then(|| line.trim_end_matches(['\r', '\n']).to_owned()))
}

/// A secret: typed unseen where standard input is a terminal, else its first line.
///
/// # Errors
/// Where nothing can be read, or it is empty.
pub async fn secret(question: &str) -> Result<String, Failure> {
    let read = if io::stdin().is_terminal() {
        let tty = terminal().map_err(failed)?;
        let from = tty.try_clone().map_err(failed)?;
        // Here and not in the task, so that an interruption shows again what is typed; and before the
        // question, so that whoever answers fast is not shown either.
        let hidden = Hidden::new(tty).map_err(failed)?;
        write!(&hidden.terminal, "{question}: ").map_err(failed)?;
        let read = tokio::task::spawn_blocking(move || first_line(from)).await;
        drop(hidden);
        read
    } else {
        tokio::task::spawn_blocking(|| first_line(io::stdin())).await
    };
    let secret = read.map_err(|error| failed(io::Error::other(error)))?.map_err(failed)?;
    let nothing = || Failure::Usage(format!("{question}: nothing was given"));
    secret.filter(|secret| !secret.is_empty()).ok_or_else(nothing)
}

/// Whether the person means it. Without a terminal nobody can be asked, and nothing is done.
///
/// # Errors
/// Where the answer is no, or nobody can be asked.
pub async fn confirm(question: &str) -> Result<(), Failure> {
    if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        return Err(Failure::Usage("nobody can be asked whether that is meant; say --yes".into()));
    }
    // Nobody is left to tell where standard error is closed; then the answer is no.
    let _ = write!(io::stderr(), "{} [y/N] ", clean::line(question));
    let line = Open;
    let read = tokio::task::spawn_blocking(|| first_line(io::stdin())).await;
    let answer = read.map_err(|error| failed(io::Error::other(error)))?.map_err(failed)?;
    let Some(answer) = answer else { return Err(Failure::Interrupted(Some("nothing was done".into()))) };
    // Who answered ended the line himself.
    std::mem::forget(line);
    if matches!(answer.trim().to_lowercase().as_str(), "y" | "yes") {
        return Ok(());
    }
    Err(Failure::Interrupted(Some("nothing was done".into())))
}
