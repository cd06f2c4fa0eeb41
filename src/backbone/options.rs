//! What to run and how, and how a file may say it.

use std::path::PathBuf;

use super::tap::{Pooling, Tap};
use crate::image::mask::Mask;
use crate::image::{ChannelOrder, InputRecipe, Resize};

/// The metadata key that names the input recipe, or says it: `rgb` or `bgr`, three means, `/`, three scales.
pub const INPUT_KEY: &str = "outlierd.input";

/// The metadata key that says how residual sums are meant: `unrounded` leaves out the rounding of a convolution's own
/// output before its residual sum, which is nearer to the float network; without it they are as the file writes them.
pub const SUMS_KEY: &str = "outlierd.sums";

/// What to run and how.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// None: the last stage that the file has.
    pub tap: Option<Tap>,
    /// None: [`Pooling::Avg`].
    pub pooling: Option<Pooling>,
    /// None: the file's own mark (metadata `outlierd.input`), else `torch`. A file with a fixed input size
    /// overrides the recipe's size.
    pub input: Option<InputRecipe>,
    /// None: the recipe's own geometry.
    pub resize: Option<Resize>,
    /// 0: all cores.
    pub threads: usize,
    /// The file that is wanted: another is refused before it is read.
    pub sha256: Option<[u8; 32]>,
    /// Whether [`Backbone::cells`] are wanted too.
    pub cells: bool,
    /// What of the picture the network is not to see.
    pub mask: Mask,
    /// Tiles across and down, at most [`multi_crop::MAX_TILES`]; 0 and 1: the crops that the file wants.
    pub tiles: u32,
    /// The folder of packed weights that all processes with the same network share. None, or a folder that cannot be
    /// used: they are in the memory of each.
    pub cache: Option<PathBuf>,
}

/// The normalised value of every level per channel of the network, and which of R, G, B each channel is.
pub(super) fn input_table(recipe: &InputRecipe) -> ([[f32; 256]; 3], [usize; 3]) {
    let channel = |c: usize| std::array::from_fn(|v| (v as f32 - recipe.mean[c]) / recipe.std[c]);
    let order = match recipe.order {
        ChannelOrder::Rgb => [0, 1, 2],
        ChannelOrder::Bgr => [2, 1, 0],
    };
    (std::array::from_fn(channel), order)
}
