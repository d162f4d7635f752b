//! Who may scrape: an admin, by his token. While the database is away nobody can be asked who a
//! token belongs to; whoever was let in shortly before is let in then, too.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use axum::http::HeaderMap;
use sha2::{Digest, Sha256};
use tokio::time::{Instant, timeout};

use crate::{
    access::{Action, authorize},
    api::{audited, auth::Token, doors::Doors, error::ApiError},
    store::{AskedFrom, StoreError},
};

/// How long the database is waited for: less than Prometheus waits for us.
const LIMIT: Duration = Duration::from_secs(3);
/// How long a token counts that cannot be looked up.
const REMEMBERED: Duration = Duration::from_secs(3600);

type Fingerprint = [u8; 32];

/// The last token that was let in, as its SHA-256, and when.
#[derive(Debug, Default)]
pub(super) struct Admission {
    last: Mutex<Option<(Fingerprint, Instant)>>,
}

impl Admission {
    /// # Errors
    /// `UNAUTHENTICATED`, `FORBIDDEN`; the database's, for a token that is not remembered.
    pub(super) async fn check(
        &self,
        doors: &Doors,
        headers: &HeaderMap,
        from: AskedFrom,
    ) -> Result<(), ApiError> {
        let token = Token::of(headers).ok_or_else(ApiError::unauthenticated)?;
        let asked = async {
            let actor = token.actor(&doors.api).await?;
            let allowed = authorize(&actor, Action::ViewTelemetry).map_err(ApiError::from);
            if let Err(refused) = &allowed {
                let at = audited::At { door: "/metrics", user: Some(actor.user), vm: None, origin: from };
                audited::refused_at(&doors.ledger, at, refused).await;
            }
            allowed
        };
        let told =
            timeout(LIMIT, asked).await.unwrap_or_else(|_| Err(StoreError::NoAnswer { limit: LIMIT }.into()));
        self.judge(Sha256::digest(token.as_str()).into(), told, Instant::now())
    }

    /// Remembers who was let in, forgets who was refused, and lets the remembered in where nobody
    /// could be asked.
    fn judge(&self, token: Fingerprint, told: Result<(), ApiError>, now: Instant) -> Result<(), ApiError> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let known = last.is_some_and(|(known, at)| known == token && now.duration_since(at) < REMEMBERED);
        match told {
            Ok(()) => {
                *last = Some((token, now));
                Ok(())
            }
            Err(refused) if matches!(refused.code(), "UNAUTHENTICATED" | "FORBIDDEN") => {
                if known {
                    *last = None;
                }
                Err(refused)
            }
            Err(failed) => known.then_some(()).ok_or(failed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn only_who_was_let_in_lately_is_let_in_without_asking() {
        let away = || Err(ApiError::from(StoreError::NoAnswer { limit: LIMIT }));
        let admission = Admission::default();
        let (ours, other) = ([1; 32], [2; 32]);
        let now = Instant::now();
        assert!(admission.judge(ours, away(), now).is_err(), "nobody was let in before");
        assert!(admission.judge(ours, Ok(()), now).is_ok());
        let later = now + REMEMBERED - Duration::from_secs(1);
        assert!(admission.judge(other, away(), later).is_err(), "another token");
        assert!(admission.judge(ours, away(), later).is_ok());
        assert!(admission.judge(ours, away(), now + REMEMBERED).is_err(), "too long ago");
        let refused = || Err(ApiError::unauthenticated());
        assert!(admission.judge(other, refused(), later).is_err());
        assert!(admission.judge(ours, away(), later).is_ok(), "another's refusal is not ours");
        assert!(admission.judge(ours, refused(), later).is_err());
        assert!(admission.judge(ours, away(), later).is_err(), "a token that was revoked is forgotten");
    }
}
