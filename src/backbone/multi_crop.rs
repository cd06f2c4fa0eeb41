//! Multi-crop: several crops of one picture. The features of the whole and its corners are averaged: those of a single
//! crop depend on where the grids of the network's strides fall; the mean over crops where they fall differently does so
//! less. The maps of tiles are joined into those of one large picture.

use ::image::RgbImage;
use ::image::imageops::crop_imm;

use super::tap::FeatureMap;
use crate::image::{self, InputRecipe, Resize};

/// The metadata key that says of which crops a file's features are the mean; without it the whole picture is one.
pub const VIEWS_KEY: &str = "outlierd.views";

/// Which crops of the prepared picture the network sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MultiCrop {
    #[default]
    Whole,
    /// The whole picture, then its four corners, a tenth nearer.
    WholeAndCorners,
    /// So many tiles across and down, which overlap; together the whole picture.
    Tiles(u32),
}

/// Most tiles along a side.
pub const MAX_TILES: u32 = 4;
/// The greatest stride of a network: tiles are a multiple of it apart, so that their maps fit together.
const STRIDE: u32 = 32;

/// From one tile to the next, of a network whose input has that side: they overlap by a stride at least.
fn step(side: u32) -> u32 {
    (side.saturating_sub(STRIDE) / STRIDE * STRIDE).max(STRIDE)
}

impl MultiCrop {
    /// The crops of that name.
    pub fn by_name(name: &str) -> Option<MultiCrop> {
        match name {
            "whole" => Some(MultiCrop::Whole),
            "whole+corners" => Some(MultiCrop::WholeAndCorners),
            _ => None,
        }
    }

    /// So many tiles across and down of a network that takes `input`; the reason if there cannot be.
    pub fn tiles(n: u32, input: &InputRecipe) -> Result<MultiCrop, String> {
        let (width, height) = (input.width, input.height);
        if !(1..=MAX_TILES).contains(&n) {
            return Err(format!("{n} x {n} tiles: at most {MAX_TILES} x {MAX_TILES}"));
        }
        if [width, height].iter().any(|side| !side.is_multiple_of(STRIDE) || *side < 2 * STRIDE) {
            let reason = format!("tiles need sides that are multiples of {STRIDE} pixels, from {}; ", 2 * STRIDE);
            return Err(format!("{reason}its input has {width} x {height}"));
        }
        Ok(MultiCrop::Tiles(n))
    }

    /// How many runs of the network a picture takes.
    pub fn count(self) -> usize {
        match self {
            MultiCrop::Whole => 1,
            MultiCrop::WholeAndCorners => 5,
            MultiCrop::Tiles(n) => (n * n) as usize,
        }
    }

    /// The recipe for the picture that the crops are taken from, for a network that takes `input`.
    pub fn recipe(self, input: &InputRecipe) -> InputRecipe {
        let side = |side: u32| match self {
            MultiCrop::Whole => side,
            MultiCrop::WholeAndCorners => side + side.div_ceil(10),
            MultiCrop::Tiles(n) => side + (n - 1) * step(side),
        };
        input.clone().with_size(side(input.width), side(input.height))
    }
}

/// All of a prepared picture, at the size of `input`.
pub fn whole(prepared: &RgbImage, input: &InputRecipe) -> Result<RgbImage, image::Error> {
    image::prepare(prepared, &input.clone().with_resize(Resize::Stretch))
}

/// The corners of a prepared picture, each of the size of `input`.
pub fn corners(prepared: &RgbImage, input: &InputRecipe) -> [RgbImage; 4] {
    let (width, height) = (input.width, input.height);
    let (right, low) = (prepared.width().saturating_sub(width), prepared.height().saturating_sub(height));
    let corners = [(0, 0), (right, 0), (0, low), (right, low)];
    corners.map(|(x, y)| crop_imm(prepared, x, y, width, height).to_image())
}

/// The tiles of a prepared picture, row by row, each of the size of `input`.
pub fn tiles(prepared: &RgbImage, input: &InputRecipe, n: u32) -> impl Iterator<Item = RgbImage> {
    let (width, height) = (input.width, input.height);
    let places = (0..n).flat_map(move |row| (0..n).map(move |column| (column * step(width), row * step(height))));
    places.map(move |(x, y)| crop_imm(prepared, x, y, width, height).to_image())
}

