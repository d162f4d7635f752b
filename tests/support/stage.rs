//! One small guest on real QEMU, and all that a story needs around it: a home for daemons, a pool,
//! an admin, a name that nobody else has, and the proof that nothing of it is left.

use std::{path::PathBuf, time::Duration};

use serde_json::{Value, json};

use super::{
    daemon::{Client, Daemon, Home, Setup},
    host::{self, DomainGuard, Pool},
    inventory::{Inventory, Survey},
};

/// A guest boots in this time, on a busy machine without KVM.
pub const READY: Duration = Duration::from_secs(120);
/// Everything else is done in this time.
pub const SOON: Duration = Duration::from_secs(60);

pub struct Stage {
    pub home: Home,
    pub pool: Pool,
    pub token: String,
    pub name: String,
    /// What there was before any VM.
    before: Inventory,
    _guard: DomainGuard,
}

impl Stage {
    /// For the guest that lives in memory.
    pub fn set(story: &str) -> Self {
        host::need_image("pocket");
        Self::over(story, host::test_images())
    }

    /// Over another image library.
    pub fn over(story: &str, images_dir: PathBuf) -> Self {
        Self::made(story, images_dir, &[])
    }

    /// With more in its daemons' environment.
    pub fn with(story: &str, env: &[(&str, &str)]) -> Self {
        host::need_image("pocket");
        Self::made(story, host::test_images(), env)
    }

    fn made(story: &str, images_dir: PathBuf, env: &[(&str, &str)]) -> Self {
        let home = Home::new(Setup {
            uri: "qemu:///system".into(),
            database_url: None,
            images_dir,
            base_dir: host::test_base_dir(),
            env: env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        });
        let pool = Pool::new(home.path());
        let token = home.admin();
        let name = format!("story-{story}-{}", std::process::id());
        let before = Survey::of(&home, &pool).take();
        Self { home, pool, token, before, _guard: DomainGuard(name.clone()), name }
    }

    /// What is asked for.
    pub fn request(&self) -> Value {
        json!({
            "name": self.name, "image": "pocket", "vcpus": 1, "memoryMib": 192,
            "pool": self.pool.name, "network": "none",
        })
    }

    /// Asks for the VM; its id and its operation's.
    pub async fn ask(&self, daemon: &Daemon) -> (String, String) {
        daemon.client(&self.token).create(self.request()).await
    }

    /// Waits until the VM runs, with its agent heard and one disk.
    pub async fn is_ready(&self, daemon: &Daemon, vm: &str, operation: &str) -> Client {
        let client = daemon.client(&self.token);
        client.succeeded(operation, READY).await;
        client.agent_is(vm, "ONLINE", SOON).await;
        assert_eq!(self.pool.volumes().len(), 1, "volumes: {:?}", self.pool.volumes());
        assert_eq!(host::domain_state(vm).as_deref(), Some("running"));
        client
    }

    /// A VM that runs.
    pub async fn create(&self, daemon: &Daemon) -> (Client, String) {
        let (vm, operation) = self.ask(daemon).await;
        (self.is_ready(daemon, &vm, &operation).await, vm)
    }

    /// Deletes the VM, of which nothing is left.
    pub async fn delete(&self, client: &Client, vm: &str) {
        let operation = client.change("deleteVm", vm).await;
        client.succeeded(&operation, SOON).await;
        self.nothing_is_left(vm);
    }

    pub fn nothing_is_left(&self, vm: &str) {
        assert_eq!(self.inventory(vm), self.before, "left of VM {vm}");
    }

    /// What there is on the host of the story and of the VM.
    pub fn inventory(&self, vm: &str) -> Inventory {
        Survey::of(&self.home, &self.pool).with_vm(vm, &[&self.name]).take()
    }
}
