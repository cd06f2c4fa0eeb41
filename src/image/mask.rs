//! Masks: parts of a picture that are ignored, as polygons.
//!
//! They are painted over before anything else sees the picture, so nothing under a mask reaches a feature, not even through
//! the network's receptive fields. In pictures for users they are hatched, so that what is there stays visible.

use std::borrow::Cow;

use ::image::{Rgb, RgbImage};

/// Most polygons, and corners of one.
pub const MAX_POLYGONS: usize = 64;
pub const MAX_CORNERS: usize = 256;
/// ImageNet's mean colour, which is zero to the network.
const PAINT: Rgb<u8> = Rgb([124, 116, 104]);
/// Opacity of the stripes.
const OPACITY: f32 = 0.5;

/// Polygons whose corners are shares of the picture's width and height; a place is masked where it lies within one of them
/// by the even-odd rule.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Mask {
    polygons: Vec<Vec<[f64; 2]>>,
}

impl Mask {
    /// Checks polygons; the error is the reason.
    pub fn new(polygons: Vec<Vec<[f64; 2]>>) -> Result<Mask, String> {
        if polygons.len() > MAX_POLYGONS {
            return Err(format!("there are {} masks: at most {MAX_POLYGONS}", polygons.len()));
        }
        for polygon in &polygons {
            if !(3..=MAX_CORNERS).contains(&polygon.len()) {
                return Err(format!("a mask has {} corners: 3 to {MAX_CORNERS} make a polygon", polygon.len()));
            }
            if let Some([x, y]) = polygon.iter().find(|at| !at.iter().all(|share| (0.0..=1.0).contains(share))) {
                return Err(format!("a mask has a corner at [{x}, {y}]: write shares of the picture, 0.0 to 1.0"));
            }
        }
        Ok(Mask { polygons })
    }

    pub fn polygons(&self) -> &[Vec<[f64; 2]>] {
        &self.polygons
    }

    pub fn is_empty(&self) -> bool {
        self.polygons.is_empty()
    }

    /// The picture with the mask painted over.
    pub fn paint<'a>(&self, picture: &'a RgbImage) -> Cow<'a, RgbImage> {
        if self.is_empty() {
            return Cow::Borrowed(picture);
        }
        let mut painted = picture.clone();
        for polygon in &self.polygons {
            spans(polygon, picture.dimensions(), |y, columns| {
                columns.for_each(|x| painted.put_pixel(x, y, PAINT));
            });
        }
        Cow::Owned(painted)
    }

    /// The picture with stripes and the word "ignored" over the mask.
    pub fn hatch<'a>(&self, picture: &'a RgbImage) -> Cow<'a, RgbImage> {
        if self.is_empty() {
            return Cow::Borrowed(picture);
        }
        let mut hatched = picture.clone();
        let unit = picture.width().min(picture.height()) / 240 + 1;
        for polygon in &self.polygons {
            let mut widest = (0..0, 0);
            spans(polygon, picture.dimensions(), |y, columns| {
                for x in columns.clone() {
                    let shade = match ((x + y) / (2 * unit)) % 4 {
                        0 => 255.0,
                        2 => 0.0,
                        _ => continue,
                    };
                    let pixel = hatched.get_pixel_mut(x, y);
                    pixel.0 = pixel.0.map(|v| (f32::from(v) + OPACITY * (shade - f32::from(v))) as u8);
                }
                if columns.len() > widest.0.len() {
                    widest = (columns, y);
                }
            });
            label(&mut hatched, &widest.0, widest.1, unit);
        }
        Cow::Owned(hatched)
    }
}

/// Calls `row` with the ranges of columns whose pixel centres lie in a polygon, row by row.
fn spans(polygon: &[[f64; 2]], (width, height): (u32, u32), mut row: impl FnMut(u32, std::ops::Range<u32>)) {
    let corners: Vec<[f64; 2]> = polygon.iter().map(|[x, y]| [x * f64::from(width), y * f64::from(height)]).collect();
    let mut crossings = Vec::new();
    for y in 0..height {
        let at = f64::from(y) + 0.5;
        crossings.clear();
        for (i, [x0, y0]) in corners.iter().enumerate() {
            let [x1, y1] = corners[(i + 1) % corners.len()];
            if (*y0 <= at) != (y1 <= at) {
                crossings.push(x0 + (at - y0) / (y1 - y0) * (x1 - x0));
            }
        }
        crossings.sort_by(f64::total_cmp);
        for pair in crossings.chunks_exact(2) {
            let [first, end] = [pair[0], pair[1]].map(|x| ((x - 0.5).ceil().max(0.0) as u32).min(width));
            if first < end {
                row(y, first..end);
            }
        }
    }
}

const GLYPH: [u32; 2] = [5, 7];
/// "ignored", one bit per pixel, the leftmost highest.
const WORD: [[u8; 7]; 7] = [
    [0b00100, 0b00000, 0b01100, 0b00100, 0b00100, 0b00100, 0b01110],
    [0b00000, 0b01111, 0b10001, 0b10001, 0b01111, 0b00001, 0b01110],
    [0b00000, 0b00000, 0b10110, 0b11001, 0b10001, 0b10001, 0b10001],
    [0b00000, 0b00000, 0b01110, 0b10001, 0b10001, 0b10001, 0b01110],
    [0b00000, 0b00000, 0b10110, 0b11001, 0b10000, 0b10000, 0b10000],
    [0b00000, 0b00000, 0b01110, 0b10001, 0b11111, 0b10000, 0b01110],
    [0b00001, 0b00001, 0b01101, 0b10011, 0b10001, 0b10001, 0b01111],
];

