//! Configuration: one struct per concern, read once at start, checked whole.
//!
//! Values come from `infinibay.toml` and, over it, from the environment: every key also as
//! `INFINIBAY__SECTION__KEY`, and four names of their own that front ends and scripts have long
//! used: `DATABASE_URL`, `APP_HOST`, `PORT` and `INFINIBAY_BASE_DIR`. A person who made three
//! mistakes is told all three, each with its key ([`ConfigErrors`]).
//!
//! Each section is declared once, below: the declaration is at the same time the struct, its
//! defaults, its reader and the reference that `infinibayd config keys` prints.

mod doors;
mod load;
mod media;
mod rules;
mod section;
mod value;
mod webhook;

pub use doors::{HttpConfig, Origins, ProxyHeader, TlsConfig};
pub use load::{Config, ConfigError, ConfigErrors, Sources};
pub use media::{Directories, Networks};
pub use section::KeyDoc;
pub use webhook::{WebhookMistake, WebhookTarget};

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use secrecy::SecretString;
use section::section;

section! {
    /// Where things are kept.
    PathsConfig "paths" {
        /// State that must survive: the SQLite database, seeds, console logs, the lock.
        state_dir: PathBuf = "/var/lib/infinibay",
        /// Root of `infiniservice/binaries/<platform>/` and `infiniservice/install/`: the agent
        /// that is put into guests (also `INFINIBAY_BASE_DIR`).
        base_dir: PathBuf = "/usr/share/infinibay",
        /// The image library: one directory per image, each with a `manifest.toml`.
        images_dir: PathBuf = "/var/lib/infinibay/images",
        /// Templates that replace the built-in ones: `linux.xml` and `windows.xml` for domains,
        /// `unattended/` for installs; empty: none. A broken one keeps the daemon from starting.
        templates_dir: Option<PathBuf> = "",
    }
}

section! {
    /// The database.
    DatabaseConfig "database" {
        /// `postgres://…`, or `sqlite:PATH`; empty: `infinibay.db` in the state directory (also
        /// `DATABASE_URL`).
        url: Option<SecretString> = "",
        /// Connections kept at most.
        max_connections: u32 = "10" in 1..=1000,
        /// How long a request waits for a connection.
        acquire_timeout: Duration = "10s" in 1..=300,
        /// Days that command logs, guest errors and the audit log are kept, and after its deletion
        /// a VM's operations, by which its owner still finds the rest of its history.
        history_days: u32 = "90" in 1..=3650,
    }
}

section! {
    /// The API for people and front ends.
    ApiConfig "api" {
        /// Address to listen on; loopback unless told otherwise (also `APP_HOST`).
        host: String = "127.0.0.1",
        /// Port to listen on; 0 lets the system choose (also `PORT`).
        port: u16 = "4000" in 0..=65535,
        /// Deepest nesting of one GraphQL query.
        max_query_depth: u32 = "16" in 4..=64,
        /// Highest complexity of one GraphQL query, in fields.
        max_query_complexity: u32 = "2000" in 50..=100000,
        /// Most aliases of one GraphQL query, with its fragments put in place.
        max_query_aliases: u32 = "100" in 1..=10000,
        /// Most fields of the root that one GraphQL query asks for: each is a request of its own.
        max_root_fields: u32 = "50" in 1..=10000,
        /// Whether the API tells its schema to those with a token, as GraphiQL and generators ask for it.
        introspection: bool = "true",
        /// Largest request body, bytes.
        max_body_bytes: u32 = "1048576" in 1024..=16777216,
        /// How long one request may take; commands with longer timeouts extend it.
        request_timeout: Duration = "60s" in 1..=3600,
        /// How often a subscriber's right to listen is looked at again.
        recheck_interval: Duration = "30s" in 1..=3600,
        /// How often whoever holds a WebSocket or a socket of Socket.IO is asked whether he lives; who
        /// has said nothing for two and a half times that is gone.
        ping_interval: Duration = "20s" in 1..=20,
        /// WebSocket connections open at once, those of Socket.IO included.
        max_websockets: u32 = "256" in 1..=100000,
    }
}

section! {
    /// People who sign in.
    AccountsConfig "accounts" {
        /// How long an access token is good for.
        access_time: Duration = "15m" in 1..=86400,
        /// How long a refresh token waits to be exchanged.
        refresh_time: Duration = "720h" in 600..=31536000,
        /// How long one sign-in lasts, however often it is refreshed.
        session_time: Duration = "2160h" in 600..=63072000,
    }
}

section! {
    /// The listener for guests: downloads of the agent, nothing secret; and reports of installers.
    GuestsConfig "guests" {
        /// This host's address on the guests' network, and a port; guests are told this very
        /// address. Empty: no listener.
        listen: Option<SocketAddr> = "",
    }
}

