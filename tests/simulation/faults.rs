//! What can go wrong in a run, and how often. Each run draws its own mixture: some are plagued by
//! crashes alone, some by a slow store, some by everything.

use super::chance::Chance;

/// Each: once in so many times; 0 is never.
#[derive(Debug, Clone, Default)]
pub struct Faults {
    /// A call of the hypervisor is past its deadline before it ends, well or not.
    pub hang: u64,
    /// A call takes seconds.
    pub slow: u64,
    /// A call fails and did nothing.
    pub fail: u64,
    /// A call does its work and reports a failure.
    pub lie: u64,
    /// The connection breaks under a call; what it was to do may be done later.
    pub broken: u64,
    /// A domain cannot be looked at.
    pub blind: u64,
    /// The store fails and wrote nothing.
    pub store_fail: u64,
    /// The store writes and reports a failure.
    pub store_lie: u64,
    /// The store does not answer; it writes nothing, or at once, or a little later.
    pub store_silent: u64,
    /// A file could not be written or removed; or it was, and a failure is reported.
    pub files: u64,
    /// An event is lost.
    pub lost: u64,
    /// An event comes twice.
    pub doubled: u64,
    /// An event comes late, after others that happened later.
    pub late: u64,
    /// The controller dies before or after an effect.
    pub crash: u64,
}

impl Faults {
    /// A mixture.
    pub fn draw(chance: &mut Chance) -> Self {
        let calm = chance.one_in(12);
        let mut often = |rates: &[u64]| if calm || chance.one_in(3) { 0 } else { chance.pick(rates) };
        Self {
            hang: often(&[6, 12, 40]),
            slow: often(&[3, 10]),
            fail: often(&[2, 5, 20]),
            lie: often(&[4, 12]),
            broken: often(&[6, 20]),
            blind: often(&[3, 8, 30]),
            store_fail: often(&[8, 30]),
            store_lie: often(&[8, 30]),
            store_silent: often(&[30, 80]),
            files: often(&[3, 8]),
            lost: often(&[1, 2, 5]),
            doubled: often(&[2, 5]),
            late: often(&[2, 5]),
            crash: often(&[30, 100, 300]),
        }
    }
}
