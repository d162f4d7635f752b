//! The links' counters for those who watch the whole host: sums over all VMs, so that their
//! number does not grow with that of the VMs.

use ::metrics::{Counter, counter, gauge};

use crate::vm::LinkCounters;

const REFUSED: &str = "infinibay_link_lines_refused_total";

/// Adds what came since `before`. Once per read, not per line: each call looks the counter up.
pub(super) fn add(before: &LinkCounters, after: &LinkCounters) {
    type Of = fn(&LinkCounters) -> u64;
    let sums: [(Of, fn() -> Counter); 15] = [
        (|c| c.frames, || counter!("infinibay_link_frames_total")),
        (|c| c.bytes, || counter!("infinibay_link_bytes_total")),
        (|c| c.malformed, || counter!(REFUSED, "reason" => "malformed")),
        (|c| c.oversized, || counter!(REFUSED, "reason" => "oversized")),
        (|c| c.wrong_shape, || counter!(REFUSED, "reason" => "wrong_shape")),
        (|c| c.unknown_type, || counter!(REFUSED, "reason" => "unknown_type")),
        (|c| c.unsolicited, || counter!(REFUSED, "reason" => "unsolicited")),
        (|c| c.late, || counter!(REFUSED, "reason" => "late")),
        (|c| c.sealed, || counter!(REFUSED, "reason" => "sealed")),
        (|c| c.bad_seal, || counter!(REFUSED, "reason" => "bad_seal")),
        (|c| c.replayed, || counter!(REFUSED, "reason" => "replayed")),
        (|c| c.stale, || counter!(REFUSED, "reason" => "stale")),
        (|c| c.unsealed, || counter!(REFUSED, "reason" => "unsealed")),
        (|c| c.too_large, || counter!(REFUSED, "reason" => "too_large")),
        (|c| c.dropped, || counter!(REFUSED, "reason" => "dropped")),
    ];
    for (of, counter) in sums {
        let more = of(after).saturating_sub(of(before));
        if more > 0 {
            counter().increment(more);
        }
    }
}

/// A link had to go for another VM's.
pub(super) fn evicted() {
    counter!("infinibay_links_evicted_total").increment(1);
}

/// A connection that stands, as long as this lives.
#[derive(Debug)]
pub(super) struct OpenConnection(());

impl OpenConnection {
    pub(super) fn new() -> Self {
        gauge!("infinibay_links_open").increment(1.0);
        Self(())
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        gauge!("infinibay_links_open").decrement(1.0);
    }
}

#[cfg(test)]
mod tests {
    use metrics_exporter_prometheus::PrometheusBuilder;

    use super::*;

    #[test]
    fn each_counter_goes_into_its_own_sum() {
        let recorder = PrometheusBuilder::new().build_recorder();
        let before = LinkCounters { frames: 5, late: 7, ..LinkCounters::default() };
        let mut after = before;
        after.frames += 1;
        after.bytes += 2;
        after.malformed += 3;
        after.oversized += 4;
        after.wrong_shape += 5;
        after.unknown_type += 6;
        after.unsolicited += 7;
        after.late += 8;
        after.dropped += 9;
        after.too_large += 10;
        after.sealed += 11;
        after.bad_seal += 12;
        after.replayed += 13;
        after.stale += 14;
        after.unsealed += 15;
        let told = ::metrics::with_local_recorder(&recorder, || {
            add(&before, &after);
            add(&after, &after);
            let open = (OpenConnection::new(), OpenConnection::new());
            drop(open.0);
            evicted();
            recorder.handle().render()
        });
        for line in [
            "infinibay_link_frames_total 1",
            "infinibay_link_bytes_total 2",
            "infinibay_link_lines_refused_total{reason=\"malformed\"} 3",
            "infinibay_link_lines_refused_total{reason=\"oversized\"} 4",
            "infinibay_link_lines_refused_total{reason=\"wrong_shape\"} 5",
            "infinibay_link_lines_refused_total{reason=\"unknown_type\"} 6",
            "infinibay_link_lines_refused_total{reason=\"unsolicited\"} 7",
            "infinibay_link_lines_refused_total{reason=\"late\"} 8",
            "infinibay_link_lines_refused_total{reason=\"dropped\"} 9",
            "infinibay_link_lines_refused_total{reason=\"too_large\"} 10",
            "infinibay_link_lines_refused_total{reason=\"sealed\"} 11",
            "infinibay_link_lines_refused_total{reason=\"bad_seal\"} 12",
            "infinibay_link_lines_refused_total{reason=\"replayed\"} 13",
            "infinibay_link_lines_refused_total{reason=\"stale\"} 14",
            "infinibay_link_lines_refused_total{reason=\"unsealed\"} 15",
            "infinibay_links_open 1",
            "infinibay_links_evicted_total 1",
        ] {
            assert!(told.lines().any(|said| said == line), "{line} is not in\n{told}");
        }
    }
}
