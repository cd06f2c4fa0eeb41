//! The daemon: takes frames, has them judged, raises and clears events, and gives them out.
//!
//! [`Watch::run`] is the loop. It knows a [`Judge`], not a network, and a [`FrameSource`], not a camera.

use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant, SystemTime};

use ::image::RgbImage;
use jiff::tz::TimeZone;

use crate::camera::{self, Frame, FrameSource};
use crate::config::{self, Config};
use crate::model::Verdict;

pub mod budget;
mod connection;
pub mod events;
pub mod frame;
pub mod history;
pub mod judge;
pub mod judging;
pub mod observe;
pub mod outputs;
pub mod overlay;
mod raise;
pub mod scene;
mod scenes;
pub mod service;
pub mod surprisal;
pub mod time;

use budget::{BudgetStatus, Reason};
use connection::{Connection, Polled};
use events::{Event, Ids, Kind};
use frame::change_filter::ChangeFilter;
use frame::light::Light;
use frame::machine::{Machine, Time};
use frame::pace;
use frame::schedule::{Choice, Schedule};
use frame::status::Status;
use outputs::Outputs;
use raise::{Raised, raise};
use scenes::Scenes;
use service::{Command, Notifier, latest};

pub use connection::OpenCamera;
pub use frame::status::Summary;
pub use judging::{Drawing, Judge, JudgeError};

/// Why the watch could not begin.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Camera(#[from] camera::Error),
    #[error(transparent)]
    Outputs(#[from] outputs::Error),
}

/// Reads config and model again; the error says what is wrong with them.
pub type Reload<'a, J> = Box<dyn FnMut() -> Result<(Config, J), String> + 'a>;
/// Sees every judged frame.
pub type Observe<'a> = Box<dyn FnMut(&Frame, Verdict) + 'a>;

/// A watch that is ready to run.
pub struct Watch<'a, J, S> {
    pub config: Config,
    pub judge: J,
    pub open_camera: OpenCamera<'a, S>,
    pub reload: Reload<'a, J>,
    pub observe: Option<Observe<'a>>,
}

impl<J: Judge, S: FrameSource> Watch<'_, J, S> {
    /// Watches until a [`Command::Stop`], until all senders of `commands` are gone, or until the source ends.
    ///
    /// # Errors
    /// Only before the first frame: a folder that cannot be opened, a GPIO line that cannot be had, a folder of snapshots
    /// that another daemon has. A camera that is not there is waited for.
    pub fn run(mut self, commands: &Receiver<Command>, notifier: &mut Notifier) -> Result<Summary, Error> {
        let started = Time::now();
        let outputs = Outputs::new(&self.config, self.judge.model_name())?;
        let mut camera = Connection::new(started.monotonic);
        if let Err(e) = camera.open(&self.config.camera, &mut self.open_camera, started.monotonic)
            && matches!(self.config.camera.source, config::Source::Folder(_))
        {
            return Err(e.into());
        }
        let machine = Machine::new(&self.config.decision, Ids::random(), started);
        let filter = ChangeFilter::new(&self.config.camera);
        let schedule = Schedule::new(&self.config.model.when);
        let (scenes, problems) = Scenes::open(&self.config, &mut self.judge, schedule.chosen());
        let running = Running { watch: self, camera, filter, machine, schedule, light: None, scenes, outputs };
        Ok(running.run(problems, commands, notifier))
    }
}

struct Running<'a, J, S> {
    watch: Watch<'a, J, S>,
    camera: Connection<S>,
    filter: ChangeFilter,
    machine: Machine,
    schedule: Schedule,
    /// Of the latest frame, where the schedule asks for it.
    light: Option<Light>,
    scenes: Scenes,
    outputs: Outputs,
}

