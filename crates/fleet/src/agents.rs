//! The agents behind the sockets: one file per temper.

mod deaf;
mod dripping;
mod flooding;
mod liar;
mod quirky;
mod storm;
mod well_behaved;

use std::io;

use tokio::{net::UnixStream, time::Instant};

use crate::{Kind, guest::Guest};

/// Bytes read at once.
const READ: usize = 16 << 10;

/// Serves one client until it leaves.
pub(crate) async fn serve(guest: &mut Guest, stream: &UnixStream) -> io::Result<()> {
    match guest.plan.kind {
        Kind::WellBehaved => well_behaved::serve(guest, stream).await,
        Kind::Quirky => quirky::serve(guest, stream).await,
        Kind::Flooding => flooding::serve(guest, stream).await,
        Kind::SlowDripping => dripping::serve(guest, stream).await,
        Kind::Silent => silent(guest, stream).await,
        Kind::NeverReading => deaf::serve(guest, stream).await,
        Kind::Storm => storm::serve(guest, stream).await,
        Kind::Liar => liar::serve(guest, stream).await,
    }
}

/// Takes what comes, and says nothing.
async fn silent(guest: &Guest, stream: &UnixStream) -> io::Result<()> {
    loop {
        stream.readable().await?;
        guest.read(stream, &mut [0; READ])?;
    }
}

/// Waits until then; for ever where there is no then.
async fn until(then: Option<Instant>) {
    match then {
        Some(then) => tokio::time::sleep_until(then).await,
        None => std::future::pending().await,
    }
}
