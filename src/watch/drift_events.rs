//! Drift as the watch tells it: a `drift` event, the status line, and `drift-clear`.

use std::time::{Instant, SystemTime};

use super::Judge;
use super::drift::{self, Change, Drift, Finding, Standing};
use super::events::{Event, Kind};
use super::state::{State, seconds};
use crate::config;
use crate::model::Verdict;

/// The drift event that stands.
#[derive(Debug)]
pub(super) struct Told {
    id: String,
    at: Instant,
}

impl State {
    /// Begins to watch for drift, or goes on if a reload changed nothing that matters to it.
    pub(super) fn watch_drift(&mut self, config: &config::Drift, judge: &impl Judge) {
        let new = Drift::new(config, judge.normal_scores(), judge.worth());
        if let (Some(old), Ok(new)) = (&self.drift, &new)
            && old.is_like(new)
        {
            return;
        }
        if let Err(reason) = &new {
            log::info!("drift is not watched for: {reason}");
        }
        self.drift = new.ok();
        if let Some(told) = self.drift_event.take() {
            let message =
                Some("the reload brought another model or another [drift]: the watch for it begins anew".into());
            let duration_s = Some(seconds(told.at.elapsed()));
            self.outputs.emit(Event { id: Some(told.id), duration_s, message, ..Event::new(Kind::DriftClear) });
        }
        self.measure_drift();
    }

    fn measure_drift(&mut self) {
        self.outputs.metrics.drift = self.drift.as_ref().map(Drift::is_drifting);
        self.outputs.metrics.drift_finding = self.drift.as_ref().and_then(Drift::finding);
    }

    pub(super) fn pause_drift(&mut self) {
        if let Some(drift) = &mut self.drift {
            drift.pause();
        }
    }

    /// To be called for every frame, after the decision.
    pub(super) fn push_drift(&mut self, verdict: Verdict, now: Instant) {
        let Some(drift) = &mut self.drift else { return };
        let standing = match (self.decision.is_raised(), self.decision.is_settled()) {
            (true, _) => Standing::Raised,
            (false, false) => Standing::Suspected,
            (false, true) => Standing::Normal,
        };
        let change = drift.push(now, verdict, standing);
        let window = drift.window();
        self.measure_drift();
        let Some(change) = change else { return };
        let message = Some(drift::message(&change, window));
        let event = |kind, finding: Finding| Event {
            p: Some(finding.p),
            score: Some(finding.score),
            frames: Some(finding.frames),
            message,
            ..Event::new(kind)
        };
        match change {
            Change::Begun(finding) => {
                let id = self.ids.next(SystemTime::now());
                self.outputs.emit(Event { id: Some(id.clone()), ..event(Kind::Drift, finding) });
                self.drift_event = Some(Told { id, at: now });
            }
            Change::Over(finding) => {
                let told = self.drift_event.take();
                let duration_s = told.as_ref().map(|told| seconds(now.duration_since(told.at)));
                let id = told.map(|told| told.id);
                self.outputs.emit(Event { id, duration_s, ..event(Kind::DriftClear, finding) });
            }
        }
    }

    /// What follows the verdict in the status line; empty without drift.
    pub(super) fn drift_status(&self) -> String {
        match self.drift.as_ref().filter(|drift| drift.is_drifting()).and_then(Drift::finding) {
            Some(finding) => {
                format!(", DRIFT: above {:.0} % of calibration's normals, not 50 %", 100.0 * finding.rank)
            }
            None => String::new(),
        }
    }
}
