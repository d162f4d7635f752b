//! Every figure that is counted where it happens: its kind and what it means, in one place.
//! `docs/OPERATIONS.md` has the same table with the labels.

use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};

/// What a figure is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Only grows, until the controller ends.
    Counter,
    /// The same, one per word of a label.
    CounterBy,
    /// Goes up and down.
    Gauge,
    /// How often it was how large.
    Histogram,
}

/// A figure.
#[derive(Debug, Clone, Copy)]
pub(super) struct Figure {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    unit: Unit,
    help: &'static str,
}

const fn figure(name: &'static str, kind: Kind, unit: Unit, help: &'static str) -> Figure {
    Figure { name, kind, unit, help }
}

/// Upper bounds of a time's buckets, seconds.
pub(super) const SECONDS: [f64; 16] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];

/// See the module.
pub(super) const FIGURES: [Figure; 29] = [
    figure("infinibay_readings_total", Kind::Counter, Unit::Count, "Readings accepted from guests."),
    figure(
        "infinibay_readings_refused_total",
        Kind::CounterBy,
        Unit::Count,
        "Readings refused: of the wrong shape, out of range, or from a clock too far off.",
    ),
    figure(
        "infinibay_readings_lost_total",
        Kind::CounterBy,
        Unit::Count,
        "Accepted readings that were given up before they were stored.",
    ),
    figure("infinibay_readings_waiting", Kind::Gauge, Unit::Count, "Readings waiting to be stored."),
    figure("infinibay_spool_bytes", Kind::Gauge, Unit::Bytes, "Bytes of readings waiting on disk."),
    figure(
        "infinibay_spool_damaged_total",
        Kind::CounterBy,
        Unit::Count,
        "Files of readings waiting on disk that could not be read whole.",
    ),
    figure(
        "infinibay_guest_errors_lost_total",
        Kind::CounterBy,
        Unit::Count,
        "Errors reported by guests that were given up before they were stored.",
    ),
    figure(
        "infinibay_pass_seconds",
        Kind::Histogram,
        Unit::Seconds,
        "How long it took to look at every VM: a scan, and what each VM's task made of it.",
    ),
    figure("infinibay_flush_seconds", Kind::Histogram, Unit::Seconds, "How long storing a batch took."),
    figure("infinibay_flush_rows_total", Kind::Counter, Unit::Count, "Readings stored."),
    figure(
        "infinibay_link_lines_refused_total",
        Kind::CounterBy,
        Unit::Count,
        "Lines from guests that were not passed on.",
    ),
    figure("infinibay_link_frames_total", Kind::Counter, Unit::Count, "Well-formed frames from guests."),
    figure("infinibay_link_bytes_total", Kind::Counter, Unit::Bytes, "Bytes read from guests."),
    figure("infinibay_links_open", Kind::Gauge, Unit::Count, "Links whose connection stands."),
    figure(
        "infinibay_links_evicted_total",
        Kind::Counter,
        Unit::Count,
        "Links closed to make room for others.",
    ),
    figure("infinibay_commands_total", Kind::CounterBy, Unit::Count, "Commands that ended."),
    figure(
        "infinibay_command_seconds",
        Kind::Histogram,
        Unit::Seconds,
        "From a command's acceptance to its outcome.",
    ),
    figure("infinibay_commands_queued", Kind::Gauge, Unit::Count, "Commands waiting to be sent."),
    figure(
        "infinibay_commands_refused_total",
        Kind::CounterBy,
        Unit::Count,
        "Commands that were not accepted.",
    ),
    figure(
        "infinibay_late_answers_total",
        Kind::CounterBy,
        Unit::Count,
        "Answers that came after their commands had ended otherwise.",
    ),
    figure(
        "infinibay_libvirt_call_seconds",
        Kind::Histogram,
        Unit::Seconds,
        "How long libvirt took: what was asked of it in one go, from the first call to the last.",
    ),
    figure(
        "infinibay_requests_refused_total",
        Kind::CounterBy,
        Unit::Count,
        "Requests and connections that were over a bound.",
    ),
    figure(
        "infinibay_refusals_total",
        Kind::CounterBy,
        Unit::Count,
        "Errors that callers of GraphQL and of the doors beside it were told.",
    ),
    figure(
        "infinibay_audit_left_out_total",
        Kind::CounterBy,
        Unit::Count,
        "Refusals without a row of their own in the audit log.",
    ),
    figure(
        "infinibay_socketio_sockets",
        Kind::Gauge,
        Unit::Count,
        "Sockets of Socket.IO that showed a token.",
    ),
    figure(
        "infinibay_socketio_events_total",
        Kind::Counter,
        Unit::Count,
        "Events put on their way to sockets of Socket.IO, once for each.",
    ),
    figure(
        "infinibay_socketio_cut_total",
        Kind::CounterBy,
        Unit::Count,
        "Clients of Socket.IO that were cut off.",
    ),
    figure("infinibay_alerts_open", Kind::Gauge, Unit::Count, "Alerts that go on."),
    figure("infinibay_alert_deliveries_total", Kind::CounterBy, Unit::Count, "Attempts to deliver alerts."),
];

