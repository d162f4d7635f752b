//! One life of a controller: the real loop, over the simulated world.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use infinibay::{
    config::{AgentsConfig, InstallsConfig, ReconcileConfig},
    domain_xml::Templates,
    events::EventBus,
    reconcile::{Parts, Reconciler, Settings, Waker},
};
use tokio::{sync::mpsc, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use super::world::{Hints, World};

/// The world as the controller of one life sees it; behind all the traits of the loop.
pub struct Ports {
    pub world: Arc<World>,
    pub life: u32,
}

/// See the module.
pub struct Controller {
    pub waker: Waker,
    task: JoinHandle<()>,
}

fn settings() -> Settings {
    static TEMPLATES: OnceLock<Templates> = OnceLock::new();
    let templates = TEMPLATES.get_or_init(|| Templates::load(None).expect("the built-in templates"));
    Settings {
        seeds_dir: "/seeds".into(),
        discs_dir: "/discs".into(),
        console_dir: "/console".into(),
        socket_dir: "/sockets".into(),
        templates: templates.clone(),
    }
}

/// The loop's numbers: as they are by default, but for waits that would only make a run longer.
pub fn config() -> ReconcileConfig {
    ReconcileConfig { install_budget: Duration::from_secs(600), ..ReconcileConfig::default() }
}

/// The same of installations.
fn installs() -> InstallsConfig {
    let (stall_timeout, budget) = (Duration::from_secs(300), Duration::from_secs(1200));
    InstallsConfig {
        stall_timeout,
        debian_budget: budget,
        windows_budget: budget,
        ..InstallsConfig::default()
    }
}

impl Controller {
    pub fn start(world: &Arc<World>) -> Self {
        let (links, link_hints) = mpsc::channel(64);
        let (sockets, socket_hints) = mpsc::channel(64);
        let life = {
            let mut state = world.state();
            state.life += 1;
            state.crashed = false;
            state.hints = Some(Hints { links, sockets });
            // The links died with the process; what was told of the VMs is out of date.
            state.links.clear();
            state.connected = state.now;
            state.watch.forget();
            state.database.age_statuses();
            state.note(format_args!("a controller starts"));
            state.life
        };
        let ports = Arc::new(Ports { world: Arc::clone(world), life });
        let (reconciler, waker) = Reconciler::new(Parts {
            hypervisor: ports.clone(),
            store: ports.clone(),
            links: ports.clone(),
            files: ports.clone(),
            clock: ports.clone(),
            randomness: ports,
            events: EventBus::default(),
            settings: settings(),
            config: config(),
            agents: AgentsConfig::default(),
            installs: installs(),
            install_reports: true,
            link_hints,
            socket_hints,
        });
        let task = tokio::spawn(reconciler.run(CancellationToken::new()));
        Self { waker, task }
    }

    /// The process is gone, wherever it was. What libvirtd was asked to do it may still do.
    pub async fn kill(self, world: &World) {
        {
            let mut state = world.state();
            state.crashed = true;
            state.hints = None;
            let left: Vec<_> =
                state.host.calls.iter().filter(|call| call.mutates).map(|call| call.vm).collect();
            state.watch.haunted.extend(left);
        }
        self.task.abort();
        // It was aborted: there is nothing else to be told.
        let _ = self.task.await;
    }

    /// Whether the loop has ended by itself.
    pub fn is_over(&self) -> bool {
        self.task.is_finished()
    }
}
