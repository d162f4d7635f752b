//! The one place with `unsafe`: what libvirt can do and the `virt` crate's safe wrappers cannot,
//! or do wrongly. Events and the close callback, bulk statistics (the wrapper leaks), a domain's
//! state (the wrapper ignores the error), errors of disks, DHCP leases, the guest agent's file systems.
//!
//! Every function here is a thin, total translation: it copies what it needs out of libvirt's
//! memory, frees that memory, and decides nothing.
#![allow(unsafe_code)]

use std::{
    ffi::{CStr, c_char, c_int, c_void},
    panic::{AssertUnwindSafe, catch_unwind},
    ptr,
    sync::{Arc, OnceLock, mpsc},
    time::Duration,
};

use uuid::Uuid;
use virt::{connect::Connect, domain::Domain, error::Error, network::Network, sys};

use super::events::{DomainHint, SessionHooks};

/// How often the event loop comes round even when nothing happens, so that a handle which was
/// added from another thread is never waited for longer than this.
const LOOP_TICK_MS: c_int = 1000;

static EVENT_LOOP: OnceLock<Result<(), Error>> = OnceLock::new();

/// Starts the process's one event thread, unless it runs already. It has to run before the first
/// connection is opened: keepalive and events of connections opened earlier do not work.
///
/// Blocks until the loop is registered.
pub(super) fn ensure_event_loop() -> Result<(), Error> {
    EVENT_LOOP.get_or_init(start_event_loop).clone()
}

fn start_event_loop() -> Result<(), Error> {
    virt::error::clear_error_callback();
    let (ready, registered) = mpsc::sync_channel(1);
    let thread = std::thread::Builder::new().name("libvirt-events".to_owned()).spawn(move || {
        let outcome = register_event_loop();
        let failed = outcome.is_err();
        // The other side waits for exactly this; if it is gone, so is the process.
        if ready.send(outcome).is_err() || failed {
            return;
        }
        run_event_loop();
    });
    match thread {
        // A closed channel means that the thread died before it could say anything.
        Ok(_) => registered.recv().unwrap_or_else(|_| Err(Error::last_error())),
        Err(error) => {
            tracing::error!(%error, "cannot start the thread for libvirt's events");
            Err(Error::last_error())
        }
    }
}

fn register_event_loop() -> Result<(), Error> {
    extern "C" fn tick(_timer: c_int, _opaque: *mut c_void) {}
    // SAFETY: no arguments; called once, before any other call of the event API, from the thread
    // that will run the loop.
    if unsafe { sys::virEventRegisterDefaultImpl() } < 0 {
        return Err(Error::last_error());
    }
    // SAFETY: the callback is a static function that ignores its (null) opaque pointer, so there
    // is nothing to free.
    if unsafe { sys::virEventAddTimeout(LOOP_TICK_MS, Some(tick), ptr::null_mut(), None) } < 0 {
        return Err(Error::last_error());
    }
    Ok(())
}

fn run_event_loop() {
    let mut reported = false;
    loop {
        // SAFETY: the default implementation was registered by this very thread.
        if unsafe { sys::virEventRunDefaultImpl() } < 0 {
            if !reported {
                tracing::error!(error = %Error::last_error(), "libvirt's event loop fails");
                reported = true;
            }
            // Not a wait for luck: it only keeps a loop that fails at once from burning a core.
            std::thread::park_timeout(Duration::from_millis(200));
        } else {
            reported = false;
        }
    }
}

/// Callbacks of one connection. Dropping it takes them back; it must be dropped before the
/// connection's last reference, because libvirt keeps a reference per callback and would never
/// close it.
pub(super) struct Callbacks {
    conn: Connect,
    ids: Vec<c_int>,
    close: bool,
}

