//! What judges pictures, as the watch knows it.

use ::image::RgbImage;

use super::overlay::HeatMap;
use crate::model::Verdict;

/// Judges pictures: a backbone and a model, or a test's stand-in.
pub trait Judge: Send {
    /// Takes another of the config's models from now on: 0 is `model.path`.
    fn select(&mut self, _model: usize) {}
    /// The verdict by `threshold`. What is masked in `picture` is painted over already.
    fn judge(&mut self, picture: &RgbImage, threshold: f64) -> Result<Verdict, JudgeError>;
    /// Where the picture, painted over likewise, departs from what is known; None where the judge cannot say. Costs least for the picture that
    /// was judged last.
    fn heat(&mut self, _picture: &RgbImage) -> Result<Option<HeatMap>, JudgeError> {
        Ok(None)
    }
    /// What [`Judge::heat`] of the picture that was judged last takes.
    fn drawing(&self) -> Drawing {
        Drawing::Never
    }
    /// The model's own threshold, which holds unless the config has one.
    fn threshold(&self) -> f64;
    fn model_name(&self) -> &str;
    /// Tells the fit from others: the history of another is not this one's.
    fn identity(&self) -> u64 {
        0
    }
    /// p of the lowest score of the calibration.
    fn lowest_p(&self) -> f64 {
        self.threshold()
    }
    /// p of a score without what was learnt through feedback, which makes holes into p: what the scene is measured by.
    fn known_p(&self, verdict: Verdict) -> f64 {
        verdict.p
    }
    /// Ids of the events that were taken back through feedback.
    fn taken_back(&self) -> Vec<&str> {
        Vec::new()
    }
    /// Rising scores of normals that calibrated the model, to compare with for drift; empty where it keeps none.
    fn normal_scores(&self) -> &[f64] {
        &[]
    }
    /// Of these scores, which may depend on each other.
    fn effective_sample_size(&self) -> f64 {
        self.normal_scores().len() as f64
    }
}

/// When there is a heat map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drawing {
    Never,
    /// From what the judgement left behind.
    AtOnce,
    /// After another run of the network.
    Later,
}

/// A picture could not be judged.
#[derive(Debug, thiserror::Error)]
#[error("cannot judge the frame: {0}")]
pub struct JudgeError(pub String);
