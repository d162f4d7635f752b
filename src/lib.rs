//! Infinibay Controller: one daemon that owns the life of a hypervisor host's virtual machines,
//! from the domain's definition to the agent inside the guest.
//!
//! The rooms, from the ground up. A room knows rooms below its own floor, never above, and of its own
//! floor only where `docs/ARCHITECTURE.md` says so; `tests/architecture.rs` watches over that.

// Floor 0: the nouns, the places to crash at, and an operator's templates.
pub mod config;
pub mod failpoint;
pub mod template;
pub mod vm;

// Floor 1: pure crafts, each with one subject.
pub mod access;
pub mod domain_xml;
pub mod events;
pub mod install;

// Floor 2: the three outer worlds: the database, the hypervisor, the guests.
pub mod agents;
pub mod hypervisor;
pub mod store;

// Floor 3: what the product does.
pub mod accounts;
pub mod alerts;
pub mod commands;
pub mod images;
pub mod media;
pub mod metrics;
pub mod reconcile;

// Floor 4: what people ask for.
pub mod lifecycle;

// Floor 5: the doors.
pub mod api;

// Floor 6: wiring.
pub mod cli;
pub mod controller;
