//! What the watch knows from frame to frame, and what a verdict changes of it.

use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Instant, SystemTime};

use ::image::RgbImage;

use super::connection::Connection;
use super::decision::{Change, Decision};
use super::drift::Standing;
use super::drift_events::DriftWatch;
use super::events::{Event, Kind, seconds};
use super::gate::Gate;
use super::gpio::{self, Gpio};
use super::ids::Ids;
use super::judging::{Drawing, Judge};
use super::outputs::Outputs;
use super::overlay::HeatMap;
use super::service::{Command, Notifier};
use crate::camera::Frame;
use crate::config::Config;
use crate::image::mask::Mask;
use crate::model::Verdict;

/// Frames per second are averaged over so many frames.
const RATE_FRAMES: f64 = 20.0;

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
pub(super) struct Pending {
    since: Instant,
    id: Option<String>,
    pictures: Pictures,
}

/// The pictures of an event, and what they show.
#[derive(Debug, Clone, Default)]
struct Pictures {
    snapshot: Option<PathBuf>,
    heat: Option<PathBuf>,
    region: Option<[f64; 4]>,
}

impl Pictures {
    fn of(self, event: Event) -> Event {
        Event { snapshot: self.snapshot, heat: self.heat, region: self.region, ..event }
    }
}

pub(super) struct State {
    pub(super) outputs: Outputs,
    pub(super) gpio: Option<Gpio>,
    pub(super) decision: Decision,
    pub(super) gate: Gate,
    pub(super) drift: DriftWatch,
    pub(super) ids: Ids,
    pub(super) event: Option<Pending>,
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
        let begun = Instant::now();
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
                // Where frames come often, only those that are judged feed the watchdog.
                Err(RecvTimeoutError::Timeout)
                    if begun.elapsed() >= notifier.alive_interval() || self.last.is_some_and(|last| last.judged) =>
                {
                    notifier.alive();
                }
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
            Some(Change::Suspected) => {
                self.event = Some(Pending { since: now, id: None, pictures: Pictures::default() });
            }
            Some(Change::Raised { frames }) => {
                self.drive(|gpio| gpio.show(true));
                let since = self.event.take().map_or(now, |event| event.since);
                let id = self.ids.next(SystemTime::now());
                let duration_s = Some(seconds(now.duration_since(since)));
                let raise = Event { id: Some(id.clone()), frames: Some(frames), duration_s, ..event(Kind::Raise) };
                let pictures = self.raise(raise, &id, &frame.picture, heat, mask);
                self.event = Some(Pending { since, id: Some(id), pictures });
            }
            Some(Change::Cleared { frames }) => {
                self.drive(|gpio| gpio.show(false));
                let event_before = self.event.take();
                let (id, since, pictures) = event_before
                    .map_or((None, now, Pictures::default()), |event| (event.id, event.since, event.pictures));
                let duration_s = Some(seconds(now.duration_since(since)));
                let clear = Event { id, frames: Some(frames), duration_s, ..event(Kind::Clear) };
                self.outputs.emit(pictures.of(clear));
            }
            None => {}
        }
        self.push_drift(verdict, now);
    }

    /// Writes the line of a raise with the names that its pictures will have, then the pictures, and tells of it then.
    fn raise(
        &mut self,
        raise: Event,
        id: &str,
        picture: &RgbImage,
        mut heat: Option<&mut dyn Judge>,
        mask: &Mask,
    ) -> Pictures {
        let drawing = heat.as_ref().map_or(Drawing::Never, |judge| judge.drawing());
        let mut map = match &mut heat {
            Some(judge) if drawing == Drawing::AtOnce => self.heat(&mut **judge, picture),
            _ => None,
        };
        let region = |map: &HeatMap| map.region(picture.width(), picture.height());
        let (snapshot, heat_path) = self.outputs.picture_paths(id);
        let named = Pictures {
            snapshot: Some(snapshot),
            heat: (map.is_some() || drawing == Drawing::Later).then_some(heat_path),
            region: map.as_ref().map(region),
        };
        let raise = self.outputs.write(named.of(raise));
        let picture_of = mask.hatch(picture);
        let snapshot = self.outputs.snapshot(id, &picture_of);
        if let Some(judge) = heat.filter(|_| drawing == Drawing::Later) {
            map = self.heat(judge, picture);
        }
        let drawn = map.as_ref().filter(|_| snapshot.is_some()).map(|map| map.draw(&picture_of));
        let heat = drawn.and_then(|drawn| self.outputs.heat(id, &drawn));
        let pictures = Pictures { snapshot, heat, region: map.as_ref().map(region) };
        self.outputs.announce(&pictures.clone().of(raise));
        pictures
    }

    /// Drift is told of by how the decision stands.
    fn push_drift(&mut self, verdict: Verdict, now: Instant) {
        let standing = match (self.decision.is_raised(), self.decision.is_settled()) {
            (true, _) => Standing::Raised,
            (false, false) => Standing::Suspected,
            (false, true) => Standing::Normal,
        };
        self.drift.push(verdict, standing, now, (&mut self.ids, &mut self.outputs));
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

    pub(super) fn status<S>(&self, camera: &Connection<S>) -> String {
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
        text.push_str(&self.drift.status());
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
        let (id, pictures) = self.event.take().map_or_else(Default::default, |event| (event.id, event.pictures));
        let (frames, duration_s) = (Some(self.outputs.metrics.frames), Some(seconds(started.elapsed())));
        self.outputs.metrics.stopped();
        self.outputs.emit(pictures.of(Event { id, frames, duration_s, ..Event::new(Kind::Stop) }));
        self.outputs.finish();
    }
}

/// What is to be done when several commands wait: many reloads are one, and a stop comes before them.
fn latest(command: Command, commands: &Receiver<Command>) -> Command {
    commands.try_iter().fold(command, |kept, next| if next == Command::Stop { next } else { kept })
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
