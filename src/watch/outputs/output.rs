//! What events and the status go to once the log has them.

use std::fmt::Debug;
use std::time::Instant;

use crate::config::Config;
use crate::watch::events::Event;
use crate::watch::frame::status::Status;

/// What went wrong at an output. All of it becomes error events, as many as the rate limit lets through.
#[derive(Debug, PartialEq, Eq)]
pub enum Failure {
    /// The outputs get the error event, too.
    Announced(String),
    /// The log alone gets it: another event would fail the same way.
    Logged(String),
    /// As `Logged`; counted as a failure of the hook.
    Hook(String),
}

/// GPIO, hook, MQTT, clips and metrics. None holds up the watch: what takes long is done on a thread of its own.
///
/// The log and the snapshots are none: events are in the log and name their snapshots before an output sees them.
pub trait Output: Debug {
    /// Takes another config.
    ///
    /// # Errors
    /// The reason to refuse the config with. What is left of this output is then up to a call with the config before.
    fn reconfigure(&mut self, config: &Config) -> Result<Vec<Failure>, String>;

    /// What the watch sees has changed; called before the events that go with it.
    fn update(&mut self, _status: &Status) -> Vec<Failure> {
        Vec::new()
    }

    /// An event that is in the log. No failure of it is announced.
    fn event(&mut self, _event: &Event, _status: &Status) -> Vec<Failure> {
        Vec::new()
    }

    /// To be called between frames, and at [`Output::due`].
    fn attend(&mut self, status: &Status) -> Vec<Failure>;

    fn due(&self) -> Option<Instant> {
        None
    }

    /// Ends, and waits for a few seconds at most for what is under way.
    fn finish(&mut self, status: &Status) -> Vec<Failure>;
}
