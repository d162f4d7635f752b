//! Man pages and completions, made of the command line itself so that they cannot lie.

use std::{fs, path::Path};

use clap::CommandFactory as _;
use clap_complete::Shell;

use crate::{args::Cli, failure::Failure};

/// `DIR/man` and `DIR/completions`.
pub(super) fn generate(dir: &Path) -> Result<(), Failure> {
    let failed = |error| Failure::Local(dir.display().to_string(), error);
    let (man, completions) = (dir.join("man"), dir.join("completions"));
    fs::create_dir_all(&man).and_then(|()| fs::create_dir_all(&completions)).map_err(failed)?;
    clap_mangen::generate_to(Cli::command().disable_help_subcommand(true), &man).map_err(failed)?;
    for shell in [Shell::Bash, Shell::Fish, Shell::Zsh] {
        clap_complete::generate_to(shell, &mut Cli::command(), "infinibay", &completions).map_err(failed)?;
    }
    Ok(())
}