/// Writes the word in white on black in the middle of a range of columns, scaled to its width; not where it would be
/// illegible.
fn label(picture: &mut RgbImage, columns: &std::ops::Range<u32>, y: u32, unit: u32) {
    let [wide, high] = [(GLYPH[0] + 1) * WORD.len() as u32 + 1, GLYPH[1] + 2];
    let scale = (columns.len() as u32 / wide).min(2 * unit);
    if scale == 0 || picture.height() < high * scale {
        return;
    }
    let left = columns.start + (columns.len() as u32 - wide * scale) / 2;
    let top = y.saturating_sub(high * scale / 2).min(picture.height() - high * scale);
    for v in 0..high * scale {
        for u in 0..wide * scale {
            let (row, column) = ((v / scale).wrapping_sub(1), (u / scale).wrapping_sub(1));
            let letter = WORD.get((column / (GLYPH[0] + 1)) as usize);
            let bits = letter.and_then(|letter| letter.get(row as usize)).copied().unwrap_or(0);
            let lit = column % (GLYPH[0] + 1) < GLYPH[0] && bits >> (GLYPH[0] - 1 - column % (GLYPH[0] + 1)) & 1 == 1;
            picture.put_pixel(left + u, top + v, if lit { Rgb([255; 3]) } else { Rgb([0; 3]) });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mask(polygons: &[&[[f64; 2]]]) -> Mask {
        Mask::new(polygons.iter().map(|polygon| polygon.to_vec()).collect()).unwrap()
    }

    fn noise(width: u32, height: u32, phase: u32) -> RgbImage {
        RgbImage::from_fn(width, height, |x, y| Rgb([(x * 7 + phase) as u8, (y * 5) as u8, (x * y + phase) as u8]))
    }

    #[test]
    fn pixels_whose_centres_lie_within_are_painted() {
        let corner = mask(&[&[[0.0, 0.0], [0.5, 0.0], [0.5, 0.25], [0.0, 0.25]]]);
        let picture = noise(20, 16, 0);
        let painted = corner.paint(&picture);
        for (x, y, pixel) in painted.enumerate_pixels() {
            let wanted = if x < 10 && y < 4 { &PAINT } else { picture.get_pixel(x, y) };
            assert_eq!(pixel, wanted, "{x} {y}");
        }
        assert!(matches!(Mask::default().paint(&picture), Cow::Borrowed(_)));
        // A concave polygon: a U, whose notch stays.
        let u = [[0.1, 0.1], [0.3, 0.1], [0.3, 0.7], [0.7, 0.7], [0.7, 0.1], [0.9, 0.1], [0.9, 0.9], [0.1, 0.9]];
        let painted = mask(&[&u]).paint(&picture).into_owned();
        assert_eq!(painted.get_pixel(10, 4), picture.get_pixel(10, 4));
        assert!([(3, 4), (16, 4), (10, 12)].iter().all(|(x, y)| painted.get_pixel(*x, *y) == &PAINT));
        let all = mask(&[&[[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]]]);
        assert!(all.paint(&picture).pixels().all(|pixel| pixel == &PAINT));
    }

    #[test]
    fn every_shape_and_size_stays_inside() {
        let shapes: [&[[f64; 2]]; 4] = [
            &[[0.0, 0.0], [1.0, 1.0], [1.0, 0.0], [0.0, 1.0]],
            &[[0.5, 0.5], [0.5, 0.5], [0.5, 0.5]],
            &[[0.0, 0.0], [1.0, 0.001], [0.0, 0.002]],
            &[[1.0, 1.0], [0.0, 1.0], [0.3, 0.0]],
        ];
        for (width, height) in [(1, 1), (3, 2), (2, 700), (641, 479), (1280, 720)] {
            let picture = noise(width, height, 3);
            for shape in shapes {
                assert_eq!(mask(&[shape]).paint(&picture).dimensions(), (width, height));
                assert_eq!(mask(&[shape]).hatch(&picture).dimensions(), (width, height));
            }
        }
    }

    #[test]
    fn hatching_stays_under_the_mask_and_says_so_where_there_is_room() {
        let right = mask(&[&[[0.5, 0.0], [1.0, 0.0], [1.0, 1.0], [0.5, 1.0]]]);
        let grey = RgbImage::from_pixel(640, 480, Rgb([100; 3]));
        let hatched = right.hatch(&grey);
        assert!(hatched.enumerate_pixels().all(|(x, _, pixel)| x >= 320 || pixel == &Rgb([100; 3])));
        let count = |value: u8| hatched.pixels().filter(|pixel| pixel.0 == [value; 3]).count();
        assert!(count(177) > 20_000 && count(50) > 20_000 && count(100) > 200_000);
        assert!(count(255) > 300, "the word's letters: {}", count(255));
        let small = right.hatch(&RgbImage::from_pixel(40, 30, Rgb([100; 3]))).into_owned();
        assert!(small.pixels().all(|pixel| pixel.0 != [255; 3]));
    }

    #[test]
    fn nonsense_is_refused() {
        let refused = |polygons: Vec<Vec<[f64; 2]>>, part: &str| {
            let reason = Mask::new(polygons).unwrap_err();
            assert!(reason.contains(part), "{reason}");
        };
        refused(vec![vec![[0.0, 0.0], [1.0, 1.0]]], "2 corners");
        refused(vec![vec![[0.0, 0.0], [1.0, 1.0], [0.0, 480.0]]], "[0, 480]");
        refused(vec![vec![[0.0, 0.0], [1.0, f64::NAN], [0.0, 1.0]]], "NaN");
        refused(vec![vec![[0.0; 2]; MAX_CORNERS + 1]], "257 corners");
        refused(vec![vec![[0.0; 2]; 3]; MAX_POLYGONS + 1], "65 masks");
    }
}
