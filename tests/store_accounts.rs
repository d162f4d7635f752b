//! Users and tokens: shown once, kept as a hash, ended when they expire or are revoked.
#![allow(clippy::unwrap_used)] // a story that cannot go on ends there

#[macro_use]
mod support;

use chrono::{TimeDelta, Utc};
use infinibay::{
    access::{Permission, Role, Scope},
    accounts::{AccountError, Accounts},
    store::{StoreError, TokenInfo, TokenUse},
    vm::{TokenId, UserId},
};
use secrecy::ExposeSecret;
use support::database::Backend;

on_both! {
    async fn a_token_says_who_one_is(db: TestDatabase) {
        let accounts = Accounts::new(db.store().await);
        let unsafe_commands = Permission::UnsafeCommands;
        let ana = accounts.add_user("ana", Role::Admin, &[unsafe_commands, unsafe_commands]).await.unwrap();
        accounts.add_user("ben@example.org", Role::Member, &[]).await.unwrap();
        let token = accounts.issue_token("ana", "laptop", &Scope::ALL, None).await.unwrap();
        let other = accounts.issue_token("ben@example.org", "", &Scope::ALL, Some(1)).await.unwrap();

        let actor = accounts.authenticate(token.expose_secret()).await.unwrap().expect("ana");
        assert_eq!((actor.user, actor.name.as_str(), actor.role), (ana.id, "ana", Role::Admin));
        assert_eq!(actor.permissions.into_iter().collect::<Vec<_>>(), [unsafe_commands]);
        let actor = accounts.authenticate(other.expose_secret()).await.unwrap().expect("ben");
        assert_eq!((actor.name.as_str(), actor.role), ("ben@example.org", Role::Member));
        assert!(actor.permissions.is_empty());

        let mut wrong = token.expose_secret().to_owned();
        let last = if wrong.pop() == Some('0') { '1' } else { '0' };
        wrong.push(last);
        for nobody in [wrong.as_str(), "", "ibt_", "ana", "' OR 1=1 --"] {
            assert_eq!(accounts.authenticate(nobody).await.unwrap(), None, "{nobody:?}");
        }
        let names: Vec<_> = accounts.users().await.unwrap().into_iter().map(|user| user.name).collect();
        assert_eq!(names, ["ana", "ben@example.org"]);
    }

    async fn no_token_stands_in_the_database(db: TestDatabase) {
        let accounts = Accounts::new(db.store().await);
        accounts.add_user("ana", Role::Member, &[]).await.unwrap();
        let token = accounts.issue_token("ana", "", &Scope::ALL, None).await.unwrap();
        let digits = token.expose_secret().trim_start_matches("ibt_");
        let raw: Vec<u8> = digits
            .as_bytes()
            .chunks(2)
            .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
            .collect();
        assert_eq!(db.number("SELECT count(*) FROM tokens").await, 1);
        let stored = db.bytes("SELECT sha256 FROM tokens").await;
        assert_eq!(stored.len(), 32);
        assert_ne!(stored, raw);
        if let Some(directory) = db.directory() {
            let mut searched = 0;
            for file in std::fs::read_dir(directory).unwrap() {
                let bytes = std::fs::read(file.unwrap().path()).unwrap();
                searched += bytes.len();
                for plain in [digits.as_bytes(), &raw] {
                    assert!(!bytes.windows(plain.len()).any(|window| window == plain));
                }
            }
            assert!(searched > 0);
        }
    }

    async fn a_token_ends(db: TestDatabase) {
        let store = db.store().await;
        let accounts = Accounts::new(store.clone());
        let ana = accounts.add_user("ana", Role::Member, &[]).await.unwrap();
        let now = Utc::now();
        let info = TokenInfo {
            id: TokenId::generate(),
            user: ana.id,
            label: "short".to_owned(),
            scopes: Scope::ALL.into(),
            created_at: now,
            expires_at: Some(now + TimeDelta::seconds(10)),
        };
        store.add_token(&info, &[7; 32], None).await.unwrap();
        let at = async |seconds| store.actor_by_token(&[7; 32], TokenUse::Api, now + TimeDelta::seconds(seconds)).await.unwrap();
        assert!(at(9).await.is_some());
        assert!(at(10).await.is_none());
        assert!(at(11).await.is_none());

        let long = accounts.issue_token("ana", "", &Scope::ALL, Some(u32::MAX)).await.unwrap();
        assert!(accounts.authenticate(long.expose_secret()).await.unwrap().is_some());
        assert_eq!(accounts.revoke_tokens("ana").await.unwrap(), 2);
        assert!(accounts.authenticate(long.expose_secret()).await.unwrap().is_none());
        assert_eq!(accounts.revoke_tokens("ana").await.unwrap(), 0);
    }

    async fn who_is_recognised_was_looked_up_within_a_second(db: TestDatabase) {
        let store = db.store().await;
        let accounts = Accounts::new(store.clone());
        let ana = accounts.add_user("ana", Role::Member, &[]).await.unwrap();
        let token = accounts.issue_token("ana", "", &Scope::ALL, None).await.unwrap();
        let token = token.expose_secret();
        assert_eq!(accounts.recognise(token).await.unwrap().unwrap().user, ana.id);
        // Past this process.
        store.revoke_tokens(ana.id, Utc::now()).await.unwrap();
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        assert!(accounts.recognise(token).await.unwrap().is_none());

        // Whoever was looked for and not found is not recognised any more, either.
        let token = accounts.issue_token("ana", "", &Scope::ALL, None).await.unwrap();
        let token = token.expose_secret();
        assert!(accounts.recognise(token).await.unwrap().is_some());
        store.revoke_tokens(ana.id, Utc::now()).await.unwrap();
        assert!(accounts.authenticate(token).await.unwrap().is_none());
        assert!(accounts.recognise(token).await.unwrap().is_none());
    }

    async fn every_change_leaves_an_audit_row(db: TestDatabase) {
        let accounts = Accounts::new(db.store().await);
        accounts.add_user("ana", Role::Admin, &Permission::ALL).await.unwrap();
        let token = accounts.issue_token("ana", "laptop", &Scope::ALL, Some(1)).await.unwrap();
        accounts.revoke_tokens("ana").await.unwrap();
        // What was refused, nobody did.
        accounts.add_user("ana", Role::Member, &[]).await.unwrap_err();

        for action in [
            "SELECT count(*) FROM audit_log WHERE action = 'user.add'
             AND CAST(details AS TEXT) LIKE '%\"ana\"%' AND CAST(details AS TEXT) LIKE '%\"unsafe_commands\"%'",
            "SELECT count(*) FROM audit_log WHERE action = 'token.issue'
             AND CAST(details AS TEXT) LIKE '%\"laptop\"%'",
            "SELECT count(*) FROM audit_log WHERE action = 'token.revoke'",
            "SELECT count(DISTINCT user_id) FROM audit_log WHERE vm_id IS NULL",
        ] {
            assert_eq!(db.number(action).await, 1, "{action}");
        }
        assert_eq!(db.number("SELECT count(*) FROM audit_log").await, 3);
        let operator = match db.backend() {
            Backend::Sqlite => db.bytes("SELECT user_id FROM audit_log LIMIT 1").await,
            Backend::Postgres => db.bytes("SELECT uuid_send(user_id) FROM audit_log LIMIT 1").await,
        };
        assert_eq!(operator, [0; 16], "the nil UUID");
        let details = match db.backend() {
            Backend::Sqlite => "SELECT CAST(group_concat(details) AS BLOB) FROM audit_log",
            Backend::Postgres => "SELECT convert_to(string_agg(CAST(details AS TEXT), ','), 'UTF8') FROM audit_log",
        };
        let details = String::from_utf8(db.bytes(details).await).unwrap();
        assert!(!details.contains(token.expose_secret().trim_start_matches("ibt_")), "{details}");
    }

    async fn without_an_audit_row_nothing_is_changed(db: TestDatabase) {
        let accounts = Accounts::new(db.store().await);
        accounts.add_user("ana", Role::Member, &[]).await.unwrap();
        accounts.issue_token("ana", "", &Scope::ALL, None).await.unwrap();
        db.tamper(
            "CREATE TRIGGER broken BEFORE INSERT ON audit_log BEGIN SELECT RAISE(ABORT, 'broken'); END",
            "ALTER TABLE audit_log ADD CONSTRAINT broken CHECK (FALSE) NOT VALID",
        )
        .await;
        accounts.add_user("ben", Role::Member, &[]).await.unwrap_err();
        accounts.issue_token("ana", "", &Scope::ALL, None).await.unwrap_err();
        accounts.revoke_tokens("ana").await.unwrap_err();
        assert_eq!(db.number("SELECT count(*) FROM users").await, 1);
        assert_eq!(db.number("SELECT count(*) FROM tokens").await, 1);
    }

    async fn what_is_wrong_is_refused(db: TestDatabase) {
        let store = db.store().await;
        let accounts = Accounts::new(store.clone());
        accounts.add_user("ana", Role::Member, &[]).await.unwrap();
        let refused = accounts.add_user("ana", Role::Admin, &Permission::ALL).await;
        assert!(matches!(refused, Err(AccountError::Store(StoreError::UserExists))), "{refused:?}");
        assert_eq!(accounts.users().await.unwrap()[0].role, Role::Member, "the first one stays");
        let refused = accounts.add_user("a b", Role::Member, &[]).await;
        assert!(matches!(refused, Err(AccountError::InvalidName)), "{refused:?}");
        let refused = accounts.issue_token("ana", "two\nlines", &Scope::ALL, None).await;
        assert!(matches!(refused, Err(AccountError::InvalidLabel)), "{refused:?}");
        for outcome in [
            accounts.issue_token("nobody", "", &Scope::ALL, None).await.map(drop),
            accounts.revoke_tokens("nobody").await.map(drop),
        ] {
            assert!(matches!(outcome, Err(AccountError::NoSuchUser(_))), "{outcome:?}");
        }
        let stray = TokenInfo {
            id: TokenId::generate(),
            user: UserId::generate(),
            label: String::new(),
            scopes: Scope::ALL.into(),
            created_at: Utc::now(),
            expires_at: None,
        };
        let refused = store.add_token(&stray, &[1; 32], None).await;
        assert!(matches!(refused, Err(StoreError::NotFound)), "{refused:?}");
    }
}
