//! Refusals and failures, as callers see them: a stable code, a sentence that says what to do,
//! and for our own faults a correlation id instead of internals.

use std::{error::Error, time::Duration};

use async_graphql::ErrorExtensionValues;
use uuid::Uuid;

use crate::{
    access::Denied,
    commands::CommandError,
    hypervisor::HypervisorError,
    images::ImageError,
    lifecycle::LifecycleError,
    media::MediaError,
    store::{self, StoreError},
    vm::{VmId, chain},
};

/// What a resolver answers instead of data.
// No `Display` on purpose: async-graphql would take it for a plain message and lose the code.
#[derive(Debug, Clone)]
pub(super) struct ApiError {
    code: &'static str,
    message: String,
    field: Option<&'static str>,
    correlation: Option<Uuid>,
    retry_after: Option<Duration>,
}

impl ApiError {
    pub(super) fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), field: None, correlation: None, retry_after: None }
    }

    pub(super) fn invalid(field: &'static str, reason: impl Into<String>) -> Self {
        Self { field: Some(field), ..Self::new("INVALID_INPUT", format!("{field}: {}", reason.into())) }
    }

    pub(super) fn vm_not_found(vm: VmId) -> Self {
        Self::new("VM_NOT_FOUND", format!("there is no VM {vm}"))
    }

    pub(super) fn unauthenticated() -> Self {
        Self::new("UNAUTHENTICATED", "send a valid token as `Authorization: Bearer …`")
    }

    /// Our fault: logged whole, told by number.
    pub(super) fn internal(error: &(dyn Error + 'static)) -> Self {
        let correlation = store::request_at_hand().unwrap_or_else(Uuid::now_v7);
        tracing::error!(%correlation, error = chain(error), "a request failed");
        Self {
            correlation: Some(correlation),
            ..Self::new("INTERNAL", format!("something failed here; the log tells more under {correlation}"))
        }
    }

    /// A subscriber was too slow for the bus; its stream ends with this.
    pub(super) fn lagged(missed: u64) -> Self {
        let words = format!(
            "up to {missed} readings were missed, because they were not read fast enough; subscribe again, \
             and read `getVmMetrics` for what was missed"
        );
        Self::new("LAGGED", words)
    }

    pub(super) fn denied(denied: Denied, vm: VmId) -> Self {
        match denied {
            Denied::NotFound => Self::vm_not_found(vm),
            Denied::Forbidden(why) => Self::new("FORBIDDEN", why),
        }
    }

    /// When it may be tried again.
    pub(super) fn retry_after(self, wait: Duration) -> Self {
        Self { retry_after: Some(wait), ..self }
    }

    /// In whole seconds, at least one.
    pub(super) fn wait(&self) -> Option<u64> {
        self.retry_after.map(|wait| {
            wait.as_secs() + u64::from(wait.subsec_nanos() > 0).max(u64::from(wait.as_secs() == 0))
        })
    }

    pub(super) fn into_message(self) -> String {
        self.message
    }

    pub(super) fn code(&self) -> &'static str {
        self.code
    }

    /// What people are told.
    pub(super) fn message(&self) -> &str {
        &self.message
    }

    /// It could not be found out, as opposed to a refusal: the database is away, or our fault.
    pub(super) fn is_failure(&self) -> bool {
        is_failure(self.code)
    }

    pub(super) fn is_not_found(&self) -> bool {
        self.code == "VM_NOT_FOUND"
    }
}

/// Whether a code says that something went wrong here, as opposed to a refusal.
pub(super) fn is_failure(code: &str) -> bool {
    matches!(code, "INTERNAL" | "STORE_UNAVAILABLE")
}

impl From<ApiError> for async_graphql::Error {
    fn from(error: ApiError) -> Self {
        let mut extensions = ErrorExtensionValues::default();
        extensions.set("code", error.code);
        if let Some(field) = error.field {
            extensions.set("field", field);
        }
        if let Some(correlation) = error.correlation {
            extensions.set("correlationId", correlation.to_string());
        }
        if let Some(request) = store::request_at_hand() {
            extensions.set("requestId", request.to_string());
        }
        Self { message: error.message, source: None, extensions: Some(extensions) }
    }
}

impl From<Denied> for ApiError {
    fn from(denied: Denied) -> Self {
        match denied {
            Denied::NotFound => Self::new("FORBIDDEN", "this is not for you"),
            Denied::Forbidden(why) => Self::new("FORBIDDEN", why),
        }
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        if error.is_unavailable() {
            tracing::warn!(error = chain(&error), "the database was away for a caller");
            return Self::new("STORE_UNAVAILABLE", "the database does not answer now; try again");
        }
        Self::internal(&error)
    }
}

impl From<HypervisorError> for ApiError {
    fn from(error: HypervisorError) -> Self {
        tracing::warn!(error = chain(&error), "the hypervisor could not be asked for a caller");
        Self::new("HYPERVISOR_UNAVAILABLE", "the hypervisor cannot be asked now; try again")
    }
}

impl From<ImageError> for ApiError {
    fn from(error: ImageError) -> Self {
        match &error {
            ImageError::NotFound(_) => Self::new("IMAGE_NOT_FOUND", error.to_string()),
            ImageError::Unusable { .. } => Self::new("IMAGE_UNUSABLE", error.to_string()),
            ImageError::BeingChecked(_) => Self::new("IMAGE_BEING_CHECKED", error.to_string()),
            ImageError::Library { .. } => Self::internal(&error),
        }
    }
}

