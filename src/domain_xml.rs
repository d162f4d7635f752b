//! Domain XML as text: rendered from a template, read for the few facts we need, and edited
//! without touching any byte that is not ours.

mod facts;

pub use facts::{FactsError, XmlFacts, read_facts};
