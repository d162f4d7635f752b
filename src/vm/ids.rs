//! Identifiers. Each noun has its own type, so that a command's id can never be handed to
//! something that wants a VM's.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl $name {
            /// A new identifier, ordered by time of creation (UUID version 7).
            #[must_use]
            pub fn generate() -> Self {
                Self(Uuid::now_v7())
            }

            /// The bare UUID, for the edges: SQL, GraphQL, the wire.
            #[must_use]
            pub fn uuid(self) -> Uuid {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }

        impl FromStr for $name {
            type Err = uuid::Error;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Uuid::parse_str(text).map(Self)
            }
        }

        impl From<Uuid> for $name {
            fn from(uuid: Uuid) -> Self {
                Self(uuid)
            }
        }
    };
}

id!(
    /// A VM of ours. It **is** the libvirt domain's UUID.
    VmId
);
id!(
    /// One asynchronous change that somebody asked for and can follow.
    OperationId
);
id!(
    /// One command sent to a guest; also its `id` on the wire.
    CommandId
);
id!(
    /// A person or program that may call the API.
    UserId
);
id!(
    /// One bearer token of a user.
    TokenId
);
id!(
    /// One sign-in of a user.
    SessionId
);
id!(
    /// One disk or disc that was brought in.
    MediumId
);
id!(
    /// The hypervisor host a controller owns. Generated once, kept in the state directory.
    HostId
);

impl VmId {
    /// The file name of the agent channel's socket, inside the socket directory.
    #[must_use]
    pub fn socket_name(self) -> String {
        format!("vm-{}.sock", self.0)
    }

    /// The name of the volume of the disk that the VM is made with.
    #[must_use]
    pub fn disk_name(self) -> String {
        format!("infinibay-{}.qcow2", self.0)
    }

    /// A name for the volume of one more disk; never the same twice.
    #[must_use]
    pub fn extra_disk_name(self) -> String {
        let unique = Uuid::now_v7().simple().to_string();
        format!("infinibay-{}-{}.qcow2", self.0, &unique[unique.len() - 12..])
    }

    /// Whether it is a name as [`VmId::extra_disk_name`] gives: the only one that says by itself whose a
    /// volume is.
    #[must_use]
    pub fn is_extra_disk(self, name: &str) -> bool {
        let unique =
            name.strip_prefix(&format!("infinibay-{}-", self.0)).and_then(|rest| rest.strip_suffix(".qcow2"));
        let is_hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        unique.is_some_and(|unique| unique.len() == 12 && unique.bytes().all(is_hex))
    }

    /// The inverse of [`VmId::socket_name`]; `None` for any other name.
    #[must_use]
    pub fn from_socket_name(name: &str) -> Option<Self> {
        let uuid = name.strip_prefix("vm-")?.strip_suffix(".sock")?;
        let id = Self(Uuid::try_parse(uuid).ok()?);
        // Only the canonical spelling is ours: a braced or upper-case UUID would be another path.
        (id.socket_name() == name).then_some(id)
    }
}
