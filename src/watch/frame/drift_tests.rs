//! Simulated watches: the rates of false drift and of drift found, frames as alike as those of a camera.

use std::time::{Duration, Instant};

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::*;
use crate::estimators::conformal::Conformal;

/// Frames of a simulated window: a block holds 100, some two and a half correlation times of an AR(1) of 0.95.
const WINDOW: u64 = 1200;

fn config(window: Span) -> config::Drift {
    config::Drift { window, mean_p: 0.3 }
}

/// Standard normal, by Box and Muller.
fn normal(rng: &mut ChaCha8Rng) -> f64 {
    let (u, v): (f64, f64) = (rng.random_range(f64::MIN_POSITIVE..1.0), rng.random_range(0.0..1.0));
    (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()
}

/// Frames whose deviation follows an AR(1) of variance 1.
struct Frames {
    rng: ChaCha8Rng,
    phi: f64,
    state: f64,
}

impl Frames {
    fn new(seed: u64, phi: f64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let state = normal(&mut rng);
        Frames { rng, phi, state }
    }

    fn next(&mut self) -> f64 {
        self.state = self.phi * self.state + (1.0 - self.phi * self.phi).sqrt() * normal(&mut self.rng);
        self.state
    }

    fn calibration(&mut self, n: usize) -> Conformal {
        let scores: Vec<f64> = (0..n).map(|_| normal(&mut self.rng)).collect();
        Conformal::counted(&scores).unwrap()
    }
}

fn verdict(conformal: &Conformal, score: f64) -> Verdict {
    Verdict::of(score, conformal.p_value(score), 0.0)
}

/// Windows until drift; None within so many.
fn windows_to_drift(seed: u64, phi: f64, n: usize, windows: u64, score: impl Fn(u64, f64) -> f64) -> Option<f64> {
    let mut frames = Frames::new(seed, phi);
    let conformal = frames.calibration(n);
    let mut drift = Drift::new(&config(Span::Frames(WINDOW as u32)), &conformal.scores, conformal.worth).unwrap();
    let now = Instant::now();
    (0..windows * WINDOW).find_map(|at| {
        let verdict = verdict(&conformal, score(at, frames.next()));
        match drift.push(now, verdict, Phase::Normal) {
            Some(Change::Begun(_)) => Some(at as f64 / WINDOW as f64),
            _ => None,
        }
    })
}

#[test]
fn stationary_frames_are_no_drift() {
    for (phi, n) in [(0.0, 20), (0.0, 200), (0.8, 200), (0.95, 20), (0.95, 60), (0.95, 500), (0.99, 200)] {
        let runs = 200;
        let false_drift =
            (0..runs).filter(|seed| windows_to_drift(*seed, phi, n, 20, |_, frame| frame).is_some()).count();
        println!("AR(1) {phi}, {n} calibration scores: false drift in {false_drift} of {runs} runs of 20 windows");
        // At 0.99 a block is as short as the frames' memory, and cannot show all of the scatter.
        let most = if phi < 0.99 { 0 } else { runs as usize / 50 };
        assert!(false_drift <= most, "AR(1) {phi}, {n} calibration scores: {false_drift}");
    }
}

/// The scores sink by three standard deviations over forty windows.
#[test]
fn sinking_scores_are_reported_before_most_frames_are_outliers() {
    for (phi, n) in [(0.0, 200), (0.95, 60), (0.95, 500)] {
        let runs = 100;
        let sink = |at: u64| 3.0 * at as f64 / (40.0 * WINDOW as f64);
        let mut sunk = Vec::new();
        for seed in 0..runs {
            let at = windows_to_drift(seed, phi, n, 40, |at, frame| frame - sink(at));
            sunk.push(at.map_or(f64::INFINITY, |windows| 3.0 * windows / 40.0));
        }
        sunk.sort_by(f64::total_cmp);
        // With p < 0.01 half of the frames are outliers 2.33 standard deviations down.
        let in_time = sunk.iter().filter(|sunk| **sunk < 2.33).count();
        let (median, last) = (sunk[50], sunk[99]);
        println!(
            "AR(1) {phi}, {n} scores: found in time in {in_time} of {runs} runs, {median:.2} sd down, last {last:.2}"
        );
        assert_eq!(in_time, runs as usize, "AR(1) {phi}, {n} scores");
    }
}

#[test]
fn scores_that_rise_or_sink_a_little_are_no_drift() {
    for shift in [-0.4, 0.5, 3.0] {
        let found = (0..50).filter(|seed| windows_to_drift(*seed, 0.9, 200, 10, |_, frame| frame + shift).is_some());
        assert_eq!(found.count(), 0, "{shift}");
    }
}

/// A day just shorter than five windows; its odder half is one state that lasts, as night does.
#[test]
fn states_that_calibration_has_seen_in_their_share_are_no_drift() {
    let cycle = 24 * WINDOW / 5;
    let night = |at: u64, frame: f64| if at % cycle < cycle / 2 { frame - 6.0 } else { frame };
    for seed in 0..20 {
        let mut frames = Frames::new(seed, 0.9);
        let scores: Vec<f64> = (0..300).map(|at| night(at * cycle / 300, normal(&mut frames.rng))).collect();
        let conformal = Conformal::counted(&scores).unwrap();
        let mut drift = Drift::new(&config(Span::Frames(WINDOW as u32)), &conformal.scores, conformal.worth).unwrap();
        let now = Instant::now();
        for at in 0..4 * cycle {
            let verdict = verdict(&conformal, night(at, frames.next()));
            assert_eq!(drift.push(now, verdict, Phase::Normal), None, "seed {seed}, frame {at}");
        }
    }
}

#[test]
fn drift_is_reported_once_and_is_over_once() {
    let mut frames = Frames::new(1, 0.9);
    let conformal = frames.calibration(200);
    let mut drift = Drift::new(&config(Span::Frames(WINDOW as u32)), &conformal.scores, conformal.worth).unwrap();
    let now = Instant::now();
    let mut found = Vec::new();
    for at in 0..60 * WINDOW {
        // Sinks, stays for long near the limit, and comes back.
        let shift = match at / WINDOW {
            0..10 => 0.0,
            10..45 => -1.4,
            _ => 0.0,
        };
        match drift.push(now, verdict(&conformal, frames.next() + shift), Phase::Normal) {
            Some(Change::Begun(finding)) => found.push(("begun", finding)),
            Some(Change::Over(finding)) => found.push(("over", finding)),
            None => {}
        }
        assert_eq!(drift.is_drifting(), found.len() == 1);
    }
    assert_eq!(found.iter().map(|(what, _)| *what).collect::<Vec<_>>(), ["begun", "over"]);
    let (begun, over) = (found[0].1, found[1].1);
    assert!(begun.rank <= 0.3 && begun.t >= T && over.rank >= 0.4);
    assert!((begun.p - begun.rank).abs() < 0.02, "{begun:?}");
    assert_eq!(begun.frames, WINDOW);
}

#[test]
fn frames_of_events_do_not_count() {
    let conformal = Frames::new(3, 0.0).calibration(100);
    let mut drift = Drift::new(&config(Span::Frames(WINDOW as u32)), &conformal.scores, conformal.worth).unwrap();
    let now = Instant::now();
    let odd = verdict(&conformal, -9.0);
    for _ in 0..10 * WINDOW {
        assert_eq!(drift.push(now, odd, Phase::Suspected), None);
        assert_eq!(drift.push(now, odd, Phase::Suspected), None);
        assert_eq!(drift.push(now, odd, Phase::Raised), None);
    }
    assert_eq!(drift.finding(), None);
    // Outliers that came to nothing are normal frames that scored low.
    let mut found = None;
    for _ in 0..2 * WINDOW {
        drift.push(now, odd, Phase::Suspected);
        found = found.or(drift.push(now, odd, Phase::Normal));
    }
    assert!(matches!(found, Some(Change::Begun(_))));
}

#[test]
fn time_stands_still_while_nothing_normal_is_seen() {
    let conformal = Frames::new(4, 0.0).calibration(100);
    let mut drift =
        Drift::new(&config(Span::Time(Duration::from_secs(36))), &conformal.scores, conformal.worth).unwrap();
    let start = Instant::now();
    let at = |seconds: u64| start + Duration::from_secs(seconds);
    let low = verdict(&conformal, -9.0);
    for second in 0..100 {
        assert_eq!(drift.push(at(second), low, Phase::Normal), None);
    }
    drift.push(at(100), low, Phase::Raised);
    drift.push(at(5000), low, Phase::Normal);
    drift.pause();
    for second in 9000..9009 {
        assert_eq!(drift.push(at(second), low, Phase::Normal), None, "{second}");
    }
    let found = (9009..9012).find_map(|second| drift.push(at(second), low, Phase::Normal));
    let Some(Change::Begun(finding)) = found else { panic!("{found:?}") };
    assert!(finding.rank == 0.0 && (36..=40).contains(&finding.frames), "{finding:?}");
}

#[test]
fn without_scores_the_reason_is_given() {
    let window = config(Span::Frames(WINDOW as u32));
    assert!(Drift::new(&window, &[], 0.0).unwrap_err().contains("keeps no scores"));
    assert!(Drift::new(&window, &[1.0; 19], 19.0).unwrap_err().contains("19 scores"));
    assert!(Drift::new(&config(Span::Frames(0)), &[1.0; 20], 20.0).unwrap_err().contains("drift.window is 0"));
    let drift = Drift::new(&window, &[1.0; 20], 20.0).unwrap();
    assert!(drift.is_like(&Drift::new(&window, &[1.0; 20], 20.0).unwrap()));
    assert!(!drift.is_like(&Drift::new(&window, &[1.0; 21], 21.0).unwrap()));
}

#[test]
fn ranks_are_shares_and_ties_count_half() {
    assert_eq!(rank(&[1.0, 2.0, 2.0, 3.0], 2.0), 0.5);
    assert_eq!([0.0, 1.0, 2.5, 9.0].map(|score| rank(&[1.0, 2.0, 2.0, 3.0], score)), [0.0, 0.125, 0.75, 1.0]);
}
