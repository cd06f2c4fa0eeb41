//! The light of a scene.

use ::image::RgbImage;
use serde::{Deserialize, Serialize};

/// Pixels between two that are looked at, across and down.
const STRIDE: usize = 4;

/// What a frame says of the light.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Light {
    /// Mean luma, 0 to 1.
    pub brightness: f64,
    /// The sum of the differences between the greatest and the least channel by the sum of the greatest: 0 is grey.
    pub saturation: f64,
}

impl Light {
    pub fn of(picture: &RgbImage) -> Light {
        let (mut pixels, mut luma, mut colour, mut most) = (0_u64, 0_u64, 0_u64, 0_u64);
        for row in picture.rows().step_by(STRIDE) {
            for pixel in row.step_by(STRIDE) {
                let [r, g, b] = pixel.0.map(u64::from);
                let (high, low) = (r.max(g).max(b), r.min(g).min(b));
                // ITU-R BT.601.
                luma += 299 * r + 587 * g + 114 * b;
                colour += high - low;
                most += high;
                pixels += 1;
            }
        }
        let share = |part: u64, whole: u64| if whole == 0 { 0.0 } else { part as f64 / whole as f64 };
        Light { brightness: share(luma, pixels * 255_000), saturation: share(colour, most) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn light_is_the_mean_luma_and_the_share_of_colour() {
        let of = |pixel| Light::of(&RgbImage::from_pixel(9, 9, ::image::Rgb(pixel)));
        assert_eq!(of([255, 255, 255]), Light { brightness: 1.0, saturation: 0.0 });
        assert_eq!(of([0, 0, 0]), Light { brightness: 0.0, saturation: 0.0 });
        let red = of([200, 100, 100]);
        assert!((red.brightness - 129.9 / 255.0).abs() < 1e-9 && red.saturation == 0.5, "{red:?}");
        assert_eq!(Light::of(&RgbImage::new(0, 0)), Light::default());
    }
}
