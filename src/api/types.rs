//! The schema's objects: our nouns, as GraphQL shows them.

mod agent;
mod alert;
mod command;
mod device;
mod domain;
mod history_list;
mod host;
mod input;
mod medium;
mod metrics;
mod operation;
mod page;
mod people;
mod readings;
mod result;
mod series;
mod snapshot;
mod user;
mod vm;
mod vm_list;

pub(super) use alert::AlertObject;
pub(super) use command::{CommandLog, VmCommandResult, VmErrorEntry};
pub(super) use domain::{UnmanagedDomainConnection, VmConsoleLog, VmConsolePiece};
pub(super) use history_list::{AlertFilter, CommandLogFilter};
pub(super) use host::{HostObject, ImageObject};
pub(super) use input::{CloneVmInput, CommandInput, CreateVmInput};
pub(super) use medium::{ImportMediumInput, MediumConnection, MediumObject};
pub(super) use metrics::VmMetrics;
pub(super) use operation::OperationObject;
pub(super) use page::{
    AlertConnection, CommandLogConnection, ImageConnection, MAX_FIRST, PageInfo, VmConnection,
    VmErrorConnection, page,
};
pub(super) use people::{
    ApiToken, AuditConnection, AuditEntry, AuditFilterInput, CreateUserInput, IssuedToken, Scope, Share,
    UpdateUserInput, UserAccount, UserConnection, VmShare,
};
pub(super) use readings::VmMetricsList;
pub(super) use series::{MetricsField, MetricsResolution, MetricsSeries};
pub(super) use snapshot::{SnapshotQuiesce, VmSnapshot};
pub(super) use user::User;
pub(super) use vm::{OnCrashName, OnPowerOffName, VmEventNotice, VmObject, VmPayload, told};
pub(super) use vm_list::{VmFilter, VmSort};
