//! What the watch knows from frame to frame, and what a verdict changes of it.

use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant, SystemTime};

use ::image::RgbImage;

use super::decision::{Change, Decision};
use super::drift::Drift;
use super::events::{self, Event, Kind};
use super::gate::Gate;
use super::gpio::{self, Gpio};
use super::link::Link;
use super::outputs::Outputs;
use super::overlay::HeatMap;
use super::service::{Command, Notifier};
use super::snapshots::Saved;
use super::{Judge, Summary, drift_events};
use crate::camera::Frame;
use crate::config::Config;
use crate::image::mask::Mask;
use crate::model::Verdict;

/// Frames per second are averaged over so many frames.
const RATE_FRAMES: f64 = 20.0;

/// The latest frame, judged or taken for the same as the judged one.
#[derive(Debug, Clone, Copy)]
pub(super) struct Last {
    pub(super) p: f64,
    pub(super) at: Instant,
    /// Seconds from frame to frame, averaged.
    pub(super) period: f64,
    pub(super) judged: bool,
}

/// The event that stands or may come.
#[derive(Debug)]
pub(super) struct Standing {
    since: Instant,
    id: Option<String>,
    saved: Option<Saved>,
}

pub(super) struct State {
    pub(super) outputs: Outputs,
    pub(super) gpio: Option<Gpio>,
    pub(super) decision: Decision,
    pub(super) gate: Gate,
    /// None: drift is not watched for.
    pub(super) drift: Option<Drift>,
    pub(super) drift_event: Option<drift_events::Told>,
    pub(super) ids: Ids,
    pub(super) event: Option<Standing>,
    pub(super) last: Option<Last>,
}

impl State {
    /// Waits for the next frame's time, or for a command.
    pub(super) fn wait(
        &mut self,
        commands: &Receiver<Command>,
        until: Instant,
        notifier: &mut Notifier,
    ) -> Option<Command> {
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
                Ok(command) => return Some(latest(command, commands)),
                Err(RecvTimeoutError::Disconnected) => return Some(Command::Stop),
                Err(RecvTimeoutError::Timeout) if Instant::now() >= until => return None,
                Err(RecvTimeoutError::Timeout) if self.last.is_some_and(|last| last.judged) => notifier.alive(),
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }

    /// Takes note of a frame that looks like the last judged one. That one's verdict is the announced one, so this one
    /// changes nothing.
    pub(super) fn skip(&mut self, verdict: Verdict) {
        self.outputs.metrics.skipped += 1;
        let now = Instant::now();
        self.take_time(verdict, now);
        self.push_drift(verdict, now);
    }

    pub(super) fn drop_frame(&mut self) {
        self.outputs.metrics.dropped += 1;
    }

    fn take_time(&mut self, verdict: Verdict, now: Instant) {
        let period = self.last.map_or(0.0, |last| {
            let newest = now.duration_since(last.at).as_secs_f64();
            if last.period == 0.0 { newest } else { last.period + (newest - last.period) / RATE_FRAMES }
        });
        self.last = Some(Last { p: verdict.p, at: now, period, judged: true });
        self.drive(Gpio::beat);
    }

    /// `heat` draws the heat map of a raise; None: there is none. Its pictures are hatched where `mask` says.
    pub(super) fn push(
        &mut self,
        frame: &Frame,
        verdict: Verdict,
        threshold: f64,
        heat: Option<&mut dyn Judge>,
        mask: &Mask,
    ) {
        let now = Instant::now();
        self.take_time(verdict, now);
        let event = |kind| Event {
            p: Some(verdict.p),
            score: Some(verdict.score),
            threshold: Some(threshold),
            ..Event::new(kind)
        };
        let change = self.decision.push(verdict.outlier);
        self.outputs.metrics.outlier = self.decision.is_raised();
        match change {
            Some(Change::Suspected) => self.event = Some(Standing { since: now, id: None, saved: None }),
            Some(Change::Raised { frames }) => {
                self.drive(|gpio| gpio.show(true));
                let since = self.event.take().map_or(now, |event| event.since);
                let id = self.ids.next(SystemTime::now());
                let map = heat.and_then(|judge| self.heat(judge, &frame.picture));
                let picture = mask.hatch(&frame.picture);
                let heat = map.as_ref().map(|map| map.draw(&picture));
                let region = map.map(|map| map.region(frame.picture.width(), frame.picture.height()));
                let saved = self.outputs.snapshot(&id, &picture, heat.as_ref());
                self.event = Some(Standing { since, id: Some(id.clone()), saved: saved.clone() });
                let duration_s = Some(seconds(now.duration_since(since)));
                let raise = Event { id: Some(id), frames: Some(frames), duration_s, region, ..event(Kind::Raise) };
                self.outputs.emit(with_pictures(raise, saved));
            }
            Some(Change::Cleared { frames }) => {
                self.drive(|gpio| gpio.show(false));
                let (id, since, saved) =
                    self.event.take().map_or((None, now, None), |event| (event.id, event.since, event.saved));
                let duration_s = Some(seconds(now.duration_since(since)));
                let clear = Event { id, frames: Some(frames), duration_s, ..event(Kind::Clear) };
                self.outputs.emit(with_pictures(clear, saved));
            }
            None => {}
        }
        self.push_drift(verdict, now);
    }

