//! Our end of the seal: what the host's lines are worth, and what ours are wrapped in.
//!
//! The key came on the medium of the first boot. The file names the machine that it is for, because a copied
//! disk carries the file along: another machine's key is not used. Where there is a key, every greeting
//! asks a question; a host that has the key too answers it in an envelope, and from then on, until the host
//! end goes or somebody asks to begin anew, only envelopes count. See [`agent_protocol::seal`].

use std::{
    os::unix::fs::MetadataExt as _,
    time::{Duration, Instant},
};

use agent_protocol::{
    GuestMessage, HostMessage, SealError, SealKey, SealOffer, SealWindow, Signed, TooLongToSeal, seal, verify,
};
use chrono::Utc;
use uuid::Uuid;

use crate::{
    log::note,
    read,
    settings::{self, SealMode, Settings},
};

/// How long answers wait for the host to answer our question, so that they need not go out bare.
const PATIENCE: Duration = Duration::from_secs(5);
/// Between two greetings that we make because the host's envelopes are not of this time.
const ASK_INTERVAL: Duration = Duration::from_secs(5);
/// A file of the right size has 102 bytes.
const MAX_KEY_FILE: usize = 256;

/// What a line of the host is worth.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    /// Its payload, or the line itself: to be carried out.
    Line(Vec<u8>),
    /// To be refused, whatever it asks; what it asks stands here.
    Refused(Refusal, Vec<u8>),
    /// The host answered our question; this question of its own is to be answered at once.
    Opened(SealOffer),
}

/// Why a line is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    /// It came bare where only envelopes count.
    #[error("the host's line is not sealed")]
    Unsealed,
    /// Its envelope.
    #[error(transparent)]
    Seal(#[from] SealError),
}

impl Refusal {
    /// The stable code of an answer to a command that was refused for it.
    pub(crate) fn code(self) -> &'static str {
        match self {
            Self::Unsealed => "UNSEALED",
            Self::Seal(SealError::BadSeal) => "BAD_SEAL",
            Self::Seal(SealError::Replayed) => "REPLAYED",
            Self::Seal(SealError::Stale) => "STALE",
        }
    }
}

#[derive(Debug)]
enum State {
    /// Nobody is there, or we have no key.
    Closed,
    /// We asked.
    Asked { challenge: Uuid, until: Instant },
    /// The host has the key.
    Open(SealWindow),
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Seal {
    key: Option<SealKey>,
    demanded: bool,
    state: State,
    /// Our clock begins here: one that nobody sets.
    origin: Instant,
    asked_anew: Option<Instant>,
}

impl Seal {
    /// Reads the key.
    pub(crate) fn new(settings: &Settings, now: Instant) -> Self {
        let key = match settings.seal {
            SealMode::Off => None,
            SealMode::Accept | SealMode::Require => read_key(settings),
        };
        Self::with(key, settings.seal == SealMode::Require, now)
    }

    fn with(key: Option<SealKey>, demanded: bool, now: Instant) -> Self {
        let demanded = demanded && key.is_some();
        Self { key, demanded, state: State::Closed, origin: now, asked_anew: None }
    }

    /// Whether there is a key.
    pub(crate) fn has_key(&self) -> bool {
        self.key.is_some()
    }

    /// The host end went: whoever comes next has to show that it has the key.
    pub(crate) fn hung_up(&mut self) {
        self.state = State::Closed;
        self.asked_anew = None;
    }

    /// Begins anew: what a greeting asks. A question that was not answered yet is asked again.
    pub(crate) fn ask(&mut self, now: Instant) -> Option<SealOffer> {
        self.key.as_ref()?;
        let challenge = match self.state {
            State::Asked { challenge, .. } => challenge,
            State::Closed | State::Open(_) => Uuid::new_v4(),
        };
        self.state = State::Asked { challenge, until: now + PATIENCE };
        Some(SealOffer { challenge: Some(challenge.to_string()), answers: None })
    }

    /// What a greeting says that only tells news: within an exchange that stands nothing is asked.
    pub(crate) fn offer(&mut self, now: Instant) -> Option<SealOffer> {
        match self.state {
            State::Open(_) => Some(SealOffer::default()),
            State::Closed | State::Asked { .. } => self.ask(now),
        }
    }

    /// Until when answers wait.
    pub(crate) fn holds_until(&self) -> Option<Instant> {
        match self.state {
            State::Asked { until, .. } => Some(until),
            State::Closed | State::Open(_) => None,
        }
    }