section! {
    /// libvirt.
    HypervisorConfig "hypervisor" {
        /// Any libvirt URI; `test:///default` needs no hypervisor at all.
        uri: String = "qemu:///system",
        /// `auto` uses KVM where it truly works and emulation elsewhere; `kvm` and `qemu` force.
        domain_type: DomainTypeSetting = "auto",
        /// How long one libvirt call is waited for.
        call_timeout: Duration = "30s" in 1..=600,
        /// libvirt calls in flight at once.
        max_calls: u32 = "8" in 1..=256,
        /// How long to wait before connecting again; doubles up to 30 s.
        reconnect_delay: Duration = "1s" in 1..=30,
        /// Whether VMs may ask for QEMU's user-mode network, which lets a guest reach this
        /// host's loopback. For tests.
        allow_user_network: bool = "false",
        /// The pool for disks when a request names none.
        default_pool: String = "default",
        /// The network when a request names none.
        default_network: String = "default",
    }
}

section! {
    /// Guest links.
    AgentsConfig "agents" {
        /// Directory of the channels' sockets, `vm-<uuid>.sock`.
        socket_dir: PathBuf = "/tmp",
        /// Users, by name or number and separated by commas, that a socket may belong to besides
        /// root and ourselves. Names that this host does not have are ignored.
        socket_owners: String = "libvirt-qemu,qemu",
        /// Silence in a running domain after which the agent counts as offline.
        offline_after: Duration = "60s" in 2..=3600,
        /// How often silence is looked for.
        liveness_interval: Duration = "30s" in 1..=600,
        /// First wait before a broken link is opened again, at least; the first attempt is made at
        /// once. It doubles with each connection over which nothing was heard.
        reconnect_base: Duration = "1s" in 1..=60,
        /// Longest wait between attempts. A socket that is made anew is not waited for so long.
        reconnect_max: Duration = "60s" in 1..=3600,
        /// Longest line a guest may send, bytes. A reading of more than 256 KiB is dropped all the
        /// same, and counted as too large.
        max_frame_bytes: u32 = "1048576" in 4096..=16777216,
        /// Links open at once. Where there are as many, a new one takes the place of the one that was
        /// heard least recently and has no pending command.
        max_links: u32 = "1000" in 1..=10000,
        /// Frames a link may deliver per second, on average; excess is dropped and counted.
        max_frames_per_second: u32 = "50" in 1..=10000,
        /// A guest clock further off than this has its metrics refused.
        max_clock_skew: Duration = "5m" in 1..=86400,
        /// Signed envelopes between a VM that was given a key and the controller: `off` makes and opens
        /// none, `accept` uses them with agents that can, `require` refuses agents of such VMs that
        /// speak without.
        seal: SealPolicy = "accept",
    }
}

section! {
    /// Readings of the guests.
    MetricsConfig "metrics" {
        /// How often buffered readings are stored.
        flush_interval: Duration = "10s" in 1..=300,
        /// Store earlier when this many are buffered. One that is behind stores up to 2,000 at
        /// once, also where this is less.
        flush_rows: u32 = "500" in 1..=100000,
        /// Readings in memory at most, and 64 MiB of them besides; the oldest go when it is full.
        /// While the database is away they go to the disk, and stay here only where it takes none.
        buffer_rows: u32 = "20000" in 100..=1000000,
        /// Days that readings are kept.
        retention_days: u32 = "30" in 1..=3650,
        /// Days that the roll-ups of five minutes are kept.
        five_minutes_days: u32 = "90" in 1..=3650,
        /// Days that the hourly roll-ups are kept.
        hours_days: u32 = "730" in 1..=3650,
        /// What may wait on disk, in the state directory, while the database is away, bytes; the
        /// oldest go when it is full.
        spool_max_bytes: u32 = "1073741824" in 1048576..=4294967295,
    }
}

section! {
    /// Commands for guests.
    CommandsConfig "commands" {
        /// Commands per VM at most, those that run counted with those that wait. Three quarters
        /// of it, rounded up, for one requester.
        queue_per_vm: u32 = "32" in 1..=10000,
        /// Commands for all VMs together at most, those that run counted with those that wait.
        queue_total: u32 = "4096" in 1..=100000,
        /// VMs that one `executeVmCommands` may name.
        max_vms_at_once: u32 = "1000" in 1..=10000,
        /// Longest timeout that may be asked for.
        max_timeout: Duration = "1h" in 1..=86400,
        /// Longest stored standard output, and standard error, of one command, bytes.
        max_output_bytes: u32 = "262144" in 1024..=1048576,
    }
}

section! {
    /// What operators are told without asking.
    AlertsConfig "alerts" {
        /// Where alerts are sent, as `POST` with a JSON body: an http or https URL; empty: nowhere
        /// but the log.
        webhook_url: Option<SecretString> = "",
        /// The key that each delivery is signed with (Standard Webhooks, `v1`), `whsec_` and
        /// base64, 24 to 64 bytes; needed with `webhook_url`.
        webhook_secret: Option<SecretString> = "",
        /// How long one delivery may take.
        webhook_timeout: Duration = "10s" in 1..=120,
        /// Deliveries per minute at most, to the webhook or else to the log; what is more waits its
        /// turn.
        max_per_minute: u32 = "30" in 1..=6000,
        /// An alert that goes on is told again after this time, not sooner.
        repeat_after: Duration = "4h" in 60..=604800,
        /// How long a delivery that fails is tried again.
        give_up_after: Duration = "24h" in 60..=604800,
        /// How long a VM that should be heard may be offline before it is an alert; and how long
        /// whatever was wrong must be right again before its alert ends.
        offline_for: Duration = "2m" in 1..=86400,
    }
}