/// Tells the installed recorder what each figure means, and begins the plain counters at zero: one
/// that appears with its first increment hides that increment from `rate`.
pub(super) fn describe() {
    for Figure { name, kind, unit, help } in FIGURES {
        match kind {
            Kind::Counter => {
                describe_counter!(name, unit, help);
                metrics::counter!(name).increment(0);
            }
            Kind::CounterBy => describe_counter!(name, unit, help),
            Kind::Gauge => describe_gauge!(name, unit, help),
            Kind::Histogram => describe_histogram!(name, unit, help),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        collections::{BTreeMap, HashSet},
        path::{Path, PathBuf},
    };

    use super::*;

    #[test]
    fn names_follow_the_customs_and_are_unique() {
        let mut seen = HashSet::new();
        for Figure { name, kind, help, .. } in FIGURES {
            assert!(seen.insert(name), "{name} twice");
            assert!(name.starts_with("infinibay_"), "{name}");
            let counter = matches!(kind, Kind::Counter | Kind::CounterBy);
            assert_eq!(name.ends_with("_total"), counter, "{name}");
            assert_eq!(name.ends_with("_seconds"), kind == Kind::Histogram, "{name} has its buckets by name");
            assert!(help.ends_with('.') && !help.contains('\n'), "{name}: {help}");
        }
        assert!(
            SECONDS.is_sorted()
                && SECONDS.len() == SECONDS.map(f64::to_bits).into_iter().collect::<HashSet<_>>().len()
        );
    }

    /// The names that the code outside of tests records under, and the files they stand in. This
    /// door's own names are not among them: they are looked up, not recorded.
    fn recorded() -> BTreeMap<String, PathBuf> {
        let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let door = src.join("api/prometheus");
        let (mut folders, mut names) = (vec![src], BTreeMap::new());
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).expect("a folder of the sources") {
                let path = entry.expect("an entry").path();
                if path.is_dir() {
                    if path != door {
                        folders.push(path);
                    }
                } else if path.extension().is_some_and(|extension| extension == "rs") {
                    let text = std::fs::read_to_string(&path).expect("a source");
                    let code = text.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
                    let literals =
                        code.split("\"infinibay_").skip(1).filter_map(|rest| rest.split('"').next());
                    names.extend(literals.map(|name| (format!("infinibay_{name}"), path.clone())));
                }
            }
        }
        names
    }

    #[test]
    fn whatever_is_recorded_is_here_and_the_other_way_round() {
        let recorded = recorded();
        let known: HashSet<_> = FIGURES.iter().map(|figure| figure.name).collect();
        for (name, path) in &recorded {
            assert!(known.contains(name.as_str()), "{name} of {} is not in the catalogue", path.display());
        }
        for name in known {
            assert!(recorded.contains_key(name), "{name} is in the catalogue and recorded nowhere");
        }
    }

    #[test]
    fn every_figure_is_in_the_documents() {
        let table = include_str!("../../../docs/OPERATIONS.md");
        for Figure { name, .. } in FIGURES {
            assert!(table.contains(&format!("`{name}`")), "{name} is not in docs/OPERATIONS.md");
        }
    }
}
