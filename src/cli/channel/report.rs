//! What `infinibayd channel` prints.

use std::{fmt::Write as _, io::Write};

use serde::Serialize;

use crate::{
    hypervisor::libvirt::{ChannelChange, ConfigChange, LiveChange},
    vm::{DomainFacts, DomainState, VmId},
};

/// One domain of the list.
#[derive(Debug, Serialize)]
pub(super) struct Row {
    name: String,
    uuid: VmId,
    state: &'static str,
    /// The channel's socket; absent: no channel.
    channel: Option<String>,
    /// Whether the guest holds its end open; absent: not known.
    guest_connected: Option<bool>,
}

impl Row {
    pub(super) fn new(id: VmId, facts: &DomainFacts) -> Self {
        Self {
            name: facts.name.clone(),
            uuid: id,
            state: state(facts.state),
            channel: facts.channel.as_ref().map(|channel| channel.path.to_string_lossy().into_owned()),
            guest_connected: facts.channel.as_ref().and_then(|channel| channel.guest_connected),
        }
    }

    fn cells(&self) -> [String; 5] {
        let guest = match self.guest_connected {
            Some(true) => "connected",
            Some(false) => "disconnected",
            None => "-",
        };
        [
            printable(&self.name),
            self.uuid.to_string(),
            self.state.to_owned(),
            self.channel.as_deref().map_or_else(|| "-".to_owned(), printable),
            guest.to_owned(),
        ]
    }
}

fn state(state: DomainState) -> &'static str {
    match state {
        DomainState::Running => "running",
        DomainState::Blocked => "blocked",
        DomainState::Paused => "paused",
        DomainState::ShuttingDown => "shutting-down",
        DomainState::Shutoff => "off",
        DomainState::Crashed => "crashed",
        DomainState::Suspended => "suspended",
        DomainState::Unknown => "unknown",
    }
}

pub(super) fn json(out: &mut impl Write, rows: &[Row]) -> anyhow::Result<()> {
    serde_json::to_writer_pretty(&mut *out, rows)?;
    writeln!(out)?;
    Ok(out.flush()?)
}

pub(super) fn table(out: &mut impl Write, rows: &[Row]) -> anyhow::Result<()> {
    let head = ["DOMAIN", "UUID", "STATE", "CHANNEL", "GUEST"].map(str::to_owned);
    let lines: Vec<[String; 5]> = std::iter::once(head).chain(rows.iter().map(Row::cells)).collect();
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; 5] = std::array::from_fn(width);
    for line in &lines {
        let mut text = String::new();
        for (cell, width) in line.iter().zip(widths) {
            write!(text, "{cell:width$}  ")?;
        }
        writeln!(out, "{}", text.trim_end())?;
    }
    Ok(out.flush()?)
}

/// What was done, in a sentence. `verb` is what it was about: `added`, `removed`.
pub(super) fn outcome(change: &ChannelChange, verb: &str) -> String {
    let config = match change.config {
        ConfigChange::Changed => format!("{verb} in the configuration"),
        ConfigChange::Unchanged => "the configuration was already so".to_owned(),
        ConfigChange::None => "the domain has no configuration of its own".to_owned(),
    };
    let live = match &change.live {
        LiveChange::NotRunning => "the domain is off".to_owned(),
        LiveChange::Unchanged => "so was the running domain".to_owned(),
        LiveChange::Changed => format!("{verb} in the running domain"),
        LiveChange::Pending => "the running guest has not let go of it yet".to_owned(),
        LiveChange::OtherPath(path) => {
            format!("the running domain keeps {} until its next start", printable(&path.to_string_lossy()))
        }
        LiveChange::Refused(error) => {
            let mut cause = error.to_string();
            let mut source = std::error::Error::source(error);
            while let Some(next) = source {
                cause = format!("{cause}: {next}");
                source = next.source();
            }
            let when = match change.config {
                ConfigChange::None => "nothing was done",
                ConfigChange::Changed | ConfigChange::Unchanged => "effective at its next start",
            };
            format!("the running domain refuses ({}), {when}", printable(&cause))
        }
    };
    format!("{config}; {live}")
}

/// Whether what was asked neither is so nor will be.
pub(super) fn nothing_done(change: &ChannelChange) -> bool {
    change.config == ConfigChange::None
        && matches!(change.live, LiveChange::Refused(_) | LiveChange::OtherPath(_))
}

/// Text that others chose, made safe for a terminal: without control characters, and without the
/// marks that change the direction of writing.
pub(in crate::cli) fn printable(text: &str) -> String {
    let turns =
        |c: char| matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    text.chars().filter(|c| !c.is_control() && !turns(*c)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vm::ChannelFacts;

    fn row(name: &str, channel: Option<ChannelFacts>) -> Row {
        let facts = DomainFacts {
            name: name.to_owned(),
            state: DomainState::Running,
            reason: 1,
            persistent: true,
            managed_save: false,
            channel,
            interfaces: Vec::new(),
            waiting: Vec::new(),
            about: crate::vm::DomainAbout::default(),
        };
        Row::new("0d7b52b3-6fd9-4b4e-9ad9-9a4b1d3c4b53".parse().unwrap(), &facts)
    }

    #[test]
    fn columns_line_up_and_names_cannot_write_to_the_terminal() {
        let channel = ChannelFacts { path: "/tmp/a.sock".into(), guest_connected: Some(false) };
        let rows = [row("evil\u{1b}[2J\nname\u{202e}", None), row("é", Some(channel))];
        let mut out = Vec::new();
        table(&mut out, &rows).unwrap();
        let out = String::from_utf8(out).unwrap();
        let uuid = "0d7b52b3-6fd9-4b4e-9ad9-9a4b1d3c4b53";
        let expected = [
            format!("{:11}  {:36}  {:7}  {:11}  GUEST", "DOMAIN", "UUID", "STATE", "CHANNEL"),
            format!("{:11}  {uuid}  running  {:11}  -", "evil[2Jname", "-"),
            format!("{:11}  {uuid}  running  /tmp/a.sock  disconnected", "é"),
        ];
        assert_eq!(out.lines().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn json_has_null_for_what_is_not_there() {
        let mut out = Vec::new();
        json(&mut out, &[row("a", None)]).unwrap();
        let value: serde_json::Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(value[0]["name"], "a");
        assert!(value[0]["channel"].is_null() && value[0]["guest_connected"].is_null());
    }

    #[test]
    fn only_a_change_that_will_never_come_is_a_failure() {
        let refused = || {
            LiveChange::Refused(crate::hypervisor::HypervisorError::NotFound { operation: "x".to_owned() })
        };
        let cases = [
            (ConfigChange::Changed, refused(), false),
            (ConfigChange::None, refused(), true),
            (ConfigChange::None, LiveChange::Changed, false),
            (ConfigChange::None, LiveChange::OtherPath("/a".into()), true),
            (ConfigChange::Unchanged, LiveChange::NotRunning, false),
        ];
        for (config, live, expected) in cases {
            let change = ChannelChange { config, live };
            assert_eq!(nothing_done(&change), expected, "{change:?}");
        }
    }
}
