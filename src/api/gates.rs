//! What requests share: what only so many of them may do at the same time, and whose VMs those are
//! that commands were just sent to.

use async_graphql::Context;
use tokio::sync::Semaphore;

use super::{error::ApiError, readers::Readers};
use crate::{access::Recent, store::VmAccess, vm::VmId};

/// How many answers may hold whole frames of guests at once: each is up to some hundred MiB while
/// it is made.
const FRAME_READERS: usize = 2;

/// See the module.
pub(super) struct Gates {
    pub(super) frames: Semaphore,
    pub(super) access: Recent<VmId, VmAccess>,
    pub(super) consoles: Readers,
}

impl Gates {
    pub(super) fn of<'a>(ctx: &'a Context<'_>) -> Result<&'a Self, ApiError> {
        ctx.data_opt::<Self>()
            .ok_or_else(|| ApiError::new("INTERNAL", "the schema was built without its gates"))
    }
}

impl Default for Gates {
    fn default() -> Self {
        Self {
            frames: Semaphore::new(FRAME_READERS),
            access: Recent::default(),
            consoles: Readers::default(),
        }
    }
}
