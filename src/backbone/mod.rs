//! ResNet-50 as a feature extractor: an ONNX file, cut at a residual stage, pooled.
//!
//! Float, QDQ and QOperator files are read. The network is recognised by its structure (residual sums grouped by
//! stride), not by names: ResNet v1, v1.5, 18, 34, 50, 101, narrow ones, and files that end early.

use std::path::{Path, PathBuf};

use ::image::RgbImage;
use tract_onnx::prelude::TractError;

use crate::image::mask::Mask;
use crate::image::{InputRecipe, Resize};

pub mod cells;
mod compile;
mod error;
#[allow(unsafe_code)]
pub mod kernels;
pub mod multi_crop;
pub mod onnx;
mod options;
mod passes;
pub mod quantize;
mod tap;
#[cfg(any(test, feature = "internals"))]
pub mod untrained;

use cells::Cells;
use compile::trunk::Trunk;
use compile::{Cache, Network, Request, ops, stages};
use multi_crop::{MultiCrop, VIEWS_KEY};
use passes::input::Range;

pub use compile::Fusion;
pub use error::Error;
pub use onnx::Source;
pub use options::{Options, SUMS_KEY};
pub use tap::{FeatureMap, Pooling, Stage, Tap};

const EMBEDDED: &[u8] = include_bytes!("../../models/default.onnx");

/// A network that is loaded and ready to run.
#[derive(Debug)]
pub struct Backbone {
    path: Option<PathBuf>,
    sha256: [u8; 32],
    tap: Tap,
    /// The stages that cells are made of; none without cells.
    of_cells: Vec<Stage>,
    /// The stages that are run for: those of the tap and of the cells.
    outputs: Vec<Stage>,
    pooling: Pooling,
    input: InputRecipe,
    /// The levels of a channel that the file's graph normalises itself; the recipe does that instead.
    own_levels: Option<Range>,
    /// The recipe for the picture that the crops are taken from.
    prepared: InputRecipe,
    multi_crop: MultiCrop,
    mask: Mask,
    isa: kernels::Isa,
    threads: usize,
    network: Network,
}

impl Backbone {
    /// Loads an ONNX file.
    ///
    /// # Errors
    /// The file cannot be read, is not ONNX, is not a ResNet, lacks the tap, or has operators that nothing can run.
    pub fn load(path: &Path, options: &Options) -> Result<Backbone, Error> {
        let source = Source::open(path).map_err(|source| Error::Io { path: path.into(), source })?;
        let backbone = Self::from_source(path, source, path.parent(), options)?;
        Ok(Backbone { path: Some(path.into()), ..backbone })
    }

    /// Loads an ONNX file that is in memory; `name` names it in errors.
    pub fn from_bytes(name: &str, bytes: Vec<u8>, options: &Options) -> Result<Backbone, Error> {
        Self::from_source(Path::new(name), Source::Bytes(bytes.into()), None, options)
    }

    /// The backbone that is built in: a ResNet-50 of three eighths of the width for 224 x 224 pixels, distilled from an
    /// ImageNet one (`models/default.md`). Without a tap its features are those of layer2 to layer4; without an input
    /// recipe or geometry the whole picture is stretched, as in training.
    pub fn embedded(options: &Options) -> Result<Backbone, Error> {
        let mut options = options.clone();
        options.tap.get_or_insert_with(|| Tap(vec![Stage::Layer2, Stage::Layer3, Stage::Layer4]));
        if options.input.is_none() {
            options.resize.get_or_insert(Resize::Stretch);
        }
        Self::from_source(Path::new("(embedded)"), Source::Bytes(EMBEDDED.into()), None, &options)
    }

