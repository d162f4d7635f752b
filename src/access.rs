//! Who may do what: roles, shares, permissions, a token's scopes, and the one pure function that
//! decides.
//!
//! A stranger must not learn which VMs exist, so "not yours" and "not there" are the same
//! answer ([`Denied::NotFound`]); only somebody who may see a VM is told that an action on it is
//! forbidden.

mod recent;
mod words;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use chrono::{DateTime, Utc};
pub use recent::Recent;
pub use words::{Permission, Role, Scope, Share};

use crate::vm::{UserId, VmId};

/// Who is asking, and with what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Actor {
    /// The user.
    pub user: UserId,
    /// His name, for logs.
    pub name: String,
    /// What he is to everybody's VMs.
    pub role: Role,
    /// What else he may do.
    pub permissions: BTreeSet<Permission>,
    /// Others' VMs that he was given a part in.
    pub shares: Arc<BTreeMap<VmId, Share>>,
    /// What the token that he came with is good for, at most.
    pub scopes: BTreeSet<Scope>,
    /// When that token ends by itself; never, when absent. It is never put off.
    pub until: Option<DateTime<Utc>>,
}

impl Actor {
    /// Somebody with a token for everything, and without a part in others' VMs.
    #[must_use]
    pub fn new(user: UserId, name: String, role: Role, permissions: BTreeSet<Permission>) -> Self {
        let scopes = Scope::ALL.into();
        Self { user, name, role, permissions, shares: Arc::default(), scopes, until: None }
    }

    /// Whether the token that he came with has ended by itself.
    #[must_use]
    pub fn has_lapsed(&self, now: DateTime<Utc>) -> bool {
        self.until.is_some_and(|until| until <= now)
    }

    /// Whether he may administer this host, with this token.
    #[must_use]
    pub fn is_admin(&self) -> bool {
        self.role == Role::Admin && self.scopes.contains(&Scope::Admin)
    }

    /// Whose VMs he may list.
    #[must_use]
    pub fn audience(&self) -> Audience {
        match self.role {
            Role::Admin | Role::Operator | Role::ReadOnly => Audience::Everybody,
            Role::Member => Audience::Of(self.user),
        }
    }

    /// What he is to a VM of that owner.
    fn standing(&self, target: Target) -> Option<Standing> {
        let owner = target.owner?;
        let own = (owner == self.user).then_some(Standing::Owner);
        let shared = self.shares.get(&target.vm).map(|share| match share {
            Share::View => Standing::Viewer,
            Share::Use => Standing::User,
        });
        let by_role = match self.role {
            Role::Admin => Some(Standing::Owner),
            Role::Operator => Some(Standing::User),
            Role::ReadOnly => return Some(Standing::Viewer),
            Role::Member => None,
        };
        own.max(shared).max(by_role)
    }
}

/// What somebody is to a VM; each may do what those before it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Standing {
    /// Sees it.
    Viewer,
    /// Works with it.
    User,
    /// Decides about it.
    Owner,
}

/// Those whose VMs a list may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Audience {
    /// All VMs.
    Everybody,
    /// A user's own and those that are shared with him.
    Of(UserId),
}

impl Audience {
    /// The one user, if it is one.
    #[must_use]
    pub fn user(self) -> Option<UserId> {
        match self {
            Self::Everybody => None,
            Self::Of(user) => Some(user),
        }
    }
}

/// A VM that something is asked of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target {
    /// Which.
    pub vm: VmId,
    /// Whose it is, or was; `None`: there is no such VM.
    pub owner: Option<UserId>,
}

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Make a VM.
    CreateVm,
    /// List VMs (the list is [`Actor::audience`]'s).
    ListVms,
    /// See a VM, its readings, its logs, its events.
    ViewVm(Target),
    /// Start, stop, change, take snapshots.
    ControlVm(Target),
    /// Delete it, share it, give it away.
    OwnVm(Target),
    /// Run one of the fixed actions in the guest.
    SafeCommand(Target),
    /// Run a shell line in the guest.
    UnsafeCommand(Target),
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
    /// Plug a VM into a bridge of the host.
    UseBridge,
    /// See users.
    ViewUsers,
    /// Make, change and remove users, and end their sessions.
    ChangeUsers,
    /// Read who asked for what.
    ViewAudit,
    /// Change one's own password, end one's own sessions, see one's own tokens.
    OwnAccount,
    /// Issue a token for oneself.
    IssueToken,
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

