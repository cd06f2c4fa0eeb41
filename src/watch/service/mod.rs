//! The daemon as a service of systemd.

mod journal;
mod notify;
mod priority;
mod sandbox;
mod signals;

pub use journal::Journal;
pub use notify::Notifier;
pub use priority::lower_priority;
pub use sandbox::remedy;
pub use signals::{Command, latest, signals};
