//! What operators are told without asking: the nouns, and what makes two guest errors the same.

use std::fmt;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use super::{HostId, VmId};

/// Longest summary, characters.
const MAX_SUMMARY: usize = 300;

/// Longest details, bytes of JSON.
const MAX_DETAILS: usize = 4 << 10;

/// What an alert is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AlertKind {
    /// A guest reported an error.
    GuestError,
    /// A VM that should be heard is not: its agent is silent, or it crashed, or its domain is gone.
    VmOffline,
    /// A first boot takes longer than it should.
    InstallStuck,
    /// A guest's clock is so far off that its readings are refused.
    ClockSkew,
    /// Readings were dropped, because they could be stored nowhere.
    ReadingsLost,
}

impl AlertKind {
    /// Every kind there is.
    pub const ALL: [Self; 5] =
        [Self::GuestError, Self::VmOffline, Self::InstallStuck, Self::ClockSkew, Self::ReadingsLost];

    /// Its name outside: in webhooks, metrics and logs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::GuestError => "guest_error",
            Self::VmOffline => "vm_offline",
            Self::InstallStuck => "install_stuck",
            Self::ClockSkew => "clock_skew",
            Self::ReadingsLost => "readings_lost",
        }
    }

    /// Whether it is a condition, which begins and ends. Guest errors only happen.
    #[must_use]
    pub fn is_condition(self) -> bool {
        self != Self::GuestError
    }
}

impl fmt::Display for AlertKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How bad it is; the worse is the greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AlertSeverity {
    /// Good to know.
    Info,
    /// Somebody should look.
    Warning,
    /// Somebody should look now.
    Critical,
}

/// How the newest message about an alert fared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeliveryState {
    /// To be sent, or sent again.
    Pending,
    /// The receiver took it.
    Delivered,
    /// Given up.
    Failed,
    /// There is no receiver: it went to the log alone.
    Suppressed,
}

/// One alert, as stored.
#[derive(Debug, Clone)]
pub struct Alert {
    /// The row.
    pub id: Uuid,
    /// The host that it is about.
    pub host: HostId,
    /// What it is about.
    pub kind: AlertKind,
    /// Which VM, which may be gone; `None`: the host.
    pub vm: Option<VmId>,
    /// The VM's name.
    pub vm_name: Option<String>,
    /// How bad it is, at its worst.
    pub severity: AlertSeverity,
    /// One bounded line.
    pub summary: String,
    /// An object of a few KiB at most.
    pub details: Value,
    /// How often it happened since it is open.
    pub count: i64,
    /// When it first happened.
    pub first_at: DateTime<Utc>,
    /// When it last happened.
    pub last_at: DateTime<Utc>,
    /// When it ended; `None`: it is open.
    pub resolved_at: Option<DateTime<Utc>>,
    /// What is told of it, and how that fares.
    pub delivery: Delivery,
}

/// How telling of an alert fares.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// Of the newest message.
    pub state: DeliveryState,
    /// Attempts at the newest message.
    pub attempts: i64,
    /// When the next attempt is due, or the next message; `None`: nothing more is to be told.
    pub next_attempt_at: Option<DateTime<Utc>>,
    /// Since when the newest message fails.
    pub failing_since: Option<DateTime<Utc>>,
    /// Why the last attempt failed.
    pub last_error: Option<String>,
    /// When a message last arrived.
    pub delivered_at: Option<DateTime<Utc>>,
    /// Messages that arrived.
    pub notified: i64,
}

/// What is to be told of an alert.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AlertMessage {
    /// It began.
    Firing,
    /// It goes on.
    Repeated,
    /// It ended.
    Resolved,
}

impl AlertMessage {
    /// Its name outside.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Firing => "alert.firing",
            Self::Repeated => "alert.repeated",
            Self::Resolved => "alert.resolved",
        }
    }
}

impl Alert {
    /// What is to be told next: that it began before that it ended, although it has ended by
    /// now, since whoever was not told will want to know that it was.
    #[must_use]
    pub fn message(&self) -> AlertMessage {
        match (self.delivery.notified, self.resolved_at) {
            (0, _) => AlertMessage::Firing,
            (_, None) => AlertMessage::Repeated,
            (_, Some(_)) => AlertMessage::Resolved,
        }
    }

