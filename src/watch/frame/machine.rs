//! The state machine of the watch. Frames, pauses, reloads and the stop go in; events come out, without what only outputs
//! know: pictures, model, instance. At most one event and one drift event stand at a time.

use std::time::{Instant, SystemTime};

use super::decision::{Change, Decision};
use super::drift::{self, Drift, Finding};
use super::status::{Latest, Status, Summary};
use super::threshold::Threshold;
use crate::config::{self, Span};
use crate::model::Verdict;
use crate::watch::events::{Event, Ids, Kind, Pictures, seconds};

/// The frame rate is averaged over so many frames.
const RATE_FRAMES: f64 = 20.0;

/// Now, by the clock that only runs, for durations, and by the one that people read and set.
#[derive(Debug, Clone, Copy)]
pub struct Time {
    pub monotonic: Instant,
    pub wall: SystemTime,
}

impl Time {
    pub fn now() -> Self {
        Time { monotonic: Instant::now(), wall: SystemTime::now() }
    }
}

/// An event without its end.
#[derive(Debug)]
struct Ongoing {
    id: String,
    since: Instant,
    pictures: Pictures,
}

/// See the module.
#[derive(Debug)]
pub struct Machine {
    decision: Decision,
    /// None: drift is not watched for.
    drift: Option<Drift>,
    ids: Ids,
    started: Instant,
    /// The first of the outlier frames that may become an event.
    suspected_since: Option<Instant>,
    event: Option<Ongoing>,
    drift_event: Option<Ongoing>,
    latest: Option<Latest>,
    judges: bool,
    summary: Summary,
}

impl Machine {
    pub fn new(config: &config::Decision, ids: Ids, now: Time) -> Self {
        Machine {
            decision: Decision::new(config.raise_after, config.clear_after),
            drift: None,
            ids,
            started: now.monotonic,
            suspected_since: None,
            event: None,
            drift_event: None,
            latest: None,
            judges: false,
            summary: Summary::default(),
        }
    }

    /// The announced verdict is the latest one: no frames are being counted towards a raise or a clear.
    pub fn is_settled(&self) -> bool {
        self.decision.is_settled()
    }

    /// The latest frame that the camera gave could be judged.
    pub fn judges(&self) -> bool {
        self.judges
    }

    pub fn is_raised(&self) -> bool {
        self.event.is_some()
    }

    pub fn summary(&self) -> Summary {
        self.summary
    }

    /// Without the alarm budget and the light, which it does not know.
    pub fn status(&self, threshold: Threshold, camera_up: bool) -> Status {
        Status {
            budget: None,
            light: None,
            latest: self.latest,
            threshold,
            raised: self.event.is_some(),
            summary: self.summary,
            camera_up,
            drift: self.drift.as_ref().map(Drift::is_drifting),
            drift_finding: self.drift.as_ref().and_then(Drift::finding),
        }
    }

    /// A frame was judged by `threshold`. Returns the events that follow, in order; [`Machine::set_pictures`] completes a
    /// raise.
    pub fn judged(&mut self, verdict: Verdict, threshold: f64, now: Time) -> Vec<Event> {
        self.summary.frames += 1;
        self.take(verdict, now);
        let event = |kind, id: &str, since, frames| Event {
            id: Some(id.to_owned()),
            p: Some(verdict.p),
            score: Some(verdict.score),
            threshold: Some(threshold),
            frames: Some(frames),
            duration_s: Some(seconds(now.monotonic.duration_since(since))),
            ..Event::at(kind, now.wall)
        };
        let mut events = Vec::new();
        match self.decision.push(verdict.outlier, now.monotonic.duration_since(self.started)) {
            Some(Change::Suspected) => self.suspected_since = Some(now.monotonic),
            Some(Change::Raised { frames }) => {
                self.summary.raised += 1;
                let (id, since) = (self.ids.next(now.wall), self.suspected_since.unwrap_or(now.monotonic));
                events.push(event(Kind::Raise, &id, since, frames));
                self.event = Some(Ongoing { id, since, pictures: Pictures::default() });
            }
            Some(Change::Cleared { frames }) => {
                self.summary.cleared += 1;
                let ended = self.event.take();
                events.extend(
                    ended.map(|ended| event(Kind::Clear, &ended.id, ended.since, frames).with_pictures(ended.pictures)),
                );
            }
            None => {}
        }
        if self.decision.is_settled() {
            self.suspected_since = None;
        }
        events.extend(self.watch_drift(verdict, now));
        events
    }

    /// A frame looks like the last judged one, whose verdict it gets. That verdict is announced already.
    pub fn skipped(&mut self, verdict: Verdict, now: Time) -> Option<Event> {
        self.summary.skipped += 1;
        self.take(verdict, now);
        self.watch_drift(verdict, now)
    }

    /// A frame could not be read.
    pub fn dropped(&mut self) {
        self.summary.dropped += 1;
    }