impl Callbacks {
    /// Registers everything that the connection's driver offers. Lifecycle events are needed;
    /// the others only make us look sooner.
    pub(super) fn register(conn: &Connect, hooks: &Arc<SessionHooks>) -> Result<Self, Error> {
        let mut callbacks = Self { conn: conn.clone(), ids: Vec::new(), close: false };
        callbacks.add(
            sys::VIR_DOMAIN_EVENT_ID_LIFECYCLE,
            // SAFETY: libvirt calls a lifecycle callback with exactly the signature of
            // `virConnectDomainEventCallback`, whatever type it is registered as.
            unsafe { generic(on_lifecycle as LifecycleFn as *const ()) },
            hooks,
        )?;
        for event in [sys::VIR_DOMAIN_EVENT_ID_DEVICE_ADDED, sys::VIR_DOMAIN_EVENT_ID_DEVICE_REMOVED] {
            // SAFETY: as above, with the device callbacks' signature.
            let callback = unsafe { generic(on_device as DeviceFn as *const ()) };
            if let Err(error) = callbacks.add(event, callback, hooks) {
                tracing::debug!(event, %error, "this driver has no such event");
            }
        }
        // SAFETY: as above, with the channel callback's signature.
        let callback = unsafe { generic(on_channel as ChannelFn as *const ()) };
        if let Err(error) = callbacks.add(sys::VIR_DOMAIN_EVENT_ID_CHANNEL_LIFECYCLE, callback, hooks) {
            tracing::debug!(%error, "this driver has no channel events");
        }
        // SAFETY: as above; the reboot callback's signature is the generic one.
        let callback = unsafe { generic(on_reboot as RebootFn as *const ()) };
        match callbacks.add(sys::VIR_DOMAIN_EVENT_ID_REBOOT, callback, hooks) {
            // The test driver takes the registration and never tells any.
            Ok(()) if conn.driver_type()? == "QEMU" => hooks.reboots.begin(),
            Ok(()) => {}
            Err(error) => tracing::debug!(%error, "this driver does not tell reboots"),
        }
        callbacks.add_close(hooks);
        Ok(callbacks)
    }

    fn add(
        &mut self,
        event: sys::virDomainEventID,
        callback: sys::virConnectDomainEventGenericCallback,
        hooks: &Arc<SessionHooks>,
    ) -> Result<(), Error> {
        let opaque = Arc::into_raw(Arc::clone(hooks)).cast_mut().cast::<c_void>();
        // SAFETY: the connection is alive; a null domain means all domains; `opaque` is one
        // strong count that libvirt owns from here on and gives back through `free_hooks`, also
        // when it does so later, from the event thread.
        let id = unsafe {
            sys::virConnectDomainEventRegisterAny(
                self.conn.as_ptr(),
                ptr::null_mut(),
                c_int::try_from(event).unwrap_or(c_int::MAX),
                callback,
                opaque,
                Some(free_hooks),
            )
        };
        if id < 0 {
            let error = Error::last_error();
            // SAFETY: on failure libvirt has not taken the pointer.
            unsafe { free_hooks(opaque) };
            return Err(error);
        }
        self.ids.push(id);
        Ok(())
    }

    fn add_close(&mut self, hooks: &Arc<SessionHooks>) {
        let opaque = Arc::into_raw(Arc::clone(hooks)).cast_mut().cast::<c_void>();
        // SAFETY: as in `add`.
        let outcome = unsafe {
            sys::virConnectRegisterCloseCallback(self.conn.as_ptr(), Some(on_close), opaque, Some(free_hooks))
        };
        if outcome < 0 {
            tracing::debug!(error = %Error::last_error(), "this driver does not tell when it closes");
            // SAFETY: on failure libvirt has not taken the pointer.
            unsafe { free_hooks(opaque) };
        } else {
            self.close = true;
        }
    }
}

impl Drop for Callbacks {
    fn drop(&mut self) {
        for id in self.ids.drain(..) {
            // A dead connection answers with an error after it has forgotten the callback on our
            // side, which is all that is asked.
            // SAFETY: the connection is alive (we hold a reference) and the id is ours.
            let _ = unsafe { sys::virConnectDomainEventDeregisterAny(self.conn.as_ptr(), id) };
        }
        if self.close {
            // SAFETY: as above; the function is the one that was registered.
            let _ = unsafe { sys::virConnectUnregisterCloseCallback(self.conn.as_ptr(), Some(on_close)) };
        }
    }
}

