//! Names of events.

use std::time::SystemTime;

use super::events;

/// Event names that no other run and no other event has, even where the clock starts at the same time at
/// every boot.
pub(super) struct Ids {
    run: u32,
    count: u64,
}

impl Ids {
    pub(super) fn new() -> Self {
        use std::hash::{BuildHasher, RandomState};
        Ids { run: RandomState::new().hash_one(std::process::id()) as u32, count: 0 }
    }

    /// Date and time of the raise, the run's random number, and a count.
    pub(super) fn next(&mut self, now: SystemTime) -> String {
        self.count += 1;
        let time: String = events::format_time(now).chars().take(19).filter(|c| c.is_alphanumeric()).collect();
        format!("{time}-{:08x}-{}", self.run, self.count)
    }
}
