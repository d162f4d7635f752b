//! The subcommands `user` and `db` do what they say, alone on their host.
#![allow(clippy::unwrap_used)] // a story that cannot go on ends there

#[macro_use]
mod support;

use std::{collections::BTreeMap, path::Path};

use clap::Parser;
use infinibay::{
    cli::{db, user},
    config::{Config, Sources},
    controller::lock::HostLock,
};
use support::database::{Backend, TestDatabase};

#[derive(Parser)]
enum Command {
    User(user::UserArgs),
    Db(db::DbArgs),
}

fn config(url: Option<&str>, state_dir: &Path) -> Config {
    let mut env = BTreeMap::new();
    env.insert("INFINIBAY__PATHS__STATE_DIR".to_owned(), state_dir.to_str().unwrap().to_owned());
    env.extend(url.map(|url| ("DATABASE_URL".to_owned(), url.to_owned())));
    // An empty file, so that none of this machine's is read.
    let file = state_dir.join("infinibay.toml");
    std::fs::write(&file, "").unwrap();
    Config::load(&Sources { file: Some(file), env, ..Sources::default() }).unwrap()
}

async fn run(config: &Config, line: &str) -> anyhow::Result<()> {
    match Command::try_parse_from(std::iter::once("infinibayd").chain(line.split(' ')))? {
        Command::User(args) => user::run(args, config).await,
        Command::Db(args) => db::run(args, config).await,
    }
}

on_both! {
    async fn users_and_tokens(db: TestDatabase) {
        let state = tempfile::tempdir().unwrap();
        let config = config(Some(&db.url), state.path());
        run(&config, "user add ana --admin --permission unsafe_commands").await.unwrap();
        run(&config, "user add ben").await.unwrap();
        run(&config, "user list").await.unwrap();
        assert_eq!(db.number("SELECT count(*) FROM users").await, 2);
        assert_eq!(db.number("SELECT count(*) FROM permissions").await, 1);
        run(&config, "user token ana --label laptop --days 30").await.unwrap();
        run(&config, "user token ana").await.unwrap();
        assert_eq!(db.number("SELECT count(*) FROM tokens WHERE expires_at IS NULL").await, 1);
        assert_eq!(db.number("SELECT count(*) FROM tokens WHERE label = 'laptop'").await, 1);
        run(&config, "user revoke ana").await.unwrap();
        assert_eq!(db.number("SELECT count(*) FROM tokens").await, 0);

        for (line, why) in [
            ("user add ana", "exists"),
            ("user add a/b", "name"),
            ("user token nobody", "no user"),
            ("user revoke nobody", "no user"),
            ("user add eve --permission everything", "not a permission"),
            ("user token ana --days 0", "0 is not in"),
        ] {
            let refused = format!("{:#}", run(&config, line).await.unwrap_err());
            assert!(refused.contains(why), "{line}: {refused}");
        }
    }

    async fn while_another_holds_the_host_nothing_is_changed(db: TestDatabase) {
        let state = tempfile::tempdir().unwrap();
        let config = config(Some(&db.url), state.path());
        run(&config, "user add ana").await.unwrap();
        let held = HostLock::acquire(state.path()).unwrap();
        for line in ["user add ben", "user token ana", "user revoke ana", "db migrate"] {
            let refused = format!("{:#}", run(&config, line).await.unwrap_err());
            assert!(refused.contains(&format!("pid {}", std::process::id())), "{line}: {refused}");
        }
        // Looking is free.
        run(&config, "user list").await.unwrap();
        run(&config, "db check").await.unwrap();
        drop(held);
        run(&config, "user add ben").await.unwrap();
    }
}

#[tokio::test]
async fn a_new_host_needs_nothing_prepared() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(None, dir.path());
    run(&config, "user add ana").await.unwrap();
    assert!(dir.path().join("infinibay.db").exists());
    run(&config, "db check").await.unwrap();
    run(&config, "db url").await.unwrap();
}

#[tokio::test]
async fn a_schema_that_is_not_current_is_reported() {
    let db = TestDatabase::empty(Backend::Sqlite).await;
    let state = tempfile::tempdir().unwrap();
    let config = config(Some(&db.url), state.path());
    let told = format!("{:#}", run(&config, "db check").await.unwrap_err());
    assert!(told.contains("infinibayd db migrate"), "{told}");
    run(&config, "db migrate").await.unwrap();
    run(&config, "db check").await.unwrap();
}
