//! Feedback: scores of false alarms join the conformal calibration, so that frames like them get a higher p.
//!
//! Where the calibration's scores are worth `w` independent ones and give the frame `q`, p is
//! `((w + 1) q + j) / (w + 1 + k)` after `k` scores were learnt, `j` of them at most the frame's. One false alarm raises p
//! of frames like it by little more than `1 / (w + 1)`; [`Outcome::more_needed`] says how many pass the threshold.
//!
//! The effect on rates: learnt scores were selected because they are low, so the calibration is no longer a random sample
//! of normals, and its threshold no longer a promise. The score below which frames are outliers (the cut) becomes lower.
//! Frames like those of the calibration raise fewer false alarms than before, never more as long as the learnt scores lie
//! below the cut; frames of the new kind raise fewer too, by an unknown amount; and outliers that score between the new
//! cut and the old one are no longer detected. Where normal frames of the new kind are as frequent as their share in the
//! calibration, the threshold is the false-alarm rate again.
//!
//! A score far below all of the calibration ([`far`]) is refused: everything in between would pass. Such a picture belongs
//! in the next fit.

use super::fitted::Model;
use super::records::Learnt;
use super::verdict::Calibration;
use crate::estimators::conformal::Conformal;

/// Less than the effect of one learnt score, more than the rounding of the event log.
const SAME_P: f64 = 1e-9;

/// The calibration takes no single scores.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "the model has isotonic calibration, which is fitted with labelled outliers and takes no single pictures: collect \
     the snapshots with --keep DIR and fit again with --normal DIR beside the other pictures"
)]
pub struct NotConformal;

/// The result for one false alarm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    Learnt,
    /// It was learnt before.
    Already,
    /// Refused: it scores too far below the calibration, see [`far`].
    TooFar,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    pub event: String,
    pub score: f64,
    pub taken: Taken,
    /// p of its score before and after.
    pub p_before: f64,
    pub p_after: f64,
    /// The number of further false alarms of this score until such a frame is not an outlier.
    pub more_needed: usize,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Feedback {
    pub outcomes: Vec<Outcome>,
    /// Scores below are outliers, before and after. None: no score is low enough.
    pub cut_before: Option<f64>,
    pub cut_after: Option<f64>,
    /// The number of independent scores that the calibration is worth, and of learnt ones, afterwards.
    pub worth: f64,
    pub learnt: usize,
}

impl Feedback {
    pub fn taken(&self) -> usize {
        self.outcomes.iter().filter(|outcome| outcome.taken == Taken::Learnt).count()
    }
}

/// Adds the scores of false alarms, by event id, to the model's calibration; a frame is an outlier when
/// `p < threshold`. An event that was learnt before is not added again.
///
/// # Errors
/// [`NotConformal`]; the model is then as it was.
pub fn learn(model: &mut Model, false_alarms: &[(String, f64)], threshold: f64) -> Result<Feedback, NotConformal> {
    let Calibration::Conformal(conformal) = &mut model.calibration else { return Err(NotConformal) };
    let learnt = &mut model.records.learnt;
    let before = conformal.clone();
    let limit = far(&before.scores);
    let mut taken = Vec::with_capacity(false_alarms.len());
    for (event, score) in false_alarms {
        taken.push(match score {
            _ if learnt.iter().any(|known| known.event == *event) => Taken::Already,
            score if *score < limit => Taken::TooFar,
            score => {
                let at = conformal.learnt.partition_point(|known| known < score);
                conformal.learnt.insert(at, *score);
                learnt.push(Learnt { event: event.clone(), score: *score });
                Taken::Learnt
            }
        });
    }
    let outcome = |((event, score), taken): (&(String, f64), Taken)| Outcome {
        event: event.clone(),
        score: *score,
        taken,
        p_before: before.p_value(*score),
        p_after: conformal.p_value(*score),
        more_needed: more_needed(conformal, *score, threshold),
    };
    Ok(Feedback {
        outcomes: false_alarms.iter().zip(taken).map(outcome).collect(),
        cut_before: before.threshold(threshold),
        cut_after: conformal.threshold(threshold),
        worth: conformal.worth,
        learnt: learnt.len(),
    })
}

