//! Where events go besides log and hook. Which there are depends on the features that were built in.

use std::fmt::Debug;
use std::io;
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
}

/// The sinks that the config asks for.
///
/// # Errors
/// A thread cannot be started.
pub fn open(config: &Config) -> io::Result<Vec<Box<dyn Sink>>> {
    #[cfg(feature = "mqtt")]
    if let Some(mqtt) = &config.mqtt {
        return Ok(vec![Box::new(super::mqtt::Broker::start(mqtt)?)]);
    }
    // Without a feature for it the config's check has refused the section.
    debug_assert!(config.mqtt.is_none());
    Ok(Vec::new())
}
