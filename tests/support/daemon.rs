//! A real daemon for a story: its own state directory, sockets, port and database, ended with
//! the test. What it logged is printed when the story fails.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader},
    os::unix::{fs::PermissionsExt, process::ExitStatusExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::{Value, json};

pub use super::wait::wait;

/// What a daemon is to be started with.
#[derive(Debug, Clone)]
pub struct Setup {
    /// libvirt.
    pub uri: String,
    /// `postgres://…`; SQLite in the state directory when absent.
    pub database_url: Option<String>,
    /// The image library.
    pub images_dir: PathBuf,
    /// The agent's files.
    pub base_dir: PathBuf,
    /// More environment: `INFINIBAY__…`.
    pub env: Vec<(String, String)>,
}

/// The directories of one daemon, which outlive its restarts.
pub struct Home {
    dir: tempfile::TempDir,
    setup: Setup,
    starts: std::cell::Cell<u32>,
    /// What runs the executable, and the executable; usually the latter alone.
    program: Vec<String>,
}

/// A running daemon. Dropped, it is killed.
pub struct Daemon {
    child: Child,
    pub url: String,
    log: PathBuf,
}

impl Home {
    pub fn new(setup: Setup) -> Self {
        // Not in a private directory: QEMU's user passes through it.
        let dir = tempfile::Builder::new().prefix("infinibay-story-").tempdir_in("/var/tmp").unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        fs::create_dir(dir.path().join("sockets")).unwrap();
        let program = vec![env!("CARGO_BIN_EXE_infinibayd").to_owned()];
        Self { dir, setup, starts: std::cell::Cell::new(0), program }
    }

    /// The same, with a copy of the executable that is run by this command, which becomes it.
    pub fn run_by(mut self, command: &[String]) -> Self {
        let copy = self.dir.path().join("infinibayd");
        fs::copy(env!("CARGO_BIN_EXE_infinibayd"), &copy).unwrap();
        self.program = [command, &[copy.display().to_string()]].concat();
        self
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    pub fn state_dir(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    pub fn socket_dir(&self) -> PathBuf {
        self.dir.path().join("sockets")
    }

    pub fn socket(&self, vm: &str) -> PathBuf {
        self.socket_dir().join(format!("vm-{vm}.sock"))
    }

    /// The executable with this home's environment.
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.program[0]);
        command.args(&self.program[1..]).env_clear();
        for name in ["PATH", "HOME", "RUST_BACKTRACE"] {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        let path = |path: &Path| path.display().to_string();
        let mut env = vec![
            ("INFINIBAY__PATHS__STATE_DIR".to_owned(), path(&self.state_dir())),
            ("INFINIBAY__PATHS__IMAGES_DIR".to_owned(), path(&self.setup.images_dir)),
            ("INFINIBAY__PATHS__BASE_DIR".to_owned(), path(&self.setup.base_dir)),
            ("INFINIBAY__AGENTS__SOCKET_DIR".to_owned(), path(&self.socket_dir())),
            ("INFINIBAY__HYPERVISOR__URI".to_owned(), self.setup.uri.clone()),
            ("INFINIBAY__API__PORT".to_owned(), "0".to_owned()),
            ("INFINIBAY__LOG__FORMAT".to_owned(), "json".to_owned()),
            ("INFINIBAY__LOG__FILTER".to_owned(), "info,infinibay=debug".to_owned()),
        ];
        env.extend(self.setup.database_url.clone().map(|url| ("DATABASE_URL".to_owned(), url)));
        env.extend(self.setup.env.clone());
        command.envs(env);
        command
    }

    /// Runs a subcommand to its end and gives its standard output.
    pub fn run(&self, args: &[&str]) -> String {
        let output = self.command().args(args).output().unwrap();
        assert!(
            output.status.success(),
            "infinibayd {args:?} failed: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap()
    }

    /// Makes a user and gives a token of his.
    pub fn user(&self, name: &str, flags: &[&str]) -> String {
        self.run(&[&["user", "add", name], flags].concat());
        self.run(&["user", "token", name]).trim().to_owned()
    }

    /// An admin who may do everything.
    pub fn admin(&self) -> String {
        self.user("admin", &["--admin", "--permission", "unsafe_commands"])
    }

    /// Starts the daemon and waits until it serves.
    pub fn start(&self) -> Daemon {
        self.serving(self.spawn(self.command()))
    }

    /// The same with a daemon that dies at this failpoint.
    pub fn start_to_die_at(&self, point: &str) -> Daemon {
        self.serving(self.spawn(self.armed(point)))
    }

    /// Starts a daemon that dies at this failpoint without anything being asked of it.
    pub fn dies_at(&self, point: &str, limit: Duration) {
        self.spawn(self.armed(point)).died_at(point, limit);
    }

    fn armed(&self, point: &str) -> Command {
        let mut command = self.command();
        command.env("FAILPOINTS", format!("{point}=return"));
        command
    }

    fn spawn(&self, mut command: Command) -> Daemon {
        self.starts.set(self.starts.get() + 1);
        let log = self.dir.path().join(format!("log-{}", self.starts.get()));
        let child = command
            .arg("serve")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log).unwrap())
            .spawn()
            .unwrap();
        Daemon { child, url: String::new(), log }
    }

    fn serving(&self, mut daemon: Daemon) -> Daemon {
        let address = wait("the daemon to serve", Duration::from_secs(30), || {
            if let Some(status) = daemon.child.try_wait().unwrap() {
                panic!("the daemon ended with {status}:\n{}", daemon.logged());
            }
            daemon.address()
        });
        daemon.url = format!("http://{address}");
        daemon
    }

    /// Stops the daemon, does something, and starts it anew.
    pub fn between<T>(&self, daemon: &mut Daemon, work: impl FnOnce(&Self) -> T) -> T {
        daemon.child.kill().unwrap();
        daemon.child.wait().unwrap();
        let done = work(self);
        *daemon = self.start();
        done
    }

    /// Starts the daemon where it is expected to refuse; gives its exit code and words.
    pub fn start_refused(&self) -> (Option<i32>, String) {
        let mut daemon = self.spawn(self.command());
        let limit = Duration::from_secs(30);
        let status = wait("the daemon to refuse", limit, || daemon.child.try_wait().unwrap());
        (status.code(), daemon.logged())
    }
}

impl Daemon {
    /// What it logged.
    pub fn logged(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// From the line that says so.
    fn address(&self) -> Option<String> {
        let file = File::open(&self.log).ok()?;
        BufReader::new(file).lines().map_while(Result::ok).find_map(|line| {
            let line: Value = serde_json::from_str(&line).ok()?;
            let fields = line.get("fields")?;
            (fields.get("message")? == "the controller serves")
                .then(|| fields.get("address")?.as_str().map(str::to_owned))
                .flatten()
        })
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// SIGKILL, in the middle of whatever it does.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Waits until it was ended by SIGKILL at the failpoint that it was started with.
    pub fn died_at(mut self, point: &str, limit: Duration) {
        let status = wait(&format!("the daemon to reach {point}"), limit, || self.child.try_wait().unwrap());
        assert_eq!(status.signal(), Some(9), "not killed at {point}, but ended with {status}");
        let logged = self.logged();
        let said = logged.lines().any(|line| line.contains("a failpoint ends") && line.contains(point));
        assert!(said, "killed, but not at {point}");
    }

    /// SIGTERM; gives how long the graceful end took. It must end well.
    pub fn stop(mut self) -> Duration {
        let begun = Instant::now();
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        let status = wait("the daemon to end", Duration::from_secs(30), || self.child.try_wait().unwrap());
        assert!(status.success(), "the daemon ended with {status}:\n{}", self.logged());
        begun.elapsed()
    }

    /// A client with this token.
    pub fn client(&self, token: &str) -> Client {
        Client { http: reqwest::Client::new(), url: self.url.clone(), token: token.to_owned() }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("---- what the daemon logged ({}) ----\n{}", self.log.display(), self.logged());
        }
    }
}

/// A caller of the API.
#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    url: String,
    token: String,
}

impl Client {
    /// One request; the whole answer.
    pub async fn send(&self, query: &str, variables: Value) -> Value {
        let body = json!({ "query": query, "variables": variables });
        let sent =
            self.http.post(format!("{}/graphql", self.url)).bearer_auth(&self.token).json(&body).send();
        let answer = sent.await.unwrap_or_else(|error| panic!("{query}: {error}"));
        answer.json().await.unwrap_or_else(|error| panic!("{query}: {error}"))
    }

    /// One request that must go well; its data.
    pub async fn ask(&self, query: &str, variables: Value) -> Value {
        let mut answer = self.send(query, variables).await;
        assert!(answer.get("errors").is_none(), "{query}: {answer}");
        answer["data"].take()
    }

    /// One mutation, asked of a daemon that may die of it, again while an image is read for the
    /// first time; its data, unless it died before it answered.
    pub async fn ask_the_dying(&self, mutation: &str, variables: Value) -> Option<Value> {
        let deadline = Instant::now() + super::stage::READY;
        let body = json!({ "query": mutation, "variables": variables });
        loop {
            let request = self.http.post(format!("{}/graphql", self.url)).bearer_auth(&self.token);
            let mut answer: Value = request.json(&body).send().await.ok()?.json().await.ok()?;
            if answer.get("errors").is_none() {
                return Some(answer["data"].take());
            }
            let checked = answer["errors"][0]["extensions"]["code"] == "IMAGE_BEING_CHECKED";
            assert!(checked && Instant::now() < deadline, "{mutation}: {answer}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// One change, asked for; its operation's id.
    pub async fn accepted(&self, mutation: &str, variables: Value) -> String {
        operation_in(&self.ask(mutation, variables).await)
    }

    /// One change that must go well.
    pub async fn done(&self, mutation: &str, variables: Value) {
        let operation = self.accepted(mutation, variables).await;
        self.succeeded(&operation, super::stage::SOON).await;
    }

    /// One request that must be refused; its code.
    pub async fn refused(&self, query: &str, variables: Value) -> String {
        let answer = self.send(query, variables).await;
        let code = answer["errors"][0]["extensions"]["code"].as_str();
        code.unwrap_or_else(|| panic!("{query} was not refused with a code: {answer}")).to_owned()
    }

    /// Asks for a VM, again while its image is read for the first time; its id and its
    /// operation's.
    pub async fn create(&self, input: Value) -> (String, String) {
        const CREATE: &str =
            "mutation($input: CreateVmInput!) { createVm(input: $input) { vm { id } operation { id } } }";
        let deadline = Instant::now() + Duration::from_secs(300);
        let data = loop {
            let mut answer = self.send(CREATE, json!({ "input": input })).await;
            if answer.get("errors").is_none() {
                break answer["data"].take();
            }
            let checked = answer["errors"][0]["extensions"]["code"] != "IMAGE_BEING_CHECKED";
            assert!(!checked && Instant::now() < deadline, "createVm: {answer}");
            tokio::time::sleep(Duration::from_millis(500)).await;
        };
        let id = |path: &str| data["createVm"][path]["id"].as_str().unwrap().to_owned();
        (id("vm"), id("operation"))
    }

    /// `startVm`, `stopVm` or `deleteVm`; the operation's id.
    pub async fn change(&self, mutation: &str, vm: &str) -> String {
        let query = format!("mutation($id: UUID!) {{ {mutation}(id: $id) {{ operation {{ id }} }} }}");
        let data = self.ask(&query, json!({ "id": vm })).await;
        data[mutation]["operation"]["id"].as_str().unwrap().to_owned()
    }

    pub async fn vm(&self, vm: &str) -> Value {
        const VM: &str = "query($id: UUID!) { vm(id: $id) { id name phase ipAddresses macAddresses \
            agent { connectivity version lastSeenAt } conditions { type status reason message } } }";
        self.ask(VM, json!({ "id": vm })).await["vm"].take()
    }

    pub async fn operation(&self, operation: &str) -> Value {
        const OPERATION: &str =
            "query($id: UUID!) { operation(id: $id) { status progress stage error { code message } } }";
        self.ask(OPERATION, json!({ "id": operation })).await["operation"].take()
    }

    /// Waits until the operation succeeded.
    pub async fn succeeded(&self, operation: &str, limit: Duration) {
        let deadline = Instant::now() + limit;
        loop {
            let now = self.operation(operation).await;
            match now["status"].as_str() {
                Some("SUCCEEDED") => return,
                Some("PENDING" | "RUNNING") => {}
                _ => panic!("the operation ended in {now}"),
            }
            assert!(Instant::now() < deadline, "the operation is still at {now} after {limit:?}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Waits until the VM's agent has this connectivity.
    pub async fn agent_is(&self, vm: &str, connectivity: &str, limit: Duration) {
        let deadline = Instant::now() + limit;
        loop {
            let now = self.vm(vm).await;
            if now["agent"]["connectivity"] == connectivity {
                return;
            }
            assert!(Instant::now() < deadline, "the agent is not {connectivity} after {limit:?}: {now}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits until the VM has this phase.
    pub async fn phase_is(&self, vm: &str, phase: &str, limit: Duration) {
        let deadline = Instant::now() + limit;
        loop {
            let now = self.vm(vm).await;
            if now["phase"] == phase {
                return;
            }
            assert!(Instant::now() < deadline, "the VM is not {phase} after {limit:?}: {now}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits until one of the VM's conditions is as wanted; the condition.
    pub async fn condition(&self, vm: &str, kind: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        const LIMIT: Duration = Duration::from_secs(90);
        let deadline = Instant::now() + LIMIT;
        loop {
            let now = self.vm(vm).await;
            let conditions = now["conditions"].as_array().unwrap();
            if let Some(condition) = conditions.iter().find(|it| it["type"] == kind && wanted(it)) {
                return condition.clone();
            }
            assert!(Instant::now() < deadline, "{kind} is not as wanted after {LIMIT:?}: {now}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Runs a shell line in the guest; the log entry.
    pub async fn shell(&self, vm: &str, line: &str) -> Value {
        const RUN: &str = "mutation($vm: UUID!, $line: String!) { executeVmCommand(vmId: $vm, \
            command: { unsafe: { rawCommand: $line } }, timeoutSeconds: 60) { id success response executionMs status } }";
        self.ask(RUN, json!({ "vm": vm, "line": line })).await["executeVmCommand"].take()
    }

    /// Runs a shell line that must go well; what it printed.
    pub async fn output(&self, vm: &str, line: &str) -> String {
        let told = self.shell(vm, line).await;
        assert_eq!(told["success"], true, "{line}: {told}");
        told["response"]["stdout"].as_str().unwrap().trim().to_owned()
    }

    /// Runs a safe action without parameters; the log entry.
    pub async fn action(&self, vm: &str, action: &str) -> Value {
        const RUN: &str = "mutation($vm: UUID!, $action: SafeActionName!) { executeVmCommand(vmId: $vm, \
            command: { safe: { action: $action } }, timeoutSeconds: 60) { id success response executionMs status result { __typename } } }";
        self.ask(RUN, json!({ "vm": vm, "action": action })).await["executeVmCommand"].take()
    }
}

/// The id of the operation in the payload of the one mutation that was asked.
pub fn operation_in(data: &Value) -> String {
    let (_, payload) = data.as_object().unwrap().iter().next().unwrap();
    payload["operation"]["id"].as_str().unwrap().to_owned()
}

/// An answer without the number of its request, by which alone two may differ that say the same.
pub fn unnumbered(mut answer: Value) -> Value {
    match &mut answer {
        Value::Object(fields) => {
            fields.remove("requestId");
            for field in fields.values_mut() {
                *field = unnumbered(field.take());
            }
        }
        Value::Array(entries) => {
            for entry in entries {
                *entry = unnumbered(entry.take());
            }
        }
        _ => {}
    }
    answer
}
