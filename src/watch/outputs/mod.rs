//! Where events go. The log comes first: whenever the process is killed, it holds every event that any other output has
//! seen. None of the outputs can stop the watch; what fails is an error event, once, until it works again.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use ::image::RgbImage;

use self::clips::Clips;
use self::gpio::Gpio;
use self::hook::Hook;
use self::message::{error_event, print, shortened};
use self::metrics::Metrics;
use self::observe::Observe;
use self::output::{Failure, Output};
use self::snapshots::Snapshots;
use self::throttle::Throttle;
use crate::camera::Frame;
use crate::config::Config;
use crate::watch::events::past::{self, Past};
use crate::watch::events::{Event, Kind, Log};
use crate::watch::frame::status::Status;
use crate::watch::overlay::HeatMap;
use crate::watch::service::{Journal, remedy};

pub mod clips;
pub mod gpio;
pub mod hook;
mod live;
mod message;
pub mod metrics;
pub mod mqtt;
pub mod observe;
mod output;
mod printed;
mod retention;
pub mod snapshots;
mod throttle;

/// Log, snapshots and outputs as one.
#[derive(Debug)]
pub struct Outputs {
    status: Status,
    log: Log,
    log_failure: Option<String>,
    snapshots: Snapshots,
    clips: Clips,
    gpio: Gpio,
    hook: Hook,
    mqtt: mqtt::Mqtt,
    metrics: Metrics,
    observe: Observe,
    model: String,
    instance: String,
    throttle: Throttle,
    journal: Journal,
}

/// Why events could not be given out at all.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Gpio(#[from] gpio::Error),
    #[error("cannot take the snapshot folder {}: {source}", folder.display())]
    InUse { folder: PathBuf, source: io::Error },
    #[error("cannot start a thread: {0}")]
    Thread(#[from] io::Error),
}

/// The snapshots of a config. A folder that cannot be made or locked yet is an error event of the first picture.
fn claim(config: &Config) -> Result<Snapshots, Error> {
    let events = &config.events;
    let mut snapshots = Snapshots::new(&events.snapshots, events.keep_snapshots, events.max_snapshot_bytes);
    match snapshots.claim() {
        Err(source) if source.kind() == io::ErrorKind::ResourceBusy => {
            return Err(Error::InUse { folder: snapshots.folder().to_owned(), source });
        }
        Err(e) => log::warn!("cannot use the snapshot folder {}: {e}{}", snapshots.folder().display(), remedy(&e)),
        Ok(()) => {}
    }
    Ok(snapshots)
}

impl Outputs {
    /// Opens the log; one that cannot be opened is tried again with every event.
    ///
    /// # Errors
    /// A GPIO line cannot be had; another daemon has the snapshot folder; a thread cannot be started.
    pub fn new(config: &Config, model: &str) -> Result<Self, Error> {
        let events = &config.events;
        let gpio = Gpio::open(config.gpio.as_ref())?;
        let snapshots = claim(config)?;
        let hook = Hook::start(events.hook.clone(), hook::LIMIT)?;
        let (log, failure) = match Log::open(&events.log, events.max_log_size) {
            Ok(log) => (log, None),
            Err(e) => (Log::closed(&events.log, events.max_log_size), Some(e)),
        };
        let mut outputs = Outputs {
            status: Status::default(),
            log,
            log_failure: None,
            snapshots,
            clips: Clips::start(config)?,
            gpio,
            hook,
            mqtt: mqtt::Mqtt::start(config)?,
            metrics: Metrics::new(events.metrics.as_deref(), &config.instance(), SystemTime::now()),
            observe: Observe::open(config),
            model: model.to_owned(),
            instance: config.instance(),
            throttle: Throttle::new(Instant::now()),
            journal: Journal::from_env(),
        };
        if let Some(e) = failure {
            outputs.note_log(Err(e));
        }
        Ok(outputs)
    }

    /// The metrics come last, to count what goes wrong at the others.
    fn each(&mut self) -> [&mut dyn Output; 6] {
        [&mut self.gpio, &mut self.hook, &mut self.mqtt, &mut self.clips, &mut self.observe, &mut self.metrics]
    }

    /// Calls each output, one after the other, and makes error events of what went wrong.
    fn call(&mut self, method: impl Fn(&mut dyn Output, &Status) -> Vec<Failure>) {
        let status = self.status;
        for at in 0..self.each().len() {
            let failures = method(self.each()[at], &status);
            failures.into_iter().for_each(|failure| self.fail(failure));
        }
    }

    /// Takes another config in place of `old`, and a model by name and path, or nothing of them.
    ///
    /// # Errors
    /// The reason to refuse the config with.
    pub fn reconfigure(&mut self, old: &Config, config: &Config, model: (&str, &Path)) -> Result<(), String> {
        let events = &config.events;
        let log = (events.log != self.log.path()).then(|| Log::open(&events.log, events.max_log_size)).transpose();
        let log = log.map_err(|e| format!("cannot open the event log {}: {e}", events.log.display()))?;
        let snapshots = (events.snapshots != self.snapshots.folder()).then(|| claim(config)).transpose();
        let snapshots = snapshots.map_err(|e| e.to_string())?;
        let mut failures = Vec::new();
        let mut each = self.each();
        for at in 0..each.len() {
            match each[at].reconfigure(config) {
                Ok(more) => failures.extend(more),
                Err(reason) => {
                    for output in &mut each[..=at] {
                        output.reconfigure(old).map_or_else(|e| log::error!("{e}"), drop);
                    }
                    return Err(reason);
                }
            }
        }
        failures.into_iter().for_each(|failure| self.fail(failure));
        if let Some(log) = log {
            self.flush();
            (self.log, self.log_failure) = (log, None);
        }
        self.log.set_max_size(events.max_log_size);
        self.snapshots.reconfigure(events.keep_snapshots, events.max_snapshot_bytes, snapshots);
        self.set_model(model.0, model.1);
        self.prune(None);
        Ok(())
    }