type LifecycleFn =
    unsafe extern "C" fn(sys::virConnectPtr, sys::virDomainPtr, c_int, c_int, *mut c_void) -> c_int;
type DeviceFn = unsafe extern "C" fn(sys::virConnectPtr, sys::virDomainPtr, *const c_char, *mut c_void);
type RebootFn = unsafe extern "C" fn(sys::virConnectPtr, sys::virDomainPtr, *mut c_void);
type ChannelFn =
    unsafe extern "C" fn(sys::virConnectPtr, sys::virDomainPtr, *const c_char, c_int, c_int, *mut c_void);

/// libvirt registers callbacks of many signatures through one type.
///
/// # Safety
/// `function` is a callback of the signature that belongs to the event it is registered for.
unsafe fn generic(function: *const ()) -> sys::virConnectDomainEventGenericCallback {
    // SAFETY: a non-null function pointer, by the caller's promise; `Option<fn>` has the same
    // representation.
    unsafe { std::mem::transmute::<*const (), sys::virConnectDomainEventGenericCallback>(function) }
}

unsafe extern "C" fn on_lifecycle(
    _conn: sys::virConnectPtr,
    dom: sys::virDomainPtr,
    _event: c_int,
    _detail: c_int,
    opaque: *mut c_void,
) -> c_int {
    // SAFETY: libvirt's own domain, alive for this call, and our own opaque pointer.
    unsafe { hint(dom, opaque, DomainHint::Changed) };
    0
}

unsafe extern "C" fn on_device(
    _conn: sys::virConnectPtr,
    dom: sys::virDomainPtr,
    _alias: *const c_char,
    opaque: *mut c_void,
) {
    // SAFETY: as in `on_lifecycle`.
    unsafe { hint(dom, opaque, DomainHint::Changed) };
}

unsafe extern "C" fn on_channel(
    _conn: sys::virConnectPtr,
    dom: sys::virDomainPtr,
    _channel: *const c_char,
    _state: c_int,
    _reason: c_int,
    opaque: *mut c_void,
) {
    // SAFETY: as in `on_lifecycle`.
    unsafe { hint(dom, opaque, DomainHint::Channel) };
}

unsafe extern "C" fn on_reboot(_conn: sys::virConnectPtr, dom: sys::virDomainPtr, opaque: *mut c_void) {
    // SAFETY: as in `on_lifecycle`.
    unsafe { hint(dom, opaque, DomainHint::Rebooted) };
}

unsafe extern "C" fn on_close(_conn: sys::virConnectPtr, reason: c_int, opaque: *mut c_void) {
    // SAFETY: `opaque` is the strong count given at registration; it is only borrowed here.
    let hooks = unsafe { &*opaque.cast::<SessionHooks>() };
    // A panic must not run into C.
    if catch_unwind(AssertUnwindSafe(|| hooks.closed(reason))).is_err() {
        std::process::abort();
    }
}

/// # Safety
/// `dom` is a domain that lives through the call, `opaque` an `Arc<SessionHooks>` in raw form.
unsafe fn hint(dom: sys::virDomainPtr, opaque: *mut c_void, hint: DomainHint) {
    // SAFETY: by the caller's promise; the pointer is only borrowed.
    let hooks = unsafe { &*opaque.cast::<SessionHooks>() };
    // SAFETY: by the caller's promise.
    let Some(id) = (unsafe { uuid_of(dom) }) else { return };
    // A panic must not run into C; a lost hint is found again by the next scan.
    let _ = catch_unwind(AssertUnwindSafe(|| hooks.domain(id.into(), hint)));
}

