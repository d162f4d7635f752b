//! What is plugged into a VM.

use serde::{Deserialize, Serialize};

use super::WrongState;
use crate::vm::{OperationKind, VmRecord, VmStatus};

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeviceChange {}

impl DeviceChange {
    pub(super) fn kind(&self) -> OperationKind {
        match *self {}
    }

    pub(super) fn stage(&self) -> &'static str {
        match *self {}
    }

    pub(super) fn check(&self, _record: &VmRecord, _status: Option<&VmStatus>) -> Result<(), WrongState> {
        match *self {}
    }
}
