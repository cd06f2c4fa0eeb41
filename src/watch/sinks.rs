//! Where events go besides log and hook. Which there are depends on the features that were built in.

use std::io;
use std::time::Duration;

use super::sink::Sink;
use crate::config::Config;

pub type Sinks = Vec<Box<dyn Sink>>;

/// The sinks that the config asks for.
///
/// # Errors
/// A thread cannot be started.
pub fn open(config: &Config) -> io::Result<Sinks> {
    #[cfg(feature = "mqtt")]
    if let Some(mqtt) = &config.mqtt {
        return Ok(vec![Box::new(super::mqtt::Broker::start(mqtt, &config.events.log)?)]);
    }
    // Without a feature for it the config's check has refused the section.
    debug_assert!(config.mqtt.is_none());
    Ok(Vec::new())
}

/// The sinks of another config, to which the old ones hand over what waits; and what went wrong.
///
/// # Errors
/// A thread cannot be started.
pub fn replace(old: Sinks, config: &Config, grace: Duration) -> io::Result<(Sinks, Vec<String>)> {
    let (mut waiting, mut failures) = (Vec::new(), Vec::new());
    // They end first: a broker that saw both would tell of the old one's death last.
    for mut sink in old {
        let (left, failed) = sink.end(config, grace);
        waiting.extend(left);
        failures.extend(failed);
    }
    let mut new = open(config)?;
    let lost = match new.first_mut() {
        Some(sink) => sink.take_over(waiting),
        None => waiting.len(),
    };
    if lost > 0 {
        failures.push(format!("{lost} events that waited for a broker were not delivered before the new config"));
    }
    Ok((new, failures))
}
