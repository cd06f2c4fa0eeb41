//! The promise of false alarms before a camera that stands still, on drawn scenes with known truth: every frame is
//! normal. Frames follow each other, and so does what changes in them.

use std::path::PathBuf;

use ndarray::{Array2, Axis, s};
use outlierd::internals::model::{Calibration, FeatureSource};
use outlierd::internals::training::features::Features;
use outlierd::internals::training::fit::{self, Options};
use outlierd::internals::training::stretches;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

const WIDTH: usize = 48;
const HEIGHT: usize = 36;
const CELL: usize = 6;
const TRAIN: usize = 400;
const LATER: usize = 4000;

fn noise(rng: &mut ChaCha8Rng) -> f32 {
    (0..12).map(|_| rng.random_range(-0.5_f32..0.5)).sum()
}

/// What changes in front of the camera, frame by frame.
struct Scene {
    rng: ChaCha8Rng,
    /// Brightness of the still scene.
    ground: Vec<f32>,
    frame: usize,
    /// Frames of a day; how dark its night is.
    day: f32,
    night: f32,
    clouds: f32,
    /// How long clouds last, in frames.
    cloudy: f32,
    lamp: bool,
    /// Chance that the lamp is switched, per frame.
    switch: f64,
    /// Of the camera's exposure that lags behind the light.
    exposure: f32,
    grain: f32,
    /// Where a passer-by is, and how fast.
    passer: Option<(f32, f32)>,
    passing: f64,
}

impl Scene {
    fn new(seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let blocks: Vec<f32> = (0..(WIDTH / 4) * (HEIGHT / 4)).map(|_| rng.random_range(40.0..160.0)).collect();
        let ground = (0..WIDTH * HEIGHT).map(|at| blocks[at / WIDTH / 4 * (WIDTH / 4) + at % WIDTH / 4]).collect();
        Scene {
            ground,
            frame: 0,
            day: rng.random_range(60.0..300.0),
            night: rng.random_range(0.0..0.5),
            clouds: 0.0,
            cloudy: rng.random_range(3.0..25.0),
            lamp: false,
            switch: rng.random_range(0.005..0.05),
            exposure: 1.0,
            grain: rng.random_range(1.0..4.0),
            passer: None,
            passing: rng.random_range(0.0..0.03),
            rng,
        }
    }

    fn draw(&mut self) -> Vec<f32> {
        let rng = &mut self.rng;
        self.frame += 1;
        let keep = (-1.0 / self.cloudy).exp();
        self.clouds = keep * self.clouds + (1.0 - keep * keep).sqrt() * noise(rng);
        self.lamp ^= rng.random_bool(self.switch);
        let sun = 1.0 - self.night * (0.5 + 0.5 * (std::f32::consts::TAU * self.frame as f32 / self.day).sin());
        let sky = sun * (0.15 * self.clouds).exp();
        match &mut self.passer {
            None if rng.random_bool(self.passing) => self.passer = Some((-4.0, rng.random_range(1.5..4.0))),
            Some((at, _)) if *at > WIDTH as f32 + 4.0 => self.passer = None,
            Some((at, speed)) => *at += *speed,
            None => {}
        }
        let lit = |x: usize| sky + if self.lamp { 0.5 * (-((x as f32 - 12.0) / 10.0).powi(2)).exp() } else { 0.0 };
        let mut picture: Vec<f32> = (0..WIDTH * HEIGHT).map(|at| self.ground[at] * lit(at % WIDTH)).collect();
        if let Some((at, _)) = self.passer {
            for y in HEIGHT / 2..HEIGHT - 4 {
                for x in 0..WIDTH {
                    if (x as f32 - at).abs() < 2.0 {
                        picture[y * WIDTH + x] = 30.0 * sky;
                    }
                }
            }
        }
        let mean = picture.iter().sum::<f32>() / picture.len() as f32;
        self.exposure += 0.3 * (100.0 / mean.max(1.0) - self.exposure);
        let grain = self.grain;
        picture.iter_mut().for_each(|v| *v = (*v * self.exposure + grain * noise(rng)).round().clamp(0.0, 255.0));
        picture
    }
}

