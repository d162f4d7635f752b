//! Says a few bytes and hangs up, at once ready for the next client; now and then its socket goes
//! and comes.

use std::io;

use rand::Rng as _;
use tokio::net::UnixStream;

use crate::{guest::Guest, report::add};

/// One in so many.
const REBIND_IN: u32 = 5;

pub(super) async fn serve(guest: &mut Guest, stream: &UnixStream) -> io::Result<()> {
    stream.writable().await?;
    let bytes = guest.random.random_range(0..24);
    if bytes > 0 {
        add(&guest.counters.bytes_sent, stream.try_write(&br#"{"type":"handshake","timestamp""#[..bytes])?);
    }
    if guest.random.random_ratio(1, REBIND_IN) {
        guest.rebind()?;
    }
    Ok(())
}
