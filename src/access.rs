//! Who may do what: roles, permissions, and the one pure function that decides.
//!
//! A stranger must not learn which VMs exist, so "not yours" and "not there" are the same
//! answer ([`Denied::NotFound`]); only somebody who may see a VM is told that an action on it is
//! forbidden.

mod recent;

use std::{collections::BTreeSet, fmt, str::FromStr};

use serde::{Deserialize, Serialize};

pub use recent::Recent;

use crate::vm::UserId;

/// Something a user may be allowed to do beyond using his own VMs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Permission {
    /// Run shell lines in guests.
    UnsafeCommands,
}

impl Permission {
    /// Every permission there is.
    pub const ALL: [Self; 1] = [Self::UnsafeCommands];
}

impl fmt::Display for Permission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::UnsafeCommands => "unsafe_commands",
        })
    }
}

impl FromStr for Permission {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|permission| permission.to_string() == text)
            .ok_or_else(|| format!("{text:?} is not a permission; there is: unsafe_commands"))
    }
}

/// Who is asking.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Actor {
    /// The user.
    pub user: UserId,
    /// His name, for logs.
    pub name: String,
    /// Whether he may see and use everything.
    pub admin: bool,
    /// What else he may do.
    pub permissions: BTreeSet<Permission>,
}

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Make a VM.
    CreateVm,
    /// List VMs (each is then checked with [`Action::ViewVm`], or the list is filtered by owner).
    ListVms,
    /// See a VM, its readings, its logs, its events.
    ViewVm {
        /// Whose it is; `None`: there is no such VM.
        owner: Option<UserId>,
    },
    /// Start, stop, delete.
    ControlVm {
        /// Whose it is; `None`: there is no such VM.
        owner: Option<UserId>,
    },
    /// Run one of the fixed actions in the guest.
    SafeCommand {
        /// Whose it is; `None`: there is no such VM.
        owner: Option<UserId>,
    },
    /// Run a shell line in the guest.
    UnsafeCommand {
        /// Whose it is; `None`: there is no such VM.
        owner: Option<UserId>,
    },
    /// See the host's capacity, pools and networks.
    ViewHost,
    /// See the image library.
    ViewImages,
    /// Bring media in, follow that, and delete them.
    ManageMedia,
    /// See how the controller does, over every VM.
    ViewTelemetry,
    /// See domains that others made, take them under management, give them back.
    OthersDomains,
}

/// Why not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// There is no such thing, as far as this actor can tell.
    #[error("not found")]
    NotFound,
    /// It is there, and not for him.
    #[error("forbidden: {0}")]
    Forbidden(&'static str),
}

/// Decides.
///
/// # Errors
/// [`Denied`] says how to answer.
pub fn authorize(actor: &Actor, action: Action) -> Result<(), Denied> {
    let sees = |owner: Option<UserId>| match owner {
        Some(owner) if actor.admin || owner == actor.user => Ok(()),
        _ => Err(Denied::NotFound),
    };
    match action {
        Action::CreateVm | Action::ListVms | Action::ViewHost | Action::ViewImages => Ok(()),
        Action::ViewVm { owner } | Action::ControlVm { owner } | Action::SafeCommand { owner } => sees(owner),
        Action::ViewTelemetry | Action::ManageMedia | Action::OthersDomains if actor.admin => Ok(()),
        Action::ViewTelemetry | Action::ManageMedia | Action::OthersDomains => {
            Err(Denied::Forbidden("this is for admins"))
        }
        Action::UnsafeCommand { owner } => {
            sees(owner)?;
            // Like the specification, an admin needs the permission too: being trusted with the
            // host is not being trusted with the contents of every guest.
            if actor.permissions.contains(&Permission::UnsafeCommands) {
                Ok(())
            } else {
                Err(Denied::Forbidden("the permission unsafe_commands is needed"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn actor(admin: bool, permissions: &[Permission]) -> Actor {
        Actor {
            user: UserId::generate(),
            name: "somebody".to_owned(),
            admin,
            permissions: permissions.iter().copied().collect(),
        }
    }

    #[test]
    fn a_stranger_cannot_tell_anothers_vm_from_none() {
        let stranger = actor(false, &Permission::ALL);
        for owner in [None, Some(UserId::generate())] {
            for action in [
                Action::ViewVm { owner },
                Action::ControlVm { owner },
                Action::SafeCommand { owner },
                Action::UnsafeCommand { owner },
            ] {
                assert_eq!(authorize(&stranger, action), Err(Denied::NotFound), "{action:?}");
            }
        }
    }

    #[test]
    fn shell_lines_need_the_permission_even_for_owners_and_admins() {
        for admin in [false, true] {
            let without = actor(admin, &[]);
            let owner = Some(without.user);
            assert_eq!(authorize(&without, Action::SafeCommand { owner }), Ok(()));
            assert!(matches!(
                authorize(&without, Action::UnsafeCommand { owner }),
                Err(Denied::Forbidden(_))
            ));
            let with = actor(admin, &[Permission::UnsafeCommands]);
            assert_eq!(authorize(&with, Action::UnsafeCommand { owner: Some(with.user) }), Ok(()));
        }
    }

    #[test]
    fn an_admin_sees_everything_that_is_there() {
        let admin = actor(true, &[]);
        assert_eq!(authorize(&admin, Action::ControlVm { owner: Some(UserId::generate()) }), Ok(()));
        assert_eq!(authorize(&admin, Action::ViewVm { owner: None }), Err(Denied::NotFound));
    }

    #[test]
    fn what_is_told_of_every_vm_is_for_admins_only() {
        for action in [Action::ViewTelemetry, Action::ManageMedia, Action::OthersDomains] {
            assert_eq!(authorize(&actor(true, &[]), action), Ok(()));
            let told = authorize(&actor(false, &Permission::ALL), action);
            assert!(matches!(told, Err(Denied::Forbidden(_))), "{told:?}");
        }
    }
}
