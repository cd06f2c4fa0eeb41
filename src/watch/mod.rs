//! The daemon: takes frames, has them judged, raises and clears events, and tells of them.
//!
//! [`Watch::run`] is the loop. It knows a [`Judge`], not a network, and a [`FrameSource`], not a camera.

use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant, SystemTime};

use ::image::RgbImage;

use crate::camera::{self, Frame, FrameSource};
use crate::config::{self, Config};

pub mod decision;
pub mod drift;
mod drift_events;
pub mod events;
pub mod follow;
pub mod gate;
pub mod gpio;
pub mod hooks;
pub mod judge;
pub mod load;
pub mod metrics;
#[cfg(feature = "mqtt")]
pub mod mqtt;
pub mod outputs;
pub mod overlay;
pub mod service;
pub mod sinks;
pub mod snapshots;

use decision::{Change, Decision};
use drift::Drift;
use events::{Event, Kind};
use gate::Gate;
use gpio::Gpio;
use outputs::Outputs;
use overlay::HeatMap;
use service::{Command, Notifier};
use snapshots::Saved;

/// How long the loop waits for a camera before it looks for signals again.
const SLICE: Duration = Duration::from_millis(200);
const FIRST_RETRY: Duration = Duration::from_millis(500);
const LAST_RETRY: Duration = Duration::from_secs(10);
/// Frames per second are averaged over so many frames.
const RATE_FRAMES: f64 = 20.0;

/// Judges pictures: a backbone and a model, or a test's stand-in.
pub trait Judge: Send {
    fn judge(&mut self, picture: &RgbImage) -> Result<Judgement, JudgeError>;
    /// Where the picture departs from what is known; None where the judge cannot say. May cost more than to judge.
    fn heat(&mut self, _picture: &RgbImage) -> Result<Option<HeatMap>, JudgeError> {
        Ok(None)
    }
    /// The model's own threshold: a frame is an outlier when `p` is below.
    fn threshold(&self) -> f64;
    fn model_name(&self) -> &str;
    /// Rising scores of normals that calibrated the model, to tell drift by; empty where it keeps none.
    fn normal_scores(&self) -> &[f64] {
        &[]
    }
}

impl Judge for Box<dyn Judge> {
    fn judge(&mut self, picture: &RgbImage) -> Result<Judgement, JudgeError> {
        (**self).judge(picture)
    }