    /// Attempts at the message that is to be told next.
    #[must_use]
    pub fn attempts_so_far(&self) -> i64 {
        if self.delivery.state == DeliveryState::Pending { self.delivery.attempts } else { 0 }
    }

    /// Since when the message that is to be told next fails, if it fails `now`.
    #[must_use]
    pub fn failing_since(&self, now: DateTime<Utc>) -> DateTime<Utc> {
        let before = self.delivery.failing_since.filter(|_| self.delivery.state == DeliveryState::Pending);
        before.unwrap_or(now)
    }

    /// Names the message that is to be told next, the same at each attempt.
    #[must_use]
    pub fn message_id(&self) -> String {
        let id = self.id.simple();
        match self.message() {
            AlertMessage::Firing => format!("msg_{id}_firing"),
            AlertMessage::Repeated => format!("msg_{id}_repeated{}", self.delivery.notified),
            AlertMessage::Resolved => format!("msg_{id}_resolved"),
        }
    }
}

/// What guests say, as one bounded line without control characters and without those that
/// reorder a terminal's text.
#[must_use]
pub fn alert_summary(text: &str) -> String {
    let unsafe_in_a_line = |c: char| {
        c.is_control()
            || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}'
                           | '\u{2028}' | '\u{2029}')
    };
    let text: String = text.chars().map(|c| if unsafe_in_a_line(c) { ' ' } else { c }).collect();
    let text = text.trim();
    if text.chars().nth(MAX_SUMMARY).is_none() {
        return text.to_owned();
    }
    text.chars().take(MAX_SUMMARY - 1).chain(['…']).collect()
}

/// Details that fit; what is too long is left out, and a mark says so.
#[must_use]
pub fn alert_details(details: Value) -> Value {
    if details.to_string().len() <= MAX_DETAILS { details } else { json!({ "truncated": true }) }
}

/// Tells errors apart as people would: counters, addresses and times in them make no difference.
/// Hexadecimal, because it becomes part of a key.
#[must_use]
pub fn error_fingerprint(error: &str) -> String {
    let mut folded = String::with_capacity(error.len());
    for c in error.trim().chars() {
        if !c.is_numeric() {
            folded.push(c);
        } else if !folded.ends_with('#') {
            folded.push('#');
        }
    }
    let hash = Sha256::digest(folded.as_bytes());
    hash.iter().take(8).fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn errors_that_differ_in_numbers_are_the_same() {
        let same = ["disk sda1: 17 bad blocks", "disk sda2: 3 bad blocks ", "disk sda10: 100000 bad blocks"];
        let keys: Vec<_> = same.map(error_fingerprint).to_vec();
        assert_eq!(keys[0], keys[1]);
        assert_eq!(keys[1], keys[2]);
        assert_ne!(keys[0], error_fingerprint("disk sdb1: 17 bad blocks"));
        assert_eq!(keys[0].len(), 16);
    }

    #[test]
    fn a_summary_is_one_bounded_line() {
        assert_eq!(alert_summary(" a\nb\u{1b}[31m\u{202e}c\0 "), "a b [31m c");
        let long = alert_summary(&"ä".repeat(1000));
        assert_eq!(long.chars().count(), MAX_SUMMARY);
        assert!(long.ends_with('…'));
    }

    #[test]
    fn details_that_are_too_long_are_left_out() {
        assert_eq!(alert_details(json!({ "a": 1 })), json!({ "a": 1 }));
        assert_eq!(alert_details(json!({ "a": "x".repeat(5000) })), json!({ "truncated": true }));
    }

    proptest! {
        #[test]
        fn whatever_a_guest_says_fits_into_a_line(text: String) {
            let line = alert_summary(&text);
            prop_assert!(line.chars().count() <= MAX_SUMMARY);
            prop_assert!(!line.chars().any(char::is_control));
        }
    }
}
