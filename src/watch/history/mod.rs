//! What every judged frame scored, for a week or so, in a bounded number of bytes.
//!
//! Frames are gathered for some seconds and appended as a [`page`] that is good by itself: a torn end, damage or a full
//! disk cost the pages that they meet, and nothing is synced, so that a power cut costs what the kernel had not written
//! yet. The file is rotated by size as the event log is; the oldest of [`SEGMENTS`] goes.
//!
//! Kept of a frame are its time in hundredths of a second, p to a twentieth of a percent (not below `e^-32`), and the
//! difference of its score from the first of its page to 8 bits.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub mod page;
mod reader;
mod writer;

pub use page::Frame;
pub use reader::{Entry, Reader};
pub use writer::Writer;

/// Files of a history: `door.history` is the youngest, `door.history.7` the oldest.
pub const SEGMENTS: u32 = 8;

/// Hundredths of a second since 1970, as the history keeps time.
pub fn hundredths(time: SystemTime) -> i64 {
    let of = |time: Duration| i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
    match time.duration_since(UNIX_EPOCH) {
        Ok(after) => of(after).div_euclid(10),
        Err(before) => of(before.duration()).saturating_neg().div_euclid(10),
    }
}

/// The time of so many hundredths since 1970; one that no clock shows is 1970.
pub fn time_of(hundredths: i64) -> SystemTime {
    let length = Duration::from_millis(hundredths.unsigned_abs().saturating_mul(10));
    let time = if hundredths < 0 { UNIX_EPOCH.checked_sub(length) } else { UNIX_EPOCH.checked_add(length) };
    time.unwrap_or(UNIX_EPOCH)
}

/// What pages say of the model: a hash of its identity, folded.
pub fn mark(model: u64) -> u32 {
    (model ^ (model >> 32)) as u32
}

#[cfg(test)]
mod tests;
