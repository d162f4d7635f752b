//! Freezing and thawing a guest's file systems through its QEMU agent.
//!
//! libvirt would wait for an agent for ever: each call first tells it for how long it may. And a
//! hanging call for the domain must not keep anybody from thawing: these have a subject of their
//! own at the gate, and libvirt lets an agent's work pass beside the monitor's.

use async_trait::async_trait;
use virt::{
    domain::Domain,
    error::{Error, ErrorNumber},
};

use super::{
    LibvirtHypervisor,
    error::is_unsupported,
    ffi,
    gate::{Lane, Subject},
    scan::state,
    session::Call,
};
use crate::{
    hypervisor::{FileSystems, Freeze, HypervisorError, Thaw},
    vm::{DomainState, VmId},
};

/// How long an agent may take to answer, seconds. Windows thaws by itself after ten.
const ANSWER_SECONDS: i32 = 10;
/// What libvirt's agents are given unless somebody says otherwise: no limit.
const NO_LIMIT: i32 = -2;

#[async_trait]
impl FileSystems for LibvirtHypervisor {
    async fn can_freeze(&self, id: VmId) -> Result<bool, HypervisorError> {
        self.on_agent("ask the QEMU agent of", id, answers).await
    }

    async fn freeze(&self, id: VmId) -> Result<Freeze, HypervisorError> {
        self.on_agent("freeze the file systems of", id, freeze).await
    }

    async fn thaw(&self, id: VmId) -> Result<Thaw, HypervisorError> {
        self.on_agent("thaw the file systems of", id, thaw).await
    }
}

impl LibvirtHypervisor {
    async fn on_agent<T: Send + 'static>(
        &self,
        verb: &str,
        id: VmId,
        work: impl FnOnce(&Call<'_>, VmId) -> Result<T, HypervisorError> + Send + 'static,
    ) -> Result<T, HypervisorError> {
        let operation = format!("{verb} domain {id}");
        self.call(operation, Some(Subject::Agent(id)), Lane::Work, move |call| work(call, id)).await
    }
}

fn answers(call: &Call<'_>, id: VmId) -> Result<bool, HypervisorError> {
    let domain = call.domain(id)?;
    // The lightest question there is, with libvirt's own greeting before it. An agent that refuses
    // it answers too, as one that was told to know nothing but freezing.
    match limited(call, &domain, || call.ask_raw(|_| domain.time(0).map(drop)))? {
        Ok(()) => Ok(true),
        Err(error) if is_silent(&error) => Ok(false),
        // A driver without agents' clocks may still know how to freeze.
        Err(error) => match error.code().known() {
            Some(ErrorNumber::NoSupport | ErrorNumber::AgentCommandFailed) => Ok(true),
            // The domain has no channel for it, or is off.
            Some(
                ErrorNumber::ArgumentUnsupported
                | ErrorNumber::OperationUnsupported
                | ErrorNumber::ConfigUnsupported
                | ErrorNumber::OperationInvalid,
            ) => Ok(false),
            _ => Err(call.sort(error)),
        },
    }
}

fn freeze(call: &Call<'_>, id: VmId) -> Result<Freeze, HypervisorError> {
    let domain = call.domain(id)?;
    match limited(call, &domain, || call.ask_raw(|_| ffi::freeze(&domain)))? {
        Ok(_) => Ok(Freeze::Frozen),
        Err(error) => match call.sort(error) {
            // Some of them, all of them, or in a moment: an agent that did not answer in time may
            // still do it.
            HypervisorError::Refused { source, .. } => {
                tracing::warn!(vm = %id, error = %source, "the guest's file systems could not be frozen");
                Ok(Freeze::Doubtful)
            }
            error => Err(error),
        },
    }
}

fn thaw(call: &Call<'_>, id: VmId) -> Result<Thaw, HypervisorError> {
    let Some(domain) = call.find_domain(id)? else { return Ok(Thaw::Off) };
    let outcome = limited(call, &domain, || call.ask_raw(|_| ffi::thaw(&domain)))?;
    let error = match outcome {
        Ok(count) => return Ok(Thaw::Thawed(count)),
        Err(error) => error,
    };
    match state(call.ask(|_| ffi::domain_state(&domain))?) {
        DomainState::Paused | DomainState::Suspended => Ok(Thaw::Halted),
        DomainState::Shutoff | DomainState::Crashed => Ok(Thaw::Off),
        _ => Err(call.sort(error)),
    }
}

/// Makes a call to the agent with a limit to libvirt's patience, and takes the limit back.
fn limited<T>(
    call: &Call<'_>,
    domain: &Domain,
    work: impl FnOnce() -> Result<T, Error>,
) -> Result<Result<T, Error>, HypervisorError> {
    match call.ask_raw(|_| ffi::limit_agent(domain, ANSWER_SECONDS)) {
        Ok(()) => {}
        // The test driver has no agents to wait for, and a domain that is off none either.
        Err(error) if is_unsupported(&error) || error.code().is(ErrorNumber::OperationInvalid) => {
            return Ok(work());
        }
        Err(error) => return Err(call.sort(error)),
    }
    let outcome = work();
    // A domain that is gone by now needs none.
    if let Err(error) = call.ask_raw(|_| ffi::limit_agent(domain, NO_LIMIT)) {
        tracing::debug!(%error, "the limit of the guest's agent stays");
    }
    Ok(outcome)
}

fn is_silent(error: &Error) -> bool {
    matches!(
        error.code().known(),
        Some(ErrorNumber::AgentUnresponsive | ErrorNumber::AgentUnsynced | ErrorNumber::AgentCommandTimeout)
    )
}
