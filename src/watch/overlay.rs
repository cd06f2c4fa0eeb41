//! A heat map for people: the picture in grey, tinted where it departs from what the model knows, with a frame around
//! the hot region. What the network did not see is darkened.

use ::image::{Rgb, RgbImage};

use crate::model::anomaly_map::{AnomalyMap, PlacedMap};

/// Opacity of the tint at the hottest place.
const OPACITY: f32 = 0.7;
/// What is left of the picture's own colour under the tint, so that a red object does not look hot.
const COLOUR: f32 = 0.25;
/// What is left of the light where the network did not look.
const UNSEEN: f32 = 0.4;
/// From the faintest to the hottest.
const RAMP: [[f32; 3]; 3] = [[255.0, 235.0, 60.0], [255.0, 130.0, 0.0], [225.0, 0.0, 20.0]];

/// A heat to be drawn over its picture.
#[derive(Debug, Clone, PartialEq)]
pub struct HeatMap {
    pub placed: PlacedMap,
    /// First and last row and column of the hot region.
    region: ([usize; 2], [usize; 2]),
}

impl HeatMap {
    /// None where nothing is hot.
    pub fn new(placed: PlacedMap) -> Option<Self> {
        let region = placed.map.hot_region()?;
        Some(HeatMap { placed, region })
    }

    /// What is hot: left, top, width, height in pixels of the picture.
    pub fn hot(&self) -> [f64; 4] {
        let ([first, last], [left, right]) = self.region;
        let [x, y, ..] = self.placed.cell(first, left);
        let [end_x, end_y, width, height] = self.placed.cell(last, right);
        [x, y, end_x + width - x, end_y + height - y]
    }

    /// What is hot: left, top, width, height as shares of a picture of that size, to four places.
    pub fn region(&self, width: u32, height: u32) -> [f64; 4] {
        let (width, height) = (f64::from(width), f64::from(height));
        let [x, y, w, h] = self.hot();
        let round = |share: f64| (share.clamp(0.0, 1.0) * 1e4).round() / 1e4;
        let (left, top) = (round(x / width), round(y / height));
        [left, top, round((x + w) / width - left), round((y + h) / height - top)]
    }

    /// The map for a smaller copy of the picture that it was made for.
    pub fn scaled(mut self, picture: &RgbImage, copy: &RgbImage) -> Self {
        let share = |small: u32, all: u32| f64::from(small) / f64::from(all.max(1));
        let (across, down) = (share(copy.width(), picture.width()), share(copy.height(), picture.height()));
        let [x, y, width, height] = self.placed.region;
        self.placed.region = [x * across, y * down, width * across, height * down];
        self
    }

    /// Draws the map over a picture of the size that it was made for.
    pub fn draw(&self, picture: &RgbImage) -> RgbImage {
        let levels = levels(&self.placed.map);
        let [left, top, width, height] = self.placed.region;
        let mut drawn = picture.clone();
        for (x, y, pixel) in drawn.enumerate_pixels_mut() {
            let (u, v) = ((f64::from(x) + 0.5 - left) / width, (f64::from(y) + 0.5 - top) / height);
            let [r, g, b] = pixel.0.map(f32::from);
            let grey = 0.299 * r + 0.587 * g + 0.114 * b;
            let seen = (0.0..1.0).contains(&u) && (0.0..1.0).contains(&v);
            let level = if seen { levels.between(u, v) } else { 0.0 };
            let (tint, opacity, light) = (ramp(level), OPACITY * level, if seen { 1.0 } else { UNSEEN });
            pixel.0 = std::array::from_fn(|c| {
                let ground = (grey + COLOUR * ([r, g, b][c] - grey)) * light;
                (ground + opacity * (tint[c] - ground)).round() as u8
            });
        }
        self.outline(&mut drawn);
        drawn
    }

