//! A week of a simulated scene under an alarm budget. Shown with figures:
//! `cargo test --release --test integration budget -- --nocapture`; every case:  `… budget -- --nocapture --ignored`.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use outlierd::internals::config::Span;
use outlierd::internals::estimators::conformal::Conformal;
use outlierd::internals::watch::budget::{Budget, Params};
use outlierd::internals::watch::frame::decision::{Decision, Phase};
use outlierd::internals::watch::history::{Reader, Writer};
use rayon::prelude::*;

#[path = "scores.rs"]
mod scores;
use scores::{DAY, Outlier, Scene};

const SEEDS: std::ops::RangeInclusive<u64> = 1..=10;
/// The model's own threshold.
const OWN: f64 = 0.01;
/// An outlier can be told by its score when `raise_after` frames of it lie farther off than any so many frames of the
/// scene itself in that week, by the noise of one frame by day.
const MARGIN: f64 = 1.0;

#[derive(Clone)]
struct Case {
    scene: Scene,
    per_day: f64,
    raise_after: u32,
    /// Seconds after which a person takes an event back that no outlier met.
    taken_back_after: Option<f64>,
}

impl Case {
    fn week(seed: u64) -> Case {
        Case { scene: Scene::week(seed).with_outliers(40), per_day: 1.0, raise_after: 3, taken_back_after: None }
    }

    /// p of scores, from 400 frames of the afternoon before, and the budget of that model.
    fn model(&self) -> (Conformal, Budget) {
        let scores = self.scene.calibration(400, 5.0);
        let lowest = scores.iter().copied().fold(f64::INFINITY, f64::min);
        let conformal = Conformal::fit(&scores, 40.0).unwrap();
        let budget = Budget::new(Params {
            per_day: self.per_day,
            raise_after: Span::Frames(self.raise_after),
            clear_after: Span::Frames(5),
            settle: Duration::from_secs(86_400),
            threshold: OWN,
            lowest: conformal.p_value(lowest),
        });
        (conformal, budget)
    }
}

fn clock(seconds: f64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs_f64(1_699_920_000.0 + seconds)
}

/// The events of one threshold.
struct Events {
    decision: Decision,
    raised_at: f64,
    met: bool,
    hit: Vec<bool>,
    /// Begin and end of those that no outlier met.
    wrong: Vec<(f64, f64)>,
}

impl Events {
    fn new(case: &Case) -> Events {
        let (decision, hit) =
            (Decision::new(Span::Frames(case.raise_after), Span::Frames(5)), vec![false; case.scene.outliers.len()]);
        Events { decision, raised_at: 0.0, met: false, hit, wrong: Vec::new() }
    }

    fn push(&mut self, frame: &scores::Frame, outlier: bool) {
        let was = self.decision.phase() == Phase::Raised;
        self.decision.push(outlier, Duration::from_secs_f64(frame.time.max(0.0)));
        match (was, self.decision.phase() == Phase::Raised) {
            (false, true) => (self.raised_at, self.met) = (frame.time, false),
            (true, false) if !self.met => self.wrong.push((self.raised_at, frame.time)),
            _ => {}
        }
        if let Some(at) = frame.outlier.filter(|_| self.decision.phase() == Phase::Raised) {
            (self.hit[at], self.met) = (true, true);
        }
    }

    fn missed(&self, told: &[bool]) -> usize {
        self.hit.iter().zip(told).filter(|(hit, told)| **told && !**hit).count()
    }
}

#[derive(Debug)]
struct Outcome {
    wrong: usize,
    wrong_settling: usize,
    own_wrong: usize,
    told: usize,
    missed: usize,
    own_missed: usize,
    steps: usize,
    threshold: f64,
    /// Days raised at the end of which nobody could see anything else.
    raised: f64,
}

fn run(case: &Case) -> Outcome {
    let (conformal, mut budget) = case.model();
    let (mut events, mut own) = (Events::new(case), Events::new(case));
    let (mut steps, mut raised) = (0, 0.0);
    let mut farthest = f64::NEG_INFINITY;
    let mut best = vec![f64::NEG_INFINITY; case.scene.outliers.len()];
    let length = case.raise_after as usize;
    let (mut scene, mut seen) = (vec![f64::NEG_INFINITY; length], vec![f64::NEG_INFINITY; length]);
    for (at, frame) in case.scene.frames().enumerate() {
        let p = conformal.p_value(frame.score);
        events.push(&frame, p < budget.threshold());
        own.push(&frame, p < OWN);
        let stands = events.decision.phase() == Phase::Raised;
        steps += usize::from(budget.push(clock(frame.time), p, stands).is_some());
        if let Some(after) = case.taken_back_after
            && stands
            && !events.met
            && ((frame.time - events.raised_at) % after) < 0.25
            && frame.time > events.raised_at
        {
            budget.take_back(clock(events.raised_at), clock(frame.time));
        }
        raised += f64::from(u8::from(stands)) / case.scene.frames_per_second / DAY;
        (scene[at % length], seen[at % length]) = (-frame.own, -frame.score);
        let least = |of: &[f64]| of.iter().copied().fold(f64::INFINITY, f64::min);
        farthest = farthest.max(least(&scene));
        if let Some(outlier) = frame.outlier {
            best[outlier] = best[outlier].max(least(&seen));
        }
    }
    let told: Vec<bool> = best.iter().map(|best| *best > farthest + MARGIN).collect();
    Outcome {
        wrong: events.wrong.len(),
        wrong_settling: events.wrong.iter().filter(|(from, _)| *from < DAY).count(),
        own_wrong: own.wrong.len(),
        told: told.iter().filter(|told| **told).count(),
        missed: events.missed(&told),
        own_missed: own.missed(&told),
        steps,
        threshold: budget.threshold(),
        raised,
    }
}

