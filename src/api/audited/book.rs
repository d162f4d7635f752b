//! How many rows refusals get. Whoever is refused a hundred times a second must not fill the disk, and
//! what he is spared is not forgotten: it is counted, and the counts become a row.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use chrono::{DateTime, Utc};
use serde_json::json;
use tokio::time::Instant;
use uuid::Uuid;

use crate::{
    agents::TokenBucket,
    api::rate::{Buckets, network},
    store::{AskedFrom, Refusal},
    vm::UserId,
};

/// Rows of one user at once: what one request can name VMs, twice; and one more every ten seconds.
const OF_A_USER: (f64, f64) = (0.1, 2000.0);
/// Of an address that nobody has introduced himself from: as many as it has attempts to sign in.
const OF_AN_ADDRESS: (f64, f64) = (1.0 / 30.0, 30.0);
/// Of all of those together. There are more addresses than disks.
const OF_STRANGERS: (f64, f64) = (1.0, 1000.0);
/// Rows that wait for the database at most.
const MAX_WAITING: usize = 2000;
/// Users whose counts are kept apart, and kinds of refusal in one count.
const MAX_USERS: usize = 1000;
const MAX_KINDS: usize = 50;

/// The action of a row that tells how many got none.
pub(super) const LEFT_OUT: &str = "audit.leftOut";

/// See the module.
pub(super) struct Book {
    users: Buckets<UserId>,
    addresses: Buckets<IpAddr>,
    strangers: TokenBucket,
    left_out: HashMap<Option<UserId>, LeftOut>,
    waiting: Vec<Refusal>,
    owed: Vec<Refusal>,
}

/// What somebody, or all strangers, got no rows for.
struct LeftOut {
    since: DateTime<Utc>,
    count: u64,
    of: BTreeMap<String, u64>,
    /// As long as it is one.
    address: Option<String>,
}

impl Book {
    pub(super) fn new(now: Instant) -> Self {
        let ((user, user_burst), (address, address_burst), (all, all_burst)) =
            (OF_A_USER, OF_AN_ADDRESS, OF_STRANGERS);
        Self {
            users: Buckets::new(user, user_burst, now),
            addresses: Buckets::new(address, address_burst, now),
            strangers: TokenBucket::new(all, all_burst, now),
            left_out: HashMap::new(),
            waiting: Vec::new(),
            owed: Vec::new(),
        }
    }

    /// Those that get a row; the others are counted.
    pub(super) fn admit(&mut self, refusals: Vec<Refusal>, now: Instant) -> Vec<Refusal> {
        let mut admitted = Vec::with_capacity(refusals.len());
        for refusal in refusals {
            if self.allows(&refusal, now) {
                admitted.push(refusal);
            } else {
                self.leave_out(&refusal, "too_many");
            }
        }
        admitted
    }

    fn allows(&mut self, refusal: &Refusal, now: Instant) -> bool {
        if let Some(user) = refusal.user {
            return self.users.allow(user, now);
        }
        let address = refusal.origin.address.as_deref().and_then(|address| address.parse().ok());
        let own = address.is_none_or(|address| self.addresses.allow(network(address), now));
        own && self.strangers.allow(1.0, now)
    }

    /// Counts one that gets no row.
    pub(super) fn leave_out(&mut self, refusal: &Refusal, reason: &'static str) {
        metrics::counter!("infinibay_audit_left_out_total", "reason" => reason).increment(1);
        let known = self.left_out.contains_key(&refusal.user);
        let who = refusal.user.filter(|_| known || self.left_out.len() < MAX_USERS);
        let address = &refusal.origin.address;
        let left_out = self.left_out.entry(who).or_insert_with(|| LeftOut {
            since: refusal.at,
            count: 0,
            of: BTreeMap::new(),
            address: address.clone(),
        });
        left_out.count += 1;
        if left_out.address != *address {
            left_out.address = None;
        }
        let kind = format!("{} {}", refusal.action, refusal.code.as_deref().unwrap_or_default());
        let full = left_out.of.len() >= MAX_KINDS && !left_out.of.contains_key(&kind);
        *left_out.of.entry(if full { "others".to_owned() } else { kind }).or_default() += 1;
    }

    /// Keeps rows for when the database can be written to.
    pub(super) fn wait(&mut self, refusals: Vec<Refusal>) {
        for refusal in refusals {
            if self.waiting.len() < MAX_WAITING {
                self.waiting.push(refusal);
            } else {
                self.leave_out(&refusal, "no_room");
            }
        }
    }

    /// The rows that wait. Who cannot write them lets them wait again.
    pub(super) fn waiting(&mut self) -> Vec<Refusal> {
        std::mem::take(&mut self.waiting)
    }

