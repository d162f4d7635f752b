//! Users as admins see them, tokens, shares, and who asked for what.

use async_graphql::{Enum, InputObject, Json, SimpleObject};
use chrono::{DateTime, Utc};
use serde_json::Value;
use uuid::Uuid;

use super::PageInfo;
use crate::{access, store};

/// What a user is to everybody's VMs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[graphql(remote = "access::Role")]
pub(crate) enum Role {
    /// Uses his own VMs, and those that are shared with him.
    Member,
    /// Sees every VM, and changes nothing, not even his own.
    ReadOnly,
    /// Works with every VM: power, changes, commands. Deletes his own.
    Operator,
    /// Everything: the host, its users, every VM.
    Admin,
}

/// A part in somebody else's VM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[graphql(remote = "access::Share")]
pub(crate) enum Share {
    /// See it.
    View,
    /// Work with it as its owner does, but for deleting it and sharing it.
    Use,
}

/// Something a user may be allowed to do beyond his role.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[graphql(remote = "access::Permission")]
pub(crate) enum Permission {
    /// Run shell lines in the guests of VMs that he may work with.
    UnsafeCommands,
}

/// What a token is good for, at most; its user's rights bound it besides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[graphql(remote = "access::Scope")]
pub(crate) enum Scope {
    /// See VMs, the host, images, and what happens.
    Read,
    /// Make, change and delete VMs, and run safe commands.
    Control,
    /// Run shell lines in guests.
    UnsafeCommands,
    /// Read `/metrics`.
    Telemetry,
    /// What is for admins.
    Admin,
}

/// A user, for admins.
#[derive(Debug, SimpleObject)]
pub(crate) struct UserAccount {
    /// Its id.
    id: Uuid,
    /// Unique.
    name: String,
    /// What he signs in with; null: he has tokens only.
    email: Option<String>,
    /// Whether he has a password.
    has_password: bool,
    /// What he is to everybody's VMs.
    role: Role,
    /// What else he may do.
    permissions: Vec<Permission>,
    /// Whether his tokens and sessions are good for nothing.
    disabled: bool,
    /// When it was made.
    created_at: DateTime<Utc>,
}

impl From<store::UserRecord> for UserAccount {
    fn from(user: store::UserRecord) -> Self {
        Self {
            id: user.id.uuid(),
            name: user.name,
            email: user.email,
            has_password: user.has_password,
            role: user.role.into(),
            permissions: user.permissions.into_iter().map(Into::into).collect(),
            disabled: user.disabled,
            created_at: user.created_at,
        }
    }
}

/// Users.
#[derive(SimpleObject)]
pub(crate) struct UserConnection {
    /// In the order of their ids.
    pub(crate) nodes: Vec<UserAccount>,
    /// Where the page ends.
    pub(crate) page_info: PageInfo,
}

/// A user to be made.
#[derive(InputObject)]
pub(crate) struct CreateUserInput {
    /// 1 to 64 characters: letters, digits, `.`, `_`, `-`, `@`; unique.
    pub(crate) name: String,
    /// What he signs in with; unique. Without it he has tokens only.
    pub(crate) email: Option<String>,
    /// At least 10 characters, at most 1,024 bytes.
    #[graphql(secret)]
    pub(crate) password: Option<String>,
    /// What he is to everybody's VMs.
    #[graphql(default_with = "Role::Member")]
    pub(crate) role: Role,
    /// What else he may do.
    #[graphql(default)]
    pub(crate) permissions: Vec<Permission>,
}

/// What of a user is to become different; what is left out stays.
#[derive(InputObject)]
pub(crate) struct UpdateUserInput {
    /// What he signs in with; unique.
    pub(crate) email: Option<String>,
    /// A new password for him; signs him out everywhere.
    #[graphql(secret)]
    pub(crate) password: Option<String>,
    /// What he is to everybody's VMs.
    pub(crate) role: Option<Role>,
    /// All of what else he may do.
    pub(crate) permissions: Option<Vec<Permission>>,
    /// Whether his tokens and sessions are good for nothing.
    pub(crate) disabled: Option<bool>,
}

