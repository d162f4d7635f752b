//! What a fleet is to be: plain data, the same for the library and the program.

use std::{fmt, str::FromStr, time::Duration};

use rand::{Rng as _, SeedableRng as _, rngs::StdRng, seq::IndexedRandom as _};
use serde::Serialize;
use uuid::Uuid;

/// How a guest's agent behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Greets, reads line by line, answers at once, sends readings and signs of life.
    WellBehaved,
    /// The agent found in the field: no greeting, two or three readings at its start, a read with a
    /// fresh buffer every 500 ms of which only the first line is kept, bare answers, none to actions
    /// it does not know, and now and then a fragment before a whole message.
    Quirky,
    /// Greets, then sends valid readings as fast as the socket takes them.
    Flooding,
    /// Two readings, byte by byte; then a line that never ends.
    SlowDripping,
    /// Reads and says nothing.
    Silent,
    /// Greets and sends readings, and never reads.
    NeverReading,
    /// Says a few bytes and hangs up, again and again; every few times its socket goes and comes.
    Storm,
    /// Says all that must not be believed: see [`crate::Lie`].
    Liar,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::WellBehaved,
        Self::Quirky,
        Self::Flooding,
        Self::SlowDripping,
        Self::Silent,
        Self::NeverReading,
        Self::Storm,
        Self::Liar,
    ];

    /// As it is written on a command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::WellBehaved => "well-behaved",
            Self::Quirky => "quirky",
            Self::Flooding => "flooding",
            Self::SlowDripping => "slow-dripping",
            Self::Silent => "silent",
            Self::NeverReading => "never-reading",
            Self::Storm => "storm",
            Self::Liar => "liar",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Not the name of a [`Kind`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownKind(String);

impl fmt::Display for UnknownKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no such kind: {}; there are", self.0)?;
        Kind::ALL.iter().try_for_each(|kind| write!(f, " {kind}"))
    }
}

impl std::error::Error for UnknownKind {}

impl FromStr for Kind {
    type Err = UnknownKind;

    fn from_str(name: &str) -> Result<Self, UnknownKind> {
        Self::ALL.into_iter().find(|kind| kind.name() == name).ok_or_else(|| UnknownKind(name.to_owned()))
    }
}

/// One guest.
#[derive(Debug, Clone)]
pub struct GuestPlan {
    /// Whose socket it is: `vm-<uuid>.sock`.
    pub vm: Uuid,
    /// How it behaves.
    pub kind: Kind,
    /// Between two readings (of a liar: two lies). Zero: as fast as they are taken. The first comes
    /// at a moment within the first interval that the seed decides.
    pub interval: Duration,
    /// Decides what it sends.
    pub seed: u64,
    /// Different frames that are rendered beforehand. After the last the first is sent again, with
    /// another time. About 7.4 KB of memory each.
    pub frames: usize,
    /// Readings after which it sends no more, and goes on answering. `None`: it never stops.
    pub limit: Option<u64>,
    /// Between two signs of life of a well-behaved guest; `None`: it gives none.
    pub keep_alive: Option<Duration>,
}

impl GuestPlan {
    /// A guest with some frames of its own, without end.
    #[must_use]
    pub fn new(vm: Uuid, kind: Kind, interval: Duration, seed: u64) -> Self {
        Self { vm, kind, interval, seed, frames: 4, limit: None, keep_alive: Some(Duration::from_secs(60)) }
    }

    /// One that sends this many readings, all different, and then no more.
    #[must_use]
    pub fn sending(self, readings: u64) -> Self {
        let frames = usize::try_from(readings).unwrap_or(usize::MAX);
        Self { frames, limit: Some(readings), ..self }
    }
}

/// All guests of a fleet.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    /// Each with an id of its own.
    pub guests: Vec<GuestPlan>,
}

impl Plan {
    /// `count` guests of one kind, their ids and seeds drawn from `seed`.
    #[must_use]
    pub fn of(kind: Kind, count: usize, interval: Duration, seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let guests = (0..count)
            .map(|_| {
                let vm = uuid::Builder::from_random_bytes(random.random()).into_uuid();
                GuestPlan::new(vm, kind, interval, random.random())
            })
            .collect();
        Self { guests }
    }

    /// `count` guests, the kind of each drawn from `kinds` by `seed`, as are their ids and seeds. None
    /// where there is no kind to draw from.
    #[must_use]
    pub fn any_of(kinds: &[Kind], count: usize, interval: Duration, seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let drawn = |_| kinds.choose(&mut random).map(|&kind| (kind, random.random()));
        let kinds = (0..count).map_while(drawn);
        kinds.fold(Self::default(), |plan, (kind, seed)| plan.and(Self::of(kind, 1, interval, seed)))
    }

    /// Both together.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.guests.extend(other.guests);
        self
    }
}
