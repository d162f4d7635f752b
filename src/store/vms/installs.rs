//! What installers say of themselves. They are known by a token of which only the digest is here, and are
//! strangers' programs: what one may write is bounded.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::{
    store::{Store, StoreError, column::storable, db::on_pool, failed},
    vm::{InstallReport, VmId},
};

const OPERATION: &str = "noting what an installer says";

/// An installer was heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeardReport {
    /// Of this VM.
    pub vm: VmId,
    /// It was written down: another word than the one before.
    pub is_news: bool,
}

/// The row of an installer that may still speak.
macro_rules! speaker {
    () => {
        "install_token_sha256 = $1 AND NOT deleting AND installed_at IS NULL
         AND (system_installed_at IS NULL OR install_stage IS NULL OR install_stage <> 'finished')"
    };
}
/// Whether it says something new. More than 500 words no installer has: what comes after is heard and
/// not written.
macro_rules! news {
    () => {
        "(install_stage IS NULL OR install_stage <> $2) AND install_reports < 500"
    };
}

impl Store {
    /// Notes how far an installer says it is; the last word wins. `token_sha256` as
    /// [`crate::vm::Installation::token_sha256`] gives it. `None`: no installation that is under way has
    /// that token.
    ///
    /// # Errors
    /// `Database`.
    pub async fn report_install(
        &self,
        token_sha256: &str,
        report: &InstallReport,
    ) -> Result<Option<HeardReport>, StoreError> {
        let sql = concat!("SELECT id, ", news!(), " FROM vms WHERE ", speaker!());
        let found = on_pool!(self, db => sqlx::query_as::<_, (Uuid, bool)>(sql)
            .bind(token_sha256)
            .bind(&report.stage)
            .fetch_optional(db)
            .await)
        .map_err(failed(OPERATION))?;
        let Some((id, is_news)) = found else { return Ok(None) };
        let heard = HeardReport { vm: VmId(id), is_news };
        if !is_news {
            return Ok(Some(heard));
        }
        // Of two words at the same time either may be the last.
        let sql = concat!(
            "UPDATE vms SET install_stage = $2, install_reported_at = $3,
                            install_reports = install_reports + 1 WHERE ",
            speaker!(),
            " AND ",
            news!()
        );
        let at: DateTime<Utc> = storable(report.at);
        let written = on_pool!(self, db => sqlx::query(sql)
            .bind(token_sha256)
            .bind(&report.stage)
            .bind(at)
            .execute(db)
            .await
            .map(|done| done.rows_affected() == 1))
        .map_err(failed(OPERATION))?;
        Ok(Some(HeardReport { is_news: written, ..heard }))
    }
}
