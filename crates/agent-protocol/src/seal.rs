//! The seal: messages in signed envelopes, so that neither end takes for the other's word what it
//! did not say, or said before.
//!
//! An envelope is a line `{"type":"signed","v":1,"ts":…,"nonce":"…","payload":"…","sig":"…"}`. The
//! signature is HMAC-SHA256 under the VM's [`SealKey`] over `v`, `ts`, `nonce` and `payload`, joined
//! by line feeds. That alone proves who wrote it, not when. Clocks of guests are wrong too often to be
//! believed, so each end begins by asking the other a question that nobody could have recorded an answer
//! to ([`Handshake::seal`](crate::Handshake), [`HostMessage::Seal`](crate::HostMessage)): the envelope
//! that answers it is fresh whatever its `ts` says, and tells how far the other's clock is off. From
//! then on a [`SealWindow`] admits what is within five minutes of that clock, is not older than the
//! answer, and was not admitted before.
//!
//! Pure: the caller brings the time and the nonces.

use std::{collections::BTreeSet, fmt};

use hmac::{Hmac, Mac as _};
use sha2::Sha256;
use uuid::Uuid;

use crate::{MAX_FRAME_BYTES, Signed};

/// How far an envelope's time may be from the other end's clock, milliseconds.
pub const SEAL_WINDOW_MS: i64 = 300_000;

/// What an envelope adds to its payload at most, beside the payload's own escapes.
pub const SEAL_OVERHEAD_BYTES: usize = 192;

/// Envelopes that a [`SealWindow`] remembers. Older ones are refused by their time.
pub const SEAL_MEMORY: usize = 512;

const VERSION: u32 = 1;
const KEY_BYTES: usize = 32;
const MAC_BYTES: usize = 32;

/// What both ends of one VM's channel know, and nobody else. Never shown: not by `Debug`, not in an
/// error.
#[derive(Clone, PartialEq, Eq)]
pub struct SealKey([u8; KEY_BYTES]);

impl fmt::Debug for SealKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SealKey(***)")
    }
}

impl SealKey {
    /// Of 32 random bytes.
    #[must_use]
    pub fn new(bytes: [u8; KEY_BYTES]) -> Self {
        Self(bytes)
    }

    /// Of bytes that were kept; `None` where they are not 32.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// The bytes, for those who keep them.
    #[must_use]
    pub fn expose(&self) -> &[u8; KEY_BYTES] {
        &self.0
    }

    /// The file in which the key travels to its guest: the id of the VM that it is for, a blank, the
    /// key in hexadecimal, a line feed. The id is there because disks are copied.
    #[must_use]
    pub fn file(&self, vm: Uuid) -> String {
        format!("{vm} {}\n", hex(&self.0))
    }

    /// Reads such a file; gives the id and the key. `None`: it is none.
    #[must_use]
    pub fn of_file(text: &str) -> Option<(Uuid, Self)> {
        let (vm, key) = text.trim_end().split_once(' ')?;
        let mut bytes = [0; KEY_BYTES];
        unhex(key, &mut bytes)?;
        Some((vm.parse().ok()?, Self(bytes)))
    }

    fn mac(&self, v: u32, ts: i64, nonce: &str, payload: &str) -> Hmac<Sha256> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).expect("HMAC takes a key of any length");
        mac.update(format!("{v}\n{ts}\n{nonce}\n").as_bytes());
        mac.update(payload.as_bytes());
        mac
    }
}

/// Why an envelope is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// It is not of this key, was changed on its way, or is none that we know.
    #[error("the seal is not the key's")]
    BadSeal,
    /// It was admitted before.
    #[error("the sealed message came before")]
    Replayed,
    /// Its time is too far off, or it is older than what opened the exchange, or nothing did yet.
    #[error("the sealed message is not of this time")]
    Stale,
}

impl SealError {
    /// The stable word, for counters.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::BadSeal => "bad_seal",
            Self::Replayed => "replayed",
            Self::Stale => "stale",
        }
    }
}

/// A payload that does not fit into a frame once it is sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{bytes} bytes once sealed, which is more than a frame holds")]
pub struct TooLongToSeal {
    /// The length of the line.
    pub bytes: usize,
}

