//! Where events go: log, snapshot, hook, a broker; and figures, to a file. None of them can stop the watch; what fails
//! is told once, until it works again.

use std::time::{Duration, Instant, SystemTime};

use ::image::RgbImage;

use super::events::{Event, Kind, Log};
use super::hooks::{self, Hooks};
use super::metrics::{Metrics, MetricsFile};
use super::sinks::{self, Sink};
use super::snapshots::{Saved, Snapshots};
use crate::config::{self, Config};

/// Error events at once, before they are thinned out.
const BURST: u32 = 10;
/// Then one in so long.
const ERROR_EVERY: Duration = Duration::from_secs(60);
/// Characters of an error event's message; what quotes a broken file may be of any length.
const MAX_MESSAGE: usize = 2000;
/// How long hooks may go on when the daemon stops.
const HOOK_GRACE: Duration = Duration::from_secs(2);
/// How long events for a broker may go on when the daemon stops.
const SINK_GRACE: Duration = Duration::from_secs(3);
/// The same for what a reload takes away.
const RELOAD_GRACE: Duration = Duration::from_secs(2);

/// Log, snapshots and hook as one.
#[derive(Debug)]
pub struct Outputs {
    pub metrics: Metrics,
    metrics_file: Option<MetricsFile>,
    log: Log,
    log_failure: Option<String>,
    snapshots: Snapshots,
    hooks: Hooks,
    sinks: Vec<Box<dyn Sink>>,
    /// What the sinks were opened with.
    mqtt: Option<config::Mqtt>,
    model: String,
    throttle: Throttle,
}

impl Outputs {
    /// Opens the log; one that cannot be opened is tried again with every event.
    pub fn new(config: &Config, model: &str) -> std::io::Result<Self> {
        let events = &config.events;
        let hooks = Hooks::start(events.hook.clone(), hooks::LIMIT)?;
        let (log, failure) = match Log::open(&events.log, events.max_log_size) {
            Ok(log) => (log, None),
            Err(e) => (Log::closed(&events.log, events.max_log_size), Some(e)),
        };
        let mut outputs = Outputs {
            metrics: Metrics::new(SystemTime::now()),
            metrics_file: events.metrics.as_deref().map(MetricsFile::new),
            log,
            log_failure: None,
            snapshots: Snapshots::new(&events.snapshots, events.keep_snapshots, events.max_snapshot_bytes),
            hooks,
            sinks: sinks::open(config)?,
            mqtt: config.mqtt.clone(),
            model: model.to_owned(),
            throttle: Throttle::new(Instant::now()),
        };
        if let Some(e) = failure {
            outputs.note_log(Err(e));
        }
        Ok(outputs)
    }

    /// Takes over another config and model. Nothing changes if the new log cannot be opened.
    pub fn reconfigure(&mut self, config: &Config, model: &str) -> Result<(), String> {
        let events = &config.events;
        let log = match events.log == self.log.path() {
            true => None,
            false => Some(
                Log::open(&events.log, events.max_log_size)
                    .map_err(|e| format!("cannot open the event log {}: {e}", events.log.display()))?,
            ),
        };
        if config.mqtt != self.mqtt {
            self.mqtt = None;
            let replaced = sinks::replace(std::mem::take(&mut self.sinks), config, RELOAD_GRACE);
            let (sinks, failures) = replaced.map_err(|e| format!("cannot start a thread: {e}"))?;
            self.sinks = sinks;
            self.mqtt = config.mqtt.clone();
            failures.into_iter().for_each(|failure| self.log_only(failure));
        }
        if let Some(log) = log {
            self.flush();
            self.log = log;
            self.log_failure = None;
        }
        self.log.set_max_size(events.max_log_size);
        self.snapshots.reconfigure(&events.snapshots, events.keep_snapshots, events.max_snapshot_bytes);
        self.hooks.set_argv(events.hook.clone());
        if events.metrics.as_deref() != self.metrics_file.as_ref().map(MetricsFile::path) {
            self.metrics_file = events.metrics.as_deref().map(MetricsFile::new);
        }
        self.model = model.to_owned();
        Ok(())
    }