/// Takes the scores of events out of the calibration again; returns those events whose score was in it.
pub fn forget<'a>(model: &mut Model, events: &'a [String]) -> Vec<&'a str> {
    let Calibration::Conformal(conformal) = &mut model.calibration else { return Vec::new() };
    let learnt = &mut model.records.learnt;
    let mut forgotten = Vec::new();
    for event in events {
        let Some(at) = learnt.iter().position(|known| known.event == *event) else { continue };
        let score = learnt.remove(at).score;
        if let Some(at) = conformal.learnt.iter().position(|known| *known == score) {
            conformal.learnt.remove(at);
        }
        forgotten.push(event.as_str());
    }
    forgotten
}

/// Whether an event of this score and p is from this model: its calibration gives that p, with any number of the scores that
/// were learnt so far.
pub fn is_of(model: &Model, score: f64, p: f64) -> bool {
    let Calibration::Conformal(conformal) = &model.calibration else { return false };
    let known = conformal.known_p(score);
    let learnt = &model.records.learnt;
    let mut below = 0;
    (0..=learnt.len()).any(|all| {
        below += usize::from(all > 0 && learnt[all - 1].score <= score);
        (conformal.with_learnt(known, below, all) - p).abs() < SAME_P
    })
}

/// The score below which a false alarm is refused: as far below the lowest of the calibration's own scores as that is below
/// their median.
pub fn far(scores: &[f64]) -> f64 {
    match (scores.first(), scores.get(scores.len() / 2)) {
        (Some(lowest), Some(median)) => 2.0 * lowest - median,
        _ => f64::NEG_INFINITY,
    }
}

