//! ResNet-50 as a feature extractor: an ONNX file, cut at a residual stage, pooled.

use std::path::{Path, PathBuf};

use ::image::RgbImage;

use crate::image::InputRecipe;

pub mod kernels;

/// A residual stage of a ResNet: the output of its last block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    Layer1,
    Layer2,
    Layer3,
    Layer4,
}

/// Where the feature is taken: one stage or several joined, in ascending order (`layer2+layer3`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tap(Vec<Stage>);

/// How a stage's `h x w x c` map becomes a vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Pooling {
    #[default]
    Avg,
    Max,
    None,
}

/// What to run and how.
#[derive(Debug, Clone)]
pub struct Options {
    /// None: `layer4`, or the last stage that the file has.
    pub tap: Option<Tap>,
    pub pooling: Pooling,
    /// None: the file's own mark (metadata `outlierd.input`), else `torch`.
    pub input: Option<InputRecipe>,
    /// 0: all cores.
    pub threads: usize,
}
