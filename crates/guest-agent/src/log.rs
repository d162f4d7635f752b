//! Short lines on standard error, where the init system collects them. The guest's disk is not
//! ours to fill, so nothing that happens per message is logged, and text from the host or from
//! the system is freed of control characters first.

use std::{fmt, io::Write as _};

/// Writes one line. A closed standard error must not end the agent: there is nobody left to tell.
pub(crate) fn note(line: fmt::Arguments<'_>) {
    let mut text = format!("infiniservice: {line}");
    text = text.chars().take(500).map(|c| if c.is_control() { ' ' } else { c }).collect();
    text.push('\n');
    let _nobody_to_tell = std::io::stderr().write_all(text.as_bytes());
}
