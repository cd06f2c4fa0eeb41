//! What of the camera's picture matters: a crop, and masks.

use serde::{Deserialize, Deserializer, de};

use crate::image::{self, mask::Mask};

/// The part of the frame that is the picture.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(untagged, expecting = "crop is [x, y, width, height]: whole numbers are pixels, others shares of the frame")]
pub enum Crop {
    /// x, y, width, height.
    Pixels([u32; 4]),
    /// x, y, width, height as shares of the frame.
    Shares([f64; 4]),
}

/// As TOML has it.
impl std::fmt::Display for Crop {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Crop::Pixels(pixels) => write!(f, "{pixels:?}"),
            Crop::Shares(shares) => write!(f, "{shares:?}"),
        }
    }
}

/// Four numbers with commas between them, with or without brackets.
impl std::str::FromStr for Crop {
    type Err = String;

    fn from_str(text: &str) -> Result<Crop, String> {
        let inner = text.trim().trim_start_matches('[').trim_end_matches(']');
        let parts: Vec<&str> = inner.split(',').map(str::trim).collect();
        let shares: Result<Vec<f64>, _> = parts.iter().map(|part| part.parse()).collect();
        let pixels: Result<Vec<u32>, _> = parts.iter().map(|part| part.parse()).collect();
        let crop = match (pixels, shares) {
            (Ok(pixels), _) => <[u32; 4]>::try_from(pixels).ok().map(Crop::Pixels),
            (_, Ok(shares)) => <[f64; 4]>::try_from(shares).ok().map(Crop::Shares),
            _ => None,
        };
        let crop = crop.ok_or_else(|| {
            format!("\"{text}\" is no crop: x, y, width, height, as shares of the frame or whole pixels")
        })?;
        crop.wrong().map_or(Ok(crop), Err)
    }
}

impl Crop {
    /// x, y, width, height in pixels of a frame of that size.
    ///
    /// # Errors
    /// [`image::Error::Crop`] where the pixels do not lie inside.
    pub fn region(self, frame_width: u32, frame_height: u32) -> Result<[u32; 4], image::Error> {
        let region = match self {
            Crop::Pixels(pixels) => pixels,
            Crop::Shares([x, y, width, height]) => {
                let along = |start: f64, length: f64, side: u32| {
                    let edge = |share: f64| (share * f64::from(side)).round() as u32;
                    let first = edge(start).min(side.saturating_sub(1));
                    [first, edge(start + length).clamp(first + 1, side.max(first + 1)) - first]
                };
                let ([x, width], [y, height]) = (along(x, width, frame_width), along(y, height, frame_height));
                [x, y, width, height]
            }
        };
        image::inside(region, (frame_width, frame_height))
    }

    /// Why no frame could be cropped so.
    pub(super) fn wrong(self) -> Option<String> {
        match self {
            Crop::Pixels([_, _, width, height]) if width == 0 || height == 0 => {
                Some(format!("camera.crop is {width}x{height}: [x, y, width, height], no side 0"))
            }
            Crop::Shares([x, y, width, height]) => {
                let inside = |at: f64, length: f64| at >= 0.0 && length > 0.0 && at + length <= 1.0 + 1e-9;
                (!inside(x, width) || !inside(y, height)).then(|| {
                    format!(
                        "camera.crop [{x}, {y}, {width}, {height}] does not lie inside the frame: [x, y, width, height] \
                         as shares of it, 0.0 to 1.0, or whole pixels"
                    )
                })
            }
            Crop::Pixels(_) => None,
        }
    }
}

/// `[[camera.mask]]` with a `polygon` each.
pub(super) fn masks<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Mask, D::Error> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields, expecting = "a mask is written as [[camera.mask]] and polygon = [[x, y], ...]")]
    struct Part {
        polygon: Vec<[f64; 2]>,
    }
    let parts = Vec::<Part>::deserialize(deserializer)?;
    Mask::new(parts.into_iter().map(|part| part.polygon).collect()).map_err(de::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_the_same_part_of_every_frame() {
        let right = Crop::Shares([0.5, 0.25, 0.5, 0.75]);
        assert_eq!(right.region(1280, 720).unwrap(), [640, 180, 640, 540]);
        assert_eq!(right.region(3, 3).unwrap(), [2, 1, 1, 2]);
        assert_eq!(Crop::Shares([0.999, 0.0, 0.001, 1.0]).region(4, 4).unwrap(), [3, 0, 1, 4]);
        let thirds =
            [0.0, 1.0 / 3.0, 2.0 / 3.0].map(|x| Crop::Shares([x, 0.0, 1.0 / 3.0, 1.0]).region(100, 1).unwrap());
        assert_eq!(thirds, [[0, 0, 33, 1], [33, 0, 34, 1], [67, 0, 33, 1]]);
        assert!(Crop::Shares([0.5, 0.0, 0.5, 1.0]).wrong().is_none());
        for crop in [right, Crop::Pixels([0, 8, 320, 200])] {
            assert_eq!(crop.to_string().parse(), Ok(crop));
        }
        for wrong in ["", "0, 0, 1", "0, 0, 1, 1, 1", "0.5, 0, 0.6, 1", "0, 0, 0, 1", "a, b, c, d", "0, 0, nan, 1"] {
            assert!(wrong.parse::<Crop>().is_err(), "{wrong}");
        }
        for wrong in [[0.5, 0.0, 0.6, 1.0], [-0.1, 0.0, 0.5, 1.0], [0.0, 0.0, 0.0, 1.0], [0.0, 0.0, f64::NAN, 1.0]] {
            assert!(Crop::Shares(wrong).wrong().is_some_and(|reason| reason.contains("inside the frame")));
        }
    }
}
