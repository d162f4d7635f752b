//! The library's discs, before the VMs that may have them in their drives.

use std::{collections::HashSet, io::Write};

use super::{Config, Exclusive, printable};
use crate::{
    media::find_discs,
    store::Page,
    vm::{MediumKind, ResourceName},
};

/// Takes up the discs that have no row, says so of each, and gives the names of all that are ready.
pub(super) async fn restore(
    config: &Config,
    database: &Exclusive,
    out: &mut impl Write,
) -> anyhow::Result<HashSet<ResourceName>> {
    let (store, host) = (&database.store, database.host);
    for (name, taken) in find_discs(store, host, &config.media_dir()).await? {
        let words = match taken {
            Ok(()) => format!("disc {name}: in the library again"),
            Err(why) => format!("disc {name}: left where it is: {why}"),
        };
        writeln!(out, "{}", printable(&words))?;
    }
    let mut names = HashSet::new();
    let mut page = Page { first: u32::MAX, after: None };
    loop {
        let media = store.media(host, true, page).await?;
        page.after = media.nodes.last().map(|medium| medium.id.uuid());
        let discs = media.nodes.into_iter().filter(|medium| medium.kind == MediumKind::Installation);
        names.extend(discs.map(|medium| medium.name));
        if !media.has_next {
            return Ok(names);
        }
    }
}
