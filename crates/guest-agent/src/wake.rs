//! What the one loop sleeps on: the port, and a bell that worker threads ring.
//!
//! The port is watched edge-triggered. A virtio port whose host end is closed reports a hang-up
//! for as long as that lasts, so a level-triggered wait would return at once for ever; the
//! driver wakes its waiters at each change instead, and an edge is exactly that.

use std::{io, os::fd::OwnedFd, sync::Arc, time::Duration};

use rustix::{
    event::{EventfdFlags, Timespec, epoll, eventfd},
    fd::AsFd,
};

/// Rings the loop's bell. Clones ring the same one.
#[derive(Debug, Clone)]
pub(crate) struct Bell(Arc<OwnedFd>);

impl Bell {
    /// Wakes the loop. A full counter means that it is about to wake anyway.
    pub(crate) fn ring(&self) {
        let _already_ringing = rustix::io::write(&*self.0, &1u64.to_ne_bytes());
    }
}

/// The loop's place to sleep.
#[derive(Debug)]
pub(crate) struct Waiter {
    epoll: OwnedFd,
    bell: Bell,
}

impl Waiter {
    /// # Errors
    /// The kernel gives no descriptor.
    pub(crate) fn new() -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let bell = Bell(Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?));
        epoll::add(&epoll, &*bell.0, epoll::EventData::new_u64(0), epoll::EventFlags::IN)?;
        Ok(Self { epoll, bell })
    }

    /// A handle for another thread.
    pub(crate) fn bell(&self) -> Bell {
        self.bell.clone()
    }

    /// Watches a port until its descriptor is closed.
    pub(crate) fn watch(&self, port: impl AsFd) -> io::Result<()> {
        let edges = epoll::EventFlags::IN | epoll::EventFlags::OUT | epoll::EventFlags::ET;
        Ok(epoll::add(&self.epoll, port, epoll::EventData::new_u64(1), edges)?)
    }

    /// Sleeps until something happens, at most `limit`. Says nothing of what happened: the loop
    /// looks at everything anyway.
    pub(crate) fn wait(&self, limit: Duration) -> io::Result<()> {
        let limit = Timespec::try_from(limit).map_err(io::Error::other)?;
        let mut events = Vec::with_capacity(4);
        match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), Some(&limit)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
        let mut count = [0; 8];
        // Not rung is the usual case and no error.
        let _count = rustix::io::read(&*self.bell.0, &mut count);
        Ok(())
    }
}

/// Sleeps for `time` on nothing: for a thread that may block.
pub(crate) fn pause(time: Duration) {
    if let Ok(time) = Timespec::try_from(time) {
        // An early return by a signal is harmless: callers look at the clock.
        let _early = rustix::event::poll(&mut [], Some(&time));
    }
}