    /// Writes the pictures of an event; a failure is an error event and no path.
    pub fn snapshot(&mut self, id: &str, picture: &RgbImage, heat: Option<&RgbImage>) -> Option<Saved> {
        match self.snapshots.save(id, picture, heat) {
            Ok(saved) => {
                if let Err(e) = self.snapshots.settle(id) {
                    self.error(format!("cannot link the newest snapshot or remove old ones: {e}"));
                }
                Some(saved)
            }
            Err(e) => {
                self.error(format!("cannot write the snapshot of {id}: {e}"));
                None
            }
        }
    }

    /// Sends an event to the log and the hook.
    pub fn emit(&mut self, mut event: Event) {
        event.model.get_or_insert_with(|| self.model.clone());
        match event.event {
            Kind::Raise => self.snapshots.set_standing(event.id.as_deref()),
            Kind::Clear => self.snapshots.set_standing(None),
            _ => {}
        }
        self.record(&event);
        for failure in
            self.sinks.iter_mut().filter_map(|sink| sink.event(&event, &self.metrics).err()).collect::<Vec<_>>()
        {
            self.log_only(failure);
        }
        if let Err(e) = self.hooks.send(&event) {
            self.hook_failed(e.to_string());
        }
    }

    /// An error event that answers what someone asked for: it is never thinned out.
    pub fn answer(&mut self, message: &str) {
        let event = self.error_event(message);
        self.emit(event);
    }

    /// An error event; many in a row are thinned out, and counted in the next that is written.
    pub fn error(&mut self, message: String) {
        if let Some(event) = self.thinned(message) {
            self.emit(event);
        }
    }

    fn thinned(&mut self, message: String) -> Option<Event> {
        let message = match self.throttle.pass(Instant::now()) {
            Some(0) => message,
            Some(more) => format!("{} (and {more} errors before, not written)", shortened(&message)),
            None => {
                log::debug!("{message}");
                return None;
            }
        };
        Some(self.error_event(&message))
    }

    fn error_event(&self, message: &str) -> Event {
        let message = Some(shortened(message));
        Event { message, model: Some(self.model.clone()), ..Event::new(Kind::Error) }
    }

    /// To be called between frames, and while one is waited for: collects failures of hook and sinks, tries what could
    /// not be written, writes figures.
    pub fn attend(&mut self) {
        for failure in self.hooks.failures() {
            self.hook_failed(failure);
        }
        let failures: Vec<String> = self.sinks.iter_mut().flat_map(|sink| sink.attend(&self.metrics)).collect();
        failures.into_iter().for_each(|failure| self.error(failure));
        self.flush();
        self.write_metrics();
    }

    /// How long until the metrics file may be written again; None: there is no file.
    pub fn metrics_due_in(&self) -> Option<Duration> {
        self.metrics_file.as_ref().map(|file| file.due_in(Instant::now()))
    }

    /// Writes the metrics file when it is due.
    fn write_metrics(&mut self) {
        if self.metrics_due_in().is_some_and(|left| left.is_zero()) {
            self.replace_metrics();
        }
    }

    fn replace_metrics(&mut self) {
        let Some(file) = &mut self.metrics_file else { return };
        if let Err(e) = file.write(&self.metrics, Instant::now()) {
            let message = format!("cannot write the metrics file {}: {e}", file.path().display());
            self.error(message);
        }
    }

    /// What stands in the way of events, for the status line.
    pub fn trouble(&self) -> Option<&str> {
        self.log_failure.as_deref()
    }

    /// Lets hooks end, then writes what is left.
    pub fn finish(&mut self) {
        for failure in self.hooks.finish(HOOK_GRACE) {
            self.hook_failed(failure);
        }
        self.finish_sinks(SINK_GRACE);
        self.replace_metrics();
        self.flush();
        if self.log.pending() > 0 {
            log::error!("{} events could not be written to {}", self.log.pending(), self.log.path().display());
        }
    }