    fn heat(&mut self, picture: &RgbImage) -> Result<Option<HeatMap>, JudgeError> {
        (**self).heat(picture)
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
}

/// What a judge says of a picture.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Judgement {
    pub score: f64,
    pub p: f64,
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
    #[error("cannot start a thread: {0}")]
    Thread(std::io::Error),
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
/// Sees every judged frame: sequence, judgement, outlier or not.
pub type Observe<'a> = Box<dyn FnMut(&Frame, Judgement, bool) + 'a>;

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
    /// Only before the first frame: a folder that cannot be opened, a GPIO line that cannot be had. A camera that
    /// is not there is waited for.
    pub fn run(mut self, commands: &Receiver<Command>, notifier: &mut Notifier) -> Result<Summary, Error> {
        let started = Instant::now();
        let gpio = self.config.gpio.as_ref().map(Gpio::open).transpose()?;
        let outputs = Outputs::new(&self.config, self.judge.model_name()).map_err(Error::Thread)?;
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
            summary: Summary::default(),
            last: None,
        };
        let threshold = self.threshold();
        state.outputs.metrics.threshold = threshold;
        state.outputs.metrics.camera_up = camera.is_up();
        state.outputs.emit(Event { threshold: Some(threshold), ..Event::new(Kind::Start) });
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
        Ok(state.summary)
    }

    fn threshold(&self) -> f64 {
        self.config.decision.threshold.unwrap_or_else(|| self.judge.threshold())
    }

    fn take_frame(&mut self, state: &mut State, frame: &Frame, now: Instant) {
        if let Some(judgement) = state.gate.pass(&frame.picture, state.decision.is_settled(), now) {
            return state.skip(judgement);
        }
        let begun = Instant::now();
        let judged = self.judge.judge(&frame.picture).and_then(|judgement| match judgement.p.is_finite() {
            true => Ok(judgement),
            false => Err(JudgeError(format!("p is {}", judgement.p))),
        });
        match judged {
            Ok(judgement) => {
                state.outputs.metrics.judged(judgement.p, begun.elapsed());
                let threshold = self.threshold();
                let outlier = judgement.p < threshold;
                state.gate.judged(judgement, now);
                let heat = self.config.events.heat_map.then_some(&mut self.judge as &mut dyn Judge);
                state.push(frame, judgement, threshold, outlier, heat);
                if let Some(observe) = &mut self.observe {
                    observe(frame, judgement, outlier);
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
        let kept = |reason: String| format!("reload refused, the old config and model stay: {reason}");
        let (config, judge) = match (self.reload)() {
            Ok(new) => new,
            Err(reason) => return state.outputs.error(kept(reason)),
        };
        if let Err(reason) = state.reload_gpio(&self.config, &config) {
            return state.outputs.error(kept(reason));
        }
        if let Err(reason) = state.outputs.reconfigure(&config, judge.model_name()) {
            if let Err(e) = state.reload_gpio(&config, &self.config) {
                log::error!("{e}");
            }
            return state.outputs.error(kept(reason));
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

/// The latest frame, judged or taken for the same as the judged one.
#[derive(Debug, Clone, Copy)]
struct Last {
    p: f64,
    at: Instant,
    /// Seconds from frame to frame, averaged.
    period: f64,
    judged: bool,
}

/// The event that stands or may come.
#[derive(Debug)]
struct Standing {
    since: Instant,
    id: Option<String>,
    saved: Option<Saved>,
}

struct State {
    outputs: Outputs,
    gpio: Option<Gpio>,
    decision: Decision,
    gate: Gate,
    /// None: drift is not watched for.
    drift: Option<Drift>,
    drift_event: Option<drift_events::Told>,
    ids: Ids,
    event: Option<Standing>,
    summary: Summary,
    last: Option<Last>,
}

impl State {
    /// Waits for the next frame's time, or for a command.
    fn wait(&mut self, commands: &Receiver<Command>, until: Instant, notifier: &mut Notifier) -> Option<Command> {
        loop {
            self.drive(Gpio::attend);
            self.outputs.attend();
            let mut left = until.saturating_duration_since(Instant::now()).min(notifier.alive_interval());
            if let Some(due) = self.gpio.as_ref().and_then(Gpio::due) {
                left = left.min(due.saturating_duration_since(Instant::now()));
            }
            if let Some(due_in) = self.outputs.metrics_due_in() {
                left = left.min(due_in);
            }
            match commands.recv_timeout(left) {
                Ok(command) => return Some(command),
                Err(RecvTimeoutError::Disconnected) => return Some(Command::Stop),
                Err(RecvTimeoutError::Timeout) if Instant::now() >= until => return None,
                Err(RecvTimeoutError::Timeout) if self.last.is_some_and(|last| last.judged) => notifier.alive(),
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }

    /// Takes note of a frame that looks like the last judged one. That one's verdict is the announced one, so this one
    /// changes nothing.
    fn skip(&mut self, judgement: Judgement) {
        self.summary.skipped += 1;
        self.outputs.metrics.skipped += 1;
        let now = Instant::now();
        self.take_time(judgement, now);
        self.push_drift(judgement, now);
    }

    fn drop_frame(&mut self) {
        self.summary.dropped += 1;
        self.outputs.metrics.dropped += 1;
    }

    fn take_time(&mut self, judgement: Judgement, now: Instant) {
        let period = self.last.map_or(0.0, |last| {
            let newest = now.duration_since(last.at).as_secs_f64();
            if last.period == 0.0 { newest } else { last.period + (newest - last.period) / RATE_FRAMES }
        });
        self.last = Some(Last { p: judgement.p, at: now, period, judged: true });
        self.drive(Gpio::beat);
    }

    /// `heat` draws the heat map of a raise; None: there is none.
    fn push(
        &mut self,
        frame: &Frame,
        judgement: Judgement,
        threshold: f64,
        outlier: bool,
        heat: Option<&mut dyn Judge>,
    ) {
        let now = Instant::now();
        self.summary.frames += 1;
        self.take_time(judgement, now);
        let event = |kind| Event {
            p: Some(judgement.p),
            score: Some(judgement.score),
            threshold: Some(threshold),
            ..Event::new(kind)
        };
        let change = self.decision.push(outlier);
        self.outputs.metrics.outlier = self.decision.is_raised();
        match change {
            Some(Change::Suspected) => self.event = Some(Standing { since: now, id: None, saved: None }),
            Some(Change::Raised { frames }) => {
                self.drive(|gpio| gpio.show(true));
                self.summary.raised += 1;
                let since = self.event.take().map_or(now, |event| event.since);
                let id = self.ids.next(SystemTime::now());
                let heat = heat.and_then(|judge| self.heat(judge, &frame.picture));
                let saved = self.outputs.snapshot(&id, &frame.picture, heat.as_ref());
                self.event = Some(Standing { since, id: Some(id.clone()), saved: saved.clone() });
                let duration_s = Some(seconds(now.duration_since(since)));
                let raise = Event { id: Some(id), frames: Some(frames), duration_s, ..event(Kind::Raise) };
                self.outputs.emit(with_pictures(raise, saved));
            }
            Some(Change::Cleared { frames }) => {
                self.drive(|gpio| gpio.show(false));
                self.summary.cleared += 1;
                let (id, since, saved) =
                    self.event.take().map_or((None, now, None), |event| (event.id, event.since, event.saved));
                let duration_s = Some(seconds(now.duration_since(since)));
                let clear = Event { id, frames: Some(frames), duration_s, ..event(Kind::Clear) };
                self.outputs.emit(with_pictures(clear, saved));
            }
            None => {}
        }
        self.push_drift(judgement, now);
    }

    /// The picture with its heat map; a failure is an error event.
    fn heat(&mut self, judge: &mut dyn Judge, picture: &RgbImage) -> Option<RgbImage> {
        match judge.heat(picture) {
            Ok(map) => map.map(|map| map.draw(picture)),
            Err(e) => {
                self.outputs.error(format!("no heat map: {e}"));
                None
            }
        }
    }

    /// Drives the GPIO line, if there is one; a failure is an error event.
    fn drive(&mut self, action: impl FnOnce(&mut Gpio) -> Result<(), gpio::Error>) {
        if let Some(gpio) = &mut self.gpio
            && let Err(e) = action(gpio)
        {
            self.outputs.error(e.to_string());
        }
    }

    fn reload_gpio(&mut self, old: &Config, new: &Config) -> Result<(), String> {
        if old.gpio == new.gpio {
            return Ok(());
        }
        self.gpio = None;
        let opened = new.gpio.as_ref().map(Gpio::open).transpose();
        let failure = opened.as_ref().err().map(ToString::to_string);
        self.gpio = match opened {
            Ok(gpio) => gpio,
            Err(_) => old.gpio.as_ref().and_then(|config| Gpio::open(config).map_err(|e| log::error!("{e}")).ok()),
        };
        if self.decision.is_raised() {
            self.drive(|gpio| gpio.show(true));
        }
        failure.map_or(Ok(()), Err)
    }

    fn status<S>(&self, camera: &Link<S>) -> String {
        let Summary { frames, skipped, .. } = self.summary;
        let mut text = match self.last {
            Some(Last { p, period, .. }) => {
                let rate = if period > 0.0 { 1.0 / period } else { 0.0 };
                let verdict = if self.decision.is_raised() { "OUTLIER" } else { "normal" };
                let unchanged = match skipped {
                    0 => String::new(),
                    _ => format!(" judged, {:.0} % unchanged", 100.0 * skipped as f64 / (skipped + frames) as f64),
                };
                let events = self.summary.raised;
                format!("{verdict}, p {p:.3}, {rate:.1} frames/s, {frames} frames{unchanged}, {events} events")
            }
            None => "no frame judged yet".to_owned(),
        };
        text.push_str(&self.drift_status());
        for trouble in [camera.trouble(), self.outputs.trouble()].into_iter().flatten() {
            text.push_str("; ");
            text.push_str(trouble);
        }
        text
    }

    fn stop(&mut self, started: Instant) {
        if let Some(mut gpio) = self.gpio.take()
            && let Err(e) = gpio.release()
        {
            self.outputs.error(e.to_string());
        }
        let (id, saved) = self.event.take().map_or((None, None), |event| (event.id, event.saved));
        let (frames, duration_s) = (Some(self.summary.frames), Some(seconds(started.elapsed())));
        self.outputs.metrics.camera_up = false;
        self.outputs.emit(with_pictures(Event { id, frames, duration_s, ..Event::new(Kind::Stop) }, saved));
        self.outputs.finish();
    }
}

fn with_pictures(event: Event, saved: Option<Saved>) -> Event {
    let (snapshot, heat) = saved.map_or((None, None), |saved| (Some(saved.snapshot), saved.heat));
    Event { snapshot, heat, ..event }
}

fn seconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1000.0).round() / 1000.0
}

enum Got {
    Frame(Frame),
    Dropped,
    Nothing,
    End,
}

/// The source of frames, lost and found.
struct Link<S> {
    source: Option<S>,
    /// When the source was asked for the first frame that did not come.
    failing_since: Option<Instant>,
    last_frame: Option<Instant>,
    announced: bool,
    reason: String,
    opened_at: Instant,
    retry_at: Instant,
    retry: Duration,
}

impl<S> Link<S> {
    fn new(now: Instant) -> Self {
        Link {
            source: None,
            failing_since: None,
            last_frame: None,
            announced: false,
            reason: String::new(),
            opened_at: now,
            retry_at: now,
            retry: FIRST_RETRY,
        }
    }

    fn is_failing(&self) -> bool {
        self.failing_since.is_some()
    }

    /// A source is open and has not failed since its last frame.
    fn is_up(&self) -> bool {
        self.source.is_some() && !self.is_failing()
    }

    fn trouble(&self) -> Option<&str> {
        self.is_failing().then_some(self.reason.as_str())
    }

    /// Drops the source, to be opened again at once.
    fn close(&mut self, now: Instant) {
        self.source = None;
        self.retry_at = now;
        self.retry = FIRST_RETRY;
    }

    fn fail(&mut self, since: Instant, reason: String) {
        if self.reason != reason {
            log::warn!("{reason}");
        }
        self.failing_since.get_or_insert(since);
        self.reason = reason;
    }

    /// Drops the source, to be opened again later and later.
    fn back_off(&mut self) {
        self.source = None;
        self.retry_at = Instant::now() + self.retry;
        self.retry = (self.retry * 2).min(LAST_RETRY);
    }
}

impl<S: FrameSource> Link<S> {
    fn open(
        &mut self,
        config: &config::Camera,
        open: &mut OpenCamera<'_, S>,
        asked: Instant,
    ) -> Result<(), camera::Error> {
        match open(config) {
            Ok(source) => {
                log::info!("camera: {}", source.describe());
                self.source = Some(source);
                self.opened_at = Instant::now();
                Ok(())
            }
            Err(e) => {
                self.fail(asked, e.to_string());
                self.back_off();
                Err(e)
            }
        }
    }

    fn next(&mut self, config: &config::Camera, open: &mut OpenCamera<'_, S>, state: &mut State) -> Got {
        let asked = Instant::now();
        if self.source.is_none() && asked >= self.retry_at {
            // A failure is kept in `self.reason`.
            let _ = self.open(config, open, asked);
        }
        let Some(source) = &mut self.source else {
            std::thread::sleep(SLICE.min(self.retry_at.saturating_duration_since(asked)));
            self.announce(config, state);
            return Got::Nothing;
        };
        match source.next(asked + SLICE) {
            Ok(Some(frame)) => {
                self.found(state);
                Got::Frame(frame)
            }
            Ok(None) => Got::End,
            Err(e @ camera::Error::Dropped { .. }) => {
                state.drop_frame();
                state.outputs.error(e.to_string());
                Got::Dropped
            }
            Err(e @ camera::Error::Timeout { .. }) => {
                self.fail(asked, e.to_string());
                if self.opened_at.elapsed().min(self.failing_since.map_or(Duration::ZERO, |t| t.elapsed()))
                    >= config.lost_after
                {
                    self.back_off();
                }
                self.announce(config, state);
                Got::Nothing
            }
            Err(e) => {
                self.fail(asked, e.to_string());
                self.back_off();
                self.announce(config, state);
                Got::Nothing
            }
        }
    }

    fn announce(&mut self, config: &config::Camera, state: &mut State) {
        if self.announced || self.failing_since.is_none_or(|since| since.elapsed() < config.lost_after) {
            return;
        }
        self.announced = true;
        let duration_s = self.last_frame.map(|at| seconds(at.elapsed()));
        let message = Some(self.reason.clone());
        state.outputs.emit(Event { duration_s, message, ..Event::new(Kind::CameraLost) });
    }

    fn found(&mut self, state: &mut State) {
        if std::mem::take(&mut self.announced) {
            let duration_s = self.last_frame.map(|at| seconds(at.elapsed()));
            state.outputs.emit(Event { duration_s, ..Event::new(Kind::CameraFound) });
        }
        self.last_frame = Some(Instant::now());
        self.failing_since = None;
        self.retry = FIRST_RETRY;
        self.reason.clear();
    }
}

/// Event names that no other run and no other event has, even where the clock starts at the same time at
/// every boot.
struct Ids {
    run: u32,
    count: u64,
}

impl Ids {
    fn new() -> Self {
        use std::hash::{BuildHasher, RandomState};
        Ids { run: RandomState::new().hash_one(std::process::id()) as u32, count: 0 }
    }

    /// Date and time of the raise, the run's random number, and a count.
    fn next(&mut self, now: SystemTime) -> String {
        self.count += 1;
        let time: String = events::format_time(now).chars().take(19).filter(|c| c.is_alphanumeric()).collect();
        format!("{time}-{:08x}-{}", self.run, self.count)
    }
}