/// Means and mean changes of cells: what a network's averages are, for nothing.
fn feature(picture: &[f32]) -> Vec<f32> {
    let mut values = Vec::new();
    for top in (0..HEIGHT).step_by(CELL) {
        for left in (0..WIDTH).step_by(CELL) {
            let (mut mean, mut across, mut down) = (0.0, 0.0, 0.0);
            for y in top..top + CELL {
                for x in left..left + CELL {
                    let at = |x: usize, y: usize| picture[y.min(HEIGHT - 1) * WIDTH + x.min(WIDTH - 1)];
                    mean += at(x, y);
                    across += (at(x + 1, y) - at(x, y)).abs();
                    down += (at(x, y + 1) - at(x, y)).abs();
                }
            }
            values.extend([mean, across, down].map(|sum| sum / (CELL * CELL) as f32));
        }
    }
    values
}

fn features(seed: u64) -> Features {
    let mut scene = Scene::new(seed);
    let rows: Vec<f32> = (0..TRAIN + LATER).flat_map(|_| feature(&scene.draw())).collect();
    let width = rows.len() / (TRAIN + LATER);
    let rows = Array2::from_shape_vec((TRAIN + LATER, width), rows).unwrap();
    let paths = (0..TRAIN + LATER).map(|at| PathBuf::from(format!("{at:06}-frame.jpg"))).collect();
    Features { paths, contents: vec![[0; 32]; TRAIN + LATER], rows, cells: Vec::new() }
}

#[test]
fn the_promise_holds_before_a_camera_that_stands_still() {
    const RATE: f64 = 0.01;
    let mut inside = [0; 2];
    for seed in 0..20 {
        let all = features(seed);
        let (train, later) = all.rows.view().split_at(Axis(0), TRAIN);
        // The pictures lie in disorder, as lists do; names tell the order.
        let shuffled = outlierd::internals::training::split::folds(TRAIN, 1, seed, 1).concat();
        let mut given = Features {
            paths: shuffled.iter().map(|&at| all.paths[at].clone()).collect(),
            contents: vec![[0; 32]; TRAIN],
            rows: train.select(Axis(0), &shuffled),
            cells: Vec::new(),
        };
        let found = stretches::arrange(&mut given).unwrap();
        assert_eq!(given.rows, train.slice(s![.., ..]), "seed {seed}: not in the order of the names");
        let worth = LATER / found.length.max(1);
        let mut said = String::new();
        for (at, block) in [found.length, 1].into_iter().enumerate() {
            let options = Options { block, false_alarms: RATE, ..Options::default() };
            let model =
                crate::common::fit_rows(given.rows.view(), None, FeatureSource::unknown(), &options).unwrap().model;
            let scores = fit::feature_scores(&model, later).unwrap();
            let counted = scores.iter().filter(|score| model.verdict(**score).outlier).count() as f64 / LATER as f64;
            let Calibration::Conformal(conformal) = &model.calibration else { panic!("not conformal") };
            let (low, high) = match block {
                1 => conformal.observed_false_alarm_interval(RATE, LATER),
                _ => conformal.observed_false_alarm_interval(RATE, worth),
            };
            inside[at] += usize::from((low..=high).contains(&counted));
            said += &format!("  block {block}: {counted:.4} in {low:.4} to {high:.4}");
        }
        println!("seed {seed}: {said}");
    }
    println!("{} of 20 inside in stretches, {} dealt at random", inside[0], inside[1]);
    assert!(inside[0] >= 18, "{} of 20 inside", inside[0]);
    assert!(inside[1] < 18, "{} of 20 inside without stretches: the scenes show nothing", inside[1]);
}
