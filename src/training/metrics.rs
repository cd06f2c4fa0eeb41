//! Figures of merit of one-class classification, as scikit-learn defines them.
//!
//! Scores grow with normality. Ranking figures are those of the outlier class: a high AUROC means that
//! outliers score lower than inliers.

use serde::Serialize;

/// Precision, recall and F1 of one class; 0 where the denominator is 0, as scikit-learn's `zero_division=0`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct ClassFigures {
    pub precision: f64,
    pub recall: f64,
    pub f1: f64,
}

/// Counts: `true_outlier` are outliers called outliers, `false_outlier` inliers called outliers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Confusion {
    pub true_outlier: u64,
    pub false_outlier: u64,
    pub true_inlier: u64,
    pub false_inlier: u64,
}

impl Confusion {
    /// Counts verdicts (`true`: called an outlier) over pictures of known class.
    pub fn count(inliers: impl IntoIterator<Item = bool>, outliers: impl IntoIterator<Item = bool>) -> Self {
        let mut confusion = Confusion::default();
        for called in inliers {
            *(if called { &mut confusion.false_outlier } else { &mut confusion.true_inlier }) += 1;
        }
        for called in outliers {
            *(if called { &mut confusion.true_outlier } else { &mut confusion.false_inlier }) += 1;
        }
        confusion
    }

    pub fn accuracy(&self) -> f64 {
        let right = self.true_outlier + self.true_inlier;
        ratio(right, right + self.false_outlier + self.false_inlier)
    }

    pub fn inlier(&self) -> ClassFigures {
        class(self.true_inlier, self.false_inlier, self.false_outlier)
    }

    pub fn outlier(&self) -> ClassFigures {
        class(self.true_outlier, self.false_outlier, self.false_inlier)
    }
}

fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

fn class(hits: u64, false_hits: u64, missed: u64) -> ClassFigures {
    ClassFigures {
        precision: ratio(hits, hits + false_hits),
        recall: ratio(hits, hits + missed),
        f1: ratio(2 * hits, 2 * hits + false_hits + missed),
    }
}

/// The numbers of outliers and inliers that score at or below one distinct score.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Step {
    pub score: f64,
    pub outliers: u64,
    pub inliers: u64,
}

/// The cumulative counts of ROC and precision-recall curves, by rising score.
pub fn steps(inliers: &[f64], outliers: &[f64]) -> Vec<Step> {
    let mut all: Vec<(f64, bool)> =
        inliers.iter().map(|&s| (s, false)).chain(outliers.iter().map(|&s| (s, true))).collect();
    all.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut steps: Vec<Step> = Vec::new();
    let mut counts = (0, 0);
    for (score, outlier) in all {
        *(if outlier { &mut counts.0 } else { &mut counts.1 }) += 1;
        let step = Step { score, outliers: counts.0, inliers: counts.1 };
        match steps.last_mut() {
            Some(last) if last.score == score => *last = step,
            _ => steps.push(step),
        }
    }
    steps
}

/// Area under the ROC curve (ties count half); None without both classes.
pub fn auroc(inliers: &[f64], outliers: &[f64]) -> Option<f64> {
    if inliers.is_empty() || outliers.is_empty() {
        return None;
    }
    let (mut area, mut before) = (0.0, (0, 0));
    for step in steps(inliers, outliers) {
        area += (step.inliers - before.1) as f64 * (step.outliers + before.0) as f64 / 2.0;
        before = (step.outliers, step.inliers);
    }
    Some(area / (inliers.len() as f64 * outliers.len() as f64))
}

/// Average precision with outliers as the positive class, scikit-learn's step-wise sum; None without both classes.
pub fn average_precision(inliers: &[f64], outliers: &[f64]) -> Option<f64> {
    if inliers.is_empty() || outliers.is_empty() {
        return None;
    }
    let (mut sum, mut recalled) = (0.0, 0);
    for step in steps(inliers, outliers) {
        let precision = step.outliers as f64 / (step.outliers + step.inliers) as f64;
        sum += (step.outliers - recalled) as f64 * precision;
        recalled = step.outliers;
    }
    Some(sum / outliers.len() as f64)
}

/// Mean squared error of the probability of being an inlier; None without pictures.
pub fn brier(p_inliers: &[f64], p_outliers: &[f64]) -> Option<f64> {
    let n = p_inliers.len() + p_outliers.len();
    let sum: f64 = p_inliers.iter().map(|p| (1.0 - p).powi(2)).chain(p_outliers.iter().map(|p| p * p)).sum();
    (n > 0).then(|| sum / n as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranking_agrees_with_scikit_learn() {
        let (inliers, outliers) = (vec![3.0, 5.0, 2.0, 4.0, 2.5, 6.0], vec![1.0, 2.0, 0.5]);
        let (auroc, ap) = (auroc(&inliers, &outliers).unwrap(), average_precision(&inliers, &outliers).unwrap());
        assert!((auroc - 17.5 / 18.0).abs() < 1e-12, "{auroc}");
        assert!((ap - (1.0 / 3.0 + 1.0 / 3.0 + 0.75 / 3.0)).abs() < 1e-12, "{ap}");
    }

    #[test]
    fn one_class_has_no_ranking() {
        assert_eq!(auroc(&[1.0], &[]), None);
        assert_eq!(average_precision(&[], &[1.0]), None);
        assert_eq!(brier(&[], &[]), None);
    }

    #[test]
    fn all_tied_is_chance() {
        assert_eq!(auroc(&[1.0; 4], &[1.0; 3]), Some(0.5));
    }

    #[test]
    fn confusion_counts_by_truth() {
        let confusion = Confusion::count([false, false, true], [true, true, false, true]);
        assert_eq!(confusion, Confusion { true_outlier: 3, false_outlier: 1, true_inlier: 2, false_inlier: 1 });
        assert!((confusion.accuracy() - 5.0 / 7.0).abs() < 1e-12);
        assert_eq!(confusion.outlier(), ClassFigures { precision: 0.75, recall: 0.75, f1: 0.75 });
        let nothing = Confusion::default();
        assert_eq!(nothing.inlier(), ClassFigures { precision: 0.0, recall: 0.0, f1: 0.0 });
    }
}