/// Puts a message, which is one line without its newline, into an envelope; gives the whole line, newline
/// included. `ts` is the writer's clock in Unix milliseconds; `nonce` is used once.
///
/// # Errors
/// The line would be longer than [`MAX_FRAME_BYTES`].
pub fn seal(key: &SealKey, ts: i64, nonce: Uuid, payload: &str) -> Result<Vec<u8>, TooLongToSeal> {
    // Before the work is done: it may be far too long.
    let bytes = sealed_bytes(payload);
    if bytes > MAX_FRAME_BYTES {
        return Err(TooLongToSeal { bytes });
    }
    let nonce = nonce.to_string();
    let sig = hex(&key.mac(VERSION, ts, &nonce, payload).finalize().into_bytes());
    let mut line =
        format!(r#"{{"type":"signed","v":{VERSION},"ts":{ts},"nonce":"{nonce}","payload":""#).into_bytes();
    push_escaped(&mut line, payload);
    line.extend_from_slice(format!(r#"","sig":"{sig}"}}"#).as_bytes());
    line.push(b'\n');
    Ok(line)
}

/// How long the line of a sealed payload is at most, its newline not counted. JSON within a JSON string
/// is at most twice as long: what would need more than one character is escaped already.
#[must_use]
pub fn sealed_bytes(payload: &str) -> usize {
    payload.bytes().map(escaped).sum::<usize>() + SEAL_OVERHEAD_BYTES
}

fn escaped(byte: u8) -> usize {
    match byte {
        b'"' | b'\\' => 2,
        byte if byte < b' ' => 6,
        _ => 1,
    }
}

fn push_escaped(line: &mut Vec<u8>, payload: &str) {
    for byte in payload.bytes() {
        match byte {
            b'"' | b'\\' => line.extend([b'\\', byte]),
            byte if byte < b' ' => line.extend_from_slice(format!("\\u{byte:04x}").as_bytes()),
            byte => line.push(byte),
        }
    }
}

/// Checks whose an envelope is, in a time that does not depend on what it holds besides its length; gives
/// its nonce. Says nothing of its time.
///
/// # Errors
/// [`SealError::BadSeal`].
pub fn verify(key: &SealKey, envelope: &Signed) -> Result<Uuid, SealError> {
    let Signed { v, ts, nonce, payload, sig } = envelope;
    let mut given = [0; MAC_BYTES];
    // A nonce of another length is no UUID, and is not hashed.
    let known = *v == VERSION && nonce.len() == 36;
    let nonce_read = nonce.parse().ok().filter(|_| known);
    let (Some(nonce_read), Some(())) = (nonce_read, unhex(sig, &mut given)) else {
        return Err(SealError::BadSeal);
    };
    key.mac(*v, *ts, nonce, payload).verify_slice(&given).map_err(|_| SealError::BadSeal)?;
    Ok(nonce_read)
}

/// What is admitted of one exchange, which began with an answer that is known to be fresh. Bounded.
#[derive(Debug, Clone)]
pub struct SealWindow {
    /// The other end's clock minus ours, when it answered.
    offset: i64,
    /// Nothing older is admitted.
    floor: i64,
    seen: BTreeSet<(i64, Uuid)>,
}

impl SealWindow {
    /// Begins with the envelope that answered our question: it had this time and this nonce and came at
    /// `now`, in milliseconds of a clock of ours that nobody sets.
    #[must_use]
    pub fn begin(now: i64, ts: i64, nonce: Uuid) -> Self {
        Self { offset: ts.saturating_sub(now), floor: ts, seen: BTreeSet::from([(ts, nonce)]) }
    }

    /// Whether an envelope that was verified is admitted, at `now`; then it is not admitted again.
    ///
    /// # Errors
    /// [`SealError::Stale`], [`SealError::Replayed`].
    pub fn admit(&mut self, now: i64, ts: i64, nonce: Uuid) -> Result<(), SealError> {
        let there = now.saturating_add(self.offset);
        let oldest = self.floor.max(there.saturating_sub(SEAL_WINDOW_MS));
        if self.seen.contains(&(ts, nonce)) {
            return Err(SealError::Replayed);
        }
        if ts < oldest || ts > there.saturating_add(SEAL_WINDOW_MS) {
            return Err(SealError::Stale);
        }
        // What is too old by its time need not be remembered, whatever becomes of our clock.
        self.floor = oldest;
        while self.seen.first().is_some_and(|(ts, _)| *ts < oldest) {
            self.seen.pop_first();
        }
        self.seen.insert((ts, nonce));
        if self.seen.len() > SEAL_MEMORY
            && let Some((forgotten, _)) = self.seen.pop_first()
        {
            self.floor = self.floor.max(forgotten.saturating_add(1));
        }
        Ok(())
    }

    /// The other end's clock minus ours, milliseconds, as it was measured at the beginning.
    #[must_use]
    pub fn offset(&self) -> i64 {
        self.offset
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Exactly as many bytes, in digits of either case.
fn unhex(text: &str, bytes: &mut [u8]) -> Option<()> {
    if text.len() != bytes.len() * 2 {
        return None;
    }
    let digit = |c: u8| char::from(c).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(())
}

#[cfg(test)]
mod tests;
