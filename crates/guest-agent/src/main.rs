//! `infiniservice`: the agent inside a guest.
//!
//! It tells the host how the machine is and carries out the host's commands, over one
//! virtio-serial port and nothing else: no network, no configuration but its environment. It has
//! to work in an initramfs with only `/proc`, `/sys` and `/dev`, and to cost next to nothing, so
//! it is one static binary of plain threads around one loop.
//!
//! [`agent`] is the loop, [`port`] and [`outbox`] are its two ends, [`commands`] and [`collector`]
//! work beside it on threads of their own.

mod agent;
mod collector;
mod commands;
mod first_boot;
mod log;
mod message;
mod metrics;
mod outbox;
mod port;
mod read;
mod seal;
mod settings;
mod wake;

use std::{io::Write as _, process::ExitCode};

use log::note;
use settings::Settings;

const HELP: &str = "\
infiniservice: Infinibay's agent in a Linux guest

  infiniservice            run; ends only by a signal
  infiniservice --once     print one metrics frame and end
  infiniservice --version
  infiniservice --help

Environment:
  INFINIBAY_VM_ID                the VM's id (default: the machine's UUID)
  INFINIBAY_DEVICE               the port (default: the one named org.infinibay.agent)
  INFINIBAY_METRICS_INTERVAL     seconds, default 30
  INFINIBAY_KEEP_ALIVE_INTERVAL  seconds, default 20
  INFINIBAY_MAX_COMMANDS         commands at once, default 4
  INFINIBAY_FIRST_BOOT           cloud-init or none: who does the first boot's work, default none
  INFINIBAY_SEAL                 off, accept or require: whether the host's envelopes are opened, and
                                 whether only they count, where there is a key; default accept
  INFINIBAY_SEAL_KEY             the key, default /etc/infiniservice/seal.key
";

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let (first, more) = (arguments.next(), arguments.next());
    if more.is_some() {
        return usage();
    }
    match first.as_ref().map(|a| a.to_str()) {
        None => run(),
        Some(Some("--once")) => once(),
        Some(Some("--version")) => {
            print(concat!("infiniservice ", env!("CARGO_PKG_VERSION"), "\n").as_bytes())
        }
        Some(Some("--help")) => print(HELP.as_bytes()),
        Some(_) => usage(),
    }
}

fn run() -> ExitCode {
    let (settings, complaints) = Settings::from_environment();
    for complaint in complaints {
        note(format_args!("{complaint}"));
    }
    note(format_args!("version {}", env!("CARGO_PKG_VERSION")));
    match agent::Agent::new(settings).and_then(agent::Agent::run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            note(format_args!("{e}"));
            ExitCode::FAILURE
        }
    }
}

fn once() -> ExitCode {
    match message::metrics(&metrics::Sampler::new().sample()) {
        Ok(line) => print(&line),
        Err(e) => {
            note(format_args!("{e}"));
            ExitCode::FAILURE
        }
    }
}

fn print(bytes: &[u8]) -> ExitCode {
    match std::io::stdout().write_all(bytes) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            note(format_args!("standard output: {e}"));
            ExitCode::FAILURE
        }
    }
}

fn usage() -> ExitCode {
    note(format_args!("unknown arguments; see --help"));
    ExitCode::from(2)
}
