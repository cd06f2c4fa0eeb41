//! The choice among a camera's formats and sizes.

use std::time::Duration;

use crate::config::PixelFormat;

/// One format and size that a camera offers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Offer {
    pub format: PixelFormat,
    pub width: u32,
    pub height: u32,
    /// The shortest time from frame to frame; None if the camera does not say.
    pub interval: Option<Duration>,
}

/// Sizes that a camera offers: one, or a range with a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sizes {
    Discrete { width: u32, height: u32 },
    Stepwise { min: [u32; 2], max: [u32; 2], step: [u32; 2] },
}

impl Sizes {
    /// The size nearest to the wanted one.
    pub fn nearest(&self, width: u32, height: u32) -> (u32, u32) {
        match *self {
            Sizes::Discrete { width, height } => (width, height),
            Sizes::Stepwise { min, max, step } => {
                let side = |i: usize, wanted: u32| {
                    let step = step[i].max(1);
                    let steps = (wanted.clamp(min[i], max[i].max(min[i])) - min[i]) / step;
                    min[i].saturating_add(steps.saturating_mul(step))
                };
                (side(0, width), side(1, height))
            }
        }
    }
}

/// Formats by the cost of their conversion to RGB, cheapest first; grey last, because it has no colour.
const BY_COST: [PixelFormat; 5] =
    [PixelFormat::Rgb3, PixelFormat::Nv12, PixelFormat::Yuyv, PixelFormat::Mjpg, PixelFormat::Grey];

/// The best offer of the wanted format (any, if `auto`): the nearest size, then one that is fast enough for `interval`, then
/// the cheapest to convert. None if the format is not offered.
pub fn choose(offers: &[Offer], format: PixelFormat, width: u32, height: u32, interval: Duration) -> Option<Offer> {
    let distance = |offer: &Offer| offer.width.abs_diff(width).saturating_add(offer.height.abs_diff(height));
    let slow = |offer: &Offer| offer.interval.is_some_and(|shortest| shortest > interval);
    let cost = |offer: &Offer| BY_COST.iter().position(|known| *known == offer.format);
    offers
        .iter()
        .filter(|offer| format == PixelFormat::Auto || offer.format == format)
        .min_by_key(|offer| (distance(offer), slow(offer), cost(offer)))
        .copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use PixelFormat::{Auto, Grey, Mjpg, Nv12, Yuyv};

    fn offer(format: PixelFormat, width: u32, height: u32, rate: u64) -> Offer {
        let interval = (rate > 0).then(|| Duration::from_millis(1000 / rate));
        Offer { format, width, height, interval }
    }

    #[test]
    fn the_cheapest_that_is_fast_enough_is_taken() {
        let offers = [
            offer(Mjpg, 1280, 720, 30),
            offer(Mjpg, 640, 480, 30),
            offer(Yuyv, 1280, 720, 5),
            offer(Yuyv, 640, 480, 30),
            offer(Grey, 1280, 720, 60),
        ];
        let take = |format, width, height, ms| choose(&offers, format, width, height, Duration::from_millis(ms));
        assert_eq!(take(Auto, 1280, 720, 500), Some(offers[2]));
        assert_eq!(take(Auto, 1280, 720, 100), Some(offers[0]));
        assert_eq!(take(Auto, 700, 500, 1), Some(offers[3]));
        assert_eq!(take(Mjpg, 640, 480, 500), Some(offers[1]));
        assert_eq!(take(Grey, 640, 480, 500), Some(offers[4]));
        assert_eq!(take(Nv12, 640, 480, 500), None);
        assert_eq!(choose(&[], Auto, 1, 1, Duration::ZERO), None);
    }

    #[test]
    fn steps_are_kept() {
        let sizes = Sizes::Stepwise { min: [32, 16], max: [1920, 1080], step: [16, 8] };
        assert_eq!(sizes.nearest(1280, 720), (1280, 720));
        assert_eq!(sizes.nearest(1289, 721), (1280, 720));
        assert_eq!(sizes.nearest(9999, 1), (1920, 16));
        let sizes = Sizes::Stepwise { min: [2, 2], max: [1, 1], step: [0, 0] };
        assert_eq!(sizes.nearest(640, 480), (2, 2));
        assert_eq!(Sizes::Discrete { width: 3, height: 4 }.nearest(640, 480), (3, 4));
    }
}
