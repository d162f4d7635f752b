//! `infinibayd db rebuild`: VMs back from the domains that carry them, after the database was lost.

mod discs;

use std::{collections::HashSet, io::Write};

use anyhow::{Context, bail};
use chrono::Utc;
use clap::Args;

use super::{
    channel::{choose, printable},
    exclusive::{Exclusive, open_exclusive},
};
use crate::{
    access::Role,
    accounts::is_user_name,
    config::{Config, HypervisorConfig},
    failpoint::failpoint,
    hypervisor::{Hypervisor, Identity, libvirt::LibvirtHypervisor},
    lifecycle::{NotedOwner, Places, noted_host, noted_vm, with_devices},
    store::{StoreError, UserRecord},
    vm::{ResourceName, UserId, VmId, chain, truncate_to_micros},
};

/// Whose the VMs become, and where their domains are.
#[derive(Debug, Args)]
pub struct RebuildArgs {
    /// Names or UUIDs; all domains that carry metadata of ours when none are given.
    domains: Vec<String>,
    /// The user whom all restored VMs are given to; otherwise each gets the owner that its domain
    /// names, who is made (without a token) where he is missing.
    #[arg(long, value_name = "NAME")]
    owner: Option<String>,
    /// The libvirt URI; that of the configuration when absent.
    #[arg(long, value_name = "URI")]
    connect: Option<String>,
}

