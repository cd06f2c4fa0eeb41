//! A small picture inside the page.

use std::fmt::Write;

use ::image::codecs::jpeg::JpegEncoder;
use ::image::{RgbImage, imageops};

use crate::model::heat::Heat;

const SIDE: u32 = 160;

/// A JPEG of at most 160 pixels a side.
#[derive(Debug, Clone)]
pub struct Thumbnail {
    width: u32,
    height: u32,
    jpeg: Vec<u8>,
}

impl Thumbnail {
    /// Shrinks a picture.
    pub fn of(picture: &RgbImage) -> Result<Self, ::image::ImageError> {
        let small = if picture.width().max(picture.height()) > SIDE {
            ::image::DynamicImage::from(picture.clone()).resize(SIDE, SIDE, imageops::FilterType::Triangle).into_rgb8()
        } else {
            picture.clone()
        };
        let mut jpeg = Vec::new();
        JpegEncoder::new_with_quality(&mut jpeg, 80).encode_image(&small)?;
        Ok(Thumbnail { width: small.width(), height: small.height(), jpeg })
    }

    /// The picture, tinted where `heat` is high, with a frame around its hottest cell.
    pub fn svg(&self, heat: Option<&Heat>) -> String {
        let (w, h) = (self.width, self.height);
        let mut svg = format!(
            "<svg viewBox=\"0 0 {w} {h}\" role=\"img\"><image width=\"{w}\" height=\"{h}\" \
             href=\"data:image/jpeg;base64,{}\"/>",
            base64(&self.jpeg)
        );
        if let Some((heat, (row, column, hottest))) = heat.and_then(|h| Some((h, h.hottest()?))) {
            let (cell_w, cell_h) = (f64::from(w) / heat.width as f64, f64::from(h) / heat.height as f64);
            for (at, share) in heat.cells.iter().enumerate() {
                let opacity = if hottest > 0.0 { 0.45 * (share / hottest).clamp(0.0, 1.0).powi(2) } else { 0.0 };
                if opacity > 0.03 {
                    let (left, top) = ((at % heat.width) as f64 * cell_w, (at / heat.width) as f64 * cell_h);
                    let _ = write!(
                        svg,
                        "<rect x=\"{left:.1}\" y=\"{top:.1}\" width=\"{cell_w:.1}\" height=\"{cell_h:.1}\" \
                         fill=\"#ff2d2d\" opacity=\"{opacity:.2}\"/>"
                    );
                }
            }
            let _ = write!(
                svg,
                "<rect class=\"hot\" x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\"/>",
                column as f64 * cell_w + 1.0,
                row as f64 * cell_h + 1.0,
                (cell_w - 2.0).max(1.0),
                (cell_h - 2.0).max(1.0)
            );
        }
        svg.push_str("</svg>");
        svg
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

    #[test]
    fn base64_of_the_standard_s_examples() {
        for (bytes, text) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")] {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
    }

    #[test]
    fn the_hottest_cell_is_framed() {
        let thumbnail = Thumbnail::of(&RgbImage::new(320, 160)).unwrap();
        let heat = Heat { height: 2, width: 2, cells: vec![0.0, 0.1, 5.0, 1.0] };
        let svg = thumbnail.svg(Some(&heat));
        assert!(svg.contains("viewBox=\"0 0 160 80\""));
        assert!(svg.contains("<rect class=\"hot\" x=\"1.0\" y=\"41.0\" width=\"78.0\" height=\"38.0\"/>"), "{svg}");
    }
}
