//! The schema's objects: our nouns, as GraphQL shows them.

mod agent;
mod command;
mod host;
mod input;
mod metrics;
mod operation;
mod page;
mod user;
mod vm;

pub(super) use command::{CommandLog, VmCommandResult, VmErrorEntry};
pub(super) use host::{HostObject, ImageObject};
pub(super) use input::{CommandInput, CreateVmInput, VmFilter};
pub(super) use metrics::VmMetrics;
pub(super) use operation::OperationObject;
pub(super) use page::{
    CommandLogConnection, ImageConnection, MAX_FIRST, PageInfo, VmConnection, VmErrorConnection, page,
};
pub(super) use user::User;
pub(super) use vm::{VmEventNotice, VmObject, VmPayload};
