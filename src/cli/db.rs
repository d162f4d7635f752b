//! `infinibayd db`: the database itself.

use anyhow::bail;
use clap::{Args, Subcommand};

use super::{
    exclusive::{open, open_exclusive},
    rebuild::{self, RebuildArgs},
};
use crate::{
    config::Config,
    store::{SchemaState, database_url, without_password},
};

/// The database.
#[derive(Debug, Args)]
pub struct DbArgs {
    #[command(subcommand)]
    command: DbCommand,
}

#[derive(Debug, Subcommand)]
enum DbCommand {
    /// Bring the schema up to date. (`serve` does it, too.)
    Migrate,
    /// See whether the database answers and its schema is current; change no schema.
    Check,
    /// Print the database's URL, without its password.
    Url,
    /// Restore VMs whose rows were lost, from the metadata of libvirt's domains; change none that
    /// is there. Not while the daemon runs.
    Rebuild(RebuildArgs),
}

/// Runs it.
///
/// # Errors
/// Whatever stood in the way, for people; with `check`, also a schema that is not current.
pub async fn run(args: DbArgs, config: &Config) -> anyhow::Result<()> {
    match args.command {
        DbCommand::Migrate => {
            let database = open_exclusive(config).await?;
            database.store.migrate().await?;
            database.store.close().await;
            eprintln!("the schema is current");
        }
        DbCommand::Check => {
            let store = open(config).await?;
            store.ping().await?;
            let state = store.schema_state().await?;
            store.close().await;
            match state {
                SchemaState::Current => eprintln!("the database answers and its schema is current"),
                SchemaState::Behind(missing) => {
                    bail!("{missing} migration(s) have not run; run `infinibayd db migrate`")
                }
                SchemaState::Ahead(unknown) => bail!(
                    "{unknown} migration(s) of the database are unknown to this version; run the newer one"
                ),
            }
        }
        DbCommand::Url => {
            let url = database_url(config.database.url.as_ref(), &config.paths.state_dir)?;
            println!("{}", without_password(&url)?);
        }
        DbCommand::Rebuild(args) => rebuild::run(args, config, std::io::stdout()).await?,
    }
    Ok(())
}
