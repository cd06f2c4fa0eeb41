//! The promised rate of false alarms.

use serde::Serialize;

use crate::estimators::conformal::clopper_pearson;
use crate::model::{Calibration, Model};

/// The promise of a conformal calibration.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct FalseAlarms {
    /// The rate that the threshold is set for.
    pub promised: f64,
    /// The interval that holds the true rate with 95 % probability.
    pub interval: (f64, f64),
    /// The lowest rate that counting could show with so many pictures; a lower one is extrapolated.
    pub vouched_for: f64,
    /// The number of independent pictures that the calibration is worth.
    pub stretches: f64,
}

impl FalseAlarms {
    /// None with isotonic calibration.
    pub fn of(model: &Model) -> Option<FalseAlarms> {
        let Calibration::Conformal(conformal) = &model.calibration else { return None };
        let promised = model.threshold;
        Some(FalseAlarms {
            promised,
            interval: conformal.false_alarm_interval(promised),
            vouched_for: 1.0 / (conformal.worth + 1.0),
            stretches: (conformal.worth * 10.0).round() / 10.0,
        })
    }
}

/// The meaning of the threshold, in sentences for users.
pub fn meaning(model: &Model, raise_after: u32) -> Vec<String> {
    let rate = model.training.false_alarm_rate;
    let mut lines = Vec::new();
    let most;
    match FalseAlarms::of(model) {
        Some(FalseAlarms { promised, interval: (low, high), vouched_for, stretches }) => {
            most = high;
            let low = if low > RARE { format!(" to 1 in {}", one_in(low)) } else { " or fewer".into() };
            lines.push(format!(
                "about 1 false alarm in {} normal frames (95 % interval: 1 in {}{low})",
                one_in(promised),
                one_in(high)
            ));
            if promised < vouched_for {
                lines.push(format!(
                    "{stretches:.0} independent pictures can vouch for 1 in {}; what is rarer is extrapolated from the \
                     tail of their scores, and the interval says how surely",
                    one_in(vouched_for)
                ));
            }
        }
        None => {
            let worth = f64::from(model.training.n_calibration) / f64::from(model.training.stretch.max(1));
            let worth = (worth.round() as usize).max(1);
            most = clopper_pearson((rate * worth as f64).round() as usize, worth, 0.95).1;
            lines.push(format!(
                "{:.2} % of held-out normals are false alarms, worth {worth} independent ones: at most 1 in {} (95 %)",
                100.0 * rate,
                one_in(most)
            ));
        }
    }
    lines.push(format!(
        "with raise-after = {raise_after}, at most one false event in about {} normal frames: one takes {raise_after} \
         false alarms in a row",
        one_in(most / f64::from(raise_after.max(1)))
    ));
    lines
}

/// A lower rate is not put in figures.
const RARE: f64 = 1e-5;

fn one_in(rate: f64) -> String {
    if rate <= RARE { "very many".into() } else { format!("{:.0}", 1.0 / rate) }
}