    /// `folder` is where files of tensor data may lie.
    fn from_source(path: &Path, source: Source, folder: Option<&Path>, options: &Options) -> Result<Backbone, Error> {
        let own = source.sha256().map_err(|source| Error::Io { path: path.into(), source })?;
        let model = onnx::Model::parse_in(path, source, folder);
        let sha256 = model.as_ref().map_or(Ok(own), |model| model.sha256(own))?;
        if options.sha256.is_some_and(|wanted| wanted != sha256) {
            return Err(Error::OtherFile { path: path.into(), sha256 });
        }
        let mut model = model?;
        let mut trunk = Trunk::of(&mut model, options)?;
        let found = std::mem::take(&mut trunk.found);
        let taps = stages::select(path, &found, options.tap.as_ref())?;
        let tap = Tap(taps.iter().map(|t| t.stage).collect());
        let of_cells = if options.cells { cells::stages(&tap, &found) } else { Vec::new() };
        let is_output = |stage: &Stage| tap.0.contains(stage) || of_cells.contains(stage);
        let taps: Vec<_> = found.iter().filter(|output| is_output(&output.stage)).cloned().collect();
        trunk.cut(&model, &taps)?;
        let recipe = trunk.picture.recipe.clone();
        let isa = kernels::Isa::detect()?;
        let threads = match options.threads {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            n => n,
        };
        let request = Request {
            model: &model,
            graph: &trunk.graph,
            format: trunk.format(),
            input: &trunk.picture.name,
            recipe: &recipe,
            maps: &trunk.maps,
            taps: &taps,
            round_sums: model.metadata(SUMS_KEY) != Some("unrounded"),
            isa,
            threads,
            cache: options.cache.as_deref().map(|folder| Cache { folder, sha256 }),
        };
        let unsupported = |reason: String| model.unsupported(reason);
        let multi_crop = match model.metadata(VIEWS_KEY) {
            _ if options.tiles > 1 => MultiCrop::tiles(options.tiles, &recipe).map_err(unsupported)?,
            None => MultiCrop::default(),
            Some(name) => MultiCrop::by_name(name)
                .ok_or_else(|| Error::UnknownViews { path: model.path.clone(), name: name.into() })?,
        };
        let network = compile::build(&request)?;
        let outputs = taps.iter().map(|t| t.stage).collect();
        let pooling = options.pooling.unwrap_or_default();
        if pooling == Pooling::None && matches!(multi_crop, MultiCrop::Tiles(_)) {
            return Err(unsupported("tiles are pooled: give no --pooling none with --tiles".into()));
        }
        let prepared = multi_crop.recipe(&recipe);
        Ok(Backbone {
            path: None,
            sha256,
            tap,
            of_cells,
            outputs,
            pooling,
            input: recipe,
            own_levels: trunk.picture.own,
            prepared,
            multi_crop,
            mask: options.mask.clone(),
            isa,
            threads,
            network,
        })
    }

    /// Paints over what is masked, resizes and crops a picture as the recipe says, to the size that the crops are taken from.
    pub fn prepare(&self, picture: &RgbImage) -> Result<RgbImage, Error> {
        self.prepare_masked(&self.mask.paint(picture))
    }

    /// The same of a picture that is painted over already.
    pub fn prepare_masked(&self, picture: &RgbImage) -> Result<RgbImage, Error> {
        Ok(crate::image::prepare(picture, &self.prepared)?)
    }

    /// Where a prepared picture of `width` x `height` pixels holds what is masked, in full or in part; None without a mask.
    pub fn masked(&self, width: u32, height: u32) -> Result<Option<Vec<bool>>, Error> {
        if self.mask.is_empty() {
            return Ok(None);
        }
        let [black, white] = [0, 255].map(|level| RgbImage::from_pixel(width, height, ::image::Rgb([level; 3])));
        let [black, white] = [self.prepare(&black)?, self.prepare(&white)?];
        Ok(Some(black.pixels().zip(white.pixels()).map(|(black, white)| white[0] - black[0] < 255).collect()))
    }

    /// Runs the network on every crop of a prepared picture, the whole one first: for each crop one map per stage of
    /// the tap and of the cells, before pooling.
    pub fn forward(&self, prepared: &RgbImage) -> Result<Vec<Vec<FeatureMap>>, Error> {
        let mut maps = vec![self.forward_whole(prepared)?];
        if self.multi_crop == MultiCrop::WholeAndCorners {
            for corner in multi_crop::corners(prepared, &self.input) {
                maps.push(self.run(&corner)?);
            }
        }
        Ok(maps)
    }

    /// Runs the network on the whole of a prepared picture alone: the first maps of [`Backbone::forward`]. Of tiles, one map per
    /// stage of all together.
    pub fn forward_whole(&self, prepared: &RgbImage) -> Result<Vec<FeatureMap>, Error> {
        let (width, height) = (self.prepared.width, self.prepared.height);
        if prepared.dimensions() != (width, height) {
            let (got_width, got_height) = prepared.dimensions();
            return Err(Error::PictureSize { width, height, got_width, got_height });
        }
        match self.multi_crop {
            MultiCrop::Whole => self.run(prepared),
            MultiCrop::WholeAndCorners => self.run(&multi_crop::whole(prepared, &self.input)?),
            MultiCrop::Tiles(n) => {
                let tiles: Result<Vec<_>, _> =
                    multi_crop::tiles(prepared, &self.input, n).map(|tile| self.run(&tile)).collect();
                let tiles = tiles?;
                let stage = |at: usize| tiles.iter().map(|maps| &maps[at]).collect::<Vec<_>>();
                Ok((0..self.outputs.len()).map(|at| multi_crop::joined(&stage(at), &self.input, n)).collect())
            }
        }
    }

    fn run(&self, crop: &RgbImage) -> Result<Vec<FeatureMap>, Error> {
        let fail = |e: TractError| Error::Run { path: self.name().into(), reason: format!("{e:#}") };
        let outputs = self.network.run(crop).map_err(fail)?;
        let maps = outputs.iter().zip(&self.network.outputs).zip(&self.outputs);
        maps.map(|((tensor, &[height, width, channels]), &stage)| {
            let data = ops::slice::<f32>(tensor).map_err(fail)?.to_vec();
            Ok(FeatureMap { stage, height, width, channels, data })
        })
        .collect()
    }

