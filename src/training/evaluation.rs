//! What `eval` reports: figures of a model's verdicts on pictures of known class.

use serde::{Serialize, Serializer};

use super::metrics::{self, ClassFigures, Confusion};
use crate::model::{Calibration, Model, Verdict};

/// The figures of one detector over labelled pictures.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Evaluation {
    pub detector: String,
    pub calibration: String,
    pub threshold: f64,
    pub n_inlier: usize,
    pub n_outlier: usize,
    /// None with one class only.
    pub auroc: Option<f64>,
    pub average_precision: Option<f64>,
    pub accuracy: f64,
    pub inlier: ClassFigures,
    /// None without outliers.
    pub outlier: Option<ClassFigures>,
    pub confusion: Confusion,
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "rounded")]
    pub brier: Option<f64>,
}

/// Whether the promised rate of false alarms holds on other pictures.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Promise {
    pub promised: f64,
    pub counted: f64,
    /// The interval that holds the share counted on this number of pictures with 95 % probability.
    pub interval: (f64, f64),
    /// The number of independent pictures that the normals are worth.
    pub stretches: f64,
    pub held: bool,
}

impl Promise {
    /// The promise of the model against an evaluation whose inliers are worth `worth` independent ones. None without
    /// inliers and with isotonic calibration, which promises no rate.
    pub fn of(model: &Model, evaluation: &Evaluation, worth: f64) -> Option<Promise> {
        let Calibration::Conformal(conformal) = &model.calibration else { return None };
        if evaluation.n_inlier == 0 {
            return None;
        }
        let counted = evaluation.false_alarms();
        let promised = model.threshold;
        let interval = conformal.observed_false_alarm_interval(promised, worth.round().max(1.0) as usize);
        let held = counted <= interval.1;
        Some(Promise { promised, counted, interval, stretches: worth, held })
    }

    /// One sentence for users.
    pub fn sentence(&self) -> String {
        let Promise { promised, counted, interval: (low, high), stretches, held } = *self;
        let verdict = match held {
            true if counted < low => "the promise held: fewer than expected",
            true => "the promise held",
            false => "the promise did not hold: fit again with more of what these pictures show",
        };
        format!(
            "false alarms {:.2} %, promised {:.2} %; {stretches:.0} independent pictures may show {:.2} to {:.2} % (95 %): {verdict}",
            100.0 * counted,
            100.0 * promised,
            100.0 * low,
            100.0 * high
        )
    }
}

fn rounded<S: Serializer>(value: &Option<f64>, serializer: S) -> Result<S::Ok, S::Error> {
    value.map(|v| (v * 1e6).round() / 1e6).serialize(serializer)
}

impl Evaluation {
    /// The figures of a model by its verdicts on pictures of both classes.
    pub fn of(model: &Model, inliers: &[Verdict], outliers: &[Verdict]) -> Evaluation {
        let scores = |verdicts: &[Verdict]| verdicts.iter().map(|v| v.score).collect::<Vec<_>>();
        let ps = |verdicts: &[Verdict]| verdicts.iter().map(|v| v.p).collect::<Vec<_>>();
        let confusion = Confusion::count(inliers.iter().map(|v| v.outlier), outliers.iter().map(|v| v.outlier));
        let (inlier_scores, outlier_scores) = (scores(inliers), scores(outliers));
        Evaluation {
            detector: model.detector_name().to_owned(),
            calibration: model.calibration.name().to_owned(),
            threshold: model.threshold,
            n_inlier: inliers.len(),
            n_outlier: outliers.len(),
            auroc: metrics::auroc(&inlier_scores, &outlier_scores),
            average_precision: metrics::average_precision(&inlier_scores, &outlier_scores),
            accuracy: confusion.accuracy(),
            inlier: confusion.inlier(),
            outlier: (!outliers.is_empty()).then(|| confusion.outlier()),
            confusion,
            brier: match model.calibration {
                Calibration::Isotonic(_) => metrics::brier(&ps(inliers), &ps(outliers)),
                Calibration::Conformal(_) => None,
            },
        }
    }

    /// The share of inliers that were called outliers; 0 without inliers.
    pub fn false_alarms(&self) -> f64 {
        self.confusion.false_outlier as f64 / self.n_inlier.max(1) as f64
    }

    /// Lines for users.
    pub fn lines(&self) -> Vec<String> {
        let figure = |v: Option<f64>| v.map_or("-".into(), |v| format!("{v:.4}"));
        let class = |name: &str, n: usize, c: &ClassFigures| {
            format!("{name:<9}{n:>6}   precision {:.4}   recall {:.4}   F1 {:.4}", c.precision, c.recall, c.f1)
        };
        let mut lines = vec![
            format!("detector {}, calibration {}, threshold {:.4}", self.detector, self.calibration, self.threshold),
            format!("AUROC {}   average precision {}", figure(self.auroc), figure(self.average_precision)),
            format!("accuracy {:.4}", self.accuracy),
            class("inliers", self.n_inlier, &self.inlier),
        ];
        if let Some(outlier) = &self.outlier {
            lines.push(class("outliers", self.n_outlier, outlier));
        }
        if let Some(brier) = self.brier {
            lines.push(format!("Brier score {brier:.4}"));
        }
        let c = &self.confusion;
        lines.push(format!(
            "outliers caught {}, missed {}; inliers passed {}, false alarms {}",
            c.true_outlier, c.false_inlier, c.true_inlier, c.false_outlier
        ));
        lines
    }
}
