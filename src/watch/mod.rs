//! The daemon: takes frames, has them judged, raises and clears events, and gives them out.
//!
//! [`Watch::run`] is the loop. It knows a [`Judge`], not a network, and a [`FrameSource`], not a camera.

use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant, SystemTime};

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
pub mod service;
pub mod surprisal;
pub mod time;

use budget::{BudgetStatus, Reason};
use connection::{Connection, Polled};
use events::{Event, Ids, Kind};
use frame::change_filter::ChangeFilter;
use frame::drift::Drift;
use frame::machine::{Machine, Time};
use frame::pace;
use frame::status::Status;
use outputs::Outputs;
use raise::{Raised, raise};
use scene::Scene;
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
        let (scene, problem) = Scene::open(&self.config, &self.judge);
        let running = Running { watch: self, camera, filter, machine, scene, outputs };
        Ok(running.run(problem, commands, notifier))
    }
}

struct Running<'a, J, S> {
    watch: Watch<'a, J, S>,
    camera: Connection<S>,
    filter: ChangeFilter,
    machine: Machine,
    scene: Scene,
    outputs: Outputs,
}

impl<J: Judge, S: FrameSource> Running<'_, J, S> {
    /// `problem`: of the scene's history.
    fn run(mut self, problem: Option<String>, commands: &Receiver<Command>, notifier: &mut Notifier) -> Summary {
        self.update();
        self.outputs.emit(Event { threshold: Some(self.scene.threshold().value), ..Event::new(Kind::Start) });
        self.outputs.take_over();
        self.report_scene(problem);
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
        Status { budget: self.scene.budget(), ..self.machine.status(self.scene.threshold(), camera_up) }
    }

    /// Of a history that cannot be kept, and of a budget that settles.
    fn report_scene(&mut self, problem: Option<String>) {
        problem.into_iter().for_each(|problem| self.outputs.error(problem));
        if let Some((rate, BudgetStatus { settling: Some(left), .. })) = self.scene.budget() {
            let left = humantime::format_duration(Duration::from_secs(left.as_secs()));
            self.emit_threshold(format!(
                "settling: the scene is watched for another {left} before the alarm budget of {rate} holds; until then \
                 only what lies beyond all of the calibration raises"
            ));
        }
    }

    fn emit(&mut self, mut event: Event) {
        if let (Kind::Drift, Some(message), Some(_)) = (event.event, &mut event.message, self.scene.budget()) {
            message.push_str(
                "; what the alarm budget has learnt is of the scene before: its threshold follows over hours, and a new \
                 fit begins anew",
            );
        }
        self.outputs.emit(event);
    }

    fn emit_threshold(&mut self, message: String) {
        let threshold = Some(self.scene.threshold().value);
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
        if let Some(verdict) = self.filter.unchanged(&masked, self.machine.is_settled(), now) {
            let event = self.machine.skipped(verdict, Time::now());
            self.update();
            self.outputs.show(&frame.picture, None::<fn() -> _>, free_until(&self.watch.config, now));
            return event.into_iter().for_each(|event| self.emit(event));
        }
        let (begun, threshold) = (Instant::now(), self.scene.threshold().value);
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
        let (step, problem) = self.scene.judged(SystemTime::now(), measured, threshold, self.machine.is_raised());
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

    fn watch_drift(&mut self) {
        let Watch { config, judge, .. } = &self.watch;
        let drift = Drift::new(&config.drift, judge.normal_scores(), judge.effective_sample_size());
        if let Err(reason) = &drift {
            log::info!("drift is not watched for: {reason}");
        }
        let event = self.machine.set_drift(drift.ok(), Time::now());
        self.update();
        event.into_iter().for_each(|event| self.outputs.emit(event));
    }

    /// Takes config and model anew, or says why the old ones stay.
    fn reload(&mut self) {
        let reloaded = (self.watch.reload)().and_then(|(config, judge)| {
            self.outputs.reconfigure(&self.watch.config, &config, judge.model_name()).map(|()| (config, judge))
        });
        let (config, judge) = match reloaded {
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
        (self.watch.config, self.watch.judge) = (config, judge);
        // What was gathered is written before it is read.
        self.scene.flush();
        let (scene, problem) = Scene::open(&self.watch.config, &self.watch.judge);
        self.scene = scene;
        self.report_scene(problem);
        self.watch_drift();
        log::info!("reloaded {}", self.watch.config.path().display());
    }
}

/// What else is done after a frame that came `now` costs no later frame until then. A duty is rest, not time to spare.
fn free_until(config: &Config, now: Instant) -> Instant {
    if config.model.duty < 1.0 { now } else { now + config.camera.interval }
}
