//! Times that others noted, by a clock that may have been set since: what the store tells of a
//! change's beginning, the links of a guest's words, libvirt of a reboot.
//!
//! Each is followed from the first look that shows it: where the clock is set it moves along, like
//! all that a worker remembers. So no budget becomes longer because a clock went back, and none ends
//! because it went ahead. One that is later than the present counts as the present.

use chrono::{DateTime, TimeDelta, Utc};

use crate::{
    hypervisor::Reboots,
    store::VmBundle,
    vm::{LinkObservation, OpenLink},
};

/// One time: as it was noted, and as it is by the present clock.
#[derive(Debug, Clone, Copy, Default)]
struct Followed(Option<(DateTime<Utc>, DateTime<Utc>)>);

impl Followed {
    fn look(&mut self, noted: DateTime<Utc>, now: DateTime<Utc>) -> DateTime<Utc> {
        match self.0 {
            Some((known, at)) if known == noted => at,
            _ => {
                let at = noted.min(now);
                self.0 = Some((noted, at));
                at
            }
        }
    }

    fn known(self, noted: DateTime<Utc>) -> DateTime<Utc> {
        self.0.filter(|(known, _)| *known == noted).map_or(noted, |(_, at)| at)
    }

    fn shift(&mut self, by: TimeDelta) {
        if let Some((_, at)) = &mut self.0 {
            *at = at.checked_add_signed(by).unwrap_or(*at);
        }
    }
}

/// See the module.
#[derive(Debug, Clone, Default)]
pub struct Times {
    change: Followed,
    first_start: Followed,
    link_since: Followed,
    heard: Followed,
    greeted: Followed,
    reboots_told: Followed,
    reboot: Followed,
}

impl Times {
    /// The clock on the wall was set.
    pub fn shift(&mut self, by: TimeDelta) {
        let Self { change, first_start, link_since, heard, greeted, reboots_told, reboot } = self;
        for time in [change, first_start, link_since, heard, greeted, reboots_told, reboot] {
            time.shift(by);
        }
    }

    /// Follows what the store tells.
    pub fn look(&mut self, bundle: &VmBundle, now: DateTime<Utc>) {
        if let Some(change) = bundle.operations.iter().find(|operation| operation.change.is_some()) {
            self.change.look(change.created_at, now);
        }
        if let Some(started) = bundle.record.milestones.first_started {
            self.first_start.look(started, now);
        }
    }

    /// When the change that is under way was asked for.
    #[must_use]
    pub fn change(&self, noted: DateTime<Utc>) -> DateTime<Utc> {
        self.change.known(noted)
    }

    /// When the VM was first started.
    #[must_use]
    pub fn first_start(&self, noted: DateTime<Utc>) -> DateTime<Utc> {
        self.first_start.known(noted)
    }

    /// What was seen of the link, with its times as they are now.
    #[must_use]
    pub fn link(&mut self, link: LinkObservation, now: DateTime<Utc>) -> LinkObservation {
        match link {
            LinkObservation::Open(link) => LinkObservation::Open(OpenLink {
                since: self.link_since.look(link.since, now),
                last_message_at: link.last_message_at.map(|at| self.heard.look(at, now)),
                greeted_at: link.greeted_at.map(|at| self.greeted.look(at, now)),
                ..link
            }),
            other => other,
        }
    }

    /// What was told of reboots, likewise.
    #[must_use]
    pub fn reboots(&mut self, reboots: Reboots, now: DateTime<Utc>) -> Reboots {
        Reboots {
            told_since: reboots.told_since.map(|at| self.reboots_told.look(at, now)),
            last: reboots.last.map(|at| self.reboot.look(at, now)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_moves_with_the_clock_until_another_one_is_noted() {
        let start = DateTime::from_timestamp(1_800_000_000, 0).unwrap();
        let (hour, second) = (TimeDelta::hours(1), TimeDelta::seconds(1));
        let mut time = Followed::default();
        assert_eq!(time.known(start), start, "one that was not seen yet is as it was noted");
        assert_eq!(time.look(start, start + second), start);
        time.shift(-hour);
        assert_eq!(time.look(start, start - hour + second), start - hour);
        assert_eq!(time.known(start), start - hour);
        let later = start - hour + second;
        assert_eq!(time.look(later, later + second), later);
        time.shift(TimeDelta::MAX);
        assert_eq!(time.known(later), later, "a clock beyond all time moves nothing");
    }

    #[test]
    fn what_was_noted_by_a_clock_that_went_back_before_it_was_seen_is_not_in_the_future() {
        let start = DateTime::from_timestamp(1_800_000_000, 0).unwrap();
        let mut time = Followed::default();
        assert_eq!(time.look(start + TimeDelta::hours(1), start), start);
        assert_eq!(time.look(start + TimeDelta::hours(1), start + TimeDelta::minutes(5)), start);
    }
}
