//! Pretended guests: Unix sockets that behave as QEMU's do, with agents of all kinds behind them.
//!
//! Stories and benches need what no single real guest can give: a thousand agents at once, and
//! agents that do harm. Each guest is one small task that counts what it sent and received, so that
//! whoever stands at the other end can be compared with it. What a guest sends is decided by its
//! seed; frames are rendered before the first socket is bound, and only their time is written when
//! they leave, so that a fleet costs little beside what is measured.
//!
//! The socket: one client is served at a time. Another's connection stands, unheard, until the first
//! has left, and what it wrote meanwhile is delivered then. While nobody is there, the agent keeps
//! what it has to say, within a bound.

mod agents;
mod fleet;
mod frame;
mod guest;
mod lie;
mod limits;
mod lines;
mod outbox;
mod plan;
mod report;

pub use fleet::Fleet;
pub use frame::{Frame, Frames};
pub use lie::Lie;
pub use limits::raise_open_files;
pub use plan::{GuestPlan, Kind, Plan, UnknownKind};
pub use report::{Report, Totals};