impl<J: Judge, S: FrameSource> Running<'_, J, S> {
    /// `problems`: of the histories.
    fn run(mut self, problems: Vec<String>, commands: &Receiver<Command>, notifier: &mut Notifier) -> Summary {
        self.update();
        self.outputs.emit(Event { threshold: Some(self.scenes.get().threshold().value), ..Event::new(Kind::Start) });
        self.outputs.take_over();
        self.report_scene(problems);
        self.watch_drift();
        notifier.ready();
        let mut due = Instant::now();
        loop {
            match self.wait(commands, due, notifier) {
                Some(Command::Stop) => break,
                Some(Command::Reload) => {
                    notifier.reloading();
                    self.reload();
                    notifier.ready();
                    continue;
                }
                None => {}
            }
            let (polled, event) = self.camera.poll(&self.watch.config.camera, &mut self.watch.open_camera);
            match &polled {
                Polled::Dropped(_) => self.machine.dropped(),
                Polled::Nothing if self.camera.is_failing() => self.machine.paused(),
                Polled::Nothing | Polled::Frame(_) | Polled::End => {}
            }
            self.update();
            if let Polled::Dropped(reason) = &polled {
                self.outputs.error(reason.clone());
            }
            if let Some(event) = event {
                self.outputs.emit(event);
            }
            let interval = self.watch.config.camera.interval;
            match polled {
                Polled::Frame(frame) => {
                    let begun = Instant::now();
                    self.take_frame(&frame, begun);
                    self.outputs.keep(frame, begun);
                    let rest = pace::rest(begun.elapsed(), self.watch.config.model.duty);
                    due = pace::next_due(due, interval, Instant::now(), rest);
                }
                Polled::Dropped(_) => due = pace::next_due(due, interval, Instant::now(), Duration::ZERO),
                Polled::Nothing => {}
                Polled::End => break,
            }
            self.outputs.attend();
            if self.machine.judges() || self.camera.is_waiting() {
                notifier.alive();
            }
            let problems = [self.camera.problem(), self.outputs.problem()];
            notifier.status(&self.status(self.camera.is_up()).line(problems.into_iter().flatten()));
        }
        notifier.stopping();
        let stop = self.machine.stop(Time::now());
        let status = self.status(false);
        self.outputs.finish(stop, status);
        self.machine.summary()
    }

    fn status(&self, camera_up: bool) -> Status {
        Status {
            budget: self.scenes.get().budget(),
            light: self.light,
            ..self.machine.status(self.scenes.get().threshold(), camera_up)
        }
    }

    /// Of a history that cannot be kept, and of a budget that settles.
    fn report_scene(&mut self, problems: Vec<String>) {
        problems.into_iter().for_each(|problem| self.outputs.error(problem));
        if let Some((rate, BudgetStatus { settling: Some(left), .. })) = self.scenes.get().budget() {
            let left = humantime::format_duration(Duration::from_secs(left.as_secs()));
            self.emit_threshold(format!(
                "settling: the scene is watched for another {left} before the alarm budget of {rate} holds; until then \
                 only what lies beyond all of the calibration raises"
            ));
        }
    }

    fn emit(&mut self, mut event: Event) {
        if let (Kind::Drift, Some(message), Some(_)) = (event.event, &mut event.message, self.scenes.get().budget()) {
            message.push_str(
                "; what the alarm budget has learnt is of the scene before: its threshold follows over hours, and a new \
                 fit begins anew",
            );
        }
        self.outputs.emit(event);
    }

    fn emit_threshold(&mut self, message: String) {
        let threshold = Some(self.scenes.get().threshold().value);
        self.outputs.emit(Event { threshold, message: Some(message), ..Event::new(Kind::Threshold) });
    }

    /// Gives the outputs what the watch sees now.
    fn update(&mut self) {
        let status = self.status(self.camera.is_up());
        self.outputs.update(status);
    }

    /// Waits for the next frame's time, or for a command.
    fn wait(&mut self, commands: &Receiver<Command>, until: Instant, notifier: &mut Notifier) -> Option<Command> {
        let begun = Instant::now();
        loop {
            self.outputs.attend();
            let next = self.outputs.due().map_or(until, |due| due.min(until));
            let left = next.saturating_duration_since(Instant::now()).min(notifier.alive_interval());
            match commands.recv_timeout(left) {
                Ok(command) => return Some(latest(command, commands)),
                Err(RecvTimeoutError::Disconnected) => return Some(Command::Stop),
                Err(RecvTimeoutError::Timeout) if Instant::now() >= until => return None,
                // Where frames come often, only those that are judged feed the watchdog.
                Err(RecvTimeoutError::Timeout)
                    if begun.elapsed() >= notifier.alive_interval() || self.machine.judges() =>
                {
                    notifier.alive();
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }

    /// A frame's way, from the picture to what it changes; `now` is when it came.
    fn take_frame(&mut self, frame: &Frame, now: Instant) {
        let masked = self.watch.config.camera.mask.paint(&frame.picture);
        if !self.choose_model(&masked) {
            self.machine.paused();
            return self.update();
        }
        if let Some(verdict) = self.filter.unchanged(&masked, self.machine.is_settled(), now) {
            let event = self.machine.skipped(verdict, Time::now());
            self.update();
            self.outputs.show(&frame.picture, None::<fn() -> _>, free_until(&self.watch.config, now));
            return event.into_iter().for_each(|event| self.emit(event));
        }
        let (begun, threshold) = (Instant::now(), self.scenes.get().threshold().value);
        let judged = self.watch.judge.judge(&masked, threshold).and_then(|verdict| match verdict.p.is_finite() {
            true => Ok(verdict),
            false => Err(JudgeError(format!("p is {}", verdict.p))),
        });
        let verdict = match judged {
            Ok(verdict) => verdict,
            Err(e) => {
                self.machine.failed();
                self.filter.forget();
                self.update();
                return self.outputs.error(format!("{}: {e}", frame.source));
            }
        };
        self.outputs.observe_frame(begun.elapsed());
        self.filter.judged(verdict, now);
        let events = self.machine.judged(verdict, threshold, Time::now());
        self.update();
        let mut drawn = false;
        for event in events {
            if event.event == Kind::Raise {
                drawn = true;
                let pictures =
                    Raised { masked: &masked, hatched: &self.watch.config.camera.mask.hatch(&frame.picture) };
                let judge = self.watch.config.events.heat_map.then_some(&mut self.watch.judge as &mut dyn Judge);
                self.machine.set_pictures(raise(&mut self.outputs, event, &pictures, judge));
            } else {
                self.emit(event);
            }
        }
        let measured = (verdict.score, self.watch.judge.known_p(verdict));
        let (step, problem) =
            self.scenes.current().judged(SystemTime::now(), measured, threshold, self.machine.is_raised());
        if let Some(step) = step.filter(|step| matches!(step.reason, Reason::Settled | Reason::Storm)) {
            self.emit_threshold(step.to_string());
        }
        problem.into_iter().for_each(|problem| self.outputs.error(problem));
        if let Some(observe) = &mut self.watch.observe {
            observe(frame, verdict);
        }
        // A raise has used up what the judgement left behind for the map.
        let judge = (!drawn && self.watch.judge.drawing() != Drawing::Never).then_some(&mut self.watch.judge);
        let map = judge.map(|judge| {
            let masked = &masked;
            move || {
                judge.heat(masked).unwrap_or_else(|e| {
                    log::warn!("no anomaly map: {e}");
                    None
                })
            }
        });
        let next = free_until(&self.watch.config, now);
        self.outputs.show(&frame.picture, map, next);
    }

    /// Whether the frame is to be judged: by the model that it and the hour ask for.
    fn choose_model(&mut self, picture: &RgbImage) -> bool {
        if self.watch.config.model.when.is_empty() {
            return true;
        }
        self.light = self.schedule.needs_light().then(|| Light::of(picture));
        match self.schedule.choose(Time::now(), &TimeZone::system(), self.light) {
            Choice::Keep => true,
            Choice::Wait => false,
            Choice::Switch(chosen) => {
                self.change_model(chosen);
                true
            }
        }
    }

    fn change_model(&mut self, chosen: usize) {
        let mut events = Vec::new();
        self.watch.judge.select(chosen);
        self.scenes.select(chosen, |drift| {
            let (old, made) = self.machine.change_model(drift, Time::now());
            events = made;
            old
        });
        self.filter.forget();
        let path = self.watch.config.models().nth(chosen).cloned().unwrap_or_default();
        self.outputs.set_model(self.watch.judge.model_name(), &path);
        self.update();
        let message = format!("{} watches: {}", path.display(), self.schedule.reason());
        let threshold = Some(self.scenes.get().threshold().value);
        self.outputs.emit(Event { threshold, message: Some(message), ..Event::new(Kind::Model) });
        events.into_iter().for_each(|event| self.emit(event));
    }

    fn watch_drift(&mut self) {
        let drift = self.scenes.take_drift();
        let event = self.machine.set_drift(drift, Time::now());
        self.update();
        event.into_iter().for_each(|event| self.outputs.emit(event));
    }

    /// Takes config and model anew, or says why the old ones stay.
    fn reload(&mut self) {
        let reloaded = (self.watch.reload)().and_then(|(config, mut judge)| {
            let mut schedule = self.schedule.clone();
            schedule.reconfigure(&config.model.when);
            judge.select(schedule.chosen());
            let path = config.models().nth(schedule.chosen()).unwrap_or(&config.model.path);
            self.outputs.reconfigure(&self.watch.config, &config, (judge.model_name(), path))?;
            Ok((config, judge, schedule))
        });
        let (config, judge, schedule) = match reloaded {
            Ok(new) => new,
            Err(reason) => {
                let message = format!("reload refused, the old config and model stay: {reason}");
                return self.outputs.refuse(&message);
            }
        };
        self.machine.reconfigure(&config.decision);
        if config.camera != self.watch.config.camera {
            self.camera.close(Instant::now());
        }
        self.filter = ChangeFilter::new(&config.camera);
        if config.model.nice != self.watch.config.model.nice {
            log::warn!("model.nice is taken over at the next start: `systemctl restart outlierd`");
        }
        (self.watch.config, self.watch.judge, self.schedule) = (config, judge, schedule);
        // What was gathered is written before it is read.
        self.scenes.flush();
        let chosen = self.schedule.chosen();
        let (scenes, problems) = Scenes::open(&self.watch.config, &mut self.watch.judge, chosen);
        let old = std::mem::replace(&mut self.scenes, scenes);
        self.scenes.keep_drift(old);
        self.report_scene(problems);
        self.watch_drift();
        log::info!("reloaded {}", self.watch.config.path().display());
    }
}

/// What else is done after a frame that came `now` costs no later frame until then. A duty is rest, not time to spare.
fn free_until(config: &Config, now: Instant) -> Instant {
    if config.model.duty < 1.0 { now } else { now + config.camera.interval }
}
