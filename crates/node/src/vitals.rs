//! What a node cannot know of itself without a clock and a file system, and what follows from it.

/// How the driver finds the node to be; told as [`crate::Input::Vitals`], about once a second.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Vitals {
    /// The release that runs.
    pub release: String,
    /// Seconds since it started.
    pub uptime_s: u64,
    /// Records it holds, approximately.
    pub records: u64,
    /// Bytes that its data takes on the disk.
    pub disk_bytes: u64,
    /// Bytes free on the file system of its directory; `None` if that cannot be told.
    pub disk_free_bytes: Option<u64>,
    /// Bytes that must stay free. Below them nothing is taken that adds a value; 0 takes everything.
    pub disk_reserve_bytes: u64,
    /// Milliseconds since the Unix epoch by its clock; 0 if unknown. Deadlines of values go by it, and nothing else: what
    /// time it is between two of these is reckoned from the last.
    pub clock_ms: u64,
}

/// A disk that is too full for values: how many bytes are free, and how many must be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Full {
    pub(crate) free: u64,
    pub(crate) needed: u64,
}

impl Vitals {
    /// Whether the disk is too full to take values.
    pub(crate) fn full(&self) -> Option<Full> {
        let free = self.disk_free_bytes?;
        (free < self.disk_reserve_bytes).then_some(Full {
            free,
            needed: self.disk_reserve_bytes,
        })
    }
}
