//! What a domain shows on its screen.

use async_trait::async_trait;

use super::HypervisorError;
use crate::vm::VmId;

/// Most bytes of a picture: an uncompressed one of 4096 by 2160 points, and some more.
pub const MAX_SCREENSHOT_BYTES: usize = 32 << 20;

/// A picture of a screen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Screenshot {
    /// `image/png` or `image/x-portable-pixmap`, whichever the hypervisor makes.
    pub media_type: &'static str,
    /// At most [`MAX_SCREENSHOT_BYTES`].
    pub bytes: Vec<u8>,
}

/// See the module.
#[async_trait]
pub trait Console: Send + Sync {
    /// The first screen of a domain that runs.
    ///
    /// # Errors
    /// `Refused` where it does not run or has no screen; `Invalid` for a picture that is too large or
    /// of another kind.
    async fn screenshot(&self, id: VmId) -> Result<Screenshot, HypervisorError>;
}
