//! What a network is built from.

use std::collections::HashMap;
use std::path::Path;

use super::stages::{MapInfo, StageOutput};
use crate::backbone::kernels::Isa;
use crate::backbone::onnx::{Graph, Model};
use crate::backbone::passes::lower::Format;
use crate::image::InputRecipe;

/// What the model is made from.
pub struct Request<'a> {
    pub model: &'a Model,
    pub graph: &'a Graph,
    pub format: Format,
    /// The picture among the graph's inputs.
    pub input: &'a str,
    pub recipe: &'a InputRecipe,
    pub maps: &'a HashMap<String, MapInfo>,
    pub taps: &'a [StageOutput],
    /// Round a convolution's own output before a residual sum, where the file does.
    pub round_sums: bool,
    pub isa: Isa,
    pub threads: usize,
    /// None: weights are packed for this process alone.
    pub cache: Option<Cache<'a>>,
}

/// Where packed weights are that processes share.
#[derive(Clone, Copy)]
pub struct Cache<'a> {
    pub folder: &'a Path,
    /// SHA-256 of the model's file.
    pub sha256: [u8; 32],
}