const ADMINS: Denied = Denied::Forbidden("this is for admins");

/// Decides.
///
/// # Errors
/// [`Denied`] says how to answer.
pub fn authorize(actor: &Actor, action: Action) -> Result<(), Denied> {
    match action {
        Action::ListVms | Action::ViewHost | Action::ViewImages => scoped(actor, Scope::Read),
        Action::ViewVm(target) => {
            let _sees = seen(actor, target)?;
            scoped(actor, Scope::Read)
        }
        Action::CreateVm => match actor.role {
            Role::ReadOnly => Err(Denied::Forbidden("you may look, and change nothing")),
            Role::Admin | Role::Operator | Role::Member => scoped(actor, Scope::Control),
        },
        Action::ControlVm(target) | Action::SafeCommand(target) => controls(actor, target),
        Action::OwnVm(target) => {
            if seen(actor, target)? < Standing::Owner {
                return Err(Denied::Forbidden("this is for the VM's owner"));
            }
            scoped(actor, Scope::Control)
        }
        Action::UnsafeCommand(target) => {
            controls(actor, target)?;
            // Like the specification, an admin needs the permission too: being trusted with the
            // host is not being trusted with the contents of every guest.
            if !actor.permissions.contains(&Permission::UnsafeCommands) {
                return Err(Denied::Forbidden("the permission unsafe_commands is needed"));
            }
            scoped(actor, Scope::UnsafeCommands)
        }
        Action::ViewTelemetry => match actor.role {
            Role::Admin | Role::Operator | Role::ReadOnly => scoped(actor, Scope::Telemetry),
            Role::Member => Err(ADMINS),
        },
        Action::ManageMedia
        | Action::OthersDomains
        | Action::UseBridge
        | Action::ViewUsers
        | Action::ViewAudit => match actor.role {
            Role::Admin => scoped(actor, Scope::Admin),
            Role::Operator | Role::ReadOnly | Role::Member => Err(ADMINS),
        },
        // What a token is too weak for, it must not be able to make itself a stronger one for, nor a
        // user who may do it.
        Action::ChangeUsers => match actor.role {
            Role::Admin => every_scope(actor),
            Role::Operator | Role::ReadOnly | Role::Member => Err(ADMINS),
        },
        Action::OwnAccount | Action::IssueToken => every_scope(actor),
    }
}

/// The specification's `authorizeCommand`: whether this actor may run such a command in a VM of that
/// owner.
///
/// # Errors
/// [`Denied`] says how to answer.
pub fn authorize_command(actor: &Actor, target: Target, is_unsafe: bool) -> Result<(), Denied> {
    let action = if is_unsafe { Action::UnsafeCommand(target) } else { Action::SafeCommand(target) };
    authorize(actor, action)
}

fn seen(actor: &Actor, target: Target) -> Result<Standing, Denied> {
    actor.standing(target).ok_or(Denied::NotFound)
}

fn controls(actor: &Actor, target: Target) -> Result<(), Denied> {
    if seen(actor, target)? < Standing::User {
        return Err(Denied::Forbidden("you may look at this VM, and change nothing"));
    }
    scoped(actor, Scope::Control)
}

fn every_scope(actor: &Actor) -> Result<(), Denied> {
    Scope::ALL.into_iter().try_for_each(|scope| scoped(actor, scope))
}

fn scoped(actor: &Actor, scope: Scope) -> Result<(), Denied> {
    if actor.scopes.contains(&scope) {
        return Ok(());
    }
    Err(Denied::Forbidden(match scope {
        Scope::Read => "this token has not the scope read",
        Scope::Control => "this token has not the scope control",
        Scope::UnsafeCommands => "this token has not the scope unsafe_commands",
        Scope::Telemetry => "this token has not the scope telemetry",
        Scope::Admin => "this token has not the scope admin",
    }))
}

#[cfg(test)]
mod tests;