    /// Wraps a line, its newline included; `None` where lines go out bare.
    pub(crate) fn wrap(&self, line: &[u8]) -> Option<Result<Vec<u8>, TooLongToSeal>> {
        let (Some(key), State::Open(_)) = (&self.key, &self.state) else { return None };
        let payload = std::str::from_utf8(line.strip_suffix(b"\n").unwrap_or(line)).ok()?;
        // An empty line only ends what stood before it.
        (!payload.is_empty()).then(|| seal(key, Utc::now().timestamp_millis(), Uuid::new_v4(), payload))
    }

    /// Judges one line.
    pub(crate) fn take(&mut self, line: Vec<u8>, now: Instant) -> Taken {
        let Some(key) = &self.key else { return Taken::Line(line) };
        let Some(envelope) = envelope(&line) else {
            // Whoever asks for a reading may be a host that has just come, and cannot seal yet.
            let message = serde_json::from_slice(&line);
            let asks = matches!(message, Ok(HostMessage::Metrics));
            let closed = self.demanded || matches!(self.state, State::Open(_));
            if asks {
                self.state = State::Closed;
            } else if let State::Asked { until, .. } = &mut self.state
                && !matches!(message, Ok(HostMessage::KeepAliveResponse { .. }))
            {
                // A host that has the key would have answered first: this one's need not be waited for.
                *until = now;
            }
            return if asks || !closed { Taken::Line(line) } else { Taken::Refused(Refusal::Unsealed, line) };
        };
        let at = millis(now.saturating_duration_since(self.origin));
        let verdict = verify(key, &envelope).and_then(|nonce| match &mut self.state {
            State::Open(window) => window.admit(at, envelope.ts, nonce).map(|()| None),
            State::Asked { challenge, .. } => {
                let answer = challenge.to_string();
                match serde_json::from_str(&envelope.payload) {
                    Ok(HostMessage::Seal { challenge, answers }) if answers == answer => {
                        let begun = SealWindow::begin(at, envelope.ts, nonce);
                        Ok(Some((begun, SealOffer { challenge: None, answers: Some(challenge) })))
                    }
                    _ => Err(SealError::Stale),
                }
            }
            State::Closed => Err(SealError::Stale),
        });
        match verdict {
            Ok(None) => Taken::Line(envelope.payload.into_bytes()),
            Ok(Some((window, offer))) => {
                self.state = State::Open(window);
                Taken::Opened(offer)
            }
            Err(error) => Taken::Refused(error.into(), envelope.payload.into_bytes()),
        }
    }

    /// Whether to begin anew because of this refusal: a clock was set, ours or the host's, or the host
    /// speaks of an exchange that we know nothing of.
    pub(crate) fn should_ask(&mut self, refusal: Refusal, now: Instant) -> bool {
        let soon = self.asked_anew.is_some_and(|at| now.saturating_duration_since(at) < ASK_INTERVAL);
        if refusal != Refusal::Seal(SealError::Stale) || soon {
            return false;
        }
        self.asked_anew = Some(now);
        true
    }
}

fn envelope(line: &[u8]) -> Option<Signed> {
    match GuestMessage::decode(line) {
        Ok(GuestMessage::Signed(envelope)) => Some(envelope),
        _ => None,
    }
}

fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

/// The key of this very machine, from a file that nobody else can read. No complaint names what is in it.
fn read_key(settings: &Settings) -> Option<SealKey> {
    let path = &settings.seal_key;
    let about = match std::fs::metadata(path) {
        Ok(about) => about,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return None,
        Err(e) => {
            note(format_args!("the seal's key {}: {e}", path.display()));
            return None;
        }
    };
    let owner = rustix::process::geteuid().as_raw();
    if about.mode() & 0o077 != 0 || ![0, owner].contains(&about.uid()) {
        note(format_args!("the seal's key {} is not ours alone; it is not used", path.display()));
        return None;
    }
    let read = read::text(path, MAX_KEY_FILE).ok().and_then(|text| SealKey::of_file(&text));
    let Some((machine, key)) = read else {
        note(format_args!("the seal's key {} cannot be read; it is not used", path.display()));
        return None;
    };
    // The firmware's UUID cannot be a leftover of a copied disk; the settings can.
    let ours = settings::machine_uuid().or_else(|| settings.vm_id.clone());
    if ours.and_then(|id| id.parse().ok()) != Some(machine) {
        note(format_args!("the seal's key {} is another machine's; it is not used", path.display()));
        return None;
    }
    Some(key)
}

#[cfg(test)]
mod tests;
