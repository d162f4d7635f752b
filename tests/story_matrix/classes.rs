//! Who may what, said a second time and apart from the code that decides: what a class of fields needs,
//! in the order in which it is looked at, and how somebody is told who has not got it.

use std::collections::BTreeSet;

/// What somebody is to the VM that is asked about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// For all he knows, there is no such VM.
    Nobody,
    Sees,
    Uses,
    Owns,
}

pub const SCOPES: [&str; 5] = ["read", "control", "unsafe_commands", "telemetry", "admin"];

/// What decides about a request, of somebody with a good token.
#[derive(Debug, Clone)]
pub struct Rights {
    pub standing: Standing,
    /// Whether his role makes and changes anything at all.
    pub changes: bool,
    pub admin: bool,
    pub shell: bool,
    pub scopes: BTreeSet<&'static str>,
}

/// How a request is told that there is no such thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Absent {
    /// By nothing in its place.
    Null,
    Code(&'static str),
}

/// One thing that has to be so.
#[derive(Debug, Clone, Copy)]
enum Need {
    See(Absent),
    Use,
    Own,
    Change,
    Admin,
    Shell,
    Scope(&'static str),
    EveryScope,
}

/// How a request ends, as far as rights go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It is let through, whatever becomes of it.
    May,
    Forbidden,
    Absent(Absent),
    Unauthenticated,
}

/// What a field is. None needs no token: the doors that do are not GraphQL's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// For every account, with any token.
    AnyAccount,
    /// For every account whose token reads: things of the host, and lists that hold what he sees.
    Reads,
    /// One's own account, with a token that is good for everything.
    OwnAccount,
    Admins,
    /// For admins whose token is good for everything.
    AdminsWithAll,
    /// Makes a VM.
    Makes,
    /// For those who see the VM.
    Sees(Absent),
    /// For those who work with the VM.
    Controls,
    /// Works with it and tells of it.
    ControlsAndSees,
    /// For those whose VM it is.
    Owns,
    SafeCommand,
    UnsafeCommand,
    /// Makes a VM of one that he works with.
    Copies,
    /// Does to a VM what is for admins.
    AdminsOfIt,
}

const NO_VM: Absent = Absent::Code("VM_NOT_FOUND");

impl Class {
    fn needs(self) -> Vec<Need> {
        use Need::{Admin, Change, EveryScope, Own, Scope, See, Shell, Use};
        match self {
            Self::AnyAccount => vec![],
            Self::Reads => vec![Scope("read")],
            Self::OwnAccount => vec![EveryScope],
            Self::Admins => vec![Admin, Scope("admin")],
            Self::AdminsWithAll => vec![Admin, EveryScope],
            Self::Makes => vec![Change, Scope("control")],
            Self::Sees(absent) => vec![See(absent), Scope("read")],
            Self::Controls | Self::SafeCommand => vec![See(NO_VM), Use, Scope("control")],
            Self::ControlsAndSees => vec![See(NO_VM), Scope("read"), Use, Scope("control")],
            Self::Owns => vec![See(NO_VM), Own, Scope("control")],
            Self::UnsafeCommand => {
                vec![See(NO_VM), Use, Scope("control"), Shell, Scope("unsafe_commands")]
            }
            Self::Copies => vec![Change, Scope("control"), See(NO_VM), Use],
            Self::AdminsOfIt => vec![See(NO_VM), Use, Scope("control"), Admin, Scope("admin")],
        }
    }

    /// How a request of this class ends for him.
    pub fn outcome(self, rights: &Rights) -> Outcome {
        for need in self.needs() {
            let (has, else_told) = match need {
                Need::See(absent) => (rights.standing >= Standing::Sees, Outcome::Absent(absent)),
                Need::Use => (rights.standing >= Standing::Uses, Outcome::Forbidden),
                Need::Own => (rights.standing >= Standing::Owns, Outcome::Forbidden),
                Need::Change => (rights.changes, Outcome::Forbidden),
                Need::Admin => (rights.admin, Outcome::Forbidden),
                Need::Shell => (rights.shell, Outcome::Forbidden),
                Need::Scope(scope) => (rights.scopes.contains(scope), Outcome::Forbidden),
                Need::EveryScope => (rights.scopes.len() == SCOPES.len(), Outcome::Forbidden),
            };
            if !has {
                return else_told;
            }
        }
        Outcome::May
    }
}
