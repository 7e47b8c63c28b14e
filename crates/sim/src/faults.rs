//! Which faults a seed uses, and how hard.

use rand::Rng;
use rand_chacha::ChaCha12Rng;

use crate::profile::Profile;

/// What one seed draws: every fault by its chance, mostly zero.
#[derive(Clone, Debug)]
pub(crate) struct Faults {
    /// Chance that a message is lost.
    pub(crate) loss: f64,
    /// Chance that a word about layouts is lost.
    pub(crate) layouts_loss: f64,
    /// Chance that a message comes twice.
    pub(crate) duplication: f64,
    /// The slowest ordinary message, in microseconds; the quickest takes 100. A wide range reorders a lot.
    pub(crate) delay_us_max: u64,
    /// Chance that a message takes up to two seconds.
    pub(crate) straggler: f64,
    /// The slowest ordinary sync.
    pub(crate) sync_us_max: u64,
    /// Chance that a sync takes up to a second.
    pub(crate) sync_stall: f64,
    /// Chance that a sync fails, which poisons the node.
    pub(crate) sync_failure: f64,
    /// Whether replicas acknowledge before the sync (`durability = "os"`). Then crashes are of the process alone, but for
    /// [`Accident::LosePower`].
    pub(crate) os_durability: bool,
    /// The kinds of accidents that happen to nodes and links, and the mean time between two, in microseconds.
    pub(crate) accidents: Vec<Accident>,
    pub(crate) accident_gap_us: u64,
}

/// The longest that an accident lasts, in microseconds.
pub(crate) const PAUSE_US_MAX: u64 = 4_000_000;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Accident {
    /// A node stops at once; what was not synced is lost, but for a prefix of it. It starts again later.
    Crash,
    /// All nodes lose power in the same moment.
    PowerLoss,
    /// A node does nothing for a while.
    Pause,
    /// The nodes fall into two parts.
    Partition,
    /// One node can no longer be heard by one other.
    OneWay,
    /// A connection breaks and is made anew.
    Reset,
    /// The disk of a node is nearly full for a while: it takes no values, and everything else goes on.
    FullDisk,
    /// The clock of a node is an hour off for a while.
    ClockJump,
    /// The directory of a node is replaced by an older copy of itself.
    Rollback,
    /// A record disappears from a disk without a trace.
    RecordLoss,
    /// A record on a disk cannot be read any more.
    Damage,
    /// A node under `durability = "os"` loses power, and with it what it had acknowledged and not synced.
    LosePower,
}

impl Faults {
    /// What a healthy cluster has: delay.
    pub(crate) fn none() -> Self {
        Faults {
            loss: 0.0,
            layouts_loss: 0.0,
            duplication: 0.0,
            delay_us_max: 1_000,
            straggler: 0.0,
            sync_us_max: 3_000,
            sync_stall: 0.0,
            sync_failure: 0.0,
            os_durability: false,
            accidents: Vec::new(),
            accident_gap_us: u64::MAX,
        }
    }

    /// The longest that a message takes until it is heard, in milliseconds.
    pub(crate) fn late_ms(&self) -> u64 {
        let straggler = if self.straggler > 0.0 { 2_000 } else { 0 };
        let pause = if self.accidents.contains(&Accident::Pause) {
            PAUSE_US_MAX / 1_000
        } else {
            0
        };
        straggler.max(self.delay_us_max / 1_000 + 1) + pause
    }

    pub(crate) fn draw(profile: &Profile, rng: &mut ChaCha12Rng) -> Self {
        if !profile.faults {
            return Faults::none();
        }
        let maybe = |rng: &mut ChaCha12Rng, up_to: f64| {
            if rng.random_bool(0.5) {
                rng.random_range(0.0..up_to)
            } else {
                0.0
            }
        };
        let all = [
            Accident::Crash,
            Accident::PowerLoss,
            Accident::Pause,
            Accident::Partition,
            Accident::OneWay,
            Accident::Reset,
            Accident::FullDisk,
            Accident::ClockJump,
        ];
        let os_durability = rng.random_bool(0.2);
        let accidents = all.into_iter().filter(|_| rng.random_bool(0.5));
        let mut accidents: Vec<Accident> = accidents.collect();
        // A disk that fails takes one copy. Two that fail may take all there are, so of these each seed has one kind at the most.
        let kinds = if profile.losses { 4 } else { 6 };
        accidents.extend(match rng.random_range(0..kinds) {
            0 => Some(Accident::Rollback),
            1 => Some(Accident::RecordLoss),
            2 => Some(Accident::Damage),
            3 if os_durability => Some(Accident::LosePower),
            3 if profile.losses => Some(Accident::Rollback),
            _ => None,
        });
        Faults {
            loss: maybe(rng, 0.1),
            layouts_loss: match profile.changes {
                true => maybe(rng, 0.95),
                false => 0.0,
            },
            duplication: maybe(rng, 0.2),
            delay_us_max: [300, 2_000, 20_000, 200_000][rng.random_range(0..4)],
            straggler: maybe(rng, 0.05),
            sync_us_max: [200, 5_000, 50_000][rng.random_range(0..3)],
            sync_stall: maybe(rng, 0.05),
            sync_failure: maybe(rng, 0.01),
            os_durability,
            accidents,
            accident_gap_us: rng.random_range(100_000..4_000_000),
        }
    }
}