    /// The heat map of a picture; a failure is an error event.
    fn heat(&mut self, judge: &mut dyn Judge, picture: &RgbImage) -> Option<HeatMap> {
        match judge.heat(picture) {
            Ok(map) => map,
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

    pub(super) fn reload_gpio(&mut self, old: &Config, new: &Config) -> Result<(), String> {
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

    pub(super) fn status<S>(&self, camera: &Link<S>) -> String {
        let Summary { frames, skipped, raised, .. } = self.summary();
        let mut text = match self.last {
            Some(Last { p, period, .. }) => {
                let rate = if period > 0.0 { 1.0 / period } else { 0.0 };
                let verdict = if self.decision.is_raised() { "OUTLIER" } else { "normal" };
                let unchanged = match skipped {
                    0 => String::new(),
                    _ => format!(" judged, {:.0} % unchanged", 100.0 * skipped as f64 / (skipped + frames) as f64),
                };
                format!("{verdict}, p {p:.3}, {rate:.1} frames/s, {frames} frames{unchanged}, {raised} events")
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

    pub(super) fn summary(&self) -> Summary {
        let metrics = &self.outputs.metrics;
        Summary {
            frames: metrics.frames,
            skipped: metrics.skipped,
            dropped: metrics.dropped,
            raised: metrics.events(Kind::Raise),
            cleared: metrics.events(Kind::Clear),
        }
    }

    pub(super) fn stop(&mut self, started: Instant) {
        if let Some(mut gpio) = self.gpio.take()
            && let Err(e) = gpio.release()
        {
            self.outputs.error(e.to_string());
        }
        let (id, saved) = self.event.take().map_or((None, None), |event| (event.id, event.saved));
        let (frames, duration_s) = (Some(self.outputs.metrics.frames), Some(seconds(started.elapsed())));
        self.outputs.metrics.camera_up = false;
        self.outputs.emit(with_pictures(Event { id, frames, duration_s, ..Event::new(Kind::Stop) }, saved));
        self.outputs.finish();
    }
}

/// What is to be done when several commands wait: many reloads are one, and a stop comes before them.
fn latest(command: Command, commands: &Receiver<Command>) -> Command {
    commands.try_iter().fold(command, |kept, next| if next == Command::Stop { next } else { kept })
}

fn with_pictures(event: Event, saved: Option<Saved>) -> Event {
    let (snapshot, heat) = saved.map_or((None, None), |saved| (Some(saved.snapshot), saved.heat));
    Event { snapshot, heat, ..event }
}

pub(super) fn seconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1000.0).round() / 1000.0
}

/// Event names that no other run and no other event has, even where the clock starts at the same time at
/// every boot.
pub(super) struct Ids {
    run: u32,
    count: u64,
}

impl Ids {
    pub(super) fn new() -> Self {
        use std::hash::{BuildHasher, RandomState};
        Ids { run: RandomState::new().hash_one(std::process::id()) as u32, count: 0 }
    }

    /// Date and time of the raise, the run's random number, and a count.
    pub(super) fn next(&mut self, now: SystemTime) -> String {
        self.count += 1;
        let time: String = events::format_time(now).chars().take(19).filter(|c| c.is_alphanumeric()).collect();
        format!("{time}-{:08x}-{}", self.run, self.count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reloads_that_wait_are_one_and_a_stop_comes_before_them() {
        use Command::{Reload, Stop};
        for (sent, taken) in [
            ([Reload, Reload, Reload], Reload),
            ([Reload, Stop, Reload], Stop),
            ([Reload, Reload, Stop], Stop),
            ([Stop, Reload, Reload], Stop),
        ] {
            let (sender, commands) = std::sync::mpsc::channel();
            sent.into_iter().for_each(|command| sender.send(command).unwrap());
            let first = commands.recv().unwrap();
            assert_eq!(latest(first, &commands), taken, "{sent:?}");
            assert!(commands.try_recv().is_err(), "{sent:?}");
        }
    }
}
