//! Unattended installs: from a specification to the files that a guest reads on its first boot,
//! and the medium that carries them.
//!
//! Everything a person gave is data here: it is checked against what its destination can carry,
//! then put into a JSON value, never into a text. JSON is YAML to cloud-init.

mod agent;
mod check;
mod iso;
mod password;
mod seed;

pub use agent::{AgentFiles, AgentFilesError};
pub use check::{InvalidSetting, check};
pub use iso::{IsoError, build_iso};
pub use password::{PasswordError, check_password, hash_password};
pub use seed::{SeedError, SeedFile, SeedInputs, scrubbed_seed_files, seed_files};
