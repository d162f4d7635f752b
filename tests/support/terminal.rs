//! A pseudo-terminal with a program on it, as a person has it before him: what he types goes through the
//! line discipline, Ctrl-C is a signal, and what he sees is what is left of all that was written.

use std::{
    fs::{File, OpenOptions},
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    process::{Child, Command, Stdio},
};

use rustix::{
    fs::OFlags,
    process::{Pid, Signal, kill_process},
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize},
};

use super::people::{Heard, Ran, until};

/// Columns.
const WIDTH: u16 = 100;

/// A terminal, and the program on it. Dropped, the program is killed.
pub(crate) struct Terminal {
    child: Child,
    person: File,
    pub(crate) shown: Heard,
}

impl Terminal {
    /// Runs it on a terminal of its own.
    pub(crate) fn run(command: &Command) -> Self {
        let person = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&person).unwrap();
        unlockpt(&person).unwrap();
        tcsetwinsize(&person, Winsize { ws_row: 24, ws_col: WIDTH, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
        let name = ptsname(&person, Vec::new()).unwrap().into_string().unwrap();
        let noctty = OFlags::NOCTTY.bits().cast_signed();
        let end = || {
            let end = OpenOptions::new().read(true).write(true).custom_flags(noctty).open(&name);
            Stdio::from(end.unwrap())
        };
        // Its own session, whose terminal this is, is what lets Ctrl-C and /dev/tty work.
        let mut session = Command::new("setsid");
        session.arg("--ctty").arg(command.get_program()).args(command.get_args());
        session.env_clear().envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let child = session.stdin(end()).stdout(end()).stderr(end()).spawn();
        let child = child.expect("setsid (util-linux) is needed; scripts/test installs it");
        let person = File::from(person);
        let shown = Heard::of(person.try_clone().unwrap());
        Self { child, person, shown }
    }

    /// Types these keys.
    pub(crate) fn types(&self, keys: &str) {
        (&self.person).write_all(keys.as_bytes()).unwrap();
    }

    /// Whether what is typed is shown.
    pub(crate) fn echoes(&self) -> bool {
        tcgetattr(&self.person).unwrap().local_modes.contains(LocalModes::ECHO)
    }

    /// Tells the program to end.
    pub(crate) fn terminate(&self) {
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
    }

    /// How it ended, and all that was written meanwhile.
    pub(crate) async fn ended(&mut self) -> Ran {
        let status = until("the program to end", || self.child.try_wait().unwrap()).await;
        let out = self.shown.whole().await;
        Ran { status: status.code().unwrap_or(-1), out, err: String::new() }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // One that has ended cannot be killed, and need not be.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The lines that a person sees in the end, of what was written. Knows what moves in a line and clears it;
/// anything else that steers a terminal ends the story.
pub(crate) fn seen(written: &str) -> Vec<String> {
    let (mut lines, mut row, mut column) = (vec![Vec::new()], 0, 0);
    let mut characters = written.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '\r' => column = 0,
            '\n' => {
                row += 1;
                if row == lines.len() {
                    lines.push(Vec::new());
                }
            }
            '\x1b' => {
                assert_eq!(characters.next(), Some('['), "{written:?}");
                let mut number = String::new();
                while let Some(digit) = characters.next_if(char::is_ascii_digit) {
                    number.push(digit);
                }
                let count: usize = number.parse().unwrap_or(1);
                match (characters.next(), &*number) {
                    (Some('A'), _) => row = row.checked_sub(count).expect("it writes over its first line"),
                    (Some('K'), "" | "0") => lines[row].truncate(column),
                    (Some('K'), "2") => lines[row].clear(),
                    other => panic!("{other:?} is not known, in {written:?}"),
                }
            }
            shown => {
                let line: &mut Vec<char> = &mut lines[row];
                if line.len() <= column {
                    line.resize(column + 1, ' ');
                }
                line[column] = shown;
                column += 1;
            }
        }
    }
    lines.into_iter().map(|line| line.into_iter().collect::<String>().trim_end().to_owned()).collect()
}