fn all(name: &str, case: impl Fn(u64) -> Case + Sync) -> Vec<Outcome> {
    let outcomes: Vec<Outcome> = SEEDS.into_par_iter().map(|seed| run(&case(seed))).collect();
    let list = |of: &dyn Fn(&Outcome) -> usize| {
        outcomes.iter().map(|outcome| of(outcome).to_string()).collect::<Vec<_>>().join(" ")
    };
    println!("{name}: false events {}, of them while settling {}", list(&|o| o.wrong), list(&|o| o.wrong_settling));
    println!("    with the model's own threshold {}", list(&|o| o.own_wrong));
    println!(
        "    outliers missed {} of {}; with its own {}",
        list(&|o| o.missed),
        list(&|o| o.told),
        list(&|o| o.own_missed)
    );
    let raised: Vec<String> = outcomes.iter().map(|o| format!("{:.2}", o.raised)).collect();
    let last: Vec<String> = outcomes.iter().map(|o| format!("{:.0e}", o.threshold)).collect();
    println!("    steps {}; days raised {}; last threshold {}", list(&|o| o.steps), raised.join(" "), last.join(" "));
    outcomes
}

fn sum(outcomes: &[Outcome], of: impl Fn(&Outcome) -> usize) -> usize {
    outcomes.iter().map(of).sum()
}

#[test]
fn one_a_day_is_kept_for_a_week() {
    let outcomes = all("1/day", Case::week);
    let kept = outcomes.iter().filter(|outcome| (3..=14).contains(&outcome.wrong)).count();
    assert!(kept >= 9, "{kept} of {}", outcomes.len());
    assert!(outcomes.iter().all(|outcome| outcome.own_wrong > 100));
    // What lies one noise beyond a whole week is told, but not always: on a rough day the threshold is there too.
    let (missed, told) = (sum(&outcomes, |o| o.missed), sum(&outcomes, |o| o.told));
    assert!(told > 250 && missed * 50 <= told, "{missed} of {told}");
}

#[test]
fn a_burst_of_real_outliers_does_not_eat_the_budget() {
    let burst = |seed: u64| {
        let mut case = Case::week(seed);
        let hour = 3.5 * DAY;
        case.scene.outliers.retain(|outlier| (outlier.start - hour).abs() > 7200.0);
        let outlier = |at: u32| {
            let start = hour + 60.0 * f64::from(at);
            Outlier { start, end: start + 15.0, depth: 12.0 + f64::from(at % 10) }
        };
        case.scene.outliers.extend((0..60).map(outlier));
        case.scene.outliers.sort_by(|a, b| a.start.total_cmp(&b.start));
        case
    };
    let outcomes = all("1/day, 60 outliers in an hour", burst);
    let (missed, told) = (sum(&outcomes, |o| o.missed), sum(&outcomes, |o| o.told));
    // Most; in some weeks those hardly beyond the threshold are taken for a storm, and what is left of the hour is lost.
    assert!(missed * 3 <= told, "{missed} of {told}");
    assert!(outcomes.iter().all(|outcome| outcome.wrong <= 14));
}

/// The budget that is rebuilt from the history after a kill, and one that never stopped.
#[test]
fn a_restart_changes_nothing() {
    let mut case = Case::week(3);
    case.scene.days = 3.0;
    let (conformal, mut whole) = case.model();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("door.history");
    let mut writer = Writer::open(&path, 8 << 20, 7).unwrap();
    let mut restarted = case.model().1;
    let (mut one, mut other) = (Events::new(&case), Events::new(&case));
    let mut restarts = [0.4, 1.7, 2.2, 2.6].map(|day| day * DAY + 4321.0).into_iter().peekable();
    let mut differing = 0;
    let mut frames = 0;
    for frame in case.scene.frames() {
        let p = conformal.p_value(frame.score);
        one.push(&frame, p < whole.threshold());
        whole.push(clock(frame.time), p, one.decision.phase() == Phase::Raised);
        if restarts.next_if(|at| frame.time >= *at).is_some() {
            std::mem::forget(writer);
            restarted = case.model().1;
            Reader::open(&path, Some(7)).unwrap().for_each(|entry| restarted.replay(&entry));
            writer = Writer::open(&path, 8 << 20, 7).unwrap();
        }
        let threshold = restarted.threshold();
        other.push(&frame, p < threshold);
        writer.push(clock(frame.time), frame.score, p, other.decision.phase() == Phase::Raised, threshold).unwrap();
        restarted.push(clock(frame.time), p, other.decision.phase() == Phase::Raised);
        differing += usize::from(restarted.threshold() != whole.threshold());
        frames += 1;
    }
    println!(
        "thresholds differed in {differing} of {frames} frames; {} events, {}",
        one.wrong.len(),
        other.wrong.len()
    );
    assert!(differing * 50 < frames, "{differing} of {frames}");
    assert_eq!(one.hit, other.hit);
}