    fn finish_sinks(&mut self, grace: Duration) {
        for mut sink in std::mem::take(&mut self.sinks) {
            for failure in sink.finish(grace) {
                self.log_only(failure);
            }
        }
    }

    fn flush(&mut self) {
        if self.log.pending() > 0 {
            let written = self.log.retry();
            self.note_log(written);
        }
        if self.log.pending() == 0 {
            let lost = self.log.take_lost();
            if lost > 0 {
                let path = self.log.path().display();
                self.answer(&format!("{lost} events were given up: {path} could not be written for too long"));
            }
        }
    }

    fn hook_failed(&mut self, message: String) {
        self.metrics.hook_failures += 1;
        self.log_only(message);
    }

    /// An error of the hook itself is not given to the hook, nor to a sink.
    fn log_only(&mut self, message: String) {
        if let Some(event) = self.thinned(message) {
            self.record(&event);
        }
    }

    /// The log comes first: what was told anywhere is in it, whenever the process is killed.
    fn record(&mut self, event: &Event) {
        let written = self.log.append(event);
        tell(event);
        self.metrics.event(event.event);
        self.note_log(written);
    }

    fn note_log(&mut self, written: std::io::Result<()>) {
        match written {
            Ok(()) if self.log_failure.take().is_some() => {
                log::info!("the event log {} can be written again", self.log.path().display());
            }
            Ok(()) => {}
            Err(e) => {
                let failure = format!("cannot write the event log {}: {e}", self.log.path().display());
                if self.log_failure.as_ref() != Some(&failure) {
                    log::error!("{failure}; events wait in memory");
                }
                self.log_failure = Some(failure);
            }
        }
    }
}

/// A message without its end where that is too long, and with room for a word behind it.
fn shortened(message: &str) -> String {
    match message.char_indices().nth(MAX_MESSAGE) {
        Some((end, _)) if message[end..].len() > MAX_MESSAGE / 10 => format!("{} ...", &message[..end]),
        _ => message.to_owned(),
    }
}

fn tell(event: &Event) {
    let p = event.p.map(|p| format!(" p {}", crate::model::p_text(p))).unwrap_or_default();
    let id = event.id.as_ref().map(|id| format!(" {id}")).unwrap_or_default();
    let message = event.message.as_ref().map(|message| format!(": {message}")).unwrap_or_default();
    let level = match event.event {
        Kind::Error => log::Level::Error,
        Kind::Raise | Kind::CameraLost | Kind::Drift => log::Level::Warn,
        _ => log::Level::Info,
    };
    log::log!(level, "{}{id}{p}{message}", event.event.name());
}

/// A bucket of tokens: a burst, then one in a while.
#[derive(Debug)]
struct Throttle {
    tokens: u32,
    refilled: Instant,
    held_back: u64,
}

impl Throttle {
    fn new(now: Instant) -> Self {
        Throttle { tokens: BURST, refilled: now, held_back: 0 }
    }

    /// None: hold this one back. Some: let it pass; so many were held back before.
    fn pass(&mut self, now: Instant) -> Option<u64> {
        while self.tokens < BURST && now.duration_since(self.refilled) >= ERROR_EVERY {
            self.tokens += 1;
            self.refilled += ERROR_EVERY;
        }
        if self.tokens == 0 {
            self.held_back += 1;
            return None;
        }
        if self.tokens == BURST {
            self.refilled = now;
        }
        self.tokens -= 1;
        Some(std::mem::take(&mut self.held_back))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floods_of_errors_are_thinned_out_and_counted() {
        let start = Instant::now();
        let mut throttle = Throttle::new(start);
        let passed = (0..100).filter(|_| throttle.pass(start).is_some()).count();
        assert_eq!(passed as u32, BURST);
        assert_eq!(throttle.pass(start + ERROR_EVERY), Some(90));
        assert_eq!(throttle.pass(start + ERROR_EVERY), None);
        assert_eq!(throttle.pass(start + ERROR_EVERY * 1000), Some(1));
        let passed = (1..100).filter(|_| throttle.pass(start + ERROR_EVERY * 1000).is_some()).count();
        assert_eq!(passed as u32, BURST - 1);
    }
}
