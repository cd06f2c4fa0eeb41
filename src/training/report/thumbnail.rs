//! A small picture inside the page.

use std::fmt::Write;

use ::image::RgbImage;

use crate::image::{self, jpeg};
use crate::model::anomaly_map::PlacedMap;

const SIDE: u32 = 160;

/// A JPEG of at most 160 pixels a side.
#[derive(Debug, Clone)]
pub struct Thumbnail {
    width: u32,
    height: u32,
    /// From the picture's pixels to those of the thumbnail, across and down.
    scale: [f64; 2],
    jpeg: Vec<u8>,
}

impl Thumbnail {
    /// Shrinks a picture.
    pub fn of(picture: &RgbImage) -> Result<Self, ::image::ImageError> {
        let small = image::reduced(picture, SIDE);
        let jpeg = jpeg::encode(&small, 80)?;
        let (width, height) = small.dimensions();
        let scale = |small: u32, all: u32| f64::from(small) / f64::from(all.max(1));
        let scale = [scale(width, picture.width()), scale(height, picture.height())];
        Ok(Thumbnail { width, height, scale, jpeg })
    }

    /// The picture, tinted by `map`, with a frame around its hottest cell, and dark where the network did not look.
    pub fn svg(&self, map: Option<&PlacedMap>) -> String {
        let (w, h) = (self.width, self.height);
        let mut svg = format!(
            "<svg viewBox=\"0 0 {w} {h}\" role=\"img\"><image width=\"{w}\" height=\"{h}\" \
             href=\"data:image/jpeg;base64,{}\"/>",
            base64(&self.jpeg)
        );
        if let Some((placed, (row, column, hottest))) = map.and_then(|placed| Some((placed, placed.map.hottest()?))) {
            let [left, top, width, height] = self.small(placed.region);
            let (w, h) = (f64::from(w), f64::from(h));
            if width < w - 0.5 || height < h - 0.5 {
                let _ = write!(
                    svg,
                    "<path class=\"unseen\" fill-rule=\"evenodd\" opacity=\"0.6\" \
                     d=\"M0 0H{w}V{h}H0ZM{left:.1} {top:.1}H{:.1}V{:.1}H{left:.1}Z\"/>",
                    left + width,
                    top + height
                );
            }
            for (at, value) in placed.map.cells.iter().enumerate() {
                let opacity = if hottest > 0.0 { 0.45 * (value / hottest).clamp(0.0, 1.0).powi(2) } else { 0.0 };
                if opacity > 0.03 {
                    let [x, y, w, h] = self.small(placed.cell(at / placed.map.width, at % placed.map.width));
                    let _ = write!(
                        svg,
                        "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{w:.1}\" height=\"{h:.1}\" \
                         fill=\"#ff2d2d\" opacity=\"{opacity:.2}\"/>"
                    );
                }
            }
            let [x, y, w, h] = self.small(placed.cell(row, column));
            let _ = write!(
                svg,
                "<rect class=\"hot\" x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\"/>",
                x + 1.0,
                y + 1.0,
                (w - 2.0).max(1.0),
                (h - 2.0).max(1.0)
            );
        }
        svg.push_str("</svg>");
        svg
    }

    /// A rectangle of the picture in the thumbnail's pixels.
    fn small(&self, [left, top, width, height]: [f64; 4]) -> [f64; 4] {
        let [across, down] = self.scale;
        [left * across, top * down, width * across, height * down]
    }
}

/// Standard base64 with padding (RFC 4648).
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let word = chunk.iter().fold(0_u32, |word, b| word << 8 | u32::from(*b)) << (8 * (3 - chunk.len()));
        for digit in 0..4 {
            if digit <= chunk.len() {
                out.push(char::from(DIGITS[(word >> (18 - 6 * digit)) as usize & 63]));
            } else {
                out.push('=');
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::{self, InputRecipe};
    use crate::model::anomaly_map::AnomalyMap;

    #[test]
    fn base64_of_the_standard_s_examples() {
        for (bytes, text) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")] {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
    }

    fn svg(recipe: &InputRecipe) -> String {
        let thumbnail = Thumbnail::of(&RgbImage::new(320, 160)).unwrap();
        let map = AnomalyMap { height: 2, width: 2, cells: vec![0.0, 0.1, 5.0, 1.0] };
        thumbnail.svg(Some(&map.at(image::seen(320, 160, recipe))))
    }

    #[test]
    fn the_hottest_cell_is_framed() {
        let svg = svg(&InputRecipe::caffe());
        assert!(svg.contains("viewBox=\"0 0 160 80\"") && !svg.contains("unseen"), "{svg}");
        assert!(svg.contains("<rect class=\"hot\" x=\"1.0\" y=\"41.0\" width=\"78.0\" height=\"38.0\"/>"), "{svg}");
    }

    /// 140 of 160 lines are seen, in the middle.
    #[test]
    fn the_map_of_a_cropping_recipe_lies_in_what_it_shows_to_the_network() {
        let svg = svg(&InputRecipe::torch());
        assert!(svg.contains("d=\"M0 0H160V80H0ZM45.0 5.0H115.0V75.0H45.0Z\""), "{svg}");
        assert!(svg.contains("<rect class=\"hot\" x=\"46.0\" y=\"41.0\" width=\"33.0\" height=\"33.0\"/>"), "{svg}");
        assert!(svg.contains("<rect x=\"45.0\" y=\"40.0\" width=\"35.0\" height=\"35.0\" fill"), "{svg}");
    }
}
