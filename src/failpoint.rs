//! Named places between two effects, at which the daemon can be made to die.
//!
//! Every operation promises to survive a crash anywhere. That is shown by crashing there, and a
//! kill from outside lands where it happens to: only a place with a name is hit each time. So each
//! gap between two effects has one, `step.moment`, and `FAILPOINTS='create-disk.reserved=return'`
//! in the daemon's environment ends it there as SIGKILL does; `tests/story_kill.rs` does so at all
//! of them. (What else can be put for `return` is told by the crate `fail`.)
//!
//! Nobody's environment may end a daemon in production: the points are there only where the crate
//! has its feature, which this package's tests alone give it, and never in a release build.

use fail::FailScenario;

/// Whether this build has any failpoints at all.
pub const COMPILED_IN: bool = fail::has_failpoints() && cfg!(debug_assertions);

/// What is done in several steps, by name, with the points that lie on its way, in the order in which
/// they are reached. A point that several operations pass is in the list of each.
pub const OPERATIONS: &[(&str, &[&str])] = &[
    (
        "create",
        &[
            "create-vm.stored",
            "commit.status",
            "commit.operation",
            "create-disk.reserved",
            "create-disk.made",
            "create-disk.noted",
            "create-disk.passed",
            "write-seed.reserved",
            "write-seed.made",
            "write-seed.noted",
            "write-seed.passed",
            "define.reserved",
            "define.made",
            "define.noted",
            "define.passed",
            "start.started",
            "commit.milestone",
            "commit.satisfied",
            "scrub-seed.scrubbed",
            "scrub-seed.forgotten",
        ],
    ),
    (
        "delete",
        &[
            "delete-vm.stored",
            "destroy.destroyed",
            "undefine.undefined",
            "remove.volume",
            "remove.released",
            "remove-socket.removed",
            "remove.file",
            "forget.forgotten",
        ],
    ),
    (
        "power",
        &[
            "shutdown.requested",
            "start.started",
            "suspend.suspended",
            "resume.resumed",
            "save.saved",
            "discard-saved.discarded",
            "power.stored",
        ],
    ),
    // A request for power that fails so often that it is given up.
    ("give-up", &["commit.given-up"]),
    ("reboot", &["change.stored", "reboot.requested", "settle.ended"]),
    ("reset", &["change.stored", "change.done", "change.ended"]),
    ("rename", &["change.stored", "change.done", "change.ended"]),
    // Of a VM whose new name another one got meanwhile.
    ("take-name-back", &["take-name-back.renamed", "refuse.ended"]),
    ("set-autostart", &["change.stored", "change.done", "change.ended"]),
    ("set-policy", &["change.stored", "change.done", "change.ended"]),
    // What a domain carries of its VM, after whatever changed that.
    ("note", &["note.written"]),
    (
        "create-snapshot",
        &[
            "change.stored",
            "freeze.noted",
            "freeze.frozen",
            "create-snapshot.taken",
            "melt.thawed",
            "melt.noted",
            "change.done",
            "change.ended",
        ],
    ),
    // What comes first after a crash that left file systems frozen.
    ("thaw", &["thaw.thawed", "thaw.noted"]),
    // Of one that was taken of file systems that were at work again.
    ("retake-snapshot", &["retake-snapshot.deleted"]),
    (
        "revert-snapshot",
        &["change.stored", "revert-snapshot.noted", "revert-snapshot.paused", "change.done", "change.ended"],
    ),
    ("delete-snapshot", &["change.stored", "change.done", "change.ended"]),
    (
        "attach-disk",
        &[
            "change.stored",
            "attach-disk.reserved",
            "attach-disk.made",
            "attach-disk.noted",
            "plug.configured",
            "change.done",
            "change.ended",
        ],
    ),
    (
        "detach-disk",
        &[
            "change.stored",
            "unplug.unplugged",
            "detach-disk.unplugged",
            "detach-disk.deleted",
            "detach-disk.released",
            "change.done",
            "change.ended",
        ],
    ),
    // Of a disk that libvirt refuses to make, or to plug in.
    (
        "undo-disk",
        &["change.stored", "attach-disk.reserved", "undo-disk.deleted", "undo-disk.released", "refuse.ended"],
    ),
    // What stands where a volume is to be made, and is another one.
    ("remake-volume", &["remake-volume.deleted"]),
    ("grow-disk", &["change.stored", "change.done", "change.ended"]),
    ("attach-interface", &["change.stored", "plug.configured", "change.done", "change.ended"]),
    ("detach-interface", &["change.stored", "unplug.unplugged", "change.done", "change.ended"]),
    ("insert-medium", &["change.stored", "change-medium.configured", "change.done", "change.ended"]),
    ("eject-medium", &["change.stored", "change-medium.configured", "change.done", "change.ended"]),
    ("resize", &["change.stored", "resize.configured", "resize.processors", "change.done", "change.ended"]),
    ("adopt", &["adopt.stored", "adopt.defined", "adopt.noted", "change.done", "change.ended"]),
    (
        "release",
        &[
            "change.stored",
            "release.detached",
            "release.forgotten",
            "release.released",
            "release.cleared",
            "change.done",
            "change.ended",
        ],
    ),
    (
        "import-medium",
        &[
            "import-medium.stored",
            "import-medium.started",
            "import-medium.read",
            "import-medium.checked",
            "import-medium.described",
            "import-medium.placed",
            "import-medium.ended",
        ],
    ),
    (
        "clone",
        &[
            "clone-vm.stored",
            "lend.noted",
            "copy-disks.reserved",
            "copy-disks.begun",
            "copy-disks.noted",
            "copy-disks.passed",
            "define.made",
            "change.done",
        ],
    ),
    (
        "install",
        &[
            "write-installer.listed",
            "write-installer.reserved",
            "write-installer.made",
            "keep-installer.kept",
            "keep-installer.removed",
            "keep-installer.released",
            "write-installer.noted",
            "write-installer.passed",
            "define.made",
            "start.started",
            "replace-boot.ejected",
            "replace-boot.edited",
            "replace-boot.started",
            "replace-boot.passed",
            "clear-installer.overwritten",
            "clear-installer.shredded",
            "clear-installer.released",
            "clear-installer.forgotten",
        ],
    ),
    // An installer that waits for a key.
    ("press-key", &["press-key.pressed"]),
    (
        "delete-medium",
        &["delete-medium.stored", "delete-medium.hidden", "delete-medium.removed", "delete-medium.gone"],
    ),
    ("cancel-medium", &["cancel-medium.stored", "cancel-medium.removed", "cancel-medium.discarded"]),
    ("rebuild", &["rebuild.migrated", "rebuild.owned", "rebuild.restored"]),
];

/// A point of this name, which must be in [`OPERATIONS`].
macro_rules! failpoint {
    ($name:literal) => {
        if $crate::failpoint::COMPILED_IN {
            ::fail::fail_point!($name, |_| $crate::failpoint::die($name));
        }
    };
}
pub(crate) use failpoint;

/// Takes `FAILPOINTS` up for as long as what it gives lives, in a build that has any.
///
/// # Panics
/// When it is written wrongly.
#[must_use]
pub fn arm() -> Option<FailScenario<'static>> {
    COMPILED_IN.then(FailScenario::setup)
}

/// Ends this process as SIGKILL from outside does: nothing is flushed, nothing put in order.
#[allow(dead_code, reason = "for the points, where there are any")]
pub(crate) fn die(point: &'static str) -> ! {
    tracing::error!(point, "a failpoint ends the daemon");
    let killed = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    // The signal is there before the call returns.
    unreachable!("the daemon outlived its own SIGKILL: {killed:?}")
}
