//! What libvirt's error codes mean to us. One function decides, so that "not there", "not
//! reachable" and "refused" never get mixed up: the first makes the loop build things, the
//! second makes it wait, the third makes it tell a person.

use virt::error::{Error, ErrorDomain, ErrorNumber};

use crate::hypervisor::HypervisorError;

/// libvirt's error, sorted.
pub(super) fn classify(operation: &str, source: Error) -> HypervisorError {
    let operation = operation.to_owned();
    match source.code().known() {
        Some(
            ErrorNumber::NoDomain
            | ErrorNumber::NoDomainSnapshot
            | ErrorNumber::NoStoragePool
            | ErrorNumber::NoStorageVolume
            | ErrorNumber::NoNetwork,
        ) => HypervisorError::NotFound { operation },
        _ if is_connection_failure(&source) => {
            HypervisorError::Unreachable { operation, source: Some(source) }
        }
        _ => HypervisorError::Refused { operation, source },
    }
}

/// Whether the call failed on its way and not at its goal. libvirt reports a broken connection
/// under several codes (RPC, system error, internal error), but always as its RPC layer's.
pub(super) fn is_connection_failure(error: &Error) -> bool {
    error.domain().is(ErrorDomain::Rpc)
        || matches!(
            error.code().known(),
            Some(
                ErrorNumber::Rpc
                    | ErrorNumber::NoConnect
                    | ErrorNumber::InvalidConn
                    | ErrorNumber::AuthFailed
                    | ErrorNumber::AuthCancelled
                    | ErrorNumber::AuthUnavailable
            )
        )
}

/// Whether the driver does not know the call, or one of its flags.
pub(super) fn is_unsupported(error: &Error) -> bool {
    matches!(
        error.code().known(),
        Some(
            ErrorNumber::NoSupport
                | ErrorNumber::InvalidArg
                | ErrorNumber::ArgumentUnsupported
                | ErrorNumber::ConfigUnsupported
                | ErrorNumber::OperationUnsupported
        )
    )
}

/// Whether the thing is in a state in which the call makes no sense: often because what was asked
/// is already so.
pub(super) fn is_wrong_state(error: &HypervisorError) -> bool {
    matches!(error, HypervisorError::Refused { source, .. } if source.code().is(ErrorNumber::OperationInvalid))
}