    /// A frame could not be judged.
    pub fn failed(&mut self) {
        self.summary.dropped += 1;
        self.judges = false;
    }

    /// No frame came.
    pub fn paused(&mut self) {
        self.decision.pause();
        if let Some(drift) = &mut self.drift {
            drift.pause();
        }
    }

    /// The pictures of the event that was raised; its end will name them.
    pub fn set_pictures(&mut self, pictures: Pictures) {
        if let Some(event) = &mut self.event {
            event.pictures = pictures;
        }
    }

    /// Other counts; an event that stands keeps standing.
    pub fn reconfigure(&mut self, config: &config::Decision) {
        self.decision.reconfigure(config.raise_after, config.clear_after);
    }

    /// Another model judges from now on: frames that the one before judged raise and clear nothing any more; an event
    /// that stands keeps standing. Exchanges what is known of drift for what is known of it under that model, with the
    /// end and the return of a drift event that this makes.
    pub fn change_model(&mut self, drift: Option<Drift>, now: Time) -> (Option<Drift>, Vec<Event>) {
        self.decision.restart();
        self.suspected_since = None;
        let ended = self.end_drift("another model watches: the comparison waits for its return", now);
        let mut old = std::mem::replace(&mut self.drift, drift);
        old.iter_mut().for_each(Drift::pause);
        let standing = self.drift.as_ref().filter(|drift| drift.is_drifting());
        let begun = standing.and_then(|drift| Some((drift::Change::Begun(drift.finding()?), drift.window())));
        let begun = begun.map(|(change, window)| self.tell_drift(&change, window, now));
        (old, ended.into_iter().chain(begun).collect())
    }

    /// Watches for drift from now on, or goes on where the comparison stays the same. Returns the end of a drift event
    /// that was found by another.
    pub fn set_drift(&mut self, drift: Option<Drift>, now: Time) -> Option<Event> {
        if let (Some(old), Some(new)) = (&self.drift, &drift)
            && old.is_like(new)
        {
            return None;
        }
        self.drift = drift;
        self.end_drift("the reload brought another model or another [drift]: the watch for it begins anew", now)
    }

    fn end_drift(&mut self, message: &str, now: Time) -> Option<Event> {
        let Ongoing { id, since, .. } = self.drift_event.take()?;
        Some(Event {
            id: Some(id),
            duration_s: Some(seconds(now.monotonic.duration_since(since))),
            message: Some(message.into()),
            ..Event::at(Kind::DriftClear, now.wall)
        })
    }

    /// The last event of a run, with the id of the one that stands; none does afterwards.
    pub fn stop(&mut self, now: Time) -> Event {
        let (id, pictures) = self.event.take().map(|event| (event.id, event.pictures)).unzip();
        let duration_s = Some(seconds(now.monotonic.duration_since(self.started)));
        let stop = Event { id, frames: Some(self.summary.frames), duration_s, ..Event::at(Kind::Stop, now.wall) };
        stop.with_pictures(pictures.unwrap_or_default())
    }

    fn take(&mut self, verdict: Verdict, now: Time) {
        let period = self.latest.map_or(0.0, |latest| {
            let newest = now.monotonic.duration_since(latest.at).as_secs_f64();
            if latest.period == 0.0 { newest } else { latest.period + (newest - latest.period) / RATE_FRAMES }
        });
        self.latest = Some(Latest { verdict, at: now.monotonic, period });
        self.judges = true;
    }

    fn watch_drift(&mut self, verdict: Verdict, now: Time) -> Option<Event> {
        let drift = self.drift.as_mut()?;
        let change = drift.push(now.monotonic, verdict, self.decision.phase())?;
        let window = drift.window();
        Some(self.tell_drift(&change, window, now))
    }

    fn tell_drift(&mut self, change: &drift::Change, window: Span, now: Time) -> Event {
        let message = Some(drift::message(change, window));
        let event = |kind, id, finding: Finding| Event {
            id,
            p: Some(finding.p),
            score: Some(finding.score),
            frames: Some(finding.frames),
            message,
            ..Event::at(kind, now.wall)
        };
        match *change {
            drift::Change::Begun(finding) => {
                let id = self.ids.next(now.wall);
                self.drift_event =
                    Some(Ongoing { id: id.clone(), since: now.monotonic, pictures: Pictures::default() });
                event(Kind::Drift, Some(id), finding)
            }
            drift::Change::Over(finding) => {
                let ended = self.drift_event.take();
                let (id, since) = ended.map(|ended| (ended.id, ended.since)).unzip();
                let duration_s = since.map(|since| seconds(now.monotonic.duration_since(since)));
                Event { duration_s, ..event(Kind::DriftClear, id, finding) }
            }
        }
    }
}

#[cfg(test)]
#[path = "machine_tests.rs"]
mod tests;
