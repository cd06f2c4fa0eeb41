//! The change filter: a frame needs the network only where the picture has changed since it was last judged.
//!
//! Two pictures differ by the greatest change of the mean of any of 32 x 32 cells in any colour channel, in levels of
//! 255. A cell's mean averages the sensor's noise away (to a 20th of it at 640x480), and the greatest change of any
//! cell shows a small object that the mean change of the picture hides. The picture is compared with the last *judged*
//! one, so a change that comes slowly adds up until it is judged.

use std::time::{Duration, Instant};

use ::image::RgbImage;

use crate::config;
use crate::model::Verdict;

/// Cells a side.
const CELLS: usize = 32;

/// Mean colours of a picture's cells.
#[derive(Debug, Clone, PartialEq)]
pub struct Thumbnail {
    size: (u32, u32),
    /// Row by row, three channels a cell, in levels of 255.
    means: Vec<f32>,
}

impl Thumbnail {
    pub fn of(picture: &RgbImage) -> Self {
        let (width, height) = (picture.width() as usize, picture.height() as usize);
        let (across, down) = (CELLS.min(width), CELLS.min(height));
        let mut means = Vec::with_capacity(3 * across * down);
        let mut columns = vec![0_u32; 3 * width];
        for band in 0..down {
            let (top, end) = (band * height / down, (band + 1) * height / down);
            columns.fill(0);
            for row in picture.as_raw()[3 * width * top..3 * width * end].chunks_exact(3 * width) {
                columns.iter_mut().zip(row).for_each(|(sum, value)| *sum += u32::from(*value));
            }
            for cell in 0..across {
                let (left, right) = (cell * width / across, (cell + 1) * width / across);
                let mut sums = [0_u64; 3];
                for pixel in columns[3 * left..3 * right].chunks_exact(3) {
                    sums.iter_mut().zip(pixel).for_each(|(sum, value)| *sum += u64::from(*value));
                }
                let pixels = ((end - top) * (right - left)) as f32;
                means.extend(sums.map(|sum| sum as f32 / pixels));
            }
        }
        Thumbnail { size: picture.dimensions(), means }
    }

    /// The greatest change of a cell, in levels of 255; infinite between pictures of different sizes.
    pub fn distance(&self, other: &Thumbnail) -> f32 {
        if self.size != other.size {
            return f32::INFINITY;
        }
        self.means.iter().zip(&other.means).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
    }
}

/// Filters frames that look like the last judged one.
#[derive(Debug)]
pub struct ChangeFilter {
    /// None: every frame is judged.
    threshold: Option<f32>,
    judge_at_least_every: Duration,
    judged: Option<(Thumbnail, Verdict, Instant)>,
    seen: Option<Thumbnail>,
}

impl ChangeFilter {
    pub fn new(config: &config::Camera) -> Self {
        ChangeFilter {
            threshold: (config.change_threshold > 0.0).then_some(config.change_threshold as f32),
            judge_at_least_every: config.judge_at_least_every,
            judged: None,
            seen: None,
        }
    }

    /// The verdict of the last judged frame, if this one looks like it and that is not too long ago; None: this one
    /// must be judged. `picture` has its masks painted over. `settled`: the last verdict is the one that is announced. While it is not, frames are evidence
    /// for or against an event, and every one is judged.
    pub fn unchanged(&mut self, picture: &RgbImage, settled: bool, now: Instant) -> Option<Verdict> {
        let threshold = self.threshold?;
        let seen = self.seen.insert(Thumbnail::of(picture));
        let (judged, verdict, at) = self.judged.as_ref()?;
        let recent = now.saturating_duration_since(*at) < self.judge_at_least_every;
        (settled && recent && seen.distance(judged) < threshold).then_some(*verdict)
    }

    /// The frame that [`ChangeFilter::unchanged`] was last asked about was judged; `at` is when it was taken.
    pub fn judged(&mut self, verdict: Verdict, at: Instant) {
        self.judged = self.seen.take().map(|seen| (seen, verdict, at));
    }

    /// The next frame is judged, whatever it looks like.
    pub fn forget(&mut self) {
        self.judged = None;
    }
}

#[cfg(test)]
mod tests {
    use ::image::Rgb;
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;
    use crate::image::mask::Mask;

    /// A gradient with noise of standard deviation 4 and, perhaps, a square.
    fn scene(rng: &mut ChaCha8Rng, shade: f32, square: Option<[u8; 3]>) -> RgbImage {
        RgbImage::from_fn(640, 480, |x, y| {
            let base = match square {
                Some(colour) if (300..324).contains(&x) && (200..224).contains(&y) => colour.map(f32::from),
                _ => [90.0 + x as f32 / 10.0, 100.0, 120.0 - y as f32 / 10.0],
            };
            Rgb(base.map(|value| (value + shade + rng.random_range(-7.0..7.0_f32)).clamp(0.0, 255.0) as u8))
        })
    }

