//! npm's and PyPI's clients of the API, as front ends have them: a script of `tests/clients` in its own process,
//! told what to do and telling what it heard by lines of JSON.

use std::{path::Path, process::Stdio, time::Duration};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    process::{Child, ChildStdin, Command},
    sync::mpsc,
};

/// How long a story waits for what it expects to be heard.
pub const SOON: Duration = Duration::from_secs(20);

/// Where the clients are laid out.
pub fn clients() -> String {
    std::env::var("INFINIBAY_TEST_CLIENTS")
        .expect("INFINIBAY_TEST_CLIENTS is not set; scripts/test sets it, and fetches the clients")
}

/// A file of `tests/clients`.
pub fn here(name: &str) -> String {
    format!("{}/tests/clients/{name}", env!("CARGO_MANIFEST_DIR"))
}

/// A script at work; ended when dropped.
pub struct Node {
    _child: Child,
    commands: ChildStdin,
    heard: mpsc::UnboundedReceiver<Value>,
    /// What was heard while something else was waited for.
    kept: Vec<Value>,
}

impl Node {
    /// Starts a script of `tests/clients`.
    pub fn start(script: &str) -> Self {
        let mut node = Command::new("node");
        node.arg(here(script)).env("INFINIBAY_TEST_CLIENTS", clients());
        Self::run(node)
    }

    /// The same of one in Python, with the packages in this directory besides those of PyPI.
    pub fn python(script: &str, packages: &Path) -> Self {
        let mut python = Command::new(format!("{}/python/bin/python", clients()));
        python.arg(here(script)).env("PYTHONPATH", packages).env("PYTHONDONTWRITEBYTECODE", "1");
        Self::run(python)
    }

    fn run(mut command: Command) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}; scripts/test installs what it takes"));
        let commands = child.stdin.take().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let (sender, heard) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                let said = serde_json::from_str(&line).unwrap_or_else(|_| panic!("the script said {line}"));
                if sender.send(said).is_err() {
                    return;
                }
            }
        });
        Self { _child: child, commands, heard, kept: Vec::new() }
    }

    /// Tells it what to do.
    pub async fn tell(&mut self, command: Value) {
        self.commands.write_all(format!("{command}\n").as_bytes()).await.expect("telling the script");
    }

    /// The first thing that this socket heard by that name and was not taken yet; its data.
    pub async fn hears(&mut self, socket: &str, name: &str) -> Value {
        self.hears_such(socket, name, |_| true).await
    }

    /// The same with data as wanted.
    pub async fn hears_such(&mut self, socket: &str, name: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let fits = |said: &Value| said["socket"] == socket && said["heard"] == name && wanted(&said["data"]);
        let next = async {
            loop {
                if let Some(at) = self.kept.iter().position(fits) {
                    return self.kept.remove(at)["data"].take();
                }
                match self.heard.recv().await {
                    Some(said) => self.kept.push(said),
                    None => panic!("the script ended; {socket} had not heard {name}"),
                }
            }
        };
        let found = tokio::time::timeout(SOON, next).await.ok();
        found.unwrap_or_else(|| {
            let of_it = self.kept.iter().rev().filter(|said| said["socket"] == socket).take(10);
            let of_it: Vec<String> = of_it.map(|said| said.to_string().chars().take(300).collect()).collect();
            panic!("{socket} did not hear {name} as wanted in {SOON:?}; last it heard {of_it:#?}")
        })
    }

    /// What this socket heard by that name so far, all taken.
    pub fn heard(&mut self, socket: &str, name: &str) -> Vec<Value> {
        while let Ok(said) = self.heard.try_recv() {
            self.kept.push(said);
        }
        let (taken, kept) = std::mem::take(&mut self.kept)
            .into_iter()
            .partition(|said| said["socket"] == socket && said["heard"] == name);
        self.kept = kept;
        let taken: Vec<Value> = taken;
        taken.into_iter().map(|mut said| said["data"].take()).collect()
    }

    /// Asks over a socket of Socket.IO, and gives the acknowledgement.
    pub async fn ask(&mut self, socket: &str, event: &str, data: Value) -> Value {
        let tag = uuid::Uuid::new_v4().to_string();
        self.tell(json!({ "do": "ask", "socket": socket, "event": event, "data": data, "tag": tag })).await;
        self.hears(socket, &format!("ack:{tag}")).await
    }
}
