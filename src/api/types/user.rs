//! Users.

use async_graphql::SimpleObject;
use uuid::Uuid;

use super::people::Role as RoleName;
use crate::access::{Actor, Role};

/// Somebody who may call this API.
#[derive(Debug, SimpleObject)]
pub(crate) struct User {
    /// Its id.
    id: Uuid,
    /// Unique.
    name: String,
    /// May see and use everything.
    admin: bool,
    /// What you are to everybody's VMs.
    role: RoleName,
    /// What else he may do, such as `unsafe_commands`.
    permissions: Vec<String>,
}

impl From<&Actor> for User {
    fn from(actor: &Actor) -> Self {
        Self {
            id: actor.user.uuid(),
            name: actor.name.clone(),
            admin: actor.role == Role::Admin,
            role: actor.role.into(),
            permissions: actor.permissions.iter().map(ToString::to_string).collect(),
        }
    }
}
