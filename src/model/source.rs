//! The source of a model's features.

use std::path::PathBuf;

use crate::backbone::{self, Backbone, Pooling, Tap};
use crate::image::InputRecipe;
use crate::image::mask::Mask;

/// The network that features come from, with its options.
#[derive(Debug, Clone, PartialEq)]
pub struct FeatureSource {
    pub sha256: [u8; 32],
    /// None: the embedded backbone.
    pub path: Option<PathBuf>,
    pub tap: Tap,
    pub pooling: Pooling,
    pub input: InputRecipe,
    /// The ignored parts of every picture.
    pub mask: Mask,
    /// Tiles across and down; 1: the views that the backbone's file asks for.
    pub tiles: u32,
}

impl FeatureSource {
    pub fn of(backbone: &Backbone) -> Self {
        FeatureSource {
            sha256: backbone.sha256(),
            path: backbone.path().map(|p| std::path::absolute(p).unwrap_or_else(|_| p.to_owned())),
            tap: backbone.tap().clone(),
            pooling: backbone.pooling(),
            input: backbone.input().clone(),
            mask: backbone.mask().clone(),
            tiles: backbone.tiles(),
        }
    }

    /// For models that only score features and are never saved.
    pub fn unknown() -> Self {
        FeatureSource {
            sha256: [0; 32],
            path: None,
            tap: Tap::from(backbone::Stage::Layer4),
            pooling: Pooling::Avg,
            input: InputRecipe::torch(),
            mask: Mask::default(),
            tiles: 1,
        }
    }

    pub fn name(&self) -> String {
        self.path.as_ref().map_or_else(|| "the embedded backbone".into(), |p| p.display().to_string())
    }
}
