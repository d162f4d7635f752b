//! What can go wrong in a run, and how often. Each run draws its own mixture.

use super::chance::Chance;

/// Each: once in so many times; 0 is never.
#[derive(Debug, Clone, Default)]
pub struct Faults {
    /// The log fails and wrote nothing; it may say so, or leave it open.
    pub fail: u64,
    /// The log writes and reports a failure.
    pub lie: u64,
    /// The log does not answer; it writes nothing, or at once, or later.
    pub silent: u64,
    /// The log takes up to seconds, and writes whoever still waits.
    pub slow: u64,
    /// The link takes seconds before it writes a command.
    pub held: u64,
    /// The agent has no place for a command, for as long as it lasts.
    pub stuck: u64,
    /// The link breaks in the middle of the command's line.
    pub cut: u64,
    /// The link breaks once the guest has the command.
    pub broken: u64,
    /// The guest never answers.
    pub mute: u64,
    /// The guest takes seconds or minutes.
    pub lazy: u64,
    /// The guest answers when nobody waits any more.
    pub late: u64,
    /// The guest answers twice.
    pub doubled: u64,
    /// The guest answers another command, which may not have run, or none that there is.
    pub confused: u64,
    /// The controller dies before or after an effect.
    pub crash: u64,
}

impl Faults {
    /// A mixture.
    pub fn draw(chance: &mut Chance) -> Self {
        let calm = chance.one_in(16);
        let mut often = |rates: &[u64]| if calm || chance.one_in(3) { 0 } else { chance.pick(rates) };
        Self {
            fail: often(&[6, 20, 60]),
            lie: often(&[6, 20, 60]),
            silent: often(&[8, 20, 60]),
            slow: often(&[3, 10]),
            held: often(&[3, 10]),
            stuck: often(&[10, 40]),
            cut: often(&[5, 20]),
            broken: often(&[5, 20]),
            mute: often(&[4, 12]),
            lazy: often(&[2, 6]),
            late: often(&[4, 12]),
            doubled: often(&[3, 10]),
            confused: often(&[5, 15]),
            crash: often(&[30, 100, 300]),
        }
    }
}
