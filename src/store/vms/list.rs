//! Lists of VMs, filtered and sorted by the database: one statement for a page, whatever is asked.
//!
//! A page goes on after the last row's own sort key and id, so that rows that come or go meanwhile are
//! neither skipped nor shown twice.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::{VmView, row::VmRow};
use crate::{
    access::Audience,
    store::{Page, PageOf, Store, StoreError, db::on_pool, failed},
    vm::{AgentConnectivity, UserId, VmPhase},
};

/// Which VMs; everything that is given has to fit.
#[derive(Debug, Clone, Default)]
pub struct VmSearch {
    /// Of this user.
    pub owner: Option<UserId>,
    /// With this in the name, in capitals or not.
    pub name: Option<String>,
    /// In this phase. One that the loop has not looked at yet is being provisioned.
    pub phase: Option<VmPhase>,
    /// With an agent like this.
    pub connectivity: Option<AgentConnectivity>,
}

/// In which order, and after which row of it; from the first one where there is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VmsFrom {
    /// By id.
    Id(Option<Uuid>),
    /// By name, capitals or not.
    Name(Option<(String, Uuid)>),
    /// Newest first.
    Newest(Option<(DateTime<Utc>, Uuid)>),
    /// Oldest first.
    Oldest(Option<(DateTime<Utc>, Uuid)>),
}

impl VmsFrom {
    /// The row's id, name and time, as far as it has them.
    fn row(&self) -> (Option<Uuid>, Option<&str>, Option<DateTime<Utc>>) {
        match self {
            Self::Id(after) => (*after, None, None),
            Self::Name(after) => {
                (after.as_ref().map(|row| row.1), after.as_ref().map(|row| row.0.as_str()), None)
            }
            Self::Newest(after) | Self::Oldest(after) => {
                (after.map(|row| row.1), None, after.map(|row| row.0))
            }
        }
    }
}

/// The statement, by where a name has to be looked for, what comes after a row, and the order.
macro_rules! listing {
    ($finds:literal, $after:literal, $order:literal) => {
        concat!(
            "SELECT * FROM vms
             WHERE ($1 IS NULL OR owner_id = $1
                    OR id IN (SELECT vm_id FROM vm_shares WHERE user_id = $1))
               AND ($2 IS NULL OR owner_id = $2)
               AND ($3 IS NULL OR ",
            $finds,
            " > 0)
               AND ($4 IS NULL OR COALESCE(status ->> 'phase', 'PROVISIONING') = $4)
               AND ($5 IS NULL OR COALESCE(status ->> 'agent', 'NEVER_SEEN') = $5)
               AND ($6 IS NULL OR ",
            $after,
            ") ORDER BY ",
            $order,
            " LIMIT $9"
        )
    };
}

macro_rules! by_both {
    ($store:expr, $after:literal, $order:literal) => {
        $store.sql(
            listing!("instr(lower(name), lower($3))", $after, $order),
            listing!("strpos(lower(name), lower($3))", $after, $order),
        )
    };
}

impl Store {
    /// A page of the VMs that this audience may see; `first` as in [`Page`].
    ///
    /// # Errors
    /// `Database`, `Corrupt`.
    pub async fn list_vms(
        &self,
        audience: Audience,
        search: &VmSearch,
        from: &VmsFrom,
        first: u32,
    ) -> Result<PageOf<VmView>, StoreError> {
        const OPERATION: &str = "listing VMs";
        // Each names all parameters, so that each can be given all of them.
        let sql = match from {
            VmsFrom::Id(_) => by_both!(self, "(id > $6 AND $7 IS NULL AND $8 IS NULL)", "id"),
            VmsFrom::Name(_) => self.sql(
                listing!(
                    "instr(lower(name), lower($3))",
                    "((lower(name), id) > (lower($7), $6) AND $8 IS NULL)",
                    "lower(name), id"
                ),
                listing!(
                    "strpos(lower(name), lower($3))",
                    "((lower(name) COLLATE \"C\", id) > (lower($7) COLLATE \"C\", $6) AND $8 IS NULL)",
                    "lower(name) COLLATE \"C\", id"
                ),
            ),
            VmsFrom::Newest(_) => {
                by_both!(self, "((created_at, id) < ($8, $6) AND $7 IS NULL)", "created_at DESC, id DESC")
            }
            VmsFrom::Oldest(_) => {
                by_both!(self, "((created_at, id) > ($8, $6) AND $7 IS NULL)", "created_at, id")
            }
        };
        let (id, name, at) = from.row();
        let page = Page { first, after: id };
        let rows = on_pool!(self, db => sqlx::query_as::<_, VmRow>(sql)
            .bind(audience.user().map(UserId::uuid))
            .bind(search.owner.map(UserId::uuid))
            .bind(search.name.as_deref())
            .bind(search.phase.map(|phase| phase.to_string()))
            .bind(search.connectivity.map(|connectivity| connectivity.to_string()))
            .bind(id)
            .bind(name)
            .bind(at)
            .bind(page.limit())
            .fetch_all(db)
            .await)
        .map_err(failed(OPERATION))?;
        page.cut(rows, |row| row.view(OPERATION))
    }
}
