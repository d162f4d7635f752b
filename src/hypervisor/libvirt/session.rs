//! One connection to libvirt, from opening to loss, and the calls made on it.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use virt::{connect::Connect, domain::Domain, error::Error};

use super::{
    error::{classify, is_connection_failure, is_unsupported},
    events::SessionHooks,
    ffi::{self, Callbacks, StateRecord},
};
use crate::{
    hypervisor::{DomainType, HypervisorError, Reboots},
    vm::VmId,
};

/// Keepalive messages that may stay unanswered.
const KEEPALIVE_COUNT: u32 = 3;

/// Seconds between keepalive messages. A frozen server is given up after that many times the
/// count plus one: short of the deadline of a call, so that calls end by the connection's loss
/// and not one by one; but never so short that a busy server loses us.
fn keepalive_interval(call_timeout: Duration) -> i32 {
    let fitting = call_timeout.as_secs() / u64::from(KEEPALIVE_COUNT + 2);
    i32::try_from(fitting.clamp(1, 5)).unwrap_or(1)
}

/// A connection with its callbacks. Making and dropping one blocks.
pub(super) struct Session {
    // Declared, and therefore dropped, before the connection: libvirt's callbacks keep it open.
    _callbacks: Callbacks,
    conn: Connect,
    hooks: Arc<SessionHooks>,
    calls: Arc<AtomicU64>,
    /// Whether bulk statistics know the flag that keeps them from waiting for busy domains.
    nowait: OnceLock<bool>,
    pub(super) domain_type: OnceLock<DomainType>,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Session")
    }
}

impl Session {
    /// Opens a connection and registers everything on it.
    pub(super) fn open(
        uri: &str,
        call_timeout: Duration,
        hooks: Arc<SessionHooks>,
        calls: Arc<AtomicU64>,
    ) -> Result<Self, Error> {
        ffi::ensure_event_loop()?;
        let conn = Connect::open(Some(uri))?;
        match conn.set_keep_alive(keepalive_interval(call_timeout), KEEPALIVE_COUNT) {
            Ok(()) => {}
            Err(error) if is_unsupported(&error) => {
                tracing::debug!(%error, "this driver needs no keepalive");
            }
            Err(error) => return Err(error),
        }
        let callbacks = Callbacks::register(&conn, &hooks)?;
        Ok(Self {
            _callbacks: callbacks,
            conn,
            hooks,
            calls,
            nowait: OnceLock::new(),
            domain_type: OnceLock::new(),
        })
    }

    /// What was told on this connection of a domain's booting anew.
    pub(super) fn reboots(&self, id: VmId) -> Reboots {
        self.hooks.reboots.of(id)
    }

    /// Whether the connection still stands, as far as this side knows. Asks nobody.
    pub(super) fn is_alive(&self) -> bool {
        self.conn.is_alive().unwrap_or(false)
    }
}

/// One passage of the gate: a session, and the words for what is being done.
pub(super) struct Call<'a> {
    session: &'a Session,
    operation: &'a str,
}

impl<'a> Call<'a> {
    pub(super) fn new(session: &'a Session, operation: &'a str) -> Self {
        Self { session, operation }
    }

    pub(super) fn operation(&self) -> String {
        self.operation.to_owned()
    }

    pub(super) fn session(&self) -> &Session {
        self.session
    }

    /// Makes one call to libvirt: counted, its error sorted.
    pub(super) fn ask<T>(
        &self,
        call: impl FnOnce(&Connect) -> Result<T, Error>,
    ) -> Result<T, HypervisorError> {
        self.ask_raw(call).map_err(|error| classify(self.operation, error))
    }

    /// The same, with libvirt's own error, for callers that look at its code.
    pub(super) fn ask_raw<T>(&self, call: impl FnOnce(&Connect) -> Result<T, Error>) -> Result<T, Error> {
        self.session.calls.fetch_add(1, Ordering::Relaxed);
        let outcome = call(&self.session.conn);
        if let Err(error) = &outcome
            && is_connection_failure(error)
            && !self.session.is_alive()
        {
            self.session.hooks.lost.notify_one();
        }
        outcome
    }

    /// Sorts an error of [`Call::ask_raw`].
    pub(super) fn sort(&self, error: Error) -> HypervisorError {
        classify(self.operation, error)
    }

    pub(super) fn invalid(&self, reason: impl std::fmt::Display) -> HypervisorError {
        HypervisorError::Invalid { operation: self.operation(), reason: reason.to_string() }
    }

    pub(super) fn domain(&self, id: VmId) -> Result<Domain, HypervisorError> {
        self.ask(|conn| conn.lookup_domain_by_uuid(id.uuid()))
    }

    pub(super) fn find_domain(&self, id: VmId) -> Result<Option<Domain>, HypervisorError> {
        absent_as_none(self.domain(id))
    }

    /// The state of all domains, not waiting for busy ones where the driver can do that.
    pub(super) fn bulk_states(&self) -> Result<Vec<StateRecord>, HypervisorError> {
        if *self.session.nowait.get().unwrap_or(&true) {
            match self.ask_raw(|conn| ffi::bulk_states(conn, true)) {
                Err(error) if is_unsupported(&error) => {
                    // Set by whoever comes first; both would say the same.
                    let _ = self.session.nowait.set(false);
                }
                outcome => return outcome.map_err(|error| self.sort(error)),
            }
        }
        self.ask(|conn| ffi::bulk_states(conn, false))
    }
}

/// Turns "not found" into `None`.
pub(super) fn absent_as_none<T>(outcome: Result<T, HypervisorError>) -> Result<Option<T>, HypervisorError> {
    match outcome {
        Ok(value) => Ok(Some(value)),
        Err(HypervisorError::NotFound { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}
