//! Unattended installs: from a specification to the files that a guest reads on its first boot,
//! or that an installer reads before it asks, and the medium that carries them.
//!
//! Everything a person gave is data here: it is checked against what its destination can carry,
//! then put into a JSON value, or escaped by a template's format; never pasted into a text.

mod agent;
mod check;
mod cpio;
mod iso;
mod media;
mod password;
mod recipe;
mod seed;

pub use agent::{AgentFiles, AgentFilesError, WindowsAgentFiles};
pub use check::{InvalidSetting, check};
pub use cpio::{CpioError, initrd_archive};
pub use iso::{IsoError, build_iso, build_medium};
pub use media::{InstallAgent, InstallInputs, InstallMedia, MediaError, plan_media};
pub use password::{PasswordError, check_password, hash_password};
pub use recipe::{RecipeError, Recipes};
pub use seed::{SealDelivery, SeedError, SeedFile, SeedInputs, scrubbed_seed_files, seed_files};