    /// The mean of the crops' pooled maps.
    pub fn pool(&self, crops: &[Vec<FeatureMap>]) -> Vec<f32> {
        let mut pooled = crops.iter().map(|maps| self.pool_crop(maps));
        let Some(mut mean) = pooled.next() else { return Vec::new() };
        for row in pooled {
            mean.iter_mut().zip(row).for_each(|(sum, value)| *sum += value);
        }
        if crops.len() > 1 {
            mean.iter_mut().for_each(|sum| *sum /= crops.len() as f32);
        }
        mean
    }

    /// Pools the maps of the tap of one crop and joins them.
    pub fn pool_crop(&self, maps: &[FeatureMap]) -> Vec<f32> {
        let one = |map: &FeatureMap| match self.pooling {
            Pooling::Avg => kernels::average_pool_f32(&map.data, map.channels),
            Pooling::Max => kernels::max_pool_f32(&map.data, map.channels),
            Pooling::None => map.data.clone(),
        };
        maps.iter().filter(|map| self.tap.0.contains(&map.stage)).flat_map(one).collect()
    }

    /// The cells of the whole picture, from what [`Backbone::forward`] gave; None where none were wanted.
    pub fn cells(&self, crops: &[Vec<FeatureMap>]) -> Option<Cells> {
        let of_cells = |map: &&FeatureMap| self.of_cells.contains(&map.stage);
        Cells::of(&crops.first()?.iter().filter(of_cells).collect::<Vec<_>>(), self.tiles() as usize)
    }

    /// Feature vector and cells of a prepared picture.
    pub fn sample(&self, prepared: &RgbImage) -> Result<(Vec<f32>, Option<Cells>), Error> {
        let crops = self.forward(prepared)?;
        Ok((self.pool(&crops), self.cells(&crops)))
    }

    /// The feature vector of a prepared picture.
    pub fn features_of(&self, prepared: &RgbImage) -> Result<Vec<f32>, Error> {
        Ok(self.sample(prepared)?.0)
    }

    /// The feature vector of a picture of any size.
    pub fn features(&self, picture: &RgbImage) -> Result<Vec<f32>, Error> {
        self.features_of(&self.prepare(picture)?)
    }

    /// Length of the feature vector.
    pub fn n_features(&self) -> usize {
        let one = |[h, w, c]: &[usize; 3]| if self.pooling == Pooling::None { h * w * c } else { *c };
        let of_tap = |(_, stage): &(_, &Stage)| self.tap.0.contains(stage);
        self.network.outputs.iter().zip(&self.outputs).filter(of_tap).map(|(dims, _)| one(dims)).sum()
    }

    /// Whether [`Backbone::cells`] are given.
    pub fn has_cells(&self) -> bool {
        !self.of_cells.is_empty()
    }

    pub fn tap(&self) -> &Tap {
        &self.tap
    }

    pub fn pooling(&self) -> Pooling {
        self.pooling
    }

    /// How a picture enters the network; the crops are taken from a larger one where they are several.
    pub fn input(&self) -> &InputRecipe {
        &self.input
    }

    pub fn multi_crop(&self) -> MultiCrop {
        self.multi_crop
    }

    /// Tiles across and down; 1 without.
    pub fn tiles(&self) -> u32 {
        match self.multi_crop {
            MultiCrop::Tiles(n) => n,
            MultiCrop::Whole | MultiCrop::WholeAndCorners => 1,
        }
    }

    /// What of the picture the network does not see.
    pub fn mask(&self) -> &Mask {
        &self.mask
    }

    /// SHA-256 of the ONNX file.
    pub fn sha256(&self) -> [u8; 32] {
        self.sha256
    }

    /// None for the built-in backbone.
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// The instruction set of the int8 kernels.
    pub fn isa(&self) -> &'static str {
        self.isa.name()
    }

    pub fn threads(&self) -> usize {
        self.threads
    }

    /// Multiplications for one picture, about.
    pub fn work(&self) -> u64 {
        self.network.work.saturating_mul(self.multi_crop.count() as u64)
    }

    /// Lines for people: the file's format, which part is fused, which part runs as tract runs it.
    pub fn describe(&self) -> Vec<String> {
        let mut lines = self.network.fusion.describe();
        lines.extend(self.own_levels.map(|range| {
            let levels = if range == Range::Raw { "0 to 255" } else { "0 to 1" };
            format!("normalisation: the file's own, of levels {levels}")
        }));
        lines
    }

    /// Which part is fused into int8 operators.
    pub fn fusion(&self) -> &Fusion {
        &self.network.fusion
    }

    fn name(&self) -> &Path {
        self.path.as_deref().unwrap_or(Path::new("(embedded)"))
    }
}
