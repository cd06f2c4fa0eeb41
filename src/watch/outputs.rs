//! Where events go: log, snapshot, hook, a broker; and figures, to a file. None of them can stop the watch; what fails
//! is told once, until it works again.

use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use ::image::RgbImage;

use super::events::{Event, Kind, Log};
use super::hooks::{self, Hooks};
use super::metrics::{Metrics, MetricsFile};
use super::past::{self, Past};
use super::service::remedy;
use super::sink::Sink;
use super::sinks;
use super::snapshots::{self, Snapshots};
use crate::config::{self, Config};

/// Error events that pass before the rate limit holds.
const BURST: u32 = 10;
/// The rate limit: one error event in this time.
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
    instance: String,
    throttle: Throttle,
}

/// Why events could not be given out at all.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot take the snapshot folder {}: {source}", folder.display())]
    InUse { folder: PathBuf, source: io::Error },
    #[error("cannot start a thread: {0}")]
    Thread(#[from] io::Error),
}

/// A folder that cannot be made or locked yet is told with the first picture.
fn claim(snapshots: &mut Snapshots) -> Result<(), Error> {
    match snapshots.claim() {
        Err(source) if source.kind() == io::ErrorKind::ResourceBusy => {
            Err(Error::InUse { folder: snapshots.folder().to_owned(), source })
        }
        Err(e) => {
            log::warn!("cannot use the snapshot folder {}: {e}{}", snapshots.folder().display(), remedy(&e));
            Ok(())
        }
        Ok(()) => Ok(()),
    }
}

