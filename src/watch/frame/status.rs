//! What the daemon sees now: for metrics, MQTT, GPIO and systemd's status line.

use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::drift::Finding;
use super::light::Light;
use super::threshold::Threshold;
use crate::config::FalseAlarms;
use crate::model::Verdict;
use crate::watch::budget::BudgetStatus;

/// What a run did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
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

/// The latest frame, judged or skipped.
#[derive(Debug, Clone, Copy)]
pub struct Latest {
    /// Of a skipped one that of the judged one that it looks like.
    pub verdict: Verdict,
    pub at: Instant,
    /// Seconds from frame to frame, averaged; 0 until there are two.
    pub period: f64,
}

/// A snapshot of the watch.
#[derive(Debug, Clone, Copy, Default)]
pub struct Status {
    /// None before the first.
    pub latest: Option<Latest>,
    pub threshold: Threshold,
    /// None: there is no alarm budget.
    pub budget: Option<(FalseAlarms, BudgetStatus)>,
    /// An event stands.
    pub raised: bool,
    pub summary: Summary,
    /// The camera gives frames.
    pub camera_up: bool,
    /// A drift event stands; None where drift is not watched for.
    pub drift: Option<bool>,
    /// Where the choice of the model asks for it.
    pub light: Option<Light>,
    /// Of the latest whole window of drift.
    pub drift_finding: Option<Finding>,
}

impl Status {
    pub fn p(&self) -> Option<f64> {
        self.latest.map(|latest| latest.verdict.p)
    }

    /// Frames per second, judged or skipped; None until there are two.
    pub fn rate(&self) -> Option<f64> {
        self.latest.filter(|latest| latest.period > 0.0).map(|latest| 1.0 / latest.period)
    }

    /// systemd's status line. `problems` are what the watch cannot do at present.
    pub fn line<'a>(&self, problems: impl IntoIterator<Item = &'a str>) -> String {
        let Summary { frames, skipped, raised, .. } = self.summary;
        let mut text = match self.p() {
            Some(p) => {
                let verdict = if self.raised { "OUTLIER" } else { "normal" };
                let unchanged = match skipped {
                    0 => String::new(),
                    _ => format!(" judged, {:.0} % unchanged", 100.0 * skipped as f64 / (skipped + frames) as f64),
                };
                format!(
                    "{verdict}, p {p:.3}, {:.1} frames/s, {frames} frames{unchanged}, {raised} events",
                    self.rate().unwrap_or_default()
                )
            }
            None => "no frame judged yet".to_owned(),
        };
        if let (Some(true), Some(finding)) = (self.drift, self.drift_finding) {
            let rank = 100.0 * finding.rank;
            text.push_str(&format!(", DRIFT: above {rank:.0} % of calibration's normals, not 50 %"));
        }
        for problem in problems {
            text.push_str("; ");
            text.push_str(problem);
        }
        text
    }
}
