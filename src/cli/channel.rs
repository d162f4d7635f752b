//! `infinibayd channel`: the agent channel of domains that exist already, without the daemon.
//! It talks to libvirt directly, so that a host can be prepared before the first start, and be
//! left as it was after the last.

mod report;

use std::{
    io::{Read, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, bail};
use clap::{Args, Subcommand};

use self::report::Row;
pub(in crate::cli) use self::report::printable;
use crate::{
    config::{Config, HypervisorConfig},
    domain_xml::inject_channel,
    hypervisor::{
        HostObservation, Hypervisor,
        libvirt::{ChannelChange, LibvirtHypervisor},
    },
    vm::VmId,
};

/// Longest domain XML that `inject` reads, bytes: far beyond any real one.
const MAX_XML_BYTES: u64 = 16 << 20;

/// Show, add or remove the agent's channel of existing domains.
#[derive(Debug, Args)]
pub struct ChannelArgs {
    #[command(subcommand)]
    command: ChannelCommand,
}

#[derive(Debug, Subcommand)]
enum ChannelCommand {
    /// Show which domains have the channel.
    List {
        #[command(flatten)]
        connection: Connection,
        /// Names or UUIDs; all domains when none are given.
        domains: Vec<String>,
        /// Every domain of the host, as without names.
        #[arg(long, conflicts_with = "domains")]
        all: bool,
        /// Print JSON, one array.
        #[arg(long)]
        json: bool,
    },
    /// Give domains the channel: in their configuration, and at once where they run and the
    /// hypervisor can. Doing it twice does no harm.
    Add {
        #[command(flatten)]
        connection: Connection,
        #[command(flatten)]
        selection: Selection,
        #[command(flatten)]
        sockets: Sockets,
    },
    /// Take the channel from domains. Doing it twice does no harm.
    Remove {
        #[command(flatten)]
        connection: Connection,
        #[command(flatten)]
        selection: Selection,
    },
    /// Put the channel into the domain XML on standard input and print the result. Needs no
    /// libvirt.
    Inject {
        /// The domain's UUID.
        #[arg(long)]
        id: uuid::Uuid,
        #[command(flatten)]
        sockets: Sockets,
    },
}

#[derive(Debug, Args)]
struct Connection {
    /// The libvirt URI; that of the configuration when absent.
    #[arg(long, value_name = "URI")]
    connect: Option<String>,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Selection {
    /// Names or UUIDs.
    domains: Vec<String>,
    /// Every domain of the host.
    #[arg(long)]
    all: bool,
}

#[derive(Debug, Args)]
struct Sockets {
    /// The directory of the sockets; that of the configuration when absent.
    #[arg(long, value_name = "DIR")]
    socket_dir: Option<PathBuf>,
}

impl Sockets {
    fn path(&self, config: &Config, id: VmId) -> PathBuf {
        self.socket_dir.as_deref().unwrap_or(&config.agents.socket_dir).join(id.socket_name())
    }
}

/// Runs the subcommand, with its output on standard output. Fails with a code, not an error, if
/// it could be done for some domains and not for others.
///
/// # Errors
/// If nothing could be done: no connection, unreadable input.
pub async fn run(args: ChannelArgs, config: &Config) -> anyhow::Result<ExitCode> {
    run_to(args, config, std::io::stdin(), std::io::stdout()).await
}

/// The same, with other ends.
///
/// # Errors
/// As with [`run`].
pub async fn run_to(
    args: ChannelArgs,
    config: &Config,
    input: impl Read,
    mut out: impl Write,
) -> anyhow::Result<ExitCode> {
    match args.command {
        ChannelCommand::Inject { id, sockets } => {
            let id = VmId(id);
            inject(input, out, id, &sockets.path(config, id))?;
            Ok(ExitCode::SUCCESS)
        }
        ChannelCommand::List { connection, domains, all, json } => {
            let (_hypervisor, seen) = look(config, connection).await?;
            let all = all || domains.is_empty();
            let (chosen, unknown) = choose(&seen, &domains, all);
            let rows: Vec<Row> = chosen.iter().map(|id| Row::new(*id, &seen.domains[id])).collect();
            if json {
                report::json(&mut out, &rows)?
            } else {
                report::table(&mut out, &rows)?
            }
            Ok(report_unknown(&unknown))
        }
        ChannelCommand::Add { connection, selection, sockets } => {
            let (hypervisor, seen) = look(config, connection).await?;
            let change = async |id| hypervisor.add_channel(id, sockets.path(config, id)).await;
            change_each(&seen, &selection, &mut out, "added", change).await
        }
        ChannelCommand::Remove { connection, selection } => {
            let (hypervisor, seen) = look(config, connection).await?;
            let change = async |id| hypervisor.remove_channel(id).await;
            change_each(&seen, &selection, &mut out, "removed", change).await
        }
    }
}

/// Reads and writes without giving way: there is nothing else for this process to do.
fn inject(input: impl Read, mut out: impl Write, id: VmId, socket: &Path) -> anyhow::Result<()> {
    let mut xml = String::new();
    input.take(MAX_XML_BYTES + 1).read_to_string(&mut xml).context("read the domain XML")?;
    if u64::try_from(xml.len()).unwrap_or(u64::MAX) > MAX_XML_BYTES {
        bail!("the domain XML is longer than {MAX_XML_BYTES} bytes");
    }
    let injected = inject_channel(&xml, id, socket)?;
    out.write_all(injected.xml.as_bytes()).and_then(|()| out.flush()).context("write the domain XML")
}

async fn look(
    config: &Config,
    connection: Connection,
) -> anyhow::Result<(LibvirtHypervisor, HostObservation)> {
    let uri = connection.connect.unwrap_or_else(|| config.hypervisor.uri.clone());
    let config = HypervisorConfig { uri, ..config.hypervisor.clone() };
    let limit = config.call_timeout;
    let hypervisor = LibvirtHypervisor::start(config);
    hypervisor.connected(limit).await?;
    let seen = hypervisor.observe_all().await?;
    Ok((hypervisor, seen))
}

/// The domains that were named, by name, and the names that fit none.
pub(super) fn choose<'a>(
    seen: &HostObservation,
    wanted: &'a [String],
    all: bool,
) -> (Vec<VmId>, Vec<&'a str>) {
    let mut unknown = Vec::new();
    let mut chosen: Vec<VmId> = if all { seen.domains.keys().copied().collect() } else { Vec::new() };
    for wanted in wanted {
        // A name before a UUID: libvirt lets a domain be named like another's UUID.
        let named = seen.domains.iter().find(|(_, facts)| facts.name == *wanted).map(|(id, _)| *id);
        let found = named.or_else(|| wanted.parse().ok().filter(|id| seen.domains.contains_key(id)));
        match found {
            Some(id) if !chosen.contains(&id) => chosen.push(id),
            Some(_) => {}
            None => unknown.push(wanted.as_str()),
        }
    }
    if all {
        chosen.sort_by(|a, b| seen.domains[a].name.cmp(&seen.domains[b].name));
    }
    (chosen, unknown)
}

fn report_unknown(unknown: &[&str]) -> ExitCode {
    for name in unknown {
        eprintln!("{}: there is no such domain", printable(name));
    }
    if unknown.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Changes one domain after the other, and says of each what came of it.
async fn change_each<E: std::error::Error + Send + Sync + 'static>(
    seen: &HostObservation,
    selection: &Selection,
    out: &mut impl Write,
    verb: &str,
    change: impl AsyncFn(VmId) -> Result<ChannelChange, E>,
) -> anyhow::Result<ExitCode> {
    let (chosen, unknown) = choose(seen, &selection.domains, selection.all);
    let mut code = report_unknown(&unknown);
    for id in chosen {
        let name = printable(&seen.domains[&id].name);
        match change(id).await {
            Ok(change) => {
                writeln!(out, "{name}: {}", report::outcome(&change, verb))?;
                if report::nothing_done(&change) {
                    code = ExitCode::FAILURE;
                }
            }
            Err(error) => {
                eprintln!("{name}: {}", printable(&format!("{:#}", anyhow::Error::new(error))));
                code = ExitCode::FAILURE;
            }
        }
    }
    out.flush()?;
    Ok(code)
}
