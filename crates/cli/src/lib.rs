//! `infinibay`: the command line for people.
//!
//! It is a client of the API like any other, and decides nothing: names are looked up, requests
//! sent, operations followed, and what comes back is shown. It lives beside the daemon in a crate of
//! its own, so that it can be put on machines that have no libvirt.

pub mod args;
pub mod clean;
pub mod client;
pub mod commands;
pub mod context;
pub mod documents;
pub mod failure;
pub mod operations;
pub mod profile;
pub mod prompt;
pub mod screen;
pub mod socket;
pub mod spark;
pub mod tls;
pub mod vms;

use std::{io::Write as _, process::ExitCode};

use clap::{Parser as _, error::ErrorKind};

use crate::{args::Cli, context::Context, failure::Failure, screen::Screen};

/// Runs the command line of this process.
#[must_use]
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are no mistakes.
            let asked = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
            let failure = Failure::Usage(error.to_string().trim_end().to_owned());
            if !asked && wants_json(std::env::args_os().skip(1)) {
                Screen::of_process(true).failure(&failure);
            } else {
                // Nobody is left to tell where nothing can be printed.
                let _ = error.print();
            }
            return ExitCode::from(if asked { 0 } else { failure.status() });
        }
    };
    let context = Context::new(cli.common);
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "infinibay: no runtime: {error}");
            return ExitCode::from(74);
        }
    };
    let done = runtime.block_on(commands::run(&context, cli.command));
    // A prompt that nobody answers must not keep the process from ending.
    runtime.shutdown_background();
    match done {
        Ok(status) => ExitCode::from(status),
        Err(failure) => {
            let status = failure.status();
            // Who reads no further, as `head`, knows.
            if status != 141 {
                context.screen.failure(&failure);
            }
            ExitCode::from(status)
        }
    }
}

/// Whether a command line that cannot be read asks for JSON; what follows `--` asks for nothing.
fn wants_json(words: impl Iterator<Item = std::ffi::OsString>) -> bool {
    words.take_while(|word| word != "--").any(|word| word == "--json")
}
