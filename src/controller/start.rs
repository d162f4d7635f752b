//! `serve`: from a checked configuration to a running controller, and back to nothing.

use std::{io, net::SocketAddr, os::unix::fs::DirBuilderExt, path::Path, sync::Arc, time::Duration};

use secrecy::ExposeSecret;
use tokio::{
    net::TcpListener,
    signal::unix::{Signal, SignalKind},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use super::{
    host_id,
    lock::{HostLock, LockError},
    open_files,
};
use crate::{
    accounts::{AccountError, Accounts},
    agents::{Inbox, Links, SocketWatch},
    alerts::{Alerts, AlertsError},
    api::{self, ApiContext, Front, Telemetry, Tls, TlsError},
    commands::Commands,
    config::Config,
    domain_xml::Templates,
    events::EventBus,
    hypervisor::{Hypervisor, libvirt::LibvirtHypervisor},
    images::Images,
    install::Recipes,
    lifecycle::{Installers, Lifecycle},
    media::Media,
    metrics::Metrics,
    reconcile::{HostFiles, HostStore, Parts, Reconciler, Settings, SystemClock, SystemRandomness},
    store::{Store, StoreError, StoreLock, database_url},
    vm::{RedactionError, Resolution, chain},
};

/// Why the controller did not start, or ended unasked.
#[derive(Debug, thiserror::Error)]
pub enum ControllerError {
    /// Somebody else owns this host.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// A directory, file or socket could not be made.
    #[error("{operation}")]
    Io {
        /// What was tried.
        operation: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The database failed.
    #[error("opening the database")]
    Store(#[from] StoreError),
    /// A rule of redaction cannot be used.
    #[error("reading the rules of redaction")]
    Redaction(#[from] RedactionError),
    /// A domain template is broken.
    #[error("the domain templates")]
    Templates(#[source] crate::domain_xml::RenderError),
    /// A template of an unattended install is broken.
    #[error("the install templates")]
    Recipes(#[source] crate::install::RecipeError),
    /// The certificate cannot be used.
    #[error("the certificate")]
    Tls(#[from] TlsError),
    /// The webhook for alerts cannot be used.
    #[error("preparing the alerts")]
    Alerts(#[from] AlertsError),
    /// Nobody could be let in.
    #[error("preparing the accounts")]
    Accounts(#[from] AccountError),
    /// A part ended.
    #[error("{0} ended unasked")]
    PartEnded(&'static str),
}

/// How long readings may take to reach the database or the disk at a stop.
const READINGS_GRACE: Duration = Duration::from_secs(5);

fn io_error(operation: impl Into<String>) -> impl FnOnce(io::Error) -> ControllerError {
    move |source| ControllerError::Io { operation: operation.into(), source }
}

/// Runs the controller until SIGTERM or SIGINT.
///
/// # Errors
/// What kept it from starting, or which part ended unasked.
pub async fn serve(config: Config) -> Result<(), ControllerError> {
    let (draining, stop) = (CancellationToken::new(), CancellationToken::new());
    stop_on_signals(&draining, &stop, config.http.drain_wait)?;
    // Before anything counts: a figure goes where the recorder stands by then.
    let telemetry = Telemetry::install();

    open_files::raise_limit(&config);
    make_dir(&config.paths.state_dir, 0o711)?;
    let _lock = HostLock::acquire(&config.paths.state_dir)?;
    let seeds_dir = config.paths.state_dir.join("seeds");
    let console_dir = config.paths.state_dir.join("console");
    // QEMU's user passes through, and opens only what it is named.
    make_dir(&seeds_dir, 0o711)?;
    make_dir(&console_dir, 0o711)?;
    make_dir(&config.agents.socket_dir, 0o775)?;
    let host = host_id::load_or_create(&config.paths.state_dir).map_err(io_error("reading the host's id"))?;

    // An operator's mistake is refused before the database is opened.
    let templates =
        Templates::load(config.paths.templates_dir.as_deref()).map_err(ControllerError::Templates)?;
    let recipes = Recipes::load(config.paths.templates_dir.as_deref()).map_err(ControllerError::Recipes)?;
    let tls = Tls::load(&config.tls)?;

    let store = open_store(&config).await?;
    let database_lock = store.lock(host).await?;

    store.age_statuses(host).await?;

    let events = EventBus::default();
    let (links, inbox) = Links::new(config.agents.clone());
    let Inbox { frames, hints: link_hints, late } = inbox;
    let (_watch, socket_hints) = SocketWatch::start(config.agents.socket_dir.clone());
    let redactor = config.redaction.redactor()?;
    let commands = Commands::new(
        config.commands.clone(),
        redactor.clone(),
        store.clone(),
        links.clone(),
        events.clone(),
    );
    let lost = commands.sweep().await?;
    if lost > 0 {
        tracing::warn!(lost, "commands of an earlier run have no outcome and are marked as lost");
    }
    let metrics = Metrics::new(
        config.metrics.clone(),
        config.agents.max_clock_skew,
        redactor,
        config.paths.state_dir.join("spool"),
        store.clone(),
        events.clone(),
    );
    let hypervisor = libvirt(&config).await;
    let accounts = Accounts::new(store.clone()).with_config(config.accounts.clone());
    if let Some(token) = accounts.offer_set_up().await? {
        tracing::warn!(
            token = token.expose_secret(),
            "there are no users: POST this token with a name, e-mail and password to /auth/setup; it is good \
             once, and until the next start"
        );
    }
    let images = Images::new(config.paths.images_dir.clone())
        .remembering(config.paths.state_dir.join("image-digests.json"))
        .await
        .only(|family| templates.has(family));
    let media = Media::new(
        host,
        config.media.clone(),
        config.media_dir(),
        config.paths.images_dir.clone(),
        store.clone(),
        images.clone(),
        |family| templates.has(family),
    );

    let (reconciler, waker) = Reconciler::new(Parts {
        hypervisor: hypervisor.clone(),
        store: Arc::new(HostStore::new(store.clone(), host)),
        links: Arc::new(links.clone()),
        files: Arc::new(
            HostFiles::new(
                config.paths.base_dir.clone(),
                config.guests.listen,
                &config.agents.socket_owners,
                recipes.clone(),
            )
            .sealing(config.agents.seal),
        ),
        clock: Arc::new(SystemClock),
        randomness: Arc::new(SystemRandomness),
        events: events.clone(),
        settings: Settings {
            seeds_dir,
            discs_dir: config.media_dir(),
            console_dir,
            socket_dir: config.agents.socket_dir.clone(),
            templates: templates.clone(),
        },
        config: config.reconcile.clone(),
        agents: config.agents.clone(),
        installs: config.installs.clone(),
        install_reports: config.guests.listen.is_some(),
        link_hints,
        socket_hints,
    });
    let lifecycle = Lifecycle::new(
        host,
        config.hypervisor.clone(),
        store.clone(),
        images.clone(),
        Installers { media: media.clone(), recipes, templates, base_dir: config.paths.base_dir.clone() },
        hypervisor.clone(),
        waker,
    );

    let lost = Arc::new({
        let metrics = metrics.clone();
        move || metrics.lost().counts
    });
    let alerts = Alerts::new(host, config.alerts.clone(), store.clone(), events.clone(), lost)?;

    let address = api_address(&config);
    let listener = TcpListener::bind(address).await.map_err(io_error(format!("listening on {address}")))?;
    let address = listener.local_addr().map_err(io_error("reading the API's address"))?;
    let context = ApiContext {
        host,
        config: config.api.clone(),
        store: store.clone(),
        lifecycle: lifecycle.clone(),
        commands: commands.clone(),
        metrics: metrics.clone(),
        links: {
            let links = links.clone();
            Arc::new(move |vm| links.observe(vm))
        },
        counters: {
            let links = links.clone();
            Arc::new(move |vm| links.counters(vm))
        },
        all_counters: {
            let links = links.clone();
            Arc::new(move || links.all_counters())
        },
        metrics_config: config.metrics.clone(),
        telemetry: telemetry.clone(),
        accounts,
        images: images.clone(),
        media: media.clone(),
        events,
        front: Front {
            http: config.http.clone(),
            tls: tls.clone(),
            draining,
            socket_dir: config.agents.socket_dir.clone(),
            base_dir: config.paths.base_dir.clone(),
        },
        hypervisor,
    };

    let mut parts = Supervised::default();
    let flush = CancellationToken::new();
    parts.spawn("the loop", reconciler.run(stop.clone()));
    parts.spawn("the API", serve_api(listener, context, stop.clone()));
    parts.spawn(
        "the certificate",
        keep_certificate(tls, config.tls.reload_interval, hang_ups()?, stop.clone()),
    );
    parts.spawn("the figures' upkeep", telemetry.upkeep(stop.clone()));
    parts.spawn("the alerts", alerts.run(stop.clone()));
    parts.spawn("the database's lock", keep_lock(database_lock, stop.clone()));
    parts.spawn("late answers", commands.clone().tend(late, stop.clone()));
    parts.spawn("expiry", expire(config.clone(), store.clone(), stop.clone()));
    parts.spawn("the importer", media.run(stop.clone()));
    parts.spawn("the images' check", check_images(images, stop.clone()));
    if let Some(guests) = config.guests.listen {
        let (base_dir, reports) = (config.paths.base_dir.clone(), Arc::new(lifecycle));
        parts.spawn("the guests' listener", serve_guests(guests, base_dir, reports, stop.clone()));
    }
    let mut readings = JoinSet::new();
    readings.spawn({
        let (metrics, flush) = (metrics.clone(), flush.clone());
        async move { metrics.run(frames, flush).await }
    });
    tracing::info!(%address, %host, uri = config.hypervisor.uri, "the controller serves");

    let ended = tokio::select! {
        // Told to stop, parts end: that is not unasked.
        biased;
        () = stop.cancelled() => None,
        part = parts.first_end() => Some(part),
        _ = readings.join_next() => Some("the readings"),
    };
    tracing::info!("stopping: no new work is taken");
    stop.cancel();
    let grace = config.reconcile.shutdown_grace;
    let deadline = tokio::time::Instant::now() + grace;
    let quiet = tokio::time::timeout_at(deadline, async {
        if !commands.drain(grace / 2).await {
            tracing::warn!("some commands have no answer yet; they end as disconnected");
        }
        // Ends what is still pending, and with it the requests that wait for it.
        links.shutdown(grace / 4).await;
        commands.drain(grace / 8).await;
    });
    let quiet = quiet.await.is_ok();
    flush.cancel();
    // A worker may sit in a libvirt call for longer than the grace: readings do not wait for it,
    // and are not cut off by it. What the database does not take goes to the disk.
    let flushed =
        tokio::time::timeout(READINGS_GRACE, async { while readings.join_next().await.is_some() {} });
    let (ends, flushed) = tokio::join!(tokio::time::timeout_at(deadline, parts.all_ends()), flushed);
    let closed = tokio::time::timeout_at(deadline, store.close()).await;
    if !quiet || ends.is_err() || flushed.is_err() || closed.is_err() {
        tracing::warn!(?grace, "not everything ended in time; the next start takes over from the database");
    }
    tracing::info!("stopped");
    ended.map_or(Ok(()), |part| Err(ControllerError::PartEnded(part)))
}

/// The connection is waited for a little, so that the first request does not find none; where
/// libvirt is away, the controller serves all the same and keeps trying.
async fn libvirt(config: &Config) -> Arc<dyn Hypervisor> {
    const PATIENCE: Duration = Duration::from_secs(5);
    let libvirt = LibvirtHypervisor::start(config.hypervisor.clone());
    if let Err(error) = libvirt.connected(PATIENCE).await {
        tracing::warn!(error = chain(&error), "the controller starts without libvirt");
    }
    Arc::new(libvirt)
}

/// Opens the database that the configuration names and brings it up to date.
///
/// # Errors
/// See [`StoreError`].
pub async fn open_store(config: &Config) -> Result<Store, StoreError> {
    let url = database_url(config.database.url.as_ref(), &config.paths.state_dir)?;
    let store =
        Store::open(url.expose_secret(), config.database.max_connections, config.database.acquire_timeout)
            .await?;
    store.migrate().await?;
    Ok(store)
}

/// The parts that must not end before they are told to.
#[derive(Default)]
struct Supervised {
    tasks: JoinSet<&'static str>,
}

impl Supervised {
    fn spawn(&mut self, name: &'static str, part: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(async move {
            // A panic in a part is caught here, so that its name is known.
            if let Err(error) = tokio::spawn(part).await {
                tracing::error!(part = name, %error, "a part died");
            }
            name
        });
    }

    async fn first_end(&mut self) -> &'static str {
        match self.tasks.join_next().await {
            Some(Ok(name)) => name,
            Some(Err(_)) | None => "a part",
        }
    }

    async fn all_ends(&mut self) {
        while self.tasks.join_next().await.is_some() {}
    }
}

fn api_address(config: &Config) -> SocketAddr {
    let host = config.api.host.parse().unwrap_or(std::net::Ipv4Addr::LOCALHOST.into());
    SocketAddr::new(host, config.api.port)
}

async fn serve_api(listener: TcpListener, context: ApiContext, stop: CancellationToken) {
    if let Err(error) = api::serve(listener, context, stop).await {
        tracing::error!(error = chain(&error), "the API's listener failed");
    }
}

/// The guests' network may come up after us: its address is tried again until it is there.
async fn serve_guests(
    address: SocketAddr,
    base_dir: std::path::PathBuf,
    reports: Arc<Lifecycle>,
    stop: CancellationToken,
) {
    const RETRY: Duration = Duration::from_secs(5);
    let mut told = false;
    let listener = loop {
        match TcpListener::bind(address).await {
            Ok(listener) => break listener,
            Err(error) if !told => {
                told = true;
                tracing::warn!(%address, %error, "the guests' listener has to wait for its address");
            }
            Err(_) => {}
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(RETRY) => {}
        }
    };
    tracing::info!(%address, "guests are served");
    if let Err(error) = api::serve_guests(listener, base_dir, reports, stop).await {
        tracing::error!(error = chain(&error), "the guests' listener failed");
    }
}

/// Keeps hold of the database's lock; ends when another controller has it.
async fn keep_lock(mut lock: StoreLock, stop: CancellationToken) {
    let mut ticker = tokio::time::interval(Duration::from_secs(15));
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticker.tick() => {}
        }
        match lock.hold().await {
            Ok(()) => {}
            Err(error @ StoreError::Locked { .. }) => {
                tracing::error!(error = chain(&error), "another controller took this host's database");
                return;
            }
            Err(error) => tracing::warn!(error = chain(&error), "the database's lock could not be checked"),
        }
    }
}

/// Reads new disks before somebody asks for a VM of one.
async fn check_images(images: Images, stop: CancellationToken) {
    tokio::select! {
        () = stop.cancelled() => return,
        () = images.check_all() => {}
    }
    // A part does not end before it is told to.
    stop.cancelled().await;
}

/// Removes what is older than it should be, once an hour.
async fn expire(config: Config, store: Store, stop: CancellationToken) {
    let mut ticker = tokio::time::interval(Duration::from_secs(3600));
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticker.tick() => {}
        }
        let now = chrono::Utc::now();
        let days = |days: u32| chrono::TimeDelta::days(i64::from(days));
        if let Err(error) = store.prepare_metrics(now).await {
            tracing::warn!(error = chain(&error), "no room could be made for the coming days' readings");
        }
        let metrics = &config.metrics;
        let readings = store.expire_metrics(now - days(metrics.retention_days)).await;
        let five_minutes =
            store.expire_rollups(Resolution::FiveMinutes, now - days(metrics.five_minutes_days)).await;
        let hours = store.expire_rollups(Resolution::Hour, now - days(metrics.hours_days)).await;
        let history = store.expire_history(now - days(config.database.history_days)).await;
        let sessions = store.remove_ended_sessions(now).await;
        for (what, result) in [
            ("sessions", sessions),
            ("readings", readings),
            ("roll-ups of five minutes", five_minutes),
            ("roll-ups of hours", hours),
            ("history", history),
        ] {
            match result {
                Ok(0) => {}
                Ok(removed) => tracing::info!(what, removed, "what is old was removed"),
                Err(error) => tracing::warn!(what, error = chain(&error), "what is old could not be removed"),
            }
        }
    }
}

/// The first signal says that the end comes, and brings it after `wait`; a second one does not wait.
fn stop_on_signals(
    draining: &CancellationToken,
    stop: &CancellationToken,
    wait: Duration,
) -> Result<(), ControllerError> {
    for kind in [SignalKind::terminate(), SignalKind::interrupt()] {
        let mut signal = tokio::signal::unix::signal(kind).map_err(io_error("listening for signals"))?;
        let (draining, stop) = (draining.clone(), stop.clone());
        tokio::spawn(async move {
            signal.recv().await;
            draining.cancel();
            if !wait.is_zero() {
                tracing::info!(?wait, "told to stop; requests are served a little longer");
            }
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                _ = signal.recv() => {}
            }
            stop.cancel();
        });
    }
    Ok(())
}

fn hang_ups() -> Result<Signal, ControllerError> {
    tokio::signal::unix::signal(SignalKind::hangup()).map_err(io_error("listening for signals"))
}

/// Shows a renewed certificate to those who connect from then on. Without one, SIGHUP does nothing.
async fn keep_certificate(tls: Option<Tls>, every: Duration, mut hang_ups: Signal, stop: CancellationToken) {
    let mut ticker = tokio::time::interval(every);
    ticker.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticker.tick() => {}
            _ = hang_ups.recv() => {}
        }
        let Some(tls) = tls.clone() else { continue };
        if let Err(error) = tokio::task::spawn_blocking(move || tls.look_again()).await {
            tracing::error!(%error, "looking at the certificate failed");
        }
    }
}

/// Makes a directory of ours; one that is there already keeps its mode and owner.
fn make_dir(path: &Path, mode: u32) -> Result<(), ControllerError> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(mode)
        .create(path)
        .map_err(io_error(format!("making the directory {}", path.display())))
}