/// What became of one domain.
enum Outcome {
    Restored(String),
    /// It is fine as it is.
    Left(&'static str),
    /// It carries our metadata, and could not be restored.
    Broken(String),
}

/// Runs it, and says of each domain that carries our metadata what was done.
///
/// # Errors
/// Nothing could be done; or some could not be restored, after all others were.
pub async fn run(args: RebuildArgs, config: &Config, out: impl Write) -> anyhow::Result<()> {
    let database = open_exclusive(config).await?;
    let done = rebuild(args, config, &database, out).await;
    database.store.close().await;
    done
}

async fn rebuild(
    args: RebuildArgs,
    config: &Config,
    database: &Exclusive,
    mut out: impl Write,
) -> anyhow::Result<()> {
    database.store.migrate().await?;
    failpoint!("rebuild.migrated");
    let heir =
        match args.owner {
            None => None,
            Some(name) => {
                let user = database.store.user_named(&name).await?;
                Some(user.with_context(|| {
                    format!("there is no user {name:?}; make him with `infinibayd user add`")
                })?)
            }
        };
    let uri = args.connect.unwrap_or_else(|| config.hypervisor.uri.clone());
    let settings = HypervisorConfig { uri, ..config.hypervisor.clone() };
    let limit = settings.call_timeout;
    let hypervisor = LibvirtHypervisor::start(settings);
    hypervisor.connected(limit).await?;
    let seen = hypervisor.observe_all().await?;
    let (chosen, unknown) = choose(&seen, &args.domains, args.domains.is_empty());
    if let Some(unknown) = unknown.first() {
        bail!("there is no domain {unknown:?}");
    }
    let library = discs::restore(config, database, &mut out).await?;
    let known = database.store.known_vms(&chosen).await?;
    let named = !args.domains.is_empty();
    let (mut restored, mut broken) = (0, 0);
    for id in chosen {
        let name = &seen.domains[&id].name;
        let restoring = restore(config, database, &hypervisor, heir.as_ref(), &library, (id, named));
        let outcome =
            if known.contains(&id) { Some(Outcome::Left("is there already")) } else { restoring.await? };
        let words = match outcome {
            None => continue,
            Some(Outcome::Restored(words)) => {
                restored += 1;
                words
            }
            Some(Outcome::Left(words)) => words.to_owned(),
            Some(Outcome::Broken(why)) => {
                broken += 1;
                format!("skipped: {why}")
            }
        };
        // A domain's name and its metadata are anybody's words.
        writeln!(out, "{}", printable(&format!("{name} ({id}): {words}")))?;
    }
    writeln!(out, "{restored} restored, {broken} could not be")?;
    out.flush()?;
    if broken > 0 {
        bail!("{broken} domain(s) carry metadata of ours and could not be restored; see above");
    }
    Ok(())
}

/// One domain, `named` by who asks or not; `None` if it is no business of ours.
///
/// # Errors
/// The database failed: nothing else can be done either.
async fn restore(
    config: &Config,
    database: &Exclusive,
    hypervisor: &LibvirtHypervisor,
    heir: Option<&UserRecord>,
    library: &HashSet<ResourceName>,
    (id, named): (VmId, bool),
) -> anyhow::Result<Option<Outcome>> {
    let described = match hypervisor.describe(id).await {
        Ok(described) => described,
        Err(error) => return Ok(Some(Outcome::Broken(chain(&error)))),
    };
    let Some(domain) = described else { return Ok(None) };
    let Some(note) = &domain.note else { return Ok(None) };
    if note.id != Some(id) {
        return Ok(Some(Outcome::Left("is a copy of another VM, and not ours")));
    }
    // Two controllers may share a libvirt: what the other one made is not ours to take unasked, nor to
    // judge, with files in places that are not ours.
    if !named && noted_host(note).is_some_and(|host| host != database.host) {
        return Ok(Some(Outcome::Left(
            "is another controller's, or this one lost its state directory; name it to have it restored here",
        )));
    }
    let state = &config.paths.state_dir;
    let (seeds_dir, console_dir, discs_dir) =
        (state.join("seeds"), state.join("console"), config.media_dir());
    let places = Places { seeds_dir: &seeds_dir, console_dir: &console_dir, discs_dir: &discs_dir };
    let now = truncate_to_micros(Utc::now());
    let (found, owner) = match noted_vm(id, &domain, note, database.host, places, now) {
        Ok(checked) => checked,
        Err(why) => return Ok(Some(Outcome::Broken(why))),
    };
    let mut found = match with_devices(hypervisor, found, places, library).await {
        Ok(Ok(found)) => found,
        Ok(Err(why)) => return Ok(Some(Outcome::Broken(why))),
        Err(error) => return Ok(Some(Outcome::Broken(chain(&error)))),
    };
    let owner = match heir {
        Some(heir) => heir.clone(),
        None => match owner_of(database, &owner).await? {
            Ok(owner) => owner,
            Err(why) => return Ok(Some(Outcome::Broken(why))),
        },
    };
    found.vm.owner = owner.id;
    match database.store.restore_vm(&found, now).await {
        Ok(()) => failpoint!("rebuild.restored"),
        Err(StoreError::IdTaken) => return Ok(Some(Outcome::Left("is there already"))),
        Err(StoreError::NameTaken) => {
            return Ok(Some(Outcome::Broken("another VM of this host has its name".to_owned())));
        }
        Err(error) => return Err(error.into()),
    }
    let kind = if found.vm.spec.is_adopted() { "adopted VM" } else { "VM" };
    let words = format!("restored, {kind} of {}, {} thing(s) made for it", owner.name, found.resources.len());
    Ok(Some(Outcome::Restored(words)))
}

/// The noted owner: by id, else by name, else made anew, without a token.
async fn owner_of(database: &Exclusive, noted: &NotedOwner) -> anyhow::Result<Result<UserRecord, String>> {
    let store = &database.store;
    if let Some(user) = store.user(noted.id).await? {
        return Ok(Ok(user));
    }
    if !is_user_name(&noted.name) {
        return Ok(Err("it names no owner; say whose it becomes with --owner".to_owned()));
    }
    if let Some(user) = store.user_named(&noted.name).await? {
        return Ok(Ok(user));
    }
    let user = UserRecord {
        id: UserId(noted.id.uuid()),
        name: noted.name.clone(),
        email: None,
        has_password: false,
        role: Role::Member,
        permissions: Vec::new(),
        disabled: false,
        created_at: truncate_to_micros(Utc::now()),
    };
    store.add_user(&user).await?;
    failpoint!("rebuild.owned");
    Ok(Ok(user))
}