/// One map of the maps of `n x n` tiles, row by row, of a network that takes `input`; where two overlap, each gives its half.
pub fn joined(tiles: &[&FeatureMap], input: &InputRecipe, n: u32) -> FeatureMap {
    let first = tiles[0];
    let n = n as usize;
    // From one tile to the next, in places of the map.
    let apart = |places: usize, side: u32| places * step(side) as usize / side as usize;
    let (down, across) = (apart(first.height, input.height), apart(first.width, input.width));
    let (height, width) = (first.height + (n - 1) * down, first.width + (n - 1) * across);
    let owner = |at: usize, places: usize, apart: usize| {
        let tile = (at.saturating_sub((places - apart) / 2) / apart.max(1)).min(n - 1);
        (tile, at - tile * apart)
    };
    let mut data = Vec::with_capacity(height * width * first.channels);
    for y in 0..height {
        let (row, y) = owner(y, first.height, down);
        for x in 0..width {
            let (column, x) = owner(x, first.width, across);
            let from = (y * first.width + x) * first.channels;
            data.extend_from_slice(&tiles[row * n + column].data[from..from + first.channels]);
        }
    }
    FeatureMap { stage: first.stage, height, width, channels: first.channels, data }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backbone::Stage;

    #[test]
    fn maps_of_tiles_are_those_of_one_large_picture() {
        // A network of stride 16 whose map is the corner of each 16 x 16 pixels.
        for (side, n) in [(224, 2), (224, 4), (64, 3), (192, 1), (256, 2)] {
            let input = InputRecipe::torch().with_size(side, side);
            let recipe = MultiCrop::Tiles(n).recipe(&input);
            let picture = RgbImage::from_fn(recipe.width, recipe.height, |x, y| {
                ::image::Rgb([(x / 16) as u8, (y / 16) as u8, 0])
            });
            let tiles: Vec<RgbImage> = tiles(&picture, &input, n).collect();
            assert_eq!(tiles.len(), MultiCrop::Tiles(n).count());
            let places = (side / 16) as usize;
            let maps: Vec<FeatureMap> = tiles
                .iter()
                .map(|tile| {
                    let at = |i: usize, c: usize| {
                        f32::from(tile.get_pixel(16 * (i % places) as u32, 16 * (i / places) as u32).0[c])
                    };
                    let data = (0..places * places).flat_map(|i| [at(i, 0), at(i, 1)]).collect();
                    FeatureMap { stage: Stage::Layer3, height: places, width: places, channels: 2, data }
                })
                .collect();
            let joined = joined(&maps.iter().collect::<Vec<_>>(), &input, n);
            assert_eq!((joined.width * 16, joined.height * 16), (recipe.width as usize, recipe.height as usize));
            for (i, values) in joined.data.chunks(2).enumerate() {
                assert_eq!(values, [(i % joined.width) as f32, (i / joined.width) as f32], "{side} {n} {i}");
            }
        }
    }

    #[test]
    fn corners_are_those_of_a_larger_picture_and_the_whole_is_all_of_it() {
        let input = InputRecipe::torch().with_size(20, 30);
        let recipe = MultiCrop::WholeAndCorners.recipe(&input);
        assert_eq!((recipe.width, recipe.height), (22, 33));
        let picture = RgbImage::from_fn(22, 33, |x, y| ::image::Rgb([x as u8 * 10, y as u8 * 5, 0]));
        let whole = whole(&picture, &input).unwrap();
        let crops: Vec<RgbImage> = std::iter::once(whole).chain(corners(&picture, &input)).collect();
        assert_eq!(crops.len(), MultiCrop::WholeAndCorners.count());
        assert!(crops.iter().all(|crop| crop.dimensions() == (20, 30)));
        let firsts: Vec<[u8; 3]> = crops[1..].iter().map(|crop| crop.get_pixel(0, 0).0).collect();
        assert_eq!(firsts, [[0, 0, 0], [20, 0, 0], [0, 15, 0], [20, 15, 0]]);
        let [first, last] = [(0, 0), (19, 29)].map(|(x, y)| crops[0].get_pixel(x, y).0);
        assert!(first[0] < 5 && first[1] < 3 && last[0] > 205 && last[1] > 157, "{first:?} {last:?}");
        assert_eq!(MultiCrop::Whole.recipe(&input), input);
    }
}