    /// White with a black edge: it shows on any ground.
    fn outline(&self, drawn: &mut RgbImage) {
        let line = f64::from(drawn.width().min(drawn.height()) / 200 + 1);
        let [left, top, width, height] = self.hot();
        let (right, bottom) = (left + width, top + height);
        let first = |edge: f64| (edge - 2.0 * line).max(0.0) as u32;
        let last = |edge: f64, side: u32| ((edge + 2.0 * line).ceil() as u32).min(side);
        for y in first(top)..last(bottom, drawn.height()) {
            for x in first(left)..last(right, drawn.width()) {
                let (px, py) = (f64::from(x) + 0.5, f64::from(y) + 0.5);
                let outside = (left - px).max(px - right).max(top - py).max(py - bottom);
                if outside.abs() <= line {
                    let white = outside.abs() <= line / 2.0;
                    drawn.put_pixel(x, y, if white { Rgb([255; 3]) } else { Rgb([0; 3]) });
                }
            }
        }
    }
}

/// Shares as levels from 0 (the median and below) to 1 (the hottest), bent so that the faint stays faint.
fn levels(map: &AnomalyMap) -> AnomalyMap {
    let mut sorted = map.cells.clone();
    sorted.sort_by(f32::total_cmp);
    let (floor, top) = (sorted[sorted.len() / 2], sorted[sorted.len() - 1]);
    let range = (top - floor).max(f32::MIN_POSITIVE);
    let level = |share: &f32| ((share - floor) / range).clamp(0.0, 1.0).powf(1.5);
    AnomalyMap { cells: map.cells.iter().map(level).collect(), ..*map }
}

fn ramp(level: f32) -> [f32; 3] {
    let at = level.clamp(0.0, 1.0) * (RAMP.len() - 1) as f32;
    let low = (at as usize).min(RAMP.len() - 2);
    std::array::from_fn(|c| RAMP[low][c] + (at - low as f32) * (RAMP[low + 1][c] - RAMP[low][c]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(seen: [f64; 4]) -> HeatMap {
        let mut cells = vec![1.0; 16];
        cells[6] = 9.0;
        HeatMap::new(AnomalyMap { height: 4, width: 4, cells }.at(seen)).unwrap()
    }

    fn is_red(pixel: &Rgb<u8>) -> bool {
        let [r, g, b] = pixel.0.map(i32::from);
        r > g + 60 && r > b + 60
    }

    #[test]
    fn the_tint_lies_where_the_network_looked() {
        let picture = RgbImage::from_pixel(400, 200, Rgb([100, 100, 100]));
        let map = map([100.0, 0.0, 200.0, 200.0]);
        assert_eq!(map.hot(), [200.0, 50.0, 50.0, 50.0]);
        assert_eq!(map.region(400, 200), [0.5, 0.25, 0.125, 0.25]);
        let drawn = map.draw(&picture);
        assert!(is_red(drawn.get_pixel(225, 75)));
        assert_eq!(drawn.get_pixel(150, 150), &Rgb([100; 3]));
        assert_eq!(drawn.get_pixel(50, 75), &Rgb([40; 3]));
        for (x, y) in [(200, 75), (250, 75), (225, 50), (225, 100)] {
            assert_eq!(drawn.get_pixel(x, y), &Rgb([255; 3]), "{x} {y}");
        }
        for (x, y) in [(198, 75), (251, 75)] {
            assert_eq!(drawn.get_pixel(x, y), &Rgb([0; 3]), "{x} {y}");
        }
    }

    #[test]
    fn any_size_is_drawn() {
        for (width, height) in [(1, 1), (3, 2), (2, 700), (1280, 720)] {
            let picture = RgbImage::from_pixel(width, height, Rgb([255, 0, 0]));
            let map = map([0.0, 0.0, f64::from(width), f64::from(height)]);
            assert_eq!(map.draw(&picture).dimensions(), (width, height));
        }
        let one = HeatMap::new(AnomalyMap { height: 1, width: 1, cells: vec![2.0] }.at([0.0, 0.0, 8.0, 8.0])).unwrap();
        one.draw(&RgbImage::new(8, 8));
    }

    #[test]
    fn nothing_hot_is_no_map() {
        for share in [0.0, -1.0, f32::NAN] {
            let map = AnomalyMap { height: 2, width: 2, cells: vec![share; 4] };
            assert_eq!(HeatMap::new(map.at([0.0, 0.0, 8.0, 8.0])), None);
        }
        assert_eq!(HeatMap::new(AnomalyMap { height: 0, width: 0, cells: Vec::new() }.at([0.0, 0.0, 8.0, 8.0])), None);
    }
}