unsafe extern "C" fn free_hooks(opaque: *mut c_void) {
    // SAFETY: exactly one call per `Arc::into_raw`.
    drop(unsafe { Arc::from_raw(opaque.cast::<SessionHooks>()) });
}

/// # Safety
/// `dom` is a live domain.
unsafe fn uuid_of(dom: sys::virDomainPtr) -> Option<Uuid> {
    let mut bytes = [0_u8; 16];
    // SAFETY: libvirt writes VIR_UUID_BUFLEN = 16 bytes.
    let outcome = unsafe { sys::virDomainGetUUID(dom, bytes.as_mut_ptr()) };
    (outcome == 0).then(|| Uuid::from_bytes(bytes))
}

/// A domain's state and reason, as libvirt's numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RawState {
    /// `virDomainState`.
    pub(super) state: i32,
    /// The reason; its meaning depends on the state.
    pub(super) reason: i32,
}

/// One record of a bulk listing.
#[derive(Debug, Clone)]
pub(super) struct StateRecord {
    pub(super) id: Uuid,
    pub(super) name: String,
    /// `None` where libvirt left it out.
    pub(super) state: Option<RawState>,
}

/// The state of every domain, in one call. With `nowait`, domains that are busy with a job are
/// not waited for.
pub(super) fn bulk_states(conn: &Connect, nowait: bool) -> Result<Vec<StateRecord>, Error> {
    let flags = if nowait { sys::VIR_CONNECT_GET_ALL_DOMAINS_STATS_NOWAIT } else { 0 };
    let mut records: *mut sys::virDomainStatsRecordPtr = ptr::null_mut();
    // SAFETY: the connection is alive; libvirt allocates the list and hands it to us.
    let count = unsafe {
        sys::virConnectGetAllDomainStats(conn.as_ptr(), sys::VIR_DOMAIN_STATS_STATE, &raw mut records, flags)
    };
    let Ok(count) = usize::try_from(count) else { return Err(Error::last_error()) };
    let mut states = Vec::with_capacity(count);
    let mut unreadable = None;
    for index in 0..count {
        // SAFETY: the list has `count` records, each valid until it is freed below.
        let record = unsafe { &**records.add(index) };
        // SAFETY: a record's domain lives as long as the record.
        let (id, name) = unsafe { (uuid_of(record.dom), sys::virDomainGetName(record.dom)) };
        match id {
            Some(id) if !name.is_null() => states.push(StateRecord {
                id,
                // SAFETY: a NUL-terminated string that lives as long as the domain.
                name: unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned(),
                state: read_state(record),
            }),
            _ => unreadable = Some(Error::last_error()),
        }
    }
    if !records.is_null() {
        // SAFETY: frees the list, its records and their domains; nothing of it is used after.
        unsafe { sys::virDomainStatsRecordListFree(records) };
    }
    // A list with a hole would read as "this domain is gone".
    unreadable.map_or(Ok(states), Err)
}

fn read_state(record: &sys::virDomainStatsRecord) -> Option<RawState> {
    let read = |name: &CStr| {
        let mut value: c_int = 0;
        // SAFETY: the parameters belong to the record, which the caller holds; the name is
        // NUL-terminated.
        let found = unsafe {
            sys::virTypedParamsGetInt(record.params, record.nparams, name.as_ptr(), &raw mut value)
        };
        (found == 1).then_some(value)
    };
    Some(RawState { state: read(c"state.state")?, reason: read(c"state.reason").unwrap_or(0) })
}

/// One domain's state.
pub(super) fn domain_state(domain: &Domain) -> Result<RawState, Error> {
    let (mut state, mut reason): (c_int, c_int) = (0, 0);
    // SAFETY: the domain is alive; both pointers are valid for the call.
    let outcome = unsafe { sys::virDomainGetState(domain.as_ptr(), &raw mut state, &raw mut reason, 0) };
    if outcome < 0 { Err(Error::last_error()) } else { Ok(RawState { state, reason }) }
}

