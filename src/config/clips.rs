//! The section `[clips]`: the frames before and after a raise.

use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

use serde::Deserialize;

use super::values::{duration, size};

/// Longer clips are recordings, which this is not for.
const MAX_TIME: Duration = Duration::from_secs(300);
const MAX_RATE: RangeInclusive<f64> = 0.1..=120.0;
/// Bytes; the service may have 512 MiB in all.
const MAX_MEMORY: RangeInclusive<u64> = 100_000..=256_000_000;
/// Bytes; a clip has each frame twice.
const MIN_BYTES: u64 = 1_000_000;

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Clips {
    /// How much of what precedes the frame that raises an event is kept with it.
    #[serde(deserialize_with = "duration")]
    pub before: Duration,
    /// And of what follows it.
    #[serde(deserialize_with = "duration")]
    pub after: Duration,
    /// Frames a second; more are not kept.
    pub max_rate: f64,
    /// Bytes of all frames in memory.
    #[serde(deserialize_with = "size")]
    pub max_memory: u64,
    /// Clips in the folder of snapshots; the oldest go.
    pub keep: usize,
    /// Bytes of all of them together.
    #[serde(deserialize_with = "size")]
    pub max_bytes: u64,
}

impl Default for Clips {
    fn default() -> Self {
        Clips {
            before: Duration::from_secs(5),
            after: Duration::from_secs(5),
            max_rate: 5.0,
            max_memory: 8_000_000,
            keep: 100,
            max_bytes: 500_000_000,
        }
    }
}

impl fmt::Display for Clips {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [before, after] = [self.before, self.after].map(humantime::format_duration);
        let megabytes = self.max_memory as f64 / 1e6;
        write!(
            f,
            "{before} before and {after} after a raise, at most {} frames a second, {megabytes} MB in memory",
            self.max_rate
        )
    }
}

impl Clips {
    /// Tries the values for sense; the error is a key and a message.
    pub(super) fn check(&self) -> Result<(), (&'static str, String)> {
        for (key, time) in [("clips.before", self.before), ("clips.after", self.after)] {
            if time > MAX_TIME {
                let limit = humantime::format_duration(MAX_TIME);
                return Err((key, format!("{key} is {}: at most \"{limit}\"", humantime::format_duration(time))));
            }
        }
        if !MAX_RATE.contains(&self.max_rate) {
            let (least, most) = (MAX_RATE.start(), MAX_RATE.end());
            let message = format!("clips.max-rate = {}: must be {least} to {most} frames a second", self.max_rate);
            return Err(("clips.max-rate", message));
        }
        if !MAX_MEMORY.contains(&self.max_memory) {
            let message = format!("clips.max-memory is {} bytes: must be \"100 kB\" to \"256 MB\"", self.max_memory);
            return Err(("clips.max-memory", message));
        }
        if self.keep == 0 {
            return Err(("clips.keep", "clips.keep = 0: at least 1; without the section [clips] none is kept".into()));
        }
        if self.max_bytes < MIN_BYTES {
            return Err(("clips.max-bytes", format!("clips.max-bytes is {}: at least \"1 MB\"", self.max_bytes)));
        }
        Ok(())
    }
}
