//! VMs and agents by state, and what each guest sent that was refused.

use std::time::Duration;

use tokio::time::timeout;

use super::exposition::{Page, Reading};
use crate::{
    api::ApiContext,
    metrics::Rejections,
    store::VmCount,
    vm::{AgentConnectivity, LinkCounters, VmId, VmPhase, chain},
};

/// How long the database is waited for.
const LIMIT: Duration = Duration::from_secs(3);

/// Writes everything. What the database cannot tell now is left out: a gap in a chart is true, an
/// old value is not.
pub(super) async fn write(page: &mut Page, api: &ApiContext) {
    page.family("infinibay_build_info", Reading::Gauge, "The controller's version; always 1.")
        .value(&[("version", &env!("CARGO_PKG_VERSION"))], 1);
    let counts = match timeout(LIMIT, api.store.count_vms(api.host)).await {
        Ok(Ok(counts)) => Some(counts),
        Ok(Err(error)) => {
            tracing::debug!(error = chain(&error), "a scrape goes without the VMs' states");
            None
        }
        Err(_) => None,
    };
    let up = u8::from(counts.is_some());
    page.gauge("infinibay_database_up", "Whether the database answered this scrape.", up);
    if let Some(counts) = counts {
        write_states(page, &counts);
    }
    let counted = (api.all_counters)().into_iter();
    let refused = counted.map(|(vm, counters)| (vm, refused(&counters, api.metrics.rejections(vm))));
    write_refused(page, refused.collect());
}

/// Every state has a line, also where it is zero.
fn write_states(page: &mut Page, counts: &[VmCount]) {
    let sum = |of: &dyn Fn(&VmCount) -> bool| counts.iter().filter(|c| of(c)).map(|c| c.vms).sum::<i64>();
    let mut vms = page.family("infinibay_vms", Reading::Gauge, "VMs of this host by phase.");
    for phase in VmPhase::ALL {
        vms.value(&[("phase", &phase)], sum(&|count| count.phase == phase));
    }
    let mut agents = page.family("infinibay_agents", Reading::Gauge, "VMs' agents by connectivity.");
    for agent in AgentConnectivity::ALL {
        agents.value(&[("connectivity", &agent)], sum(&|count| count.agent == agent));
    }
}

type Refused = [(&'static str, u64); 17];

/// What a guest sent that was refused, by reason.
fn refused(link: &LinkCounters, rejections: Rejections) -> Refused {
    let LinkCounters {
        frames: _,
        bytes: _,
        malformed,
        oversized,
        wrong_shape,
        unknown_type,
        unsolicited,
        late,
        sealed,
        bad_seal,
        replayed,
        stale,
        unsealed,
        too_large,
        dropped,
    } = *link;
    let Rejections { shape, range, skew, errors_muted } = rejections;
    [
        ("malformed", malformed),
        ("oversized", oversized),
        ("wrong_shape", wrong_shape),
        ("unknown_type", unknown_type),
        ("unsolicited", unsolicited),
        ("late", late),
        ("sealed", sealed),
        ("bad_seal", bad_seal),
        ("replayed", replayed),
        ("stale", stale),
        ("unsealed", unsealed),
        ("too_large", too_large),
        ("dropped", dropped),
        ("reading_shape", shape),
        ("reading_range", range),
        ("reading_skew", skew),
        ("error_rate", errors_muted),
    ]
}

/// Only guests of which something was refused have lines: in a healthy host there is none.
fn write_refused(page: &mut Page, mut links: Vec<(VmId, Refused)>) {
    links.retain(|(_, refused)| refused.iter().any(|(_, count)| *count > 0));
    if links.is_empty() {
        return;
    }
    links.sort_by_key(|(vm, _)| vm.uuid());
    let help = "What a VM's guest sent that was refused, since its link was made.";
    let mut family = page.family("infinibay_vm_frames_refused_total", Reading::Counter, help);
    for (vm, refused) in links {
        for (reason, count) in refused.into_iter().filter(|(_, count)| *count > 0) {
            family.value(&[("vm", &vm), ("reason", &reason)], count);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_are_summed_and_none_is_missing() {
        use AgentConnectivity::{NeverSeen, Online};
        let count = |phase, agent, vms| VmCount { phase, agent, vms };
        let counts = [
            count(VmPhase::Running, Online, 3),
            count(VmPhase::Running, NeverSeen, 2),
            count(VmPhase::Stopped, NeverSeen, 7),
        ];
        let mut page = Page::default();
        write_states(&mut page, &counts);
        let text = page.into_text();
        for line in [
            r#"infinibay_vms{phase="RUNNING"} 5"#,
            r#"infinibay_vms{phase="STOPPED"} 7"#,
            r#"infinibay_vms{phase="FAILED"} 0"#,
            r#"infinibay_agents{connectivity="ONLINE"} 3"#,
            r#"infinibay_agents{connectivity="NEVER_SEEN"} 9"#,
            r#"infinibay_agents{connectivity="OFFLINE"} 0"#,
        ] {
            assert!(text.lines().any(|told| told == line), "{line} is not in\n{text}");
        }
        assert_eq!(
            text.lines().filter(|line| !line.starts_with('#')).count(),
            VmPhase::ALL.len() + AgentConnectivity::ALL.len()
        );
    }

    #[test]
    fn only_what_was_refused_has_a_line() {
        let (quiet, loud) = (VmId::generate(), VmId::generate());
        let good = LinkCounters { frames: 9, bytes: 99, ..LinkCounters::default() };
        let bad = LinkCounters { malformed: 4, late: 1, ..good };
        let skewed = Rejections { skew: 2, errors_muted: 5, ..Rejections::default() };
        let mut page = Page::default();
        write_refused(&mut page, vec![(quiet, refused(&good, Rejections::default()))]);
        assert_eq!(page.into_text(), "", "a family without a line");
        let mut page = Page::default();
        let links = vec![(quiet, refused(&good, Rejections::default())), (loud, refused(&bad, skewed))];
        write_refused(&mut page, links);
        let text = page.into_text();
        let lines: Vec<_> = text.lines().filter(|line| !line.starts_with('#')).collect();
        let line = |reason, count| {
            format!("infinibay_vm_frames_refused_total{{vm=\"{loud}\",reason=\"{reason}\"}} {count}")
        };
        assert_eq!(
            lines,
            [line("malformed", 4), line("late", 1), line("reading_skew", 2), line("error_rate", 5)]
        );
    }
}