/// The number of further learnt scores, at most this one, that raise p to the threshold.
fn more_needed(conformal: &Conformal, score: f64, threshold: f64) -> usize {
    let below = conformal.learnt.partition_point(|known| *known <= score);
    let (known, all) = (conformal.known_p(score), conformal.learnt.len());
    let passes = |m: usize| conformal.with_learnt(known, below + m, all + m) >= threshold;
    let weight = conformal.weight();
    let exact = (threshold * (weight + all as f64) - weight * known - below as f64) / (1.0 - threshold);
    let mut m = exact.max(0.0).ceil().min(1e9) as usize;
    while m > 0 && passes(m - 1) {
        m -= 1;
    }
    if passes(m) { m } else { m + 1 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::estimators::feature_transform::FeatureTransform;
    use crate::estimators::isotonic::IsotonicRegression;
    use crate::model::map;

    fn model(conformal: Conformal) -> Model {
        Model { calibration: Calibration::Conformal(conformal), ..map::tests::model(FeatureTransform::Identity) }
    }

    fn alarm(name: &str, score: f64) -> (String, f64) {
        (name.into(), score)
    }

    /// 499 scores from 2 to 500: p < 0.01 means that fewer than 4 of them are at most the score.
    fn five_hundred() -> Model {
        model(Conformal::counted(&(2..=500).map(f64::from).collect::<Vec<_>>()).unwrap())
    }

    /// Scores as those of a log density, worth a quarter of their number.
    fn with_tail() -> Model {
        let scores: Vec<f64> = (1..=400).map(|at| 100.0 * (f64::from(at) / 401.0).ln()).collect();
        model(Conformal::fit(&scores, 100.0).unwrap())
    }

    #[test]
    fn a_calibration_with_a_tail_learns_by_its_worth() {
        let mut model = with_tail();
        let Calibration::Conformal(before) = model.calibration.clone() else { panic!() };
        let score = before.threshold(0.01).unwrap() - 20.0;
        let needed = learn(&mut model.clone(), &[alarm("a", score)], 0.01).unwrap().outcomes[0].more_needed;
        let alarms: Vec<_> = (0..=needed).map(|n| alarm(&n.to_string(), score)).collect();
        let feedback = learn(&mut model, &alarms, 0.01).unwrap();
        let known = before.p_value(score);
        let p = (101.0 * known + alarms.len() as f64) / (101.0 + alarms.len() as f64);
        assert!((feedback.outcomes[0].p_after - p).abs() < 1e-12 && p >= 0.01);
        assert!(feedback.cut_after.unwrap() < feedback.cut_before.unwrap());
        assert!(is_of(&model, score, known) && is_of(&model, score, p) && !is_of(&model, score, 0.5 * (known + p)));
    }

    #[test]
    fn more_needed_is_exact() {
        let first = learn(&mut five_hundred(), &[alarm("a", 1.5)], 0.01).unwrap();
        let outcome = &first.outcomes[0];
        assert_eq!((outcome.p_before, outcome.p_after), (1.0 / 500.0, 2.0 / 501.0));
        let needed = outcome.more_needed;
        assert!(needed > 0);
        for more in 0..=needed + 1 {
            let alarms: Vec<_> = (0..=more).map(|n| alarm(&n.to_string(), 1.5)).collect();
            let feedback = learn(&mut five_hundred(), &alarms, 0.01).unwrap();
            assert_eq!(feedback.outcomes[0].p_after >= 0.01, more >= needed, "{more} more");
            assert_eq!(feedback.outcomes[0].more_needed, needed.saturating_sub(more), "{more} more");
        }
    }

    #[test]
    fn the_cut_goes_down_and_known_frames_are_not_called_outliers_more_often() {
        let mut model = five_hundred();
        let known: Vec<f64> = (1..=1000).map(|n| f64::from(n) / 2.0).collect();
        let before: Vec<f64> = known.iter().map(|score| model.calibration.p(*score)).collect();
        let alarms: Vec<_> = (0..6).map(|n| alarm(&n.to_string(), -20.0 + f64::from(n))).collect();
        let feedback = learn(&mut model, &alarms, 0.01).unwrap();
        assert!(feedback.cut_after.unwrap() < feedback.cut_before.unwrap(), "{feedback:?}");
        assert_eq!((feedback.worth, feedback.learnt, feedback.taken()), (499.0, 6, 6));
        for (score, before) in known.iter().zip(before) {
            assert!(model.calibration.p(*score) >= before, "{score}");
        }
        let Calibration::Conformal(conformal) = &model.calibration else { panic!() };
        assert!(conformal.learnt.is_sorted());
    }

    #[test]
    fn an_event_is_learnt_once_and_far_ones_never() {
        let mut model = five_hundred();
        let far_below = far(&(2..=500).map(f64::from).collect::<Vec<_>>()) - 1.0;
        let alarms = [alarm("a", 1.0), alarm("a", 1.0), alarm("b", far_below)];
        let taken = |feedback: &Feedback| feedback.outcomes.iter().map(|outcome| outcome.taken).collect::<Vec<_>>();
        let first = learn(&mut model, &alarms, 0.01).unwrap();
        assert_eq!(taken(&first), [Taken::Learnt, Taken::Already, Taken::TooFar]);
        let once = model.clone();
        assert_eq!(taken(&learn(&mut model, &alarms, 0.01).unwrap()), [Taken::Already, Taken::Already, Taken::TooFar]);
        assert_eq!(model, once);
        // What was learnt does not make what is farther acceptable.
        let step = alarm("c", far_below + 2.0);
        assert_eq!(taken(&learn(&mut model, &[step], 0.01).unwrap()), [Taken::Learnt]);
        assert_eq!(taken(&learn(&mut model, &[alarm("d", far_below)], 0.01).unwrap()), [Taken::TooFar]);
    }

    #[test]
    fn a_model_knows_its_own_events() {
        let mut model = five_hundred();
        let before = model.calibration.p(40.5);
        learn(&mut model, &[alarm("a", 1.0), alarm("b", 1.5)], 0.01).unwrap();
        let after = model.calibration.p(40.5);
        assert!(before != after && is_of(&model, 40.5, before) && is_of(&model, 40.5, after));
        assert!(!is_of(&model, 40.5, 0.5 * (before + after)) && !is_of(&model, 300.0, before));
    }

    #[test]
    fn what_is_forgotten_was_never_learnt() {
        let mut model = five_hundred();
        learn(&mut model, &[alarm("a", 1.0)], 0.01).unwrap();
        let before = model.clone();
        learn(&mut model, &[alarm("b", 0.5), alarm("c", 1.0)], 0.01).unwrap();
        let ids = ["c", "x", "b"].map(str::to_owned);
        assert_eq!(forget(&mut model, &ids), ["c", "b"]);
        assert_eq!(model, before);
        assert!(forget(&mut model, &ids).is_empty());
    }

    #[test]
    fn isotonic_takes_none() {
        let mut model = five_hundred();
        let isotonic = IsotonicRegression { x_thresholds: vec![0.0], y_thresholds: vec![0.5] };
        model.calibration = Calibration::Isotonic(isotonic);
        let before = model.clone();
        assert_eq!(learn(&mut model, &[alarm("a", 1.0)], 0.5), Err(NotConformal));
        assert_eq!(model, before);
    }
}
