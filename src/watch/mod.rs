//! The daemon: takes frames, has them judged, raises and clears events, and tells of them.
//!
//! [`Watch::run`] is the loop. It knows a [`Judge`], not a network, and a [`FrameSource`], not a camera.

use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use ::image::RgbImage;

use crate::camera::{self, Frame, FrameSource};
use crate::config::{self, Config};
use crate::model::Verdict;

pub mod decision;
pub mod drift;
mod drift_events;
pub mod events;
pub mod follow;
pub mod gate;
pub mod gpio;
pub mod hooks;
pub mod judge;
mod link;
pub mod load;
pub mod metrics;
#[cfg(feature = "mqtt")]
pub mod mqtt;
pub mod outputs;
pub mod overlay;
mod past;
pub mod service;
pub mod sinks;
pub mod snapshots;
mod state;

use decision::Decision;
use events::{Event, Kind};
use gate::Gate;
use gpio::Gpio;
use link::{Got, Link};
use outputs::Outputs;
use overlay::HeatMap;
use service::{Command, Notifier};
use state::{Ids, Last, State};

/// Judges pictures: a backbone and a model, or a test's stand-in.
pub trait Judge: Send {
    /// The verdict by `threshold`.
    fn judge(&mut self, picture: &RgbImage, threshold: f64) -> Result<Verdict, JudgeError>;
    /// Where the picture departs from what is known; None where the judge cannot say. Costs least for the picture that
    /// was judged last.
    fn heat(&mut self, _picture: &RgbImage) -> Result<Option<HeatMap>, JudgeError> {
        Ok(None)
    }
    /// What [`Judge::heat`] of the picture that was judged last takes.
    fn drawing(&self) -> Drawing {
        Drawing::Never
    }
    /// The model's own threshold, which holds unless the config has one.
    fn threshold(&self) -> f64;
    fn model_name(&self) -> &str;
    /// Rising scores of normals that calibrated the model, to tell drift by; empty where it keeps none.
    fn normal_scores(&self) -> &[f64] {
        &[]
    }
    /// How many independent scores these are worth.
    fn worth(&self) -> f64 {
        self.normal_scores().len() as f64
    }
}

/// When there is a heat map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drawing {
    Never,
    /// From what the judgement left behind.
    AtOnce,
    /// After another run of the network.
    Later,
}

impl Judge for Box<dyn Judge> {
    fn judge(&mut self, picture: &RgbImage, threshold: f64) -> Result<Verdict, JudgeError> {
        (**self).judge(picture, threshold)
    }

    fn heat(&mut self, picture: &RgbImage) -> Result<Option<HeatMap>, JudgeError> {
        (**self).heat(picture)
    }

    fn drawing(&self) -> Drawing {
        (**self).drawing()
    }

    fn threshold(&self) -> f64 {
        (**self).threshold()
    }

    fn model_name(&self) -> &str {
        (**self).model_name()
    }

    fn normal_scores(&self) -> &[f64] {
        (**self).normal_scores()
    }

    fn worth(&self) -> f64 {
        (**self).worth()
    }
}

/// A picture could not be judged.
#[derive(Debug, thiserror::Error)]
#[error("cannot judge the frame: {0}")]
pub struct JudgeError(pub String);

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

/// What a run did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Summary {
    /// Frames judged.
    pub frames: u64,
    /// Frames not judged because the picture had not changed.
    pub skipped: u64,
    /// Frames that could not be read or judged.
    pub dropped: u64,
    pub raised: u64,
    pub cleared: u64,
}

/// Gives another source of frames after the first is lost.
pub type OpenCamera<'a, S> = Box<dyn FnMut(&config::Camera) -> Result<S, camera::Error> + 'a>;
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
        let mut camera = Link::new(started);
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
            drift: None,
            drift_event: None,
            ids,
            event: None,
            last: None,
        };
        let threshold = self.threshold();
        state.outputs.metrics.threshold = threshold;
        state.outputs.metrics.camera_up = camera.is_up();
        state.outputs.emit(Event { threshold: Some(threshold), ..Event::new(Kind::Start) });
        state.outputs.take_over();
        state.watch_drift(&self.config.drift, &self.judge);
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
            match camera.next(&self.config.camera, &mut self.open_camera, &mut state) {
                Got::Frame(frame) => {
                    let begun = Instant::now();
                    self.take_frame(&mut state, &frame, begun);
                    let rest = load::rest(begun.elapsed(), self.config.model.duty);
                    tick = next_tick(tick, self.config.camera.interval, rest);
                }
                Got::Dropped => tick = next_tick(tick, self.config.camera.interval, Duration::ZERO),
                Got::Nothing => state.pause_drift(),
                Got::End => break,
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

    fn take_reload(&mut self, state: &mut State, camera: &mut Link<S>) {
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
        state.watch_drift(&config.drift, &judge);
        self.config = config;
        self.judge = judge;
        state.outputs.metrics.threshold = self.threshold();
        log::info!("reloaded {}", self.config.path().display());
    }
}

fn next_tick(tick: Instant, interval: Duration, rest: Duration) -> Instant {
    (tick + interval).max(Instant::now() + rest)
}
