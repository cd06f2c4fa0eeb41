//! Events, their log, and its readers.

mod event;
mod follow;
mod ids;
mod log;
pub mod past;
mod reader;

pub use event::{Event, Kind, Pictures, format_time, printable, seconds};
pub use follow::Follow;
pub use ids::Ids;
pub use log::Log;
#[cfg(feature = "internals")]
pub use log::MAX_PENDING;
pub(crate) use log::{rotated, shift};
pub use reader::{for_each, read};
