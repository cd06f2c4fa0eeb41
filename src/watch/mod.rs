//! The daemon: takes frames, has them judged, raises and clears events, and tells of them.
//!
//! [`Watch::run`] is the loop. It knows a [`Judge`], not a network, and a [`FrameSource`], not a camera.

use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use crate::camera::{self, Frame, FrameSource};
use crate::config::{self, Config};
use crate::model::Verdict;

pub mod budget;
mod connection;
pub mod decision;
pub mod drift;
mod drift_events;
pub mod events;
pub mod follow;
pub mod gate;
pub mod gpio;
pub mod history;
pub mod hooks;
mod ids;
pub mod judge;
pub mod judging;
pub mod load;
pub mod metrics;
#[cfg(feature = "mqtt")]
pub mod mqtt;
pub mod outputs;
pub mod overlay;
mod past;
pub mod service;
mod sink;
pub mod sinks;
pub mod snapshots;
mod state;
pub mod surprisal;

use connection::{Connection, Polled};
use decision::Decision;
use drift_events::DriftWatch;
use events::{Event, Kind};
use gate::Gate;
use gpio::Gpio;
use ids::Ids;
use outputs::Outputs;
use service::{Command, Notifier};
use state::{Last, State};

pub use connection::OpenCamera;
pub use judging::{Judge, JudgeError};
pub use state::Summary;

/// Why the watch could not begin.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Camera(#[from] camera::Error),
    #[error(transparent)]
    Gpio(#[from] gpio::Error),
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
        let started = Instant::now();
        let gpio = self.config.gpio.as_ref().map(Gpio::open).transpose()?;
        let outputs = Outputs::new(&self.config, self.judge.model_name())?;
        let decision = Decision::new(self.config.decision.raise_after, self.config.decision.clear_after);
        let mut camera = Connection::new(started);
        if let Err(e) = camera.open(&self.config.camera, &mut self.open_camera, started)
            && matches!(self.config.camera.source, config::Source::Folder(_))
        {
            return Err(e.into());
        }
        let ids = Ids::new();
        let mut state = State {
            outputs,
            gpio,
            decision,
            gate: Gate::new(&self.config.camera),
            drift: DriftWatch::default(),
            ids,
            event: None,
            last: None,
        };
        let threshold = self.threshold();
        state.outputs.metrics.threshold = threshold;
        state.outputs.metrics.camera_up = camera.is_up();
        state.outputs.emit(Event { threshold: Some(threshold), ..Event::new(Kind::Start) });
        state.outputs.take_over();
        state.drift.begin(&self.config.drift, &self.judge, &mut state.outputs);
        notifier.ready();
        let mut tick = Instant::now();
        loop {
            match state.wait(commands, tick, notifier) {
                Some(Command::Stop) => break,
                Some(Command::Reload) => {
                    notifier.reloading();
                    self.take_reload(&mut state, &mut camera);
                    notifier.ready();
                    continue;
                }
                None => {}
            }
            let (polled, event) = camera.poll(&self.config.camera, &mut self.open_camera);
            if let Polled::Dropped(reason) = &polled {
                state.drop_frame();
                state.outputs.error(reason.clone());
            }
            if let Some(event) = event {
                state.outputs.emit(event);
            }
            match polled {
                Polled::Frame(frame) => {
                    let begun = Instant::now();
                    self.take_frame(&mut state, &frame, begun);
                    let rest = load::rest(begun.elapsed(), self.config.model.duty);
                    tick = next_tick(tick, self.config.camera.interval, rest);
                }
                Polled::Dropped(_) => tick = next_tick(tick, self.config.camera.interval, Duration::ZERO),
                Polled::Nothing => state.drift.pause(),
                Polled::End => break,
            }
            state.outputs.metrics.camera_up = camera.is_up();
            state.outputs.attend();
            if state.last.is_some_and(|last| last.judged) || camera.is_failing() {
                notifier.alive();
            }
            notifier.status(&state.status(&camera));
        }
        notifier.stopping();
        state.stop(started);
        Ok(state.summary())
    }

    fn threshold(&self) -> f64 {
        self.config.decision.threshold.unwrap_or_else(|| self.judge.threshold())
    }

    fn take_frame(&mut self, state: &mut State, frame: &Frame, now: Instant) {
        if let Some(verdict) = state.gate.pass(&frame.picture, state.decision.is_settled(), now) {
            return state.skip(verdict);
        }
        let (begun, threshold) = (Instant::now(), self.threshold());
        let judged = self.judge.judge(&frame.picture, threshold).and_then(|verdict| match verdict.p.is_finite() {
            true => Ok(verdict),
            false => Err(JudgeError(format!("p is {}", verdict.p))),
        });
        match judged {
            Ok(verdict) => {
                state.outputs.metrics.judged(verdict.p, begun.elapsed());
                state.gate.judged(verdict, now);
                let heat = self.config.events.heat_map.then_some(&mut self.judge as &mut dyn Judge);
                state.push(frame, verdict, threshold, heat, &self.config.camera.mask);
                if let Some(observe) = &mut self.observe {
                    observe(frame, verdict);
                }
            }
            Err(e) => {
                state.drop_frame();
                state.gate.forget();
                state.last = state.last.map(|last| Last { judged: false, ..last });
                state.outputs.error(format!("{}: {e}", frame.source));
            }
        }
    }

    fn take_reload(&mut self, state: &mut State, camera: &mut Connection<S>) {
        let kept = |reason: &str| format!("reload refused, the old config and model stay: {reason}");
        let (config, judge) = match (self.reload)() {
            Ok(new) => new,
            Err(reason) => return state.outputs.answer(&kept(&reason)),
        };
        if let Err(reason) = state.reload_gpio(&self.config, &config) {
            return state.outputs.answer(&kept(&reason));
        }
        if let Err(reason) = state.outputs.reconfigure(&config, judge.model_name()) {
            if let Err(e) = state.reload_gpio(&config, &self.config) {
                log::error!("{e}");
            }
            return state.outputs.answer(&kept(&reason));
        }
        state.decision.reconfigure(config.decision.raise_after, config.decision.clear_after);
        if config.camera != self.config.camera {
            camera.close(Instant::now());
        }
        state.gate = Gate::new(&config.camera);
        if config.model.nice != self.config.model.nice {
            log::warn!("model.nice is taken over at the next start: `systemctl restart outlierd`");
        }
        state.drift.begin(&config.drift, &judge, &mut state.outputs);
        self.config = config;
        self.judge = judge;
        state.outputs.metrics.threshold = self.threshold();
        log::info!("reloaded {}", self.config.path().display());
    }
}

fn next_tick(tick: Instant, interval: Duration, rest: Duration) -> Instant {
    (tick + interval).max(Instant::now() + rest)
}