impl Outputs {
    /// Opens the log; one that cannot be opened is tried again with every event.
    ///
    /// # Errors
    /// Another daemon has the snapshot folder; a thread cannot be started.
    pub fn new(config: &Config, model: &str) -> Result<Self, Error> {
        let events = &config.events;
        let mut snapshots = Snapshots::new(&events.snapshots, events.keep_snapshots, events.max_snapshot_bytes);
        claim(&mut snapshots)?;
        let hooks = Hooks::start(events.hook.clone(), hooks::LIMIT)?;
        let (log, failure) = match Log::open(&events.log, events.max_log_size) {
            Ok(log) => (log, None),
            Err(e) => (Log::closed(&events.log, events.max_log_size), Some(e)),
        };
        let mut outputs = Outputs {
            metrics: Metrics::new(&config.instance(), SystemTime::now()),
            metrics_file: events.metrics.as_deref().map(MetricsFile::new),
            log,
            log_failure: None,
            snapshots,
            hooks,
            sinks: sinks::open(config)?,
            mqtt: config.mqtt.clone(),
            model: model.to_owned(),
            instance: config.instance(),
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
        let snapshots = match events.snapshots == self.snapshots.folder() {
            true => None,
            false => {
                let mut other = Snapshots::new(&events.snapshots, events.keep_snapshots, events.max_snapshot_bytes);
                claim(&mut other).map_err(|e| e.to_string())?;
                Some(other)
            }
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
        self.snapshots.reconfigure(events.keep_snapshots, events.max_snapshot_bytes, snapshots);
        self.hooks.set_argv(events.hook.clone());
        if events.metrics.as_deref() != self.metrics_file.as_ref().map(MetricsFile::path) {
            self.metrics_file = events.metrics.as_deref().map(MetricsFile::new);
        }
        self.model = model.to_owned();
        self.prune(None);
        Ok(())
    }

    /// Ends what the run before left standing, and removes the pictures that are beyond the limits by now.
    pub fn take_over(&mut self) {
        let (folder, instance) = (self.snapshots.folder(), &self.instance);
        // Another daemon may have the same name and the same log, but not the same folder of snapshots.
        let own = |event: &Event| {
            event.instance.as_ref().is_none_or(|name| name == instance)
                && event
                    .snapshot
                    .as_ref()
                    .and_then(|path| path.parent())
                    .is_none_or(|other| other == folder || !snapshots::is_claimed(other))
        };
        let Past { raises, raise, drift } = past::read(self.log.path(), own).unwrap_or_else(|e| {
            if e.kind() != io::ErrorKind::NotFound {
                let log = self.log.path().display();
                log::warn!("cannot read the event log {log}: {e}; an event that the last run left standing stays so");
            }
            Past::default()
        });
        self.snapshots.remember(raises);
        for (open, kind) in [(raise, Kind::Clear), (drift, Kind::DriftClear)] {
            let Some(past::Open { event, stopped }) = open else { continue };
            let message = match stopped {
                true => "outlierd was stopped while it stood",
                false => "outlierd ended while it stood, without a stop: killed, or the power was cut",
            };
            let there = |path: Option<PathBuf>| path.filter(|path| path.exists());
            self.emit(Event {
                id: event.id,
                snapshot: there(event.snapshot),
                heat: there(event.heat),
                message: Some(message.into()),
                ..Event::new(kind)
            });
        }
        self.prune(None);
    }

    /// Where the picture of an event will be, and where the one with its heat map.
    pub fn picture_paths(&self, id: &str) -> (PathBuf, PathBuf) {
        (self.snapshots.picture_path(id), self.snapshots.heat_path(id))
    }

    /// Writes the picture of an event; a failure is an error event and no path.
    pub fn snapshot(&mut self, id: &str, picture: &RgbImage) -> Option<PathBuf> {
        match self.snapshots.save(id, picture) {
            Ok(path) => {
                if let Err(e) = self.snapshots.link(id) {
                    self.error(format!("cannot link the newest snapshot: {e}"));
                }
                self.prune(Some(id));
                Some(path)
            }
            Err(e) => {
                self.error(format!("cannot write the snapshot of {id}: {e}{}", remedy(&e)));
                None
            }
        }
    }

    /// Writes the picture of an event with its heat map; a failure is an error event and no path.
    pub fn heat(&mut self, id: &str, picture: &RgbImage) -> Option<PathBuf> {
        match self.snapshots.save_heat(id, picture) {
            Ok(path) => {
                self.prune(Some(id));
                Some(path)
            }
            Err(e) => {
                self.error(format!("cannot write the heat map of {id}: {e}{}", remedy(&e)));
                None
            }
        }
    }

    fn prune(&mut self, newest: Option<&str>) {
        if let Err(e) = self.snapshots.prune(newest) {
            self.error(format!("cannot remove old snapshots: {e}"));
        }
    }

    /// Gives an event to all: [`Outputs::write`], then [`Outputs::announce`].
    pub fn emit(&mut self, event: Event) {
        let event = self.write(event);
        self.announce(&event);
    }

    /// Writes an event to the log; returns it as it was written.
    pub fn write(&mut self, mut event: Event) -> Event {
        event.model.get_or_insert_with(|| self.model.clone());
        event.instance.get_or_insert_with(|| self.instance.clone());
        match event.event {
            Kind::Raise => self.snapshots.set_standing(event.id.as_deref()),
            Kind::Clear => self.snapshots.set_standing(None),
            _ => {}
        }
        // The log comes first: whenever the process is killed, it holds every event that any other output has seen.
        let written = self.log.append(&event);
        tell(&event);
        self.metrics.event(event.event);
        self.note_log(written);
        event
    }

    /// Gives an event that is in the log to broker and hook.
    pub fn announce(&mut self, event: &Event) {
        for failure in
            self.sinks.iter_mut().filter_map(|sink| sink.event(event, &self.metrics).err()).collect::<Vec<_>>()
        {
            self.log_only(failure);
        }
        if let Err(e) = self.hooks.send(event) {
            self.hook_failed(e.to_string());
        }
    }

    /// An error event that answers what someone asked for: it is never thinned out.
    pub fn answer(&mut self, message: &str) {
        self.emit(error_event(message));
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
        Some(error_event(&message))
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
            let message = format!("cannot write the metrics file {}: {e}{}", file.path().display(), remedy(&e));
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
        if let Some(e) = self.log.take_unrotated() {
            let path = self.log.path().display();
            self.error(format!(
                "cannot rotate the event log {path}: {e}; it grows beyond events.max-log-size until the user that runs \
                 outlierd may write into its folder"
            ));
        }
    }

    fn hook_failed(&mut self, message: String) {
        self.metrics.hook_failures += 1;
        self.log_only(message);
    }

    /// An error of the hook itself is not given to the hook, nor to a sink.
    fn log_only(&mut self, message: String) {
        if let Some(event) = self.thinned(message) {
            self.write(event);
        }
    }

    fn note_log(&mut self, written: std::io::Result<()>) {
        match written {
            Ok(()) if self.log_failure.take().is_some() => {
                log::info!("the event log {} can be written again", self.log.path().display());
            }
            Ok(()) => {}
            Err(e) => {
                let failure = format!("cannot write the event log {}: {e}{}", self.log.path().display(), remedy(&e));
                if self.log_failure.as_ref() != Some(&failure) {
                    log::error!("{failure}; events wait in memory");
                }
                self.log_failure = Some(failure);
            }
        }
    }
}

fn error_event(message: &str) -> Event {
    Event { message: Some(shortened(message)), ..Event::new(Kind::Error) }
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
    let message = event.message.as_deref().unwrap_or_default();
    let level = match event.event {
        Kind::Error => log::Level::Error,
        Kind::Raise | Kind::CameraLost | Kind::Drift => log::Level::Warn,
        _ => log::Level::Info,
    };
    match event.event {
        // The level says so already.
        Kind::Error => log::log!(level, "{message}"),
        kind if message.is_empty() => log::log!(level, "{}{id}{p}", kind.name()),
        kind => log::log!(level, "{}{id}{p}: {message}", kind.name()),
    }
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
