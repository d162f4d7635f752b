//! What is known of one socket: whose it is, and which VMs it hears of.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use socketioxide::{TransportType, extract::SocketRef};
use tokio::sync::{Semaphore, SemaphorePermit};

use super::{
    admission::Connection,
    counting::{self, Cut, Open},
    lines::Lines,
};
use crate::{
    access::{Action, Actor, Denied, Target, authorize},
    api::{
        ApiContext,
        auth::{Call, Token},
        error::ApiError,
        validity::Validity,
    },
    store::VmView,
    vm::{UserId, VmId},
};

/// VMs that one socket hears of at most.
pub(super) const MAX_VMS: usize = 64;
/// How long a client has to hear why it is sent away.
const LAST_WORDS: Duration = Duration::from_millis(500);
/// Sockets of one user at most: a tab is one.
pub(super) const MAX_OF_ONE: u32 = 32;

/// One socket. It lives as long as the socket does.
pub(super) struct Session {
    token: Token,
    validity: Validity,
    /// Each VM with its owner, who never changes.
    vms: Mutex<HashMap<VmId, UserId>>,
    turns: Semaphore,
    lines: Lines,
    _place: Place,
    _open: Open,
}

impl Session {
    pub(super) fn new(token: Token, validity: Validity, place: Place, lines: Lines) -> Self {
        Self {
            token,
            validity,
            vms: Mutex::default(),
            turns: Semaphore::new(MAX_VMS),
            lines,
            _place: place,
            _open: Open::one(),
        }
    }

    /// The session of a socket that was let in.
    pub(super) fn of(socket: &SocketRef) -> Option<Arc<Self>> {
        socket.extensions.get::<Arc<Self>>()
    }

    pub(super) fn token(&self) -> &Token {
        &self.token
    }

    /// Until when its token is good.
    pub(super) fn validity(&self) -> Validity {
        self.validity
    }

    /// A place among the questions that are worked on.
    ///
    /// # Errors
    /// `TOO_MANY_OPERATIONS`.
    pub(super) fn turn(&self) -> Result<SemaphorePermit<'_>, ApiError> {
        self.turns.try_acquire().map_err(|_| too_many())
    }

    /// The VM, if its socket may see it now.
    ///
    /// # Errors
    /// `UNAUTHENTICATED`, `VM_NOT_FOUND`.
    pub(super) async fn visible(&self, api: &ApiContext, vm: VmId) -> Result<VmView, ApiError> {
        let actor = self.token.recent_actor(api).await?;
        Call { api, actor: &actor }.visible(vm).await
    }

    /// # Errors
    /// `TOO_MANY_OPERATIONS`.
    pub(super) fn join(&self, socket: &SocketRef, vm: VmId, owner: UserId) -> Result<(), ApiError> {
        self.note(vm, owner)?;
        socket.join(room(vm));
        Ok(())
    }

    fn note(&self, vm: VmId, owner: UserId) -> Result<(), ApiError> {
        let mut vms = self.vms();
        if vms.len() >= MAX_VMS && !vms.contains_key(&vm) {
            return Err(too_many());
        }
        vms.insert(vm, owner);
        Ok(())
    }

    pub(super) fn leave(&self, socket: &SocketRef, vm: VmId) {
        self.vms().remove(&vm);
        socket.leave(room(vm));
    }

    /// Whether it hears of the VM. Rooms belong to a connection, which may show another token later.
    pub(super) fn hears_of(&self, vm: VmId) -> bool {
        self.vms().contains_key(&vm)
    }

    /// Whether it hears of anything.
    pub(super) fn hears(&self) -> bool {
        !self.vms().is_empty()
    }

    /// Those of its VMs that this actor may not see.
    pub(super) fn lost(&self, actor: &Actor) -> Vec<(VmId, Denied)> {
        let vms = self.vms();
        let denied = |(&vm, &owner): (&VmId, &UserId)| {
            let target = Target { vm, owner: Some(owner) };
            authorize(actor, Action::ViewVm(target)).err().map(|denied| (vm, denied))
        };
        vms.iter().filter_map(denied).collect()
    }

    fn vms(&self) -> MutexGuard<'_, HashMap<VmId, UserId>> {
        self.vms.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn too_many() -> ApiError {
    ApiError::new("TOO_MANY_OPERATIONS", format!("one socket hears of {MAX_VMS} VMs at most"))
}

