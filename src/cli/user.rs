//! `infinibayd user`: who may call the API.

use clap::{Args, Subcommand};
use secrecy::ExposeSecret;

use super::exclusive::{open, open_exclusive};
use crate::{
    access::{Permission, Role, Scope},
    accounts::Accounts,
    config::Config,
};

/// Users and their tokens.
#[derive(Debug, Args)]
pub struct UserArgs {
    #[command(subcommand)]
    command: UserCommand,
}

#[derive(Debug, Subcommand)]
enum UserCommand {
    /// Make a user. He can do nothing until he has a token.
    Add {
        /// 1 to 64 characters: letters, digits, '.', '_', '-', '@'.
        name: String,
        /// The same as `--role admin`.
        #[arg(long, conflicts_with = "role")]
        admin: bool,
        /// `member`: uses his own VMs and those shared with him; `read_only`: sees every VM; `operator`:
        /// works with every VM; `admin`: everything.
        #[arg(long, default_value = "member")]
        role: Role,
        /// May do this, too: `unsafe_commands` (run shell lines in guests). May be given again.
        #[arg(long = "permission", value_name = "PERMISSION")]
        permissions: Vec<Permission>,
    },
    /// Issue a token and print it. It is not kept, and cannot be shown again.
    Token {
        /// The user's name.
        name: String,
        /// What it is for.
        #[arg(long, default_value = "")]
        label: String,
        /// What it is good for: `read`, `control`, `unsafe_commands`, `telemetry`, `admin`; all of it,
        /// unless given. May be given again.
        #[arg(long = "scope", value_name = "SCOPE")]
        scopes: Vec<Scope>,
        /// How long it is valid; for ever, unless given.
        #[arg(long, value_parser = clap::value_parser!(u32).range(1..=36500))]
        days: Option<u32>,
    },
    /// List the users.
    List,
    /// End all tokens of a user.
    Revoke {
        /// The user's name.
        name: String,
    },
}

/// Runs it.
///
/// # Errors
/// Whatever stood in the way, for people.
pub async fn run(args: UserArgs, config: &Config) -> anyhow::Result<()> {
    if let UserCommand::List = args.command {
        let store = open(config).await?;
        print!("{}", table(&Accounts::new(store.clone()).users().await?));
        store.close().await;
        return Ok(());
    }
    let database = open_exclusive(config).await?;
    // The first user is often made before the first start.
    database.store.migrate().await?;
    let accounts = Accounts::new(database.store.clone());
    match args.command {
        UserCommand::Add { name, admin, role, permissions } => {
            let role = if admin { Role::Admin } else { role };
            let user = accounts.add_user(&name, role, &permissions).await?;
            eprintln!("made user {} ({})", user.name, user.id);
        }
        UserCommand::Token { name, label, scopes, days } => {
            let scopes = if scopes.is_empty() { Scope::ALL.to_vec() } else { scopes };
            // Only the token on standard output, for programs to catch.
            println!("{}", accounts.issue_token(&name, &label, &scopes, days).await?.expose_secret());
        }
        UserCommand::Revoke { name } => {
            let ended = accounts.revoke_tokens(&name).await?;
            eprintln!("ended {ended} token(s) of {name}");
        }
        UserCommand::List => {}
    }
    database.store.close().await;
    Ok(())
}

/// One line each: name, role, permissions, id.
fn table(users: &[crate::store::UserRecord]) -> String {
    users
        .iter()
        .map(|user| {
            let permissions: Vec<_> = user.permissions.iter().map(ToString::to_string).collect();
            let permissions = if permissions.is_empty() { "-".to_owned() } else { permissions.join(",") };
            format!("{}\t{}\t{permissions}\t{}\n", user.name, user.role, user.id)
        })
        .collect()
}
