//! Alerts: what operators are told without asking, and how the telling fares.
//!
//! One row is the alert and its outbox. Guests' errors become alerts in the transaction that
//! stores the error; conditions, by a watcher that compares what is stored with what is open.

mod conditions;
mod delivery;
mod guest_errors;
mod row;

use chrono::{DateTime, Utc};
use serde_json::Value;
use uuid::Uuid;

pub(super) use guest_errors::raise;

use super::{
    Page, PageOf, Store, StoreError,
    column::{Word, words},
    db::on_pool,
    failed,
};
use crate::{
    access::Audience,
    vm::{Alert, AlertKind, AlertSeverity, DeliveryState, HostId, UserId, VmId, VmStatus},
};
use row::AlertRow;

words!(AlertKind {
    GuestError => "guest_error",
    VmOffline => "vm_offline",
    InstallStuck => "install_stuck",
    ClockSkew => "clock_skew",
    ReadingsLost => "readings_lost",
});
words!(AlertSeverity { Info => "info", Warning => "warning", Critical => "critical" });
words!(DeliveryState {
    Pending => "pending",
    Delivered => "delivered",
    Failed => "failed",
    Suppressed => "suppressed",
});

/// One look at everything that may be alarming.
#[derive(Debug, Clone, Default)]
pub struct AlertLook {
    /// The host's VMs.
    pub vms: Vec<WatchedVm>,
    /// The open alerts about conditions; those of guests' errors are none.
    pub open: Vec<OpenAlert>,
}

/// A VM, as far as alerts go.
#[derive(Debug, Clone)]
pub struct WatchedVm {
    /// The VM.
    pub id: VmId,
    /// Its name.
    pub name: String,
    /// What people are told of it; `None` before the loop's first pass, or where it cannot be
    /// read.
    pub status: Option<VmStatus>,
}

/// An open alert about a condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenAlert {
    /// The row.
    pub id: Uuid,
    /// What it is about.
    pub kind: AlertKind,
    /// Which VM; `None`: the host.
    pub vm: Option<VmId>,
    /// At its worst.
    pub severity: AlertSeverity,
    /// What was last said of it.
    pub summary: String,
}

/// An alert to be opened.
#[derive(Debug, Clone)]
pub struct NewAlert {
    /// What it is about.
    pub kind: AlertKind,
    /// Which VM, with its name; `None`: the host.
    pub vm: Option<(VmId, String)>,
    /// How bad it is.
    pub severity: AlertSeverity,
    /// One bounded line.
    pub summary: String,
    /// A bounded object.
    pub details: Value,
}

/// What a look changes.
#[derive(Debug, Clone, Default)]
pub struct AlertChanges {
    /// To be opened.
    pub opened: Vec<NewAlert>,
    /// Open ones that happened again, or are otherwise than before.
    pub again: Vec<(Uuid, NewAlert)>,
    /// Open ones that are over.
    pub resolved: Vec<Uuid>,
}

impl AlertChanges {
    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.opened.is_empty() && self.again.is_empty() && self.resolved.is_empty()
    }
}

/// How an attempt to tell ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// It arrived.
    Delivered,
    /// There is nobody to send it to; it stands in the log.
    Suppressed,
    /// It is tried again.
    Retry {
        /// Why it failed.
        error: String,
        /// When.
        at: DateTime<Utc>,
    },
    /// It is not tried again.
    Failed {
        /// Why it failed.
        error: String,
    },
}

/// A message that is due, without its contents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DueAlert {
    /// The alert.
    pub id: Uuid,
    /// Its VM; `None`: the host.
    pub vm: Option<VmId>,
    /// How bad it is.
    pub severity: AlertSeverity,
    /// Since when it is due.
    pub due_at: DateTime<Utc>,
}