/// Whether a disk of a running domain could not be read or written when that was last tried.
pub(super) fn has_disk_error(domain: &Domain) -> Result<bool, Error> {
    // SAFETY: the domain is alive; null with a count of zero asks how many there can be.
    let most = unsafe { sys::virDomainGetDiskErrors(domain.as_ptr(), ptr::null_mut(), 0, 0) };
    let Ok(room) = usize::try_from(most) else { return Err(Error::last_error()) };
    let mut errors = vec![sys::virDomainDiskError { disk: ptr::null_mut(), error: 0 }; room];
    // SAFETY: the array has room for as many as we say.
    let count =
        unsafe { sys::virDomainGetDiskErrors(domain.as_ptr(), errors.as_mut_ptr(), most.cast_unsigned(), 0) };
    if count < 0 {
        return Err(Error::last_error());
    }
    for error in &errors {
        // SAFETY: each name came from malloc and is ours; freeing null is allowed.
        unsafe { free(error.disk.cast()) };
    }
    Ok(count > 0)
}

/// How long libvirt waits for the domain's QEMU agent from now on, seconds; -2 for ever.
pub(super) fn limit_agent(domain: &Domain, seconds: c_int) -> Result<(), Error> {
    // SAFETY: the domain is alive; nothing else is passed by reference.
    let outcome = unsafe { sys::virDomainAgentSetResponseTimeout(domain.as_ptr(), seconds, 0) };
    if outcome < 0 { Err(Error::last_error()) } else { Ok(()) }
}

/// Freezes all of the guest's file systems; how many that were.
pub(super) fn freeze(domain: &Domain) -> Result<u32, Error> {
    // SAFETY: the domain is alive; null with a count of zero means all.
    let count = unsafe { sys::virDomainFSFreeze(domain.as_ptr(), ptr::null_mut(), 0, 0) };
    u32::try_from(count).map_err(|_| Error::last_error())
}

/// Thaws all of the guest's file systems; how many were frozen.
pub(super) fn thaw(domain: &Domain) -> Result<u32, Error> {
    // SAFETY: as above.
    let count = unsafe { sys::virDomainFSThaw(domain.as_ptr(), ptr::null_mut(), 0, 0) };
    u32::try_from(count).map_err(|_| Error::last_error())
}

/// One DHCP lease; fields that libvirt left out are empty.
#[derive(Debug, Clone)]
pub(super) struct RawLease {
    pub(super) mac: String,
    pub(super) ip: String,
}

/// All leases of a network, in one call.
pub(super) fn dhcp_leases(network: &Network) -> Result<Vec<RawLease>, Error> {
    let mut leases: *mut sys::virNetworkDHCPLeasePtr = ptr::null_mut();
    // SAFETY: the network is alive; a null MAC asks for all; libvirt allocates the list.
    let count = unsafe { sys::virNetworkGetDHCPLeases(network.as_ptr(), ptr::null(), &raw mut leases, 0) };
    let Ok(count) = usize::try_from(count) else { return Err(Error::last_error()) };
    let mut read = Vec::with_capacity(count);
    for index in 0..count {
        // SAFETY: the list has `count` leases; each is copied, then freed, once.
        unsafe {
            let lease = *leases.add(index);
            read.push(RawLease { mac: text((*lease).mac), ip: text((*lease).ipaddr) });
            sys::virNetworkDHCPLeaseFree(lease);
        }
    }
    // SAFETY: the list itself came from malloc; freeing null is allowed.
    unsafe { free(leases.cast()) };
    Ok(read)
}

/// # Safety
/// Null, or a NUL-terminated string.
unsafe fn text(pointer: *const c_char) -> String {
    if pointer.is_null() {
        return String::new();
    }
    // SAFETY: by the caller's promise.
    unsafe { CStr::from_ptr(pointer) }.to_string_lossy().into_owned()
}

unsafe extern "C" {
    /// The C library's own: libvirt's lists are to be freed with it.
    fn free(pointer: *mut c_void);
}
