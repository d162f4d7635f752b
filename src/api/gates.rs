//! What only so many requests may do at the same time.

use async_graphql::Context;
use tokio::sync::Semaphore;

use super::error::ApiError;

/// How many answers may hold whole frames of guests at once: each is up to some hundred MiB while
/// it is made.
const FRAME_READERS: usize = 2;

/// What only so many requests may do at the same time.
pub(super) struct Gates {
    pub(super) frames: Semaphore,
}

impl Gates {
    pub(super) fn of<'a>(ctx: &'a Context<'_>) -> Result<&'a Self, ApiError> {
        ctx.data_opt::<Self>()
            .ok_or_else(|| ApiError::new("INTERNAL", "the schema was built without its gates"))
    }
}

impl Default for Gates {
    fn default() -> Self {
        Self { frames: Semaphore::new(FRAME_READERS) }
    }
}