/// Which alerts; everything that is given has to fit.
#[derive(Debug, Clone, Default)]
pub struct AlertSearch {
    /// About this VM, which may be gone.
    pub vm: Option<VmId>,
    /// About this.
    pub kind: Option<AlertKind>,
    /// This bad, at its worst.
    pub severity: Option<AlertSeverity>,
    /// Whether it goes on.
    pub open: Option<bool>,
}

/// Names what is one alert while it is open. `what` tells guest errors of one VM apart.
fn dedup_key(kind: AlertKind, vm: Option<VmId>, what: &str) -> String {
    let vm = vm.map(|vm| format!(":{vm}")).unwrap_or_default();
    let what = if what.is_empty() { String::new() } else { format!(":{what}") };
    format!("{}{vm}{what}", kind.word())
}

impl Store {
    /// One alert.
    ///
    /// # Errors
    /// `Database`, `Corrupt`.
    pub async fn alert(&self, id: Uuid) -> Result<Option<Alert>, StoreError> {
        const OPERATION: &str = "reading an alert";
        let sql = "SELECT * FROM alerts WHERE id = $1";
        on_pool!(self, db => sqlx::query_as::<_, AlertRow>(sql).bind(id).fetch_optional(db).await)
            .map_err(failed(OPERATION))?
            .map(|row| row.read(OPERATION))
            .transpose()
    }

    /// The alerts that are searched for, newest first: of all of them, or those of the VMs that this audience may see, also of its VMs
    /// that are gone.
    ///
    /// # Errors
    /// `Database`, `Corrupt`.
    pub async fn alerts(
        &self,
        audience: Audience,
        search: &AlertSearch,
        page: Page,
    ) -> Result<PageOf<Alert>, StoreError> {
        const OPERATION: &str = "listing alerts";
        let rows = on_pool!(self, db => sqlx::query_as::<_, AlertRow>(
            "SELECT a.* FROM alerts a
             WHERE ($1 IS NULL
                    OR EXISTS (SELECT 1 FROM vms v WHERE v.id = a.vm_id AND v.owner_id = $1)
                    OR EXISTS (SELECT 1 FROM vm_shares s WHERE s.vm_id = a.vm_id AND s.user_id = $1)
                    OR (NOT EXISTS (SELECT 1 FROM vms v WHERE v.id = a.vm_id)
                        AND EXISTS (SELECT 1 FROM operations o
                                    WHERE o.vm_id = a.vm_id AND o.kind = 'create' AND o.requested_by = $1)))
               AND ($2 IS NULL OR (a.resolved_at IS NULL) = $2)
               AND ($3 IS NULL OR a.vm_id = $3) AND ($4 IS NULL OR a.kind = $4)
               AND ($5 IS NULL OR a.severity = $5)
               AND ($6 IS NULL OR a.id < $6)
             ORDER BY a.id DESC LIMIT $7",
        )
        .bind(audience.user().map(UserId::uuid))
        .bind(search.open)
        .bind(search.vm.map(VmId::uuid))
        .bind(search.kind.map(Word::word))
        .bind(search.severity.map(Word::word))
        .bind(page.after)
        .bind(page.limit())
        .fetch_all(db)
        .await)
        .map_err(failed(OPERATION))?;
        page.cut(rows, |row| row.read(OPERATION))
    }

    /// How many alerts of each kind are open.
    ///
    /// # Errors
    /// `Database`, `Corrupt`.
    pub async fn open_alerts(&self, host: HostId) -> Result<Vec<(AlertKind, i64)>, StoreError> {
        const OPERATION: &str = "counting open alerts";
        on_pool!(self, db => sqlx::query_as::<_, (String, i64)>(
            "SELECT kind, count(*) FROM alerts WHERE host_id = $1 AND resolved_at IS NULL GROUP BY kind",
        )
        .bind(host.uuid())
        .fetch_all(db)
        .await)
        .map_err(failed(OPERATION))?
        .into_iter()
        .map(|(kind, open)| Ok((AlertKind::read(OPERATION, &kind)?, open)))
        .collect()
    }
}
