//! Subcommands of `infinibayd`.
//!
//! `serve` runs the controller; the others do one thing and end. Each of those that change the
//! database takes the same lock as `serve`, so that two writers never meet.

pub mod channel;
pub mod config;
pub mod db;
mod exclusive;
mod generate;
pub mod rebuild;
pub mod user;

use std::{path::PathBuf, process::ExitCode};

use clap::{CommandFactory as _, Parser, Subcommand};

use crate::{
    config::{Config, Sources},
    controller, failpoint,
};

/// Owns the life of this host's virtual machines and talks to the agents inside them.
#[derive(Debug, Parser)]
#[command(
    name = "infinibayd",
    version,
    max_term_width = 100,
    after_help = "\
Examples:
  infinibayd user add alice --admin     make the first administrator
  infinibayd user token alice           issue a token for the API (shown once)
  infinibayd serve                      run the controller
  infinibayd config keys                every configuration key, with default and meaning
  infinibayd db rebuild                 restore VMs from their domains after a lost database
  infinibayd channel add --all          give every domain of this host the agent channel

Configuration: /etc/infinibay/infinibay.toml, or the file named with --config; each key also as
INFINIBAY__SECTION__KEY in the environment, which wins."
)]
struct Cli {
    /// The configuration file; it must exist [default: /etc/infinibay/infinibay.toml, if there].
    #[arg(long, short, global = true, value_name = "FILE", env = "INFINIBAY_CONFIG")]
    config: Option<PathBuf>,

    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the controller until SIGTERM or SIGINT.
    Serve,
    /// See, add or remove the agent channel of libvirt domains, ours or not. Needs no daemon.
    Channel(channel::ChannelArgs),
    /// Make users and issue their tokens. Not while the daemon runs.
    User(user::UserArgs),
    /// Migrate or check the database.
    Db(db::DbArgs),
    /// Check the configuration, or explain its keys.
    Config(config::ConfigArgs),
    /// Write man pages and shell completions into a directory.
    #[command(hide = true)]
    Generate {
        /// Where.
        dir: PathBuf,
    },
}

/// Runs the command line of this process.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(cli) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("infinibayd: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    let _armed = failpoint::arm();
    let sources = Sources::from_process(cli.config);
    // `config` has something to say about a configuration that is wrong, too.
    let Cli { command, .. } = Cli { config: None, ..cli };
    if let Command::Config(args) = command {
        return config::run(&args, &sources);
    }
    if let Command::Generate { dir } = command {
        return generate::run(&Cli::command(), &dir).map(|()| ExitCode::SUCCESS);
    }
    let config = Config::load(&sources)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let done = runtime.block_on(async move {
        match command {
            Command::Serve => {
                controller::init_logging(&config.log)?;
                controller::serve(config).await?;
                Ok(ExitCode::SUCCESS)
            }
            Command::Channel(args) => channel::run(args, &config).await,
            Command::User(args) => user::run(args, &config).await.map(|()| ExitCode::SUCCESS),
            Command::Db(args) => db::run(args, &config).await.map(|()| ExitCode::SUCCESS),
            Command::Config(_) | Command::Generate { .. } => {
                unreachable!("handled before the configuration is read")
            }
        }
    });
    // A libvirt call that hangs must not keep the process from ending.
    runtime.shutdown_timeout(std::time::Duration::from_secs(2));
    done
}
