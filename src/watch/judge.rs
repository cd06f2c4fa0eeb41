//! The judge of the daemon: a backbone and the model that was fitted on it.

use std::path::Path;

use ::image::RgbImage;

use super::{Judge, JudgeError, Judgement};
use crate::backbone::Backbone;
use crate::config::Config;
use crate::model::{self, Model};

/// Backbone, model, and the name that events give the model.
pub struct ModelJudge {
    model: Model,
    backbone: Backbone,
    name: String,
}

impl ModelJudge {
    /// Loads the model that the config names, and its backbone.
    pub fn open(config: &Config) -> Result<Self, model::Error> {
        let model = Model::load(&config.model.path)?;
        let backbone = model.load_backbone(config.model.backbone.as_deref(), config.model.threads)?;
        Ok(ModelJudge::new(model, backbone, &config.model.path))
    }

    /// Takes what is loaded already; `path` is where the model lies.
    pub fn new(model: Model, backbone: Backbone, path: &Path) -> Self {
        let name = path.file_name().map_or_else(|| path.to_string_lossy(), |n| n.to_string_lossy()).into_owned();
        ModelJudge { model, backbone, name }
    }

    pub fn backbone(&self) -> &Backbone {
        &self.backbone
    }

    pub fn model(&self) -> &Model {
        &self.model
    }
}

impl Judge for ModelJudge {
    fn judge(&mut self, picture: &RgbImage) -> Result<Judgement, JudgeError> {
        let feature = self.backbone.features(picture).map_err(|e| JudgeError(e.to_string()))?;
        let verdict = self.model.score(&feature).map_err(|e| JudgeError(e.to_string()))?;
        Ok(Judgement { score: verdict.score, p: verdict.p })
    }

    fn threshold(&self) -> f64 {
        self.model.threshold
    }

    fn model_name(&self) -> &str {
        &self.name
    }

    fn normal_scores(&self) -> &[f64] {
        self.model.normal_scores()
    }
}