section! {
    /// What counts as a secret in command lines, besides the built-in rules.
    RedactionConfig "redaction" {
        /// Names of variables, flags and fields whose values are hidden, separated by commas; in any
        /// case, and only as whole names.
        names: Option<String> = "",
        /// Flags followed by a secret, as `program -flag`, separated by commas. What a flag of one
        /// letter is attached to is hidden too.
        flags: Option<String> = "",
        /// Regular expressions, one per line, without look-around; what their first group matches is
        /// hidden, or all of the match where there is no group. They read the line as the built-in
        /// rules left it.
        patterns: Option<String> = "",
    }
}

section! {
    /// Bringing in disks and installation discs.
    MediaConfig "media" {
        /// Where installation discs are kept; empty: `media` in the state directory.
        dir: Option<PathBuf> = "",
        /// Directories of this host that admins may import files from, separated by commas; empty:
        /// none. Nothing outside is reached, by no link.
        import_dirs: Directories = "",
        /// Addresses and networks, separated by commas, that a URL may lead to although they are
        /// loopback, private, link-local or otherwise not of the open Internet.
        allow_addresses: Networks = "",
        /// The largest file that is brought in, bytes.
        max_bytes: u64 = "68719476736" in 65536..=70368744177664,
        /// What an import leaves free on the file system, bytes.
        reserve_bytes: u64 = "1073741824" in 0..=70368744177664,
        /// Imports under way at once.
        max_parallel: u32 = "2" in 1..=16,
        /// Imports that wait or are under way.
        max_open: u32 = "100" in 1..=1000,
        /// An attempt that brings less than `min_bytes_per_second` on average over this time is
        /// broken off.
        stall_timeout: Duration = "60s" in 1..=3600,
        /// See `stall_timeout`.
        min_bytes_per_second: u32 = "16384" in 1..=1073741824,
        /// How long an import may take, attempts and waits included.
        max_duration: Duration = "24h" in 5..=604800,
        /// Attempts that may fail one after another, each bringing less than 1 MiB.
        max_attempts: u32 = "5" in 1..=100,
    }
}

section! {
    /// The loop.
    ReconcileConfig "reconcile" {
        /// How often everything is looked at.
        scan_interval: Duration = "30s" in 1..=600,
        /// How often the storage pools of the VMs are looked through, for disks that are missing and
        /// pools that run full.
        storage_interval: Duration = "5m" in 10..=86400,
        /// How long a guest is given to power off when asked, before its plug is pulled.
        stop_grace: Duration = "90s" in 1..=3600,
        /// How long a guest is given to boot anew when asked, before it is reset.
        reboot_grace: Duration = "60s" in 1..=600,
        /// How long a domain may be gone, without anybody having asked, before it is `Missing`.
        missing_grace: Duration = "15s" in 1..=600,
        /// How long a first boot may take before it counts as stuck.
        install_budget: Duration = "30m" in 10..=86400,
        /// First wait after a failed step; doubles up to `retry_max`.
        retry_base: Duration = "1s" in 1..=60,
        /// Longest wait after a failed step.
        retry_max: Duration = "60s" in 1..=3600,
        /// VMs worked on at once.
        max_parallel: u32 = "8" in 1..=256,
        /// How long a graceful stop of the daemon may take.
        shutdown_grace: Duration = "10s" in 1..=300,
    }
}

section! {
    /// Systems that are installed from a disc.
    InstallsConfig "installs" {
        /// How long an installer may show nothing new (no stage, no line of its console, nothing
        /// written to its disk) before it counts as stuck.
        stall_timeout: Duration = "15m" in 10..=86400,
        /// How long Ubuntu's installer may take.
        ubuntu_budget: Duration = "3h" in 10..=604800,
        /// How long Debian's installer may take.
        debian_budget: Duration = "3h" in 10..=604800,
        /// How long the installer of Fedora, RHEL and their relatives may take.
        redhat_budget: Duration = "3h" in 10..=604800,
        /// How long Windows' installer may take.
        windows_budget: Duration = "6h" in 10..=604800,
    }
}

section! {
    /// What the daemon says about itself.
    LogConfig "log" {
        /// A filter in the syntax of tracing's `EnvFilter`.
        filter: String = "info",
        /// `auto` is human on a terminal and JSON otherwise; `human` and `json` force.
        format: LogFormat = "auto",
    }
}

/// How a new domain's type is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DomainTypeSetting {
    /// KVM where it truly works, else emulation.
    Auto,
    /// Always KVM.
    Kvm,
    /// Always emulation.
    Qemu,
}

/// What signed envelopes are worth. VMs without a key are not touched by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SealPolicy {
    /// None is made or opened.
    Off,
    /// They are used with agents that can; others speak without.
    Accept,
    /// Agents of VMs that have a key are refused without.
    Require,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// By what standard error is.
    Auto,
    /// For eyes.
    Human,
    /// For machines.
    Json,
}