    /// Another of the config's models watches from now on.
    pub fn set_model(&mut self, name: &str, path: &Path) {
        self.model = name.to_owned();
        self.observe.set_model(path);
    }

    /// Ends the events of the run before that still stand, and removes the pictures that are beyond the limits by now.
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
        self.snapshots.remember(raises.iter().cloned());
        if let Err(e) = self.clips.take_over(raises) {
            self.error(format!("cannot remove what is left of clips: {e}{}", remedy(&e)));
        }
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
                clip: there(event.clip),
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
        let saved = self.snapshots.save(id, picture);
        let path = self.written(saved, id, "snapshot")?;
        if let Err(e) = self.snapshots.link(id) {
            self.error(format!("cannot link the newest snapshot: {e}"));
        }
        self.prune(Some(id));
        Some(path)
    }

    /// Writes the picture of an event with its heat map; a failure is an error event and no path.
    pub fn heat(&mut self, id: &str, picture: &RgbImage) -> Option<PathBuf> {
        let saved = self.snapshots.save_heat(id, picture);
        let path = self.written(saved, id, "heat map")?;
        self.prune(Some(id));
        Some(path)
    }

    /// Where the clip of an event will be; None: there are no clips.
    pub fn clip_path(&self, id: &str) -> Option<PathBuf> {
        self.clips.path(id)
    }

    /// Begins the clip of an event with the frames before; a failure is an error event and no path.
    pub fn clip(&mut self, id: &str) -> Option<PathBuf> {
        let path = self.clips.path(id)?;
        let claimed = self.snapshots.claim().map(|()| path);
        self.written(claimed, id, "clip").inspect(|_| self.clips.raise(id))
    }

    /// Takes a frame for the clips, when all that it changed is told. Whatever goes wrong is an error event.
    pub fn keep(&mut self, frame: Frame, came: Instant) {
        if let Some(message) = self.clips.keep(frame, came) {
            self.error(message);
        }
    }

    fn written(&mut self, saved: io::Result<PathBuf>, id: &str, what: &str) -> Option<PathBuf> {
        saved.map_err(|e| self.error(format!("cannot write the {what} of {id}: {e}{}", remedy(&e)))).ok()
    }

    fn prune(&mut self, newest: Option<&str>) {
        if let Err(e) = self.snapshots.prune(newest) {
            self.error(format!("cannot remove old snapshots: {e}"));
        }
    }

    /// What the watch sees from now on; outputs that show it do so at once.
    pub fn update(&mut self, status: Status) {
        self.status = status;
        self.call(|output, status| output.update(status));
    }

    /// Shows a frame to who looks at it; `map` draws its anomaly map, None: the frame has none; `next` is when the next
    /// frame is taken. To be called last for a frame: who looks waits.
    pub fn show(&mut self, picture: &RgbImage, map: Option<impl FnOnce() -> Option<HeatMap>>, next: Instant) {
        let Some(live) = self.observe.live(Instant::now()) else { return };
        live.show(picture, map, next);
        self.observe.note_pictures();
    }

    /// Counts how long a frame took to be judged.
    pub fn observe_frame(&mut self, took: Duration) {
        self.metrics.observe_frame(took);
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
        event.clip.take_if(|path| self.clips.has_failed(path));
        let written = self.log.append(&event);
        print(&event, &self.journal);
        self.metrics.count_event(event.event);
        self.observe.note(&event);
        self.note_log(written);
        event
    }

    /// Gives an event that is in the log to the outputs.
    pub fn announce(&mut self, event: &Event) {
        self.call(|output, status| output.event(event, status));
    }

    /// The error event of a request that failed: the rate limit does not hold for it.
    pub fn refuse(&mut self, message: &str) {
        self.emit(error_event(message));
    }

    /// An error event; many in a row are dropped, and counted in the next that is written.
    pub fn error(&mut self, message: String) {
        if let Some(event) = self.limited(message) {
            self.emit(event);
        }
    }

    fn fail(&mut self, failure: Failure) {
        match failure {
            Failure::Announced(message) => return self.error(message),
            Failure::Hook(_) => self.metrics.count_hook_failure(),
            Failure::Logged(_) => {}
        }
        let (Failure::Announced(message) | Failure::Logged(message) | Failure::Hook(message)) = failure;
        if let Some(event) = self.limited(message) {
            self.write(event);
        }
    }

    fn limited(&mut self, message: String) -> Option<Event> {
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

    /// To be called between frames, and at [`Outputs::due`].
    pub fn attend(&mut self) {
        self.flush();
        self.call(|output, status| output.attend(status));
    }

    pub fn due(&mut self) -> Option<Instant> {
        self.each().iter().filter_map(|output| output.due()).min()
    }

    /// What is wrong at present, for the status line.
    pub fn problem(&self) -> Option<&str> {
        self.log_failure.as_deref()
    }

    /// Releases the GPIO lines, emits the run's last event, lets hook and broker end, and writes what is left.
    pub fn finish(&mut self, stop: Event, status: Status) {
        self.status = status;
        let failures = self.gpio.finish(&status);
        failures.into_iter().for_each(|failure| self.fail(failure));
        self.emit(stop);
        self.call(|output, status| output.finish(status));
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
        if self.log.pending() == 0 {
            let lost = self.log.take_lost();
            if lost > 0 {
                let path = self.log.path().display();
                self.refuse(&format!("{lost} events were given up: {path} could not be written for too long"));
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

    fn note_log(&mut self, written: io::Result<()>) {
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
