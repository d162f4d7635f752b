//! Signing in: the first user, passwords, sessions that are refreshed, stolen tokens, and those who guess.
#![allow(clippy::unwrap_used, reason = "a broken expectation ends the story")]

#[macro_use]
mod support;

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::{
    daemon::{Daemon, Home, Setup},
    database::TestDatabase,
};

const PASSWORD: &str = "correct horse battery";

/// A daemon that nobody has used yet, with sessions of seconds.
fn home(db: &TestDatabase, library: &tempfile::TempDir, env: &[(&str, &str)]) -> Home {
    Home::new(Setup {
        uri: "test:///default".into(),
        database_url: Some(db.url.clone()),
        images_dir: library.path().to_owned(),
        base_dir: library.path().join("base"),
        env: env.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
    })
}

struct Door {
    http: reqwest::Client,
    url: String,
}

impl Door {
    fn of(daemon: &Daemon) -> Self {
        Self { http: reqwest::Client::new(), url: daemon.url.clone() }
    }

    /// Status and body.
    async fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        let answer = self.http.post(format!("{}{path}", self.url)).json(body).send().await.unwrap();
        let status = answer.status().as_u16();
        if status == 200 {
            assert_eq!(answer.headers()["cache-control"], "no-store");
        }
        (status, answer.json().await.unwrap())
    }

    async fn signs_in(&self, email: &str) -> Value {
        let (status, session) =
            self.post("/auth/login", &json!({ "email": email, "password": PASSWORD })).await;
        assert_eq!(status, 200, "{session}");
        session
    }

    /// Who the bearer of this token is, or the code of the refusal.
    async fn who(&self, token: &str) -> String {
        let body = json!({ "query": "{ me { name } }" });
        let sent = self.http.post(format!("{}/graphql", self.url)).bearer_auth(token).json(&body).send();
        let answer: Value = sent.await.unwrap().json().await.unwrap();
        let name = answer["data"]["me"]["name"].as_str();
        name.or(answer["errors"][0]["extensions"]["code"].as_str()).unwrap().to_owned()
    }

    /// Waits until the token is good for nothing; the promise is a second.
    async fn ends(&self, token: &str) {
        let since = Instant::now();
        while self.who(token).await != "UNAUTHENTICATED" {
            assert!(since.elapsed() < Duration::from_secs(3), "the token goes on");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn set_up(&self, token: &str) -> (u16, Value) {
        let body = json!({ "token": token, "name": "ana", "email": "Ana@example.org", "password": PASSWORD });
        self.post("/auth/setup", &body).await
    }
}

fn text<'a>(session: &'a Value, field: &str) -> &'a str {
    session[field].as_str().unwrap()
}

fn code(answer: &Value) -> &str {
    answer["errors"][0]["extensions"]["code"].as_str().unwrap()
}

/// What the daemon printed for the first user, if it did.
fn printed(home: &Home, start: u32) -> Option<String> {
    let log = std::fs::read_to_string(home.path().join(format!("log-{start}"))).unwrap();
    log.lines().find_map(|line| {
        let line: Value = serde_json::from_str(line).ok()?;
        line["fields"]["token"].as_str().map(str::to_owned)
    })
}

