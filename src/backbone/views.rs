//! Several views of one picture, whose features are averaged. A feature of a single view depends on where the grids of
//! the network's strides fall; the mean over views where they fall differently does so less.

use ::image::RgbImage;
use ::image::imageops::crop_imm;

use crate::image::{self, InputRecipe, Resize};

/// The metadata key that says through which views a file's features are taken; without it the whole picture is one.
pub const VIEWS_KEY: &str = "outlierd.views";

/// Which views of the prepared picture the network sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Views {
    #[default]
    Whole,
    /// The whole picture, then its four corners, a tenth nearer.
    WholeAndCorners,
}

impl Views {
    /// The views of that name.
    pub fn by_name(name: &str) -> Option<Views> {
        match name {
            "whole" => Some(Views::Whole),
            "whole+corners" => Some(Views::WholeAndCorners),
            _ => None,
        }
    }

    /// How many runs of the network a picture takes.
    pub fn count(self) -> usize {
        match self {
            Views::Whole => 1,
            Views::WholeAndCorners => 5,
        }
    }

    /// The recipe for the picture that the views are taken from, for a network that takes `input`.
    pub fn recipe(self, input: &InputRecipe) -> InputRecipe {
        let side = |side: u32| match self {
            Views::Whole => side,
            Views::WholeAndCorners => side + side.div_ceil(10),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn corners_are_those_of_a_larger_picture_and_the_whole_is_all_of_it() {
        let input = InputRecipe::torch().with_size(20, 30);
        let recipe = Views::WholeAndCorners.recipe(&input);
        assert_eq!((recipe.width, recipe.height), (22, 33));
        let picture = RgbImage::from_fn(22, 33, |x, y| ::image::Rgb([x as u8 * 10, y as u8 * 5, 0]));
        let whole = whole(&picture, &input).unwrap();
        let views: Vec<RgbImage> = std::iter::once(whole).chain(corners(&picture, &input)).collect();
        assert_eq!(views.len(), Views::WholeAndCorners.count());
        assert!(views.iter().all(|view| view.dimensions() == (20, 30)));
        let firsts: Vec<[u8; 3]> = views[1..].iter().map(|view| view.get_pixel(0, 0).0).collect();
        assert_eq!(firsts, [[0, 0, 0], [20, 0, 0], [0, 15, 0], [20, 15, 0]]);
        let [first, last] = [(0, 0), (19, 29)].map(|(x, y)| views[0].get_pixel(x, y).0);
        assert!(first[0] < 5 && first[1] < 3 && last[0] > 205 && last[1] > 157, "{first:?} {last:?}");
        assert_eq!(Views::Whole.recipe(&input), input);
    }
}
