//! Our end of the seal: which of a guest's lines count, and what ours are wrapped in. Pure; see
//! [`agent_protocol::seal`] for what an envelope is worth.
//!
//! An agent that has a key says so in its greeting, and asks a question. We answer it in an envelope, with
//! a question of our own; the greeting that answers that, in an envelope too, opens the exchange. From then
//! on nothing else counts over this connection, until the agent greets anew: it may have been restarted.
//! How far the guest's clock is off does not matter: it is measured at that greeting.

use std::time::Duration;

use agent_protocol::{
    GuestMessage, Handshake, HostMessage, SealError, SealKey, SealWindow, Signed, TooLongToSeal, seal, verify,
};
use chrono::Utc;
use tokio::time::Instant;
use uuid::Uuid;

use crate::{
    config::SealPolicy,
    vm::{LinkCounters, LinkSeal},
};

/// How long an agent may take to answer our question, or, where the seal is required and it spoke without,
/// to greet as one that has the key. Commands wait meanwhile.
const PATIENCE: Duration = Duration::from_secs(5);

/// Between two requests for a greeting.
const ASK_INTERVAL: Duration = Duration::from_secs(5);

/// What makes a link seal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sealing {
    /// The VM's.
    pub(super) key: SealKey,
    /// Whether an agent that speaks without is refused.
    pub(super) required: bool,
}

impl Sealing {
    /// None where the policy wants none, or the VM has no key.
    pub(super) fn of(policy: SealPolicy, key: Option<SealKey>) -> Option<Self> {
        let required = policy == SealPolicy::Require;
        key.filter(|_| policy != SealPolicy::Off).map(|key| Self { key, required })
    }
}

/// How far the exchange is.
#[derive(Debug)]
enum State {
    /// The agent speaks without; where the seal is required, until then.
    Bare { until: Option<Instant> },
    /// We asked; by then it has to have answered.
    Asked { challenge: Uuid, until: Instant },
    /// Only envelopes count.
    Open(SealWindow),
    /// It was given its time.
    Refused,
}

/// What a line that came without an envelope is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bare {
    /// As much as ever.
    Taken,
    /// It opens the exchange; nothing else of it counts.
    Noted,
    /// Nothing.
    Refused,
}

/// What an envelope was found to hold.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Opened {
    pub(super) payload: String,
    /// It is the greeting that opened the exchange.
    pub(super) opens: bool,
}

/// One connection's. `None` inside: nothing is sealed, and all is as it would be without this.
#[derive(Debug)]
pub(super) struct Seal<'a> {
    sealing: Option<&'a Sealing>,
    state: State,
    /// To be written before anything else.
    answer: Option<HostMessage>,
    /// A greeting is wanted, since envelopes come of an exchange that we know nothing of.
    greeting_wanted: bool,
    asked_at: Option<Instant>,
    origin: Instant,
}

impl<'a> Seal<'a> {
    pub(super) fn new(sealing: Option<&'a Sealing>, now: Instant) -> Self {
        Self {
            sealing,
            state: State::Bare { until: None },
            answer: None,
            greeting_wanted: false,
            asked_at: None,
            origin: now,
        }
    }

    /// What people are told.
    pub(super) fn told(&self) -> LinkSeal {
        match (&self.sealing, &self.state) {
            (None, _) => LinkSeal::Unused,
            (_, State::Open(_)) => LinkSeal::Sealed,
            (_, State::Refused) => LinkSeal::Refused,
            (_, State::Bare { .. } | State::Asked { .. }) => LinkSeal::Unsealed,
        }
    }

    fn required(&self) -> bool {
        self.sealing.is_some_and(|sealing| sealing.required)
    }

    /// Whether the agent is to be given up as one that will not seal.
    pub(super) fn is_refused(&mut self, now: Instant) -> bool {
        match self.state {
            State::Asked { until, .. } if until <= now => {
                // One that has another key, for example. People are told that it is not sealed.
                self.state = if self.required() { State::Refused } else { State::Bare { until: None } };
            }
            State::Bare { until: Some(until) } if until <= now => self.state = State::Refused,
            _ => {}
        }
        matches!(self.state, State::Refused)
    }

    /// When [`Seal::is_refused`] next has something to say.
    pub(super) fn next_look(&self) -> Option<Instant> {
        match self.state {
            State::Asked { until, .. } => Some(until),
            State::Bare { until } => until,
            State::Open(_) | State::Refused => None,
        }
    }

    /// Whether commands can be sent: not while it is open how.
    pub(super) fn is_ready(&self) -> bool {
        match self.state {
            State::Open(_) => self.answer.is_none(),
            State::Bare { .. } => !self.required(),
            State::Asked { .. } | State::Refused => false,
        }
    }

