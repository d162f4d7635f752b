//! `infinibayd generate`: man pages and completions, made of the command line itself so that they
//! cannot lie. For whoever packages it, and hidden from everybody else.

use std::{fs, path::Path};

use anyhow::Context as _;
use clap_complete::Shell;

/// Writes `DIR/man` and `DIR/completions`.
///
/// # Errors
/// Where the directory cannot be written.
pub fn run(command: &clap::Command, dir: &Path) -> anyhow::Result<()> {
    let (man, completions) = (dir.join("man"), dir.join("completions"));
    for made in [&man, &completions] {
        fs::create_dir_all(made).with_context(|| made.display().to_string())?;
    }
    clap_mangen::generate_to(command.clone().disable_help_subcommand(true), &man)?;
    for shell in [Shell::Bash, Shell::Fish, Shell::Zsh] {
        clap_complete::generate_to(shell, &mut command.clone(), command.get_name(), &completions)?;
    }
    Ok(())
}
