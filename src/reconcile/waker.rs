//! How the rest of the house tells the loop to look.

use tokio::sync::mpsc;

use crate::vm::VmId;

/// Wakes the loop for one VM, or for all. Never waits; a wake-up that does not fit is not lost,
/// because everything is looked at instead. Clones wake the same loop.
#[derive(Debug, Clone)]
pub struct Waker {
    sender: mpsc::Sender<WakeUp>,
    all: std::sync::Arc<tokio::sync::Notify>,
}

/// Which VM to look at, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WakeUp {
    /// Something may have changed.
    Look(VmId),
    /// What failed is to be tried again now.
    Resync(VmId),
}

/// The loop's end.
#[derive(Debug)]
pub(super) struct WakeUps {
    pub(super) vms: mpsc::Receiver<WakeUp>,
    pub(super) all: std::sync::Arc<tokio::sync::Notify>,
}

impl Waker {
    /// A waker and the end it wakes.
    #[must_use]
    pub(super) fn new() -> (Self, WakeUps) {
        let (sender, vms) = mpsc::channel(1024);
        let all = std::sync::Arc::new(tokio::sync::Notify::new());
        (Self { sender, all: all.clone() }, WakeUps { vms, all })
    }

    /// Look at this VM soon.
    pub fn wake(&self, vm: VmId) {
        if self.sender.try_send(WakeUp::Look(vm)).is_err() {
            self.all.notify_one();
        }
    }

    /// Look at this VM soon, and try again at once what waits because it failed. Waits for its
    /// turn where many are woken.
    pub async fn resync(&self, vm: VmId) {
        if self.sender.send(WakeUp::Resync(vm)).await.is_err() {
            tracing::debug!(%vm, "the loop has ended; nothing is tried again");
        }
    }

    /// Look at everything soon.
    pub fn wake_all(&self) {
        self.all.notify_one();
    }
}
