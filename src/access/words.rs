//! Roles, permissions, shares and scopes, each with the word that people, tokens and the database
//! know it by.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// An enum whose variants have a word each.
macro_rules! worded {
    ($(#[$doc:meta])* $name:ident ($what:literal, $count:literal) {
        $($(#[$variant_doc:meta])* $variant:ident => $word:literal,)*
    }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum $name { $($(#[$variant_doc])* $variant,)* }

        impl $name {
            /// Every one there is.
            pub const ALL: [Self; $count] = [$(Self::$variant),*];

            /// Its word.
            #[must_use]
            pub const fn word(self) -> &'static str {
                match self { $(Self::$variant => $word,)* }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.word())
            }
        }

        impl FromStr for $name {
            type Err = String;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Self::ALL.into_iter().find(|known| known.word() == text).ok_or_else(|| {
                    let known = Self::ALL.map(Self::word).join(", ");
                    format!(concat!("{:?} is not a ", $what, "; there is: {}"), text, known)
                })
            }
        }
    };
}

worded! {
    /// What a user is to everybody's VMs.
    Role ("role", 4) {
        /// Uses his own VMs, and those that are shared with him.
        Member => "member",
        /// Sees every VM, and changes nothing, not even his own.
        ReadOnly => "read_only",
        /// Works with every VM: power, changes, commands. Deletes his own.
        Operator => "operator",
        /// Everything: the host, its users, every VM.
        Admin => "admin",
    }
}

worded! {
    /// Something a user may be allowed to do beyond his role.
    Permission ("permission", 1) {
        /// Run shell lines in the guests of VMs that he may work with.
        UnsafeCommands => "unsafe_commands",
    }
}

worded! {
    /// A part in somebody else's VM.
    Share ("share", 2) {
        /// See it.
        View => "view",
        /// Work with it as its owner does, but for deleting it and sharing it.
        Use => "use",
    }
}

worded! {
    /// What a token is good for, at most; its user's rights bound it besides.
    Scope ("scope", 5) {
        /// See VMs, the host, images, and what happens.
        Read => "read",
        /// Make, change and delete VMs, and run safe commands.
        Control => "control",
        /// Run shell lines in guests.
        UnsafeCommands => "unsafe_commands",
        /// Read `/metrics`.
        Telemetry => "telemetry",
        /// What is for admins.
        Admin => "admin",
    }
}