    /// The rows that tell what got none, until [`Self::paid`] says that they are written.
    pub(super) fn owed(&mut self, now: DateTime<Utc>) -> Vec<Refusal> {
        if self.owed.is_empty() {
            self.owed = self.left_out.drain().map(|(user, left_out)| left_out.told(user, now)).collect();
        }
        self.owed.clone()
    }

    /// What was owed is written.
    pub(super) fn paid(&mut self) {
        self.owed.clear();
    }
}

impl LeftOut {
    fn told(self, user: Option<UserId>, now: DateTime<Utc>) -> Refusal {
        Refusal {
            id: Uuid::now_v7(),
            at: now,
            user,
            action: LEFT_OUT.to_owned(),
            vm: None,
            code: None,
            failed: false,
            details: json!({ "count": self.count, "since": self.since, "of": self.of }),
            origin: AskedFrom { address: self.address, request: None },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn refusal(user: Option<UserId>, address: &str) -> Refusal {
        Refusal {
            id: Uuid::now_v7(),
            at: Utc::now(),
            user,
            action: "startVm".to_owned(),
            vm: None,
            code: Some("VM_NOT_FOUND".to_owned()),
            failed: false,
            details: json!({}),
            origin: AskedFrom { address: Some(address.to_owned()), request: None },
        }
    }

    fn many(count: usize, user: Option<UserId>, address: &str) -> Vec<Refusal> {
        (0..count).map(|_| refusal(user, address)).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_user_has_so_many_rows_and_is_told_of_the_rest() {
        let (ana, ben) = (Some(UserId::generate()), Some(UserId::generate()));
        let mut book = Book::new(Instant::now());
        assert_eq!(book.admit(many(2100, ana, "192.0.2.1"), Instant::now()).len(), 2000);
        assert_eq!(book.admit(many(1, ben, "192.0.2.1"), Instant::now()).len(), 1, "another's are his");
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!(book.admit(many(100, ana, "192.0.2.2"), Instant::now()).len(), 6);
        let told = book.owed(Utc::now());
        assert_eq!((told.len(), told[0].user, told[0].action.as_str()), (1, ana, LEFT_OUT));
        assert_eq!(told[0].details["count"], 194);
        assert_eq!(told[0].details["of"], json!({ "startVm VM_NOT_FOUND": 194 }));
        assert_eq!(told[0].origin.address, None, "they came from two");
        // Until it is written it is told again, under the same id.
        assert_eq!(book.owed(Utc::now())[0].id, told[0].id);
        book.paid();
        assert!(book.owed(Utc::now()).is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn strangers_have_few_rows_however_many_they_are() {
        let mut book = Book::new(Instant::now());
        assert_eq!(book.admit(many(100, None, "2001:db8::1"), Instant::now()).len(), 30);
        assert_eq!(book.admit(many(100, None, "2001:db8::2"), Instant::now()).len(), 0, "one /64");
        let crowd = (0..3000_u32).map(|n| refusal(None, &IpAddr::V4((0x0a00_0000 + n).into()).to_string()));
        assert_eq!(book.admit(crowd.collect(), Instant::now()).len(), 970);
        let told = book.owed(Utc::now());
        assert_eq!(told.len(), 1, "however many they are");
        assert_eq!((told[0].user, &told[0].details["count"]), (None, &json!(2200)));
    }

    #[tokio::test]
    async fn what_waits_is_bounded_and_what_finds_no_room_is_counted() {
        let ana = Some(UserId::generate());
        let mut book = Book::new(Instant::now());
        book.wait(many(MAX_WAITING + 5, ana, "192.0.2.1"));
        assert_eq!(book.waiting().len(), MAX_WAITING);
        assert!(book.waiting().is_empty());
        assert_eq!(book.owed(Utc::now())[0].details["count"], 5);
        book.paid();
        // Kinds and users are bounded as well.
        for n in 0..MAX_USERS + 100 {
            book.leave_out(&refusal(Some(UserId::generate()), "192.0.2.1"), "too_many");
            let other = Refusal { action: format!("action{n}"), ..refusal(ana, "192.0.2.1") };
            book.leave_out(&other, "too_many");
        }
        let told = book.owed(Utc::now());
        assert!(told.len() <= MAX_USERS + 1, "{}", told.len());
        let counts: u64 = told.iter().filter_map(|row| row.details["count"].as_u64()).sum();
        assert_eq!(counts, 2 * (MAX_USERS as u64 + 100), "none is lost");
        assert!(told.iter().all(|row| row.details["of"].as_object().unwrap().len() <= MAX_KINDS + 1));
    }
}