/// A token of yours, without the token.
#[derive(Debug, SimpleObject)]
pub(crate) struct ApiToken {
    /// Its id.
    id: Uuid,
    /// What it is for, in your words.
    label: String,
    /// What it is good for.
    scopes: Vec<Scope>,
    /// When it was issued.
    created_at: DateTime<Utc>,
    /// When it ends; null: never.
    expires_at: Option<DateTime<Utc>>,
}

impl From<store::TokenInfo> for ApiToken {
    fn from(token: store::TokenInfo) -> Self {
        Self {
            id: token.id.uuid(),
            label: token.label,
            scopes: token.scopes.into_iter().map(Into::into).collect(),
            created_at: token.created_at,
            expires_at: token.expires_at,
        }
    }
}

/// A token that was issued this moment.
#[derive(SimpleObject)]
pub(crate) struct IssuedToken {
    /// The token itself. It is not kept, and cannot be shown again.
    pub(crate) token: String,
    /// What is kept of it.
    pub(crate) info: ApiToken,
}

/// Somebody's part in a VM.
#[derive(Debug, SimpleObject)]
pub(crate) struct VmShare {
    /// Who.
    user_id: Uuid,
    /// His name.
    user_name: String,
    /// What part.
    share: Share,
    /// Since when.
    created_at: DateTime<Utc>,
}

impl From<store::VmShare> for VmShare {
    fn from(share: store::VmShare) -> Self {
        Self {
            user_id: share.user.uuid(),
            user_name: share.user_name,
            share: share.share.into(),
            created_at: share.created_at,
        }
    }
}

/// What became of what somebody asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[graphql(remote = "store::AuditOutcome")]
pub(crate) enum AuditOutcome {
    /// It was done, or accepted.
    Done,
    /// He may not, or it cannot be.
    Refused,
    /// Something went wrong here.
    Failed,
}

/// Something that somebody asked for.
#[derive(SimpleObject)]
pub(crate) struct AuditEntry {
    /// The row.
    id: Uuid,
    /// When.
    at: DateTime<Utc>,
    /// Who; null: the host's operator by command line, or, of a refusal, nobody who is known.
    user_id: Option<Uuid>,
    /// What: `vm.create`, `vm.power`, …; of a refusal the mutation's name, or the door's path.
    action: String,
    /// Of which VM, which may be gone.
    vm_id: Option<Uuid>,
    /// What else there is to know; no secrets.
    details: Json<Value>,
    /// What became of it.
    outcome: AuditOutcome,
    /// The code that he was told.
    code: Option<String>,
    /// The address that it was asked from.
    address: Option<String>,
    /// The request's number, as in the log.
    request_id: Option<Uuid>,
}

impl From<store::AuditEntry> for AuditEntry {
    fn from(entry: store::AuditEntry) -> Self {
        Self {
            id: entry.id,
            at: entry.at,
            user_id: Some(entry.user.uuid()).filter(|user| !user.is_nil()),
            action: entry.action,
            vm_id: entry.vm.map(crate::vm::VmId::uuid),
            details: Json(entry.details),
            outcome: entry.outcome.into(),
            code: entry.code,
            address: entry.address,
            request_id: entry.request,
        }
    }
}

/// The audit log.
#[derive(SimpleObject)]
pub(crate) struct AuditConnection {
    /// Newest first.
    pub(crate) nodes: Vec<AuditEntry>,
    /// Where the page ends.
    pub(crate) page_info: PageInfo,
}

/// Which rows of the audit log; everything that is given has to fit.
#[derive(InputObject)]
pub(crate) struct AuditFilterInput {
    /// Of this user.
    pub(crate) user_id: Option<Uuid>,
    /// About this VM.
    pub(crate) vm_id: Option<Uuid>,
    /// Of this action, as in `vm.create`.
    pub(crate) action: Option<String>,
    /// With this outcome.
    pub(crate) outcome: Option<AuditOutcome>,
}
