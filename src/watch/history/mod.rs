//! What every judged frame scored, for a week or so, in a bounded number of bytes.
//!
//! Frames are gathered for some seconds and appended as a [`page`] that is good by itself: a torn end, damage or a full
//! disk cost the pages that they meet, and nothing is synced, so that a power cut costs what the kernel had not written
//! yet. The file is rotated by size as the event log is; the oldest of [`SEGMENTS`] goes.
//!
//! Kept of a frame are its time in hundredths of a second, p to a twentieth of a percent (not below `e^-32`), and the
//! difference of its score from the first of its page to 8 bits.

mod merged;
pub mod page;
mod reader;
mod writer;

pub use merged::Merged;
#[cfg(feature = "internals")]
pub use page::Frame;
pub use page::{hundredths, time_of};
#[cfg(feature = "internals")]
pub use reader::SEGMENTS;
pub use reader::{Entry, Reader};
pub use writer::Writer;

#[cfg(test)]
mod tests;