/// The room of a VM.
pub(super) fn room(vm: VmId) -> String {
    format!("vm:{vm}")
}

/// Sends a socket away, and ends its connection: at once where there is no room left to tell it so.
pub(super) fn cut(socket: SocketRef, why: Cut) {
    counting::cut(why);
    socket.leave_all();
    let connection = socket.req_parts().extensions.get::<Arc<Connection>>().map(|it| it.token());
    let lines = Session::of(&socket).map(|session| session.lines.clone());
    let (id, polls) = (socket.id.to_string(), socket.transport_type() == TransportType::Polling);
    let grace = match socket.disconnect() {
        Ok(()) => LAST_WORDS,
        Err(error) => {
            tracing::debug!(%error, "a socket is cut off without a word");
            if polls && let Some(lines) = &lines {
                lines.forget(id.clone());
            }
            Duration::ZERO
        }
    };
    tokio::spawn(async move {
        tokio::time::sleep(grace).await;
        if let Some(connection) = connection {
            connection.cancel();
        }
        if let Some(lines) = lines {
            lines.cut(&id);
        }
    });
}

/// How many sockets each user has. Clones share it.
#[derive(Debug, Clone, Default)]
pub(super) struct Users(Arc<Mutex<HashMap<UserId, u32>>>);

/// One socket's place among its user's.
#[derive(Debug)]
pub(super) struct Place {
    all: Users,
    user: UserId,
}

impl Users {
    /// # Errors
    /// `TOO_MANY_CONNECTIONS`.
    pub(super) fn enter(&self, user: UserId) -> Result<Place, ApiError> {
        let mut counts = self.counts();
        let count = counts.entry(user).or_default();
        if *count >= MAX_OF_ONE {
            let words = format!("you have {MAX_OF_ONE} sockets open already");
            return Err(ApiError::new("TOO_MANY_CONNECTIONS", words));
        }
        *count += 1;
        Ok(Place { all: self.clone(), user })
    }

    fn counts(&self) -> MutexGuard<'_, HashMap<UserId, u32>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.all.counts();
        match counts.get_mut(&self.user) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(counts.remove(&self.user)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::Role;

    #[test]
    fn a_socket_hears_of_so_many_vms() {
        let token = Token::plain("abc").expect("a token");
        let somebody = Actor::new(UserId::generate(), "ana".to_owned(), Role::Member, [].into());
        let session = {
            let place = Users::default().enter(somebody.user).unwrap();
            Session::new(token, Validity::of(&somebody), place, Lines::new(|_| ()))
        };
        let (owner, vms) = (UserId::generate(), (0..MAX_VMS).map(|_| VmId::generate()));
        let last = vms.inspect(|&vm| session.note(vm, owner).unwrap()).last().unwrap();
        assert_eq!(session.note(VmId::generate(), owner).unwrap_err().code(), "TOO_MANY_OPERATIONS");
        // Asking twice takes no second place.
        session.note(last, owner).unwrap();
        assert!(session.hears_of(last) && session.hears());
    }

    #[test]
    fn a_user_has_so_many_sockets_and_each_place_is_given_back() {
        let users = Users::default();
        let ana = UserId::generate();
        let mut hers: Vec<_> = (0..MAX_OF_ONE).map(|_| users.enter(ana).unwrap()).collect();
        assert_eq!(users.enter(ana).unwrap_err().code(), "TOO_MANY_CONNECTIONS");
        let bens = users.enter(UserId::generate()).unwrap();
        hers.pop();
        hers.push(users.enter(ana).unwrap());
        drop((hers, bens));
        assert!(users.counts().is_empty());
    }
}