    /// Judges a message that came without an envelope.
    pub(super) fn bare(&mut self, message: &GuestMessage, now: Instant) -> Bare {
        if self.sealing.is_none() {
            return Bare::Taken;
        }
        if let GuestMessage::Handshake(greeting) = message {
            return self.greeted(greeting, now);
        }
        let required = self.required();
        match &mut self.state {
            State::Open(_) | State::Refused => Bare::Refused,
            State::Bare { until } if required => {
                if until.is_none() {
                    *until = Some(now + PATIENCE);
                    // It may have greeted the host end before us.
                    self.want_greeting(now);
                }
                Bare::Refused
            }
            State::Asked { .. } if required => Bare::Refused,
            State::Bare { .. } | State::Asked { .. } => Bare::Taken,
        }
    }

    fn greeted(&mut self, greeting: &Handshake, now: Instant) -> Bare {
        let asks = greeting.seal.as_ref().and_then(|offer| offer.challenge.as_deref()?.parse::<Uuid>().ok());
        match asks {
            Some(asks) => {
                let challenge = Uuid::new_v4();
                self.answer =
                    Some(HostMessage::Seal { challenge: challenge.to_string(), answers: asks.to_string() });
                self.greeting_wanted = false;
                self.state = State::Asked { challenge, until: now + PATIENCE };
                if self.required() { Bare::Noted } else { Bare::Taken }
            }
            None if self.required() => {
                self.state = State::Refused;
                Bare::Refused
            }
            None => {
                self.answer = None;
                self.state = State::Bare { until: None };
                Bare::Taken
            }
        }
    }

    /// Opens an envelope; `None`: it holds nothing that counts, and was counted by its reason.
    pub(super) fn open(
        &mut self,
        envelope: Signed,
        now: Instant,
        counters: &mut LinkCounters,
    ) -> Option<Opened> {
        let Some(sealing) = self.sealing else {
            counters.sealed += 1;
            return None;
        };
        match self.admit(&sealing.key, &envelope, now) {
            Ok(opens) => Some(Opened { payload: envelope.payload, opens }),
            Err(error) => {
                match error {
                    SealError::BadSeal => counters.bad_seal += 1,
                    SealError::Replayed => counters.replayed += 1,
                    SealError::Stale => {
                        counters.stale += 1;
                        self.want_greeting(now);
                    }
                }
                None
            }
        }
    }

    fn admit(&mut self, key: &SealKey, envelope: &Signed, now: Instant) -> Result<bool, SealError> {
        let nonce = verify(key, envelope)?;
        let at = i64::try_from(now.saturating_duration_since(self.origin).as_millis()).unwrap_or(i64::MAX);
        match &mut self.state {
            State::Open(window) => window.admit(at, envelope.ts, nonce).map(|()| false),
            State::Asked { challenge, .. } if answers(&envelope.payload, *challenge) => {
                self.state = State::Open(SealWindow::begin(at, envelope.ts, nonce));
                Ok(true)
            }
            State::Asked { .. } | State::Bare { .. } | State::Refused => Err(SealError::Stale),
        }
    }

    fn want_greeting(&mut self, now: Instant) {
        let soon = self.asked_at.is_some_and(|at| now.saturating_duration_since(at) < ASK_INTERVAL);
        let asked = matches!(self.state, State::Asked { .. });
        self.greeting_wanted |= !soon && !asked;
    }

    /// Whether [`Seal::next_line`] has one.
    pub(super) fn has_line(&self) -> bool {
        self.answer.is_some() || self.greeting_wanted
    }

    /// What has to be written before anything else: the answer to the agent's question, or a request that
    /// makes it greet.
    pub(super) fn next_line(&mut self, now: Instant) -> Option<Vec<u8>> {
        if let (Some(sealing), Some(answer)) = (self.sealing, self.answer.take()) {
            return wrapped(&sealing.key, &answer.encode()).ok();
        }
        std::mem::take(&mut self.greeting_wanted).then(|| {
            self.asked_at = Some(now);
            HostMessage::Metrics.encode()
        })
    }

    /// A line as it goes out.
    ///
    /// # Errors
    /// It does not fit into an envelope.
    pub(super) fn wrap(&self, line: Vec<u8>) -> Result<Vec<u8>, TooLongToSeal> {
        match (self.sealing, &self.state) {
            (Some(sealing), State::Open(_)) => wrapped(&sealing.key, &line),
            _ => Ok(line),
        }
    }
}

/// Whether a payload is the greeting that answers our question.
fn answers(payload: &str, challenge: Uuid) -> bool {
    let greeting = match GuestMessage::decode(payload.as_bytes()) {
        Ok(GuestMessage::Handshake(greeting)) => greeting,
        _ => return false,
    };
    let answer = greeting.seal.and_then(|offer| offer.answers?.parse().ok());
    answer == Some(challenge)
}

fn wrapped(key: &SealKey, line: &[u8]) -> Result<Vec<u8>, TooLongToSeal> {
    let payload = String::from_utf8_lossy(line.strip_suffix(b"\n").unwrap_or(line));
    seal(key, Utc::now().timestamp_millis(), Uuid::new_v4(), &payload)
}

#[cfg(test)]
mod tests;
