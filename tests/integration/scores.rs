//! Scores of a scene that was never filmed: day and night, clouds, passers-by, slow wear, and outliers put into it.
//!
//! A frame's score is minus its distance from what is normal, in units of the noise by day:
//!
//! - day and night are two modes with a noise of their own, dusk and dawn a third between them, different each day;
//! - clouds are an Ornstein-Uhlenbeck process of 20 minutes, its positive part, and of another strength each day;
//! - the light flickers with one of 4 seconds, and one frame in fifty has two and a half times the noise;
//! - passers-by are a Poisson process, 8 an hour by day and one in two hours by night, of some seconds and of a
//!   log-normal depth;
//! - wear moves all of it by so much a week.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

pub const DAY: f64 = 86_400.0;

#[derive(Debug, Clone)]
pub struct Scene {
    pub seed: u64,
    pub frames_per_second: f64,
    pub days: f64,
    /// Distance that is added over a week.
    pub wear: f64,
    /// From this day on, so much more distance.
    pub change: Option<(f64, f64)>,
    pub outliers: Vec<Outlier>,
}

/// Seconds from the start, and the distance that it adds.
#[derive(Debug, Clone, Copy)]
pub struct Outlier {
    pub start: f64,
    pub end: f64,
    pub depth: f64,
}

/// What a camera saw.
#[derive(Debug, Clone, Copy)]
pub struct Frame {
    /// Seconds from midnight of the first day.
    pub time: f64,
    pub score: f64,
    /// Of the same frame without an outlier.
    pub own: f64,
    pub outlier: Option<usize>,
}

fn normal(rng: &mut ChaCha8Rng) -> f64 {
    let (u, v): (f64, f64) = (rng.random::<f64>().max(1e-300), rng.random());
    (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()
}

impl Scene {
    pub fn week(seed: u64) -> Scene {
        Scene { seed, frames_per_second: 2.0, days: 7.0, wear: 1.5, change: None, outliers: Vec::new() }
    }

    /// Outliers at any time after the first day and an hour, ten minutes apart at least, from what hardly shows to what
    /// cannot be missed.
    pub fn with_outliers(mut self, count: usize) -> Scene {
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed ^ 0x6f75_746c);
        while self.outliers.len() < count {
            let start = rng.random_range(DAY + 3600.0..self.days * DAY - 120.0);
            let (length, depth) = (rng.random_range(8.0..40.0), rng.random_range(6.0..30.0));
            if self.outliers.iter().all(|other| (other.start - start).abs() > 600.0) {
                self.outliers.push(Outlier { start, end: start + length, depth });
            }
        }
        self.outliers.sort_by(|a, b| a.start.total_cmp(&b.start));
        self
    }

    /// Scores of `count` frames, `every` seconds apart, from two in the afternoon of the day before.
    pub fn calibration(&self, count: usize, every: f64) -> Vec<f64> {
        let before = Scene {
            seed: self.seed ^ 0x6361_6c69,
            frames_per_second: 1.0 / every,
            wear: 0.0,
            change: None,
            outliers: Vec::new(),
            days: 1.0,
        };
        let from = 14.0 * 3600.0;
        before.frames().filter(|frame| frame.time >= from).take(count).map(|frame| frame.score).collect()
    }

    pub fn frames(&self) -> Frames<'_> {
        Frames {
            scene: self,
            rng: ChaCha8Rng::seed_from_u64(self.seed),
            at: 0,
            day: -1,
            twilight: 0.0,
            cloudiness: 0.0,
            cloud: 0.0,
            flicker: 0.0,
            passer: None,
            next_outlier: 0,
        }
    }
}

pub struct Frames<'a> {
    scene: &'a Scene,
    rng: ChaCha8Rng,
    at: u64,
    day: i64,
    twilight: f64,
    cloudiness: f64,
    cloud: f64,
    flicker: f64,
    /// Start, length, depth.
    passer: Option<(f64, f64, f64)>,
    next_outlier: usize,
}

impl Iterator for Frames<'_> {
    type Item = Frame;

    fn next(&mut self) -> Option<Frame> {
        let step = 1.0 / self.scene.frames_per_second;
        let time = self.at as f64 * step;
        if time >= self.scene.days * DAY {
            return None;
        }
        self.at += 1;
        let rng = &mut self.rng;
        let day = (time / DAY) as i64;
        if day != self.day {
            self.day = day;
            self.twilight = 1.5 * (0.5 * normal(rng)).exp();
            self.cloudiness = (0.7 * normal(rng)).exp();
        }
        let hour = (time % DAY) / 3600.0;
        let light = 1.0 / ((1.0 + ((7.0 - hour) / 0.3).exp()) * (1.0 + ((hour - 19.0) / 0.3).exp()));
        let follow = |state: f64, tau: f64, noise: f64| {
            let rho = (-step / tau).exp();
            rho * state + (1.0 - rho * rho).sqrt() * noise
        };
        self.cloud = follow(self.cloud, 1200.0, normal(rng));
        self.flicker = follow(self.flicker, 4.0, normal(rng));
        let noise = normal(rng) * if rng.random::<f64>() < 0.02 { 2.5 } else { 1.0 } * (1.6 - 0.6 * light);
        if self.passer.is_none_or(|(start, length, _)| time > start + length) {
            self.passer = None;
            if rng.random::<f64>() < step / 3600.0 * (0.5 + 7.5 * light) {
                let length = 0.5 - 3.0 * rng.random::<f64>().max(1e-12).ln();
                self.passer = Some((time, length, 2.0 * (0.6 * normal(rng)).exp()));
            }
        }
        let passing = self.passer.map_or(0.0, |(start, length, depth)| {
            depth * (std::f64::consts::PI * ((time - start) / length).clamp(0.0, 1.0)).sin()
        });
        let changed = self.scene.change.filter(|(from, _)| time >= from * DAY).map_or(0.0, |(_, by)| by);
        let distance = 1.2 * (1.0 - light)
            + 4.0 * self.twilight * light * (1.0 - light)
            + self.cloud.max(0.0) * self.cloudiness * light
            + 0.5 * self.flicker
            + noise
            + passing
            + changed
            + self.scene.wear * time / (7.0 * DAY);
        while self.scene.outliers.get(self.next_outlier).is_some_and(|outlier| time >= outlier.end) {
            self.next_outlier += 1;
        }
        let here = self.scene.outliers.get(self.next_outlier).filter(|outlier| time >= outlier.start);
        let own = -10.0 - distance;
        let score = own - here.map_or(0.0, |outlier| outlier.depth);
        Some(Frame { time, score, own, outlier: here.map(|_| self.next_outlier) })
    }
}