impl From<MediaError> for ApiError {
    fn from(error: MediaError) -> Self {
        let coded = |code| Self::new(code, error.to_string());
        match error {
            MediaError::Invalid { field, ref reason } => Self::invalid(field, reason.clone()),
            MediaError::Forbidden(why) => Self::new("FORBIDDEN", why),
            MediaError::PathNotAllowed(_) => coded("PATH_NOT_ALLOWED"),
            MediaError::NameTaken(_) => coded("NAME_TAKEN"),
            MediaError::NotFound(_) => coded("MEDIUM_NOT_FOUND"),
            MediaError::InUse { .. } => coded("MEDIUM_IN_USE"),
            MediaError::WrongState(_) => coded("WRONG_STATE"),
            MediaError::TooMany(_) => coded("QUEUE_FULL"),
            MediaError::Disk(_) => Self::internal(&error),
            MediaError::Store(error) => error.into(),
        }
    }
}

impl From<CommandError> for ApiError {
    fn from(error: CommandError) -> Self {
        match error {
            CommandError::Store(error) => error.into(),
            CommandError::Task(_) => Self::internal(&error),
            CommandError::Invalid { field: Some(field), reason } => Self::invalid(field, reason),
            error => Self::new(error.code(), error.to_string()),
        }
    }
}

impl From<LifecycleError> for ApiError {
    fn from(error: LifecycleError) -> Self {
        let coded = |code| Self::new(code, error.to_string());
        match error {
            LifecycleError::Invalid { field, ref reason } => Self::invalid(field, reason.clone()),
            LifecycleError::NameTaken(_) => coded("NAME_TAKEN"),
            LifecycleError::IdTaken => coded("ID_TAKEN"),
            LifecycleError::PoolNotFound(_) => coded("POOL_NOT_FOUND"),
            LifecycleError::NetworkNotFound(_) => coded("NETWORK_NOT_FOUND"),
            LifecycleError::NotSupported(_) => coded("NOT_SUPPORTED"),
            LifecycleError::NoDisc(_) => coded("MEDIUM_UNUSABLE"),
            LifecycleError::MediumNotFound { .. } | LifecycleError::NoMedium(_) => coded("MEDIUM_NOT_FOUND"),
            LifecycleError::MediumNotReady(..) => coded("MEDIUM_NOT_READY"),
            LifecycleError::MediumNotInstallable { .. } => coded("MEDIUM_NOT_INSTALLABLE"),
            LifecycleError::AgentBinaryMissing(_) => coded("AGENT_BINARY_MISSING"),
            LifecycleError::DeviceNotFound(_) => coded("DEVICE_NOT_FOUND"),
            LifecycleError::TooManyDevices(_) => coded("TOO_MANY_DEVICES"),
            LifecycleError::NotFound(_) => coded("VM_NOT_FOUND"),
            LifecycleError::Deleting(_) => coded("VM_DELETING"),
            LifecycleError::AlreadyManaged(_) => coded("ID_TAKEN"),
            LifecycleError::DomainNotFound(_) => coded("DOMAIN_NOT_FOUND"),
            LifecycleError::NotAdoptable(_) => coded("DOMAIN_NOT_ADOPTABLE"),
            LifecycleError::Adopted(_) | LifecycleError::AdoptedSource(_) => coded("VM_ADOPTED"),
            LifecycleError::WrongState(_) => coded("WRONG_STATE"),
            LifecycleError::Busy { .. } => coded("VM_BUSY"),
            LifecycleError::SnapshotExists(_) => coded("SNAPSHOT_EXISTS"),
            LifecycleError::SnapshotNotFound(_) => coded("SNAPSHOT_NOT_FOUND"),
            LifecycleError::SnapshotUnsupported(_) => coded("SNAPSHOT_UNSUPPORTED"),
            LifecycleError::TooManySnapshots => coded("TOO_MANY_SNAPSHOTS"),
            LifecycleError::Forbidden(_) => coded("FORBIDDEN"),
            LifecycleError::Image(error) => error.into(),
            LifecycleError::Media(error) => error.into(),
            LifecycleError::Hypervisor(error) => error.into(),
            LifecycleError::Store(error) => error.into(),
            LifecycleError::ConsoleLog(_)
            | LifecycleError::Password(_)
            | LifecycleError::Answers(_)
            | LifecycleError::Randomness(_) => Self::internal(&error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_faults_are_told_by_number_only() {
        let fault = StoreError::Corrupt { operation: "reading a VM", reason: "hunter2".to_owned() };
        let told = async_graphql::Error::from(ApiError::from(fault));
        let extensions = told.extensions.expect("extensions");
        assert_eq!(extensions.get("code"), Some(&"INTERNAL".into()));
        let Some(async_graphql::Value::String(correlation)) = extensions.get("correlationId") else {
            panic!("no correlation id: {extensions:?}");
        };
        assert!(told.message.contains(correlation.as_str()), "{}", told.message);
        assert!(
            !told.message.contains("hunter2") && !told.message.contains("reading a VM"),
            "{}",
            told.message
        );
    }

    #[test]
    fn an_image_that_is_being_checked_can_be_asked_for_again() {
        let refused = LifecycleError::from(ImageError::BeingChecked("debian".to_owned()));
        let told = ApiError::from(refused);
        assert_eq!(told.code(), "IMAGE_BEING_CHECKED");
        assert!(told.message.ends_with("try again"), "{}", told.message);
    }

    #[test]
    fn refusals_keep_their_code_and_field() {
        let refused = LifecycleError::Invalid { field: "unattended.user", reason: "is odd".to_owned() };
        let told = async_graphql::Error::from(ApiError::from(refused));
        let extensions = told.extensions.expect("extensions");
        assert_eq!(extensions.get("code"), Some(&"INVALID_INPUT".into()));
        assert_eq!(extensions.get("field"), Some(&"unattended.user".into()));
        assert_eq!(told.message, "unattended.user: is odd");
    }
}
