//! When a session does not read, because its frames wait for their receiver.
//!
//! What is not read waits in the channel, and then in the guest: nothing gets lost by it. But the
//! answers of commands come the same way, so no wait is without end: a receiver that is stuck
//! costs readings, never answers.

use std::time::Duration;

use tokio::time::Instant;

/// How long a link waits for its turn at the receiver before it reads on.
const TURN: Duration = Duration::from_secs(5);

/// How long in all reading is held while commands are unanswered, however many turns come.
const IN_FLIGHT: Duration = Duration::from_secs(1);

/// How long nothing is read in all, however many turns come: a guest that is not read looks like
/// one that is not there. One that waits longer may cost the oldest reading.
const UNREAD: Duration = Duration::from_secs(15);

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Hold {
    /// Since when the next frame waits for its turn.
    waits_since: Option<Instant>,
    /// Since when frames wait and nothing was read.
    unread_since: Option<Instant>,
    /// When the commands in flight have waited long enough.
    answers_at: Option<Instant>,
}

impl Hold {
    /// Until when nothing is to be read, given whether frames wait and commands are unanswered;
    /// `None`: read.
    pub(super) fn until(&mut self, frames_wait: bool, in_flight: bool, now: Instant) -> Option<Instant> {
        if !in_flight {
            self.answers_at = None;
        }
        if !frames_wait {
            self.waits_since = None;
            self.unread_since = None;
            return None;
        }
        let turn = *self.waits_since.get_or_insert(now) + TURN;
        let mut until = turn.min(*self.unread_since.get_or_insert(now) + UNREAD);
        if in_flight {
            until = until.min(*self.answers_at.get_or_insert(now + IN_FLIGHT));
        }
        (until > now).then_some(until)
    }

    /// A frame had its turn; the next one waits from now on.
    pub(super) fn had_turn(&mut self) {
        self.waits_since = None;
    }

    /// Something was read.
    pub(super) fn had_read(&mut self) {
        self.unread_since = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reading_is_held_while_frames_wait_for_their_turn_but_not_for_ever() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut hold = Hold::default();
        assert_eq!(hold.until(false, false, at(0)), None);
        assert_eq!(hold.until(true, false, at(0)), Some(at(5000)));
        assert_eq!(hold.until(true, false, at(4999)), Some(at(5000)));
        hold.had_turn();
        assert_eq!(hold.until(true, false, at(4999)), Some(at(9999)), "each turn is waited for");
        assert_eq!(hold.until(true, false, at(9999)), None, "the receiver is stuck");
        assert_eq!(hold.until(true, false, at(20_000)), None);
        hold.had_read();
        hold.had_turn();
        assert_eq!(hold.until(true, false, at(20_000)), Some(at(25_000)), "it works again");
        assert_eq!(hold.until(false, false, at(20_001)), None);
        assert_eq!(hold.until(true, false, at(30_000)), Some(at(35_000)), "a new wait");
    }

    #[test]
    fn a_link_is_read_now_and_then_however_many_turns_come() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut hold = Hold::default();
        for turn in 0..4 {
            assert_eq!(hold.until(true, false, at(4 * turn)), Some(at((4 * turn + 5).min(15))));
            hold.had_turn();
        }
        assert_eq!(hold.until(true, false, at(15)), None, "not read for too long");
        hold.had_turn();
        assert_eq!(hold.until(true, false, at(16)), None, "nothing has come since");
        hold.had_read();
        assert_eq!(hold.until(true, false, at(17)), Some(at(21)), "the next one's turn");
        hold.had_turn();
        assert_eq!(hold.until(true, false, at(20)), Some(at(25)));
    }

    #[test]
    fn answers_are_held_for_a_second_in_all_whatever_turns_come() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut hold = Hold::default();
        assert_eq!(hold.until(true, false, at(0)), Some(at(5000)));
        assert_eq!(hold.until(true, true, at(2000)), Some(at(3000)), "a command was sent meanwhile");
        hold.had_turn();
        assert_eq!(hold.until(false, true, at(2500)), None);
        assert_eq!(hold.until(true, true, at(2600)), Some(at(3000)));
        assert_eq!(hold.until(true, true, at(3000)), None);
        hold.had_turn();
        assert_eq!(hold.until(true, true, at(9000)), None, "still the same command");
        assert_eq!(hold.until(true, false, at(9001)), Some(at(14_000)), "it was answered");
        assert_eq!(hold.until(true, true, at(9002)), Some(at(10_002)), "another one");
    }
}
