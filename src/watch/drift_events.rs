//! Drift as the watch tells it: a `drift` event, the status line, and `drift-clear`.

use std::time::{Instant, SystemTime};

use super::drift::{self, Change, Drift, Finding, Standing};
use super::events::{Event, Kind, seconds};
use super::ids::Ids;
use super::judging::Judge;
use super::outputs::Outputs;
use crate::config;
use crate::model::Verdict;

/// The drift event that stands.
#[derive(Debug)]
struct Announced {
    id: String,
    at: Instant,
}

/// The watch for drift, and what was told of it.
#[derive(Debug, Default)]
pub(super) struct DriftWatch {
    /// None: drift is not watched for.
    drift: Option<Drift>,
    announced: Option<Announced>,
}

impl DriftWatch {
    /// Begins to watch for drift, or goes on if a reload changed nothing that matters to it.
    pub(super) fn begin(&mut self, config: &config::Drift, judge: &impl Judge, outputs: &mut Outputs) {
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
        if let Some(told) = self.announced.take() {
            let message =
                Some("the reload brought another model or another [drift]: the watch for it begins anew".into());
            let duration_s = Some(seconds(told.at.elapsed()));
            outputs.emit(Event { id: Some(told.id), duration_s, message, ..Event::new(Kind::DriftClear) });
        }
        self.measure(outputs);
    }

    fn measure(&self, outputs: &mut Outputs) {
        outputs.metrics.drift = self.drift.as_ref().map(Drift::is_drifting);
        outputs.metrics.drift_finding = self.drift.as_ref().and_then(Drift::finding);
    }

    pub(super) fn pause(&mut self) {
        if let Some(drift) = &mut self.drift {
            drift.pause();
        }
    }

    /// To be called for every frame, after the decision, which says how the frame stands.
    pub(super) fn push(
        &mut self,
        verdict: Verdict,
        standing: Standing,
        now: Instant,
        (ids, outputs): (&mut Ids, &mut Outputs),
    ) {
        let Some(drift) = &mut self.drift else { return };
        let change = drift.push(now, verdict, standing);
        let window = drift.window();
        self.measure(outputs);
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
                let id = ids.next(SystemTime::now());
                outputs.emit(Event { id: Some(id.clone()), ..event(Kind::Drift, finding) });
                self.announced = Some(Announced { id, at: now });
            }
            Change::Over(finding) => {
                let told = self.announced.take();
                let duration_s = told.as_ref().map(|told| seconds(now.duration_since(told.at)));
                let id = told.map(|told| told.id);
                outputs.emit(Event { id, duration_s, ..event(Kind::DriftClear, finding) });
            }
        }
    }

    /// What follows the verdict in the status line; empty without drift.
    pub(super) fn status(&self) -> String {
        match self.drift.as_ref().filter(|drift| drift.is_drifting()).and_then(Drift::finding) {
            Some(finding) => {
                format!(", DRIFT: above {:.0} % of calibration's normals, not 50 %", 100.0 * finding.rank)
            }
            None => String::new(),
        }
    }
}