#[test]
#[ignore = "figures of other cases, a minute"]
fn other_cases() {
    all("2/week", |seed| Case { per_day: 2.0 / 7.0, ..Case::week(seed) });
    all("5/day", |seed| Case { per_day: 5.0, ..Case::week(seed) });
    all("raise-after 1", |seed| Case { raise_after: 1, ..Case::week(seed) });
    all("raise-after 10", |seed| Case { raise_after: 10, ..Case::week(seed) });
    for frames_per_second in [0.5, 5.0] {
        all(&format!("{frames_per_second} frames a second"), |seed| {
            let case = Case::week(seed);
            Case { scene: Scene { frames_per_second, ..case.scene }, ..case }
        });
    }
    all("no outliers", |seed| Case { scene: Scene::week(seed), ..Case::week(seed) });
    let changed = |seed| {
        let case = Case::week(seed);
        Case { scene: Scene { change: Some((4.0, 8.0)), ..case.scene }, ..case }
    };
    all("changed for good on day 4", changed);
    all("the same, events taken back after half an hour", |seed| Case {
        taken_back_after: Some(1800.0),
        ..changed(seed)
    });
}

/// Runs `outlierd tune` with a config.
fn tune(config: &std::path::Path, args: &[&str]) -> (Option<i32>, String) {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_outlierd"));
    let output = command.arg("tune").arg("-c").arg(config).args(args).env("TZ", "UTC").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap();
    (output.status.code(), text)
}

#[test]
fn tune_says_what_other_thresholds_would_have_raised() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("door.toml");
    let text = "# mine\n[model]\npath = \"m\"\n[decision] # here\nraise-after = 2\n[events]\nlog = \"events.jsonl\"\n\
                snapshots = \"shots\"\n";
    std::fs::write(&config, text).unwrap();
    let (code, said) = tune(&config, &[]);
    assert_eq!(code, Some(66), "{said}");
    assert!(said.contains("door.history"), "{said}");

    // An hour that ended a minute ago: three dips to 0.005, one to 0.0005.
    let begin = SystemTime::now() - Duration::from_secs(3660);
    let mut writer = Writer::open(&dir.path().join("door.history"), 8 << 20, 7).unwrap();
    for at in 0..7200_u32 {
        let p: f64 = match at {
            1000..1004 | 3000..3004 | 5000..5004 => 0.005,
            6000..6004 => 0.0005,
            _ => 0.5,
        };
        writer.push(begin + at * Duration::from_millis(500), p.ln(), p, false, 0.001).unwrap();
    }
    drop(writer);
    let (code, said) = tune(&config, &["--since", "2h", "--json", "--threshold", "0.01"]);
    assert_eq!(code, Some(0), "{said}");
    let told: serde_json::Value = serde_json::from_str(&said).unwrap();
    let events = |near: f64| {
        let ladder = told["ladder"].as_array().unwrap();
        let rung = ladder.iter().find(|rung| (rung["threshold"].as_f64().unwrap() / near).ln().abs() < 0.01);
        rung.map(|rung| (rung["events"].as_u64().unwrap(), rung["latest"].as_array().unwrap().len()))
    };
    assert_eq!([events(0.01), events(0.001), events(0.0001)], [Some((4, 4)), Some((1, 1)), Some((0, 0))], "{said}");
    assert_eq!((told["frames"].as_u64(), told["raise_after"].as_u64()), (Some(7200), Some(2)));
    assert_eq!(told["line"], "threshold = 0.01");

    let (code, said) = tune(&config, &["--since", "2h", "--false-alarms", "30/day"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("false-alarms = \"30/day\"") && said.lines().any(|line| line.starts_with('>')), "{said}");
    assert_eq!(std::fs::read_to_string(&config).unwrap(), text);
    let (code, said) = tune(&config, &["--since", "2h", "--threshold", "0.01", "--write"]);
    assert!(code == Some(0) && said.contains("systemctl reload"), "{said}");
    assert_eq!(std::fs::read_to_string(&config).unwrap(), text.replace("here\n", "here\nthreshold = 0.01\n"));
    assert_eq!(tune(&config, &["--write"]).0, Some(64));
}
