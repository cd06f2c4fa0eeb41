//! Ids of events.

use std::hash::{BuildHasher, RandomState};
use std::time::SystemTime;

use super::event::format_time;

/// Ids that no other run and no other event has, even where the clock starts at the same time at every boot.
#[derive(Debug)]
pub struct Ids {
    run: u32,
    count: u64,
}

impl Ids {
    /// Of a new run.
    pub fn random() -> Self {
        Ids { run: RandomState::new().hash_one(std::process::id()) as u32, count: 0 }
    }

    /// Date and time of the event, the run's random number, and a count.
    pub fn next(&mut self, now: SystemTime) -> String {
        self.count += 1;
        let time: String = format_time(now).chars().take(19).filter(|c| c.is_alphanumeric()).collect();
        format!("{time}-{:08x}-{}", self.run, self.count)
    }
}
