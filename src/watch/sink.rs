//! Something besides log and hook that events go to.

use std::fmt::Debug;
use std::time::Duration;

use super::events::Event;
use super::metrics::Metrics;
use crate::config::Config;

/// Takes events and state, and never holds up the watch: what it does takes place on a thread of its own.
pub trait Sink: Debug + Send {
    /// Queues an event.
    ///
    /// # Errors
    /// What to tell people when it could not be taken.
    fn event(&mut self, event: &Event, metrics: &Metrics) -> Result<(), String>;

    /// To be called between frames. Returns what went wrong since the last call.
    fn attend(&mut self, metrics: &Metrics) -> Vec<String>;

    /// Lets what waits out for at most `grace`. Returns what went wrong.
    fn finish(&mut self, grace: Duration) -> Vec<String>;

    /// The same before a sink of another config takes its place; gives the events that still wait, too.
    fn end(&mut self, next: &Config, grace: Duration) -> (Vec<Vec<u8>>, Vec<String>);

    /// Queues events that the sink before was to send, and gives how many could not be taken.
    fn take_over(&mut self, waiting: Vec<Vec<u8>>) -> usize;
}
