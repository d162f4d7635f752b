//! `infinibayd config`: is it right, and what is there to set?

use std::process::ExitCode;

use clap::{Args, Subcommand};

use crate::config::{Config, Sources};

/// Arguments of `infinibayd config`.
#[derive(Debug, Args)]
pub struct ConfigArgs {
    #[command(subcommand)]
    command: ConfigCommand,
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Check the configuration; every mistake is reported with its key.
    Check,
    /// Print every key with its default and meaning, as a TOML file to start from.
    Keys,
}

/// Runs it.
///
/// # Errors
/// Never; mistakes are printed and end in a failure code.
pub fn run(args: &ConfigArgs, sources: &Sources) -> anyhow::Result<ExitCode> {
    match args.command {
        ConfigCommand::Check => match Config::load(sources) {
            Ok(_) => {
                println!("the configuration is right");
                Ok(ExitCode::SUCCESS)
            }
            Err(errors) => {
                eprintln!("{errors}");
                Ok(ExitCode::FAILURE)
            }
        },
        ConfigCommand::Keys => {
            print!("{}", reference());
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn reference() -> String {
    let mut text = String::new();
    let mut section = "";
    let keys = Config::keys();
    for key in &keys {
        let (name, leaf) = key.key.split_once('.').unwrap_or(("", &key.key));
        if name != section {
            section = name;
            text.push_str(&format!("\n[{section}]\n"));
        }
        for line in key.doc.lines() {
            text.push_str(&format!("# {}\n", line.trim()));
        }
        text.push_str(&format!("# Expects {}.\n# {leaf} = \"{}\"\n", key.expects, key.default));
    }
    text.trim_start().to_owned()
}
