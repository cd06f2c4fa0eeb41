//! Where events go: log, snapshot, hook. None of them can stop the watch; what fails is told once, until it
//! works again.

use std::time::{Duration, Instant};

use ::image::RgbImage;

use super::events::{Event, Kind, Log};
use super::hooks::{self, Hooks};
use super::snapshots::Snapshots;
use crate::config;

/// Error events at once, before they are thinned out.
const BURST: u32 = 10;
/// Then one in so long.
const ERROR_EVERY: Duration = Duration::from_secs(60);
/// How long hooks may go on when the daemon stops.
const HOOK_GRACE: Duration = Duration::from_secs(2);

/// Log, snapshots and hook as one.
#[derive(Debug)]
pub struct Outputs {
    log: Log,
    log_failure: Option<String>,
    snapshots: Snapshots,
    hooks: Hooks,
    model: String,
    throttle: Throttle,
}

impl Outputs {
    /// Opens the log; one that cannot be opened is tried again with every event.
    pub fn new(config: &config::Events, model: &str) -> std::io::Result<Self> {
        let hooks = Hooks::start(config.hook.clone(), hooks::LIMIT)?;
        let (log, failure) = match Log::open(&config.log, config.max_log_size) {
            Ok(log) => (log, None),
            Err(e) => (Log::closed(&config.log, config.max_log_size), Some(e)),
        };
        let snapshots = Snapshots::new(&config.snapshots, config.keep_snapshots);
        let throttle = Throttle::new(Instant::now());
        let mut outputs = Outputs { log, log_failure: None, snapshots, hooks, model: model.to_owned(), throttle };
        if let Some(e) = failure {
            outputs.note_log(Err(e));
        }
        Ok(outputs)
    }

    /// Takes over another config and model. Nothing changes if the new log cannot be opened.
    pub fn reconfigure(&mut self, config: &config::Events, model: &str) -> Result<(), String> {
        if config.log != self.log.path() {
            let log = Log::open(&config.log, config.max_log_size)
                .map_err(|e| format!("cannot open the event log {}: {e}", config.log.display()))?;
            self.flush();
            self.log = log;
            self.log_failure = None;
        }
        self.log.set_max_size(config.max_log_size);
        self.snapshots = Snapshots::new(&config.snapshots, config.keep_snapshots);
        self.hooks.set_argv(config.hook.clone());
        self.model = model.to_owned();
        Ok(())
    }

    /// Writes the snapshot of an event; a failure is an error event and no path.
    pub fn snapshot(&mut self, id: &str, picture: &RgbImage) -> Option<std::path::PathBuf> {
        match self.snapshots.save(id, picture) {
            Ok(path) => Some(path),
            Err(e) => {
                self.error(format!("cannot write the snapshot of {id}: {e}"));
                None
            }
        }
    }

    /// Sends an event to the log and the hook.
    pub fn emit(&mut self, mut event: Event) {
        event.model.get_or_insert_with(|| self.model.clone());
        tell(&event);
        let written = self.log.append(&event);
        self.note_log(written);
        if let Err(e) = self.hooks.send(&event) {
            self.log_only(e.to_string());
        }
    }

    /// An error event; many in a row are thinned out, and counted in the next that is written.
    pub fn error(&mut self, message: String) {
        match self.throttle.pass(Instant::now()) {
            Some(0) => self.emit(error_event(message)),
            Some(more) => self.emit(error_event(format!("{message} (and {more} errors before, not written)"))),
            None => log::debug!("{message}"),
        }
    }

    /// To be called between frames: collects the hook's failures, tries what could not be written.
    pub fn attend(&mut self) {
        for failure in self.hooks.failures() {
            self.log_only(failure);
        }
        self.flush();
    }

    /// What stands in the way of events, for the status line.
    pub fn trouble(&self) -> Option<&str> {
        self.log_failure.as_deref()
    }

    /// Lets hooks end, then writes what is left.
    pub fn finish(&mut self) {
        for failure in self.hooks.finish(HOOK_GRACE) {
            self.log_only(failure);
        }
        self.flush();
        if self.log.pending() > 0 {
            log::error!("{} events could not be written to {}", self.log.pending(), self.log.path().display());
        }
    }

    fn flush(&mut self) {
        if self.log.pending() > 0 {
            let written = self.log.retry();
            self.note_log(written);
        }
    }

    /// An error of the hook itself is not given to the hook.
    fn log_only(&mut self, message: String) {
        if let Some(before) = self.throttle.pass(Instant::now()) {
            let more = if before > 0 { format!(" (and {before} errors before, not written)") } else { String::new() };
            let mut event = error_event(message + &more);
            event.model = Some(self.model.clone());
            tell(&event);
            let written = self.log.append(&event);
            self.note_log(written);
        }
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

fn error_event(message: String) -> Event {
    Event { message: Some(message), ..Event::new(Kind::Error) }
}

fn tell(event: &Event) {
    let p = event.p.map(|p| format!(" p {p:.4}")).unwrap_or_default();
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