on_both! {
    async fn the_first_user_is_made_with_the_token_that_was_printed(db: TestDatabase) {
        let library = tempfile::tempdir().unwrap();
        let home = home(&db, &library, &[]);
        let mut daemon = home.start();
        let first = printed(&home, 1).expect("a token for the first user");
        // A new start prints another, and the first one is nothing then.
        home.between(&mut daemon, |_| ());
        let token = printed(&home, 2).expect("another token");
        let door = Door::of(&daemon);
        for wrong in ["", "ibs_", &first, &token.replace("ibs_", "ibt_"), &format!("{token}0")] {
            let (status, answer) = door.set_up(wrong).await;
            assert_eq!((status, code(&answer)), (403, "FORBIDDEN"), "{wrong}");
        }
        assert_eq!(door.who(&token).await, "UNAUTHENTICATED");
        let short = json!({ "token": token, "name": "ana", "email": "ana@example.org", "password": "short" });
        let (status, answer) = door.post("/auth/setup", &short).await;
        assert_eq!((status, code(&answer)), (429, "TOO_MANY_ATTEMPTS"), "{answer}");
        drop(daemon);

        let daemon = home.start();
        let (door, token) = (Door::of(&daemon), printed(&home, 3).unwrap());
        for (field, value) in [("password", json!("short")), ("email", json!("ana")), ("name", json!("a b"))] {
            let mut body = json!({ "token": token, "name": "ana", "email": "a@b.c", "password": PASSWORD });
            body[field] = value;
            let (status, answer) = door.post("/auth/setup", &body).await;
            assert_eq!((status, code(&answer)), (400, "INVALID_INPUT"), "{answer}");
            assert_eq!(answer["errors"][0]["extensions"]["field"], field);
        }
        let (status, session) = door.set_up(&token).await;
        assert_eq!(status, 200, "{session}");
        assert_eq!(door.who(text(&session, "accessToken")).await, "ana");
        assert_eq!(door.set_up(&token).await.0, 403, "it was taken twice");
        assert_eq!(text(&door.signs_in(" ana@EXAMPLE.org").await, "userId"), text(&session, "userId"));
        assert_eq!(db.number("SELECT count(*) FROM users WHERE role = 'admin'").await, 1);
        assert_eq!(db.number("SELECT count(*) FROM setup_token").await, 0);
        drop(daemon);
        // There is somebody now: nothing more is printed.
        let _daemon = home.start();
        assert_eq!(printed(&home, 4), None);
    }

    async fn a_session_is_refreshed_and_ends(db: TestDatabase) {
        let library = tempfile::tempdir().unwrap();
        let home = home(&db, &library, &[("INFINIBAY__ACCOUNTS__ACCESS_TIME", "2s")]);
        let daemon = home.start();
        let door = Door::of(&daemon);
        let (_, first) = door.set_up(&printed(&home, 1).unwrap()).await;
        // An access token is good for a short time only.
        door.ends(text(&first, "accessToken")).await;
        let refresh = async |token: &str| door.post("/auth/refresh", &json!({ "refreshToken": token })).await;
        let (status, second) = refresh(text(&first, "refreshToken")).await;
        assert_eq!(status, 200, "{second}");
        assert_ne!(text(&second, "refreshToken"), text(&first, "refreshToken"));
        assert_eq!(door.who(text(&second, "accessToken")).await, "ana");
        // Neither is good for what the other is for.
        assert_eq!(door.who(text(&second, "refreshToken")).await, "UNAUTHENTICATED");
        assert_eq!(refresh(text(&second, "accessToken")).await.0, 401);

        // One that comes again is in the wrong hands, or its successor is: the session ends for both.
        let (status, answer) = refresh(text(&first, "refreshToken")).await;
        assert_eq!((status, code(&answer)), (401, "UNAUTHENTICATED"));
        assert_eq!(refresh(text(&second, "refreshToken")).await.0, 401);
        assert_eq!(door.who(text(&second, "accessToken")).await, "UNAUTHENTICATED");
        assert_eq!(db.number("SELECT count(*) FROM audit_log WHERE action = 'session.revoke'").await, 1);

        // Another sign-in is another session; signing out ends it at once, by either token, and again.
        let (one, other) = (door.signs_in("ana@example.org").await, door.signs_in("ana@example.org").await);
        let logout = door.http.post(format!("{}/auth/logout", door.url));
        assert_eq!(logout.bearer_auth(text(&one, "accessToken")).send().await.unwrap().status(), 200);
        assert_eq!(door.who(text(&one, "accessToken")).await, "UNAUTHENTICATED");
        assert_eq!(refresh(text(&one, "refreshToken")).await.0, 401);
        for _ in 0..2 {
            let body = json!({ "refreshToken": text(&other, "refreshToken") });
            assert_eq!(door.post("/auth/logout", &body).await.0, 200);
        }
        assert_eq!(door.who(text(&other, "accessToken")).await, "UNAUTHENTICATED");
        assert_eq!(db.number("SELECT count(*) FROM sessions").await, 0);
        assert_eq!(db.number("SELECT count(*) FROM session_tokens").await, 0);

        // A program's token ends itself and no other, however little it is good for.
        let session = door.signs_in("ana@example.org").await;
        let issue = async || {
            let query = "mutation { createApiToken(label: \"reader\", scopes: [READ]) { token } }";
            let asked = door.http.post(format!("{}/graphql", door.url)).json(&json!({ "query": query }));
            let told: Value = asked.bearer_auth(text(&session, "accessToken")).send().await.unwrap().json().await.unwrap();
            text(&told["data"]["createApiToken"], "token").to_owned()
        };
        let (one, other) = (issue().await, issue().await);
        for _ in 0..2 {
            let logout = door.http.post(format!("{}/auth/logout", door.url));
            assert_eq!(logout.bearer_auth(&one).send().await.unwrap().status(), 200);
            assert_eq!(door.who(&one).await, "UNAUTHENTICATED");
        }
        assert_eq!(door.who(&other).await, "ana");
        assert_eq!(db.number("SELECT count(*) FROM audit_log WHERE action = 'token.revoke'").await, 1);
    }

    async fn two_who_refresh_at_once_do_not_both_get_on(db: TestDatabase) {
        let library = tempfile::tempdir().unwrap();
        let home = home(&db, &library, &[]);
        let daemon = home.start();
        let door = Door::of(&daemon);
        let (_, session) = door.set_up(&printed(&home, 1).unwrap()).await;
        let body = json!({ "refreshToken": text(&session, "refreshToken") });
        let (one, other) = tokio::join!(door.post("/auth/refresh", &body), door.post("/auth/refresh", &body));
        let mut told = [one.0, other.0];
        told.sort_unstable();
        assert_eq!(told, [200, 401]);
        assert_eq!(db.number("SELECT count(*) FROM sessions").await, 0);
    }

    async fn who_guesses_has_to_wait_and_learns_nothing(db: TestDatabase) {
        let library = tempfile::tempdir().unwrap();
        let home = home(&db, &library, &[]);
        let daemon = home.start();
        let door = Door::of(&daemon);
        door.set_up(&printed(&home, 1).unwrap()).await;
        let guess = async |email: &str, password: &str| {
            let (status, answer) = door.post("/auth/login", &json!({ "email": email, "password": password })).await;
            (status, code(&answer).to_owned(), answer["errors"][0]["message"].as_str().unwrap().to_owned())
        };
        let nobody = guess("nobody@example.org", PASSWORD).await;
        assert_eq!((nobody.0, &*nobody.1), (403, "FORBIDDEN"));
        for password in ["", "wrong", "correct horse batterx", &"x".repeat(3000), "' OR 1=1 --"] {
            assert_eq!(guess("ana@example.org", password).await, nobody);
        }
        let (status, code, _) = guess("ana@example.org", PASSWORD).await;
        assert_eq!((status, &*code), (429, "TOO_MANY_ATTEMPTS"));
        // Who has signed in goes on, and others sign in.
        assert_eq!(guess("other@example.org", PASSWORD).await, nobody);
    }

    async fn what_is_no_request_is_refused(db: TestDatabase) {
        let library = tempfile::tempdir().unwrap();
        let home = home(&db, &library, &[]);
        let daemon = home.start();
        let door = Door::of(&daemon);
        door.set_up(&printed(&home, 1).unwrap()).await;
        let long = "x".repeat(20_000);
        for (kind, body, status) in [
            ("application/json", "", 400),
            ("application/json", "[]", 400),
            ("application/json", "{\"email\": 1, \"password\": \"hunter2-hunter2\"}", 400),
            ("application/json", "{\"email\": \"a@b.c\", \"password\": \"x\", \"more\": 1}", 400),
            ("application/json", &*long, 413),
            ("text/plain", "{\"email\": \"a@b.c\", \"password\": \"hunter2-hunter2\"}", 400),
        ] {
            let request = door.http.post(format!("{}/auth/login", door.url)).header("content-type", kind);
            let answer = request.body(body.to_owned()).send().await.unwrap();
            assert_eq!(answer.status(), status, "{body:.40}");
            let words = answer.text().await.unwrap();
            assert!(!words.contains("hunter2"), "it repeats a password: {words}");
        }
        // Tokens of other houses: no algorithm, another's algorithm, another's form.
        let header = |alg: &str| format!("{{\"alg\":\"{alg}\",\"typ\":\"JWT\"}}");
        let part = |text: &str| base64(text.as_bytes());
        let claims = part("{\"sub\":\"ana\",\"admin\":true,\"exp\":9999999999}");
        for token in [
            format!("{}.{claims}.", part(&header("none"))),
            format!("{}.{claims}.{}", part(&header("HS256")), part("signature")),
            format!("ibt_{}", "0".repeat(64)),
            format!("iba_{}", "f".repeat(64)),
            "ana".to_owned(),
        ] {
            assert_eq!(door.who(&token).await, "UNAUTHENTICATED", "{token}");
        }
        let logged = std::fs::read_to_string(home.path().join("log-1")).unwrap();
        assert!(!logged.contains(PASSWORD) && !logged.contains("hunter2"), "a password is in the log");
    }
}

fn base64(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes)
}