    fn filter(every: Duration) -> ChangeFilter {
        let camera = config::Camera { change_threshold: 4.0, judge_at_least_every: every, ..config::Camera::default() };
        ChangeFilter::new(&camera)
    }

    const VERDICT: Verdict = Verdict { score: 3.0, p: 0.5, outlier: false };

    #[test]
    fn noise_is_small_and_a_small_object_is_large() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let empty = Thumbnail::of(&scene(&mut rng, 0.0, None));
        let worst = (0..20).map(|_| empty.distance(&Thumbnail::of(&scene(&mut rng, 0.0, None)))).fold(0.0, f32::max);
        assert!(worst < 2.0, "{worst}");
        let grey = Thumbnail::of(&scene(&mut rng, 0.0, Some([200, 200, 200])));
        assert!(empty.distance(&grey) > 20.0);
        // As bright as what it covers: only its colour differs.
        let tinted = Thumbnail::of(&scene(&mut rng, 0.0, Some([122, 100, 60])));
        assert!(empty.distance(&tinted) > 8.0);
    }

    #[test]
    fn means_are_exact_whatever_the_size() {
        for (width, height) in [(1, 1), (5, 3), (31, 33), (100, 70), (641, 479)] {
            let flat = Thumbnail::of(&RgbImage::from_pixel(width, height, Rgb([7, 130, 255])));
            assert!(flat.means.chunks(3).all(|mean| mean == [7.0, 130.0, 255.0]), "{width}x{height}");
            assert_eq!(flat.means.len(), 3 * CELLS.min(width as usize) * CELLS.min(height as usize));
        }
        let small = Thumbnail::of(&RgbImage::new(8, 8));
        assert_eq!(small.distance(&Thumbnail::of(&RgbImage::new(8, 9))), f32::INFINITY);
    }

    #[test]
    fn unchanged_frames_are_filtered_until_the_time_is_up() {
        let mut rng = ChaCha8Rng::seed_from_u64(2);
        let mut filter = filter(Duration::from_secs(30));
        let start = Instant::now();
        assert_eq!(filter.unchanged(&scene(&mut rng, 0.0, None), true, start), None);
        filter.judged(VERDICT, start);
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(filter.unchanged(&scene(&mut rng, 0.0, None), true, at(1)), Some(VERDICT));
        assert_eq!(filter.unchanged(&scene(&mut rng, 0.0, None), false, at(2)), None);
        assert_eq!(filter.unchanged(&scene(&mut rng, 0.0, Some([200; 3])), true, at(3)), None);
        assert_eq!(filter.unchanged(&scene(&mut rng, 0.0, None), true, at(29)), Some(VERDICT));
        assert_eq!(filter.unchanged(&scene(&mut rng, 0.0, None), true, at(30)), None);
        filter.judged(VERDICT, at(30));
        assert_eq!(filter.unchanged(&scene(&mut rng, 0.0, None), true, at(59)), Some(VERDICT));
        filter.forget();
        assert_eq!(filter.unchanged(&scene(&mut rng, 0.0, None), true, at(60)), None);
    }

    #[test]
    fn what_moves_under_a_mask_is_no_change() {
        let mut rng = ChaCha8Rng::seed_from_u64(4);
        let [left, top, right, low] = [290.0 / 640.0, 190.0 / 480.0, 334.0 / 640.0, 234.0 / 480.0];
        let mask = Mask::new(vec![vec![[left, top], [right, top], [right, low], [left, low]]]).unwrap();
        let start = Instant::now();
        let mut passes = |mask: Mask| {
            let camera = config::Camera { change_threshold: 4.0, ..config::Camera::default() };
            let mut filter = ChangeFilter::new(&camera);
            assert_eq!(filter.unchanged(&mask.paint(&scene(&mut rng, 0.0, None)), true, start), None);
            filter.judged(VERDICT, start);
            filter.unchanged(&mask.paint(&scene(&mut rng, 0.0, Some([250; 3]))), true, start)
        };
        assert_eq!(passes(mask), Some(VERDICT));
        assert_eq!(passes(Mask::default()), None);
    }

    #[test]
    fn a_change_that_comes_slowly_adds_up() {
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        let mut filter = filter(Duration::from_secs(3600));
        let start = Instant::now();
        let mut judged = Vec::new();
        for step in 0..60 {
            if filter.unchanged(&scene(&mut rng, 0.25 * step as f32, None), true, start).is_none() {
                filter.judged(VERDICT, start);
                judged.push(step);
            }
        }
        assert!((4..=8).contains(&judged.len()), "{judged:?}");
    }

    #[test]
    fn off_it_filters_nothing() {
        let mut filter = ChangeFilter::new(&config::Camera::default());
        let picture = RgbImage::new(8, 8);
        assert_eq!(filter.unchanged(&picture, true, Instant::now()), None);
        filter.judged(VERDICT, Instant::now());
        assert_eq!(filter.unchanged(&picture, true, Instant::now()), None);
    }
}
