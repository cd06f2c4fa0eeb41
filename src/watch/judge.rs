//! The judge of the daemon: a backbone and the model that was fitted on it.

use std::path::Path;
use std::sync::Arc;

use ::image::RgbImage;

use super::judging::{Drawing, Judge, JudgeError};
use super::overlay::HeatMap;
use crate::backbone::{self, Backbone, FeatureMap, Pooling};
use crate::config::Config;
use crate::image;
use crate::model::{self, Calibration, Model, Verdict};

/// The models of a config, and the backbone that all of them were fitted on.
pub struct ModelJudge {
    /// With the names that events give them.
    models: Vec<(Model, String)>,
    selected: usize,
    backbone: Backbone,
    /// The network's input of the latest inlier: what the heat map compares with.
    normal: Option<Arc<RgbImage>>,
    /// The latest picture as it was prepared, and what the network made of its views.
    judged: Option<(Arc<RgbImage>, Vec<Vec<FeatureMap>>)>,
}

impl ModelJudge {
    /// Loads the models that the config names, and their backbone.
    pub fn open(config: &Config) -> Result<Self, model::Error> {
        let mut models: Vec<(Model, String)> = Vec::new();
        for path in config.models() {
            let model = Model::load(path)?;
            model.check_mask(&config.camera.mask, config.path())?;
            if config.decision.false_alarms.is_some() {
                model.check_budget(config.path())?;
            }
            if let Some((first, _)) = models.first() {
                first.check_network(&config.model.path, &model, path)?;
            }
            models.push((model, name(path)));
        }
        let (path, threads) = (config.model.backbone.as_deref(), config.model.threads);
        let backbone = models[0].0.load_backbone_sharing(path, threads, config.cache_folder())?;
        Ok(ModelJudge { models, selected: 0, backbone, normal: None, judged: None })
    }

    /// Takes what is loaded already; `path` is where the model lies.
    pub fn new(model: Model, backbone: Backbone, path: &Path) -> Self {
        ModelJudge { models: vec![(model, name(path))], selected: 0, backbone, normal: None, judged: None }
    }

    fn model(&self) -> &Model {
        &self.models[self.selected].0
    }
}

fn name(path: &Path) -> String {
    path.file_name().map_or_else(|| path.to_string_lossy(), |name| name.to_string_lossy()).into_owned()
}

impl Judge for ModelJudge {
    fn select(&mut self, model: usize) {
        if model != self.selected && model < self.models.len() {
            (self.selected, self.normal) = (model, None);
        }
    }

    fn judge(&mut self, picture: &RgbImage, threshold: f64) -> Result<Verdict, JudgeError> {
        let failed = |e: backbone::Error| JudgeError(e.to_string());
        let prepared = Arc::new(self.backbone.prepare_masked(picture).map_err(failed)?);
        // The maps of the picture before are not in memory while the network runs.
        self.judged = None;
        let views = self.backbone.forward(&prepared).map_err(failed)?;
        let score = self.model().raw_score(&self.backbone.pool(&views), self.backbone.cells(&views).as_ref());
        let score = score.map_err(|e| JudgeError(e.to_string()))?;
        let verdict = Verdict::of(score, self.model().calibration.p(score), threshold);
        if !verdict.outlier && self.model().joined.is_none() {
            self.normal = Some(prepared.clone());
        }
        self.judged = Some((prepared, views));
        Ok(verdict)
    }

    fn heat(&mut self, picture: &RgbImage) -> Result<Option<HeatMap>, JudgeError> {
        let failed = |e: backbone::Error| JudgeError(e.to_string());
        let prepared = self.backbone.prepare_masked(picture).map_err(failed)?;
        let views = match self.judged.take() {
            Some((judged, views)) if *judged == prepared => views,
            _ => self.backbone.forward(&prepared).map_err(failed)?,
        };
        let normal = self.normal.as_ref().map(|normal| self.backbone.forward_whole(normal));
        let normal = normal.transpose().map_err(failed)?;
        let heat = self.model().anomaly_map(&self.backbone, &views, normal.as_deref());
        let heat = heat.map_err(|e| JudgeError(e.to_string()))?;
        let seen = image::seen(picture.width(), picture.height(), self.backbone.input());
        Ok(heat.and_then(|heat| HeatMap::new(heat.at(seen))))
    }

    fn drawing(&self) -> Drawing {
        match (&self.model().joined, self.model().source.pooling) {
            (Some(_), _) => Drawing::AtOnce,
            (None, Pooling::None) => Drawing::Never,
            (None, _) => Drawing::Later,
        }
    }

    fn threshold(&self) -> f64 {
        self.model().threshold
    }

    fn model_name(&self) -> &str {
        &self.models[self.selected].1
    }

    fn identity(&self) -> u64 {
        self.model().identity()
    }

    fn lowest_p(&self) -> f64 {
        self.model().lowest_p()
    }

    fn known_p(&self, verdict: Verdict) -> f64 {
        match &self.model().calibration {
            Calibration::Conformal(conformal) => conformal.known_p(verdict.score),
            Calibration::Isotonic(_) => verdict.p,
        }
    }

    fn taken_back(&self) -> Vec<&str> {
        self.model().records.learnt.iter().map(|learnt| learnt.event.as_str()).collect()
    }

    fn normal_scores(&self) -> &[f64] {
        self.model().normal_scores()
    }

    fn effective_sample_size(&self) -> f64 {
        self.model().worth()
    }
}
