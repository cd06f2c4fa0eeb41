//! Random runs of the machine against a hand count.

use std::collections::BTreeSet;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::config::Span;

#[derive(Debug, Clone, Copy)]
enum Step {
    /// Judged, with its score.
    Frame(f64),
    Skipped,
    Dropped,
    Failed,
    Paused,
    /// raise-after, clear-after, and the window of drift.
    Reload(u32, u32, u32),
    /// Another model, or the first again.
    Model,
}

/// Runs of like frames, so that events and drift come and go.
fn steps() -> impl Strategy<Value = Vec<Step>> {
    // Of the reference 0 to 19 below 0 is an outlier, below 6 is drift.
    let frame = prop_oneof![4 => 0.0..6.0, 4 => 6.0..20.0, 3 => Just(-1.0)];
    let run = (frame, 1..60_usize, any::<bool>()).prop_map(|(score, count, mixed)| {
        (0..count).map(|at| Step::Frame(if mixed && at % 3 == 2 { 10.0 } else { score })).collect::<Vec<_>>()
    });
    let other = prop_oneof![
        Just(Step::Skipped),
        Just(Step::Dropped),
        Just(Step::Failed),
        Just(Step::Paused),
        Just(Step::Model),
        (1..5_u32, 1..5_u32, 1..3_u32).prop_map(|(raise, clear, window)| Step::Reload(raise, clear, 12 * window)),
    ];
    let part = prop_oneof![3 => run, 1 => other.prop_map(|step| vec![step])];
    prop::collection::vec(part, 1..30).prop_map(|parts| parts.concat())
}

fn drift(window: u32) -> Drift {
    let config = config::Drift { window: Span::Frames(window), mean_p: 0.3 };
    let reference: Vec<f64> = (0..20).map(f64::from).collect();
    Drift::new(&config, &reference, 20.0).unwrap()
}

fn decision(raise_after: u32, clear_after: u32) -> config::Decision {
    config::Decision {
        raise_after: Span::Frames(raise_after),
        clear_after: Span::Frames(clear_after),
        ..config::Decision::default()
    }
}

fn verdict(score: f64) -> Verdict {
    Verdict::of(score, (score + 1.0) / 21.0, 0.01)
}

/// What a person would note down.
#[derive(Default)]
struct Notes {
    ids: BTreeSet<String>,
    raised: Option<String>,
    drifted: Option<String>,
    summary: Summary,
    drifts: u64,
    /// Outlier frames in a row and when they began; with an event, all since it began.
    outliers: u64,
    since: Option<Instant>,
}

impl Notes {
    fn take(&mut self, event: &Event, now: Time) {
        let (id, kind) = (event.id.clone().unwrap(), event.event);
        match kind {
            Kind::Raise => {
                assert_eq!(self.raised.replace(id.clone()), None, "two events stand");
                self.summary.raised += 1;
            }
            Kind::Clear => {
                assert_eq!(self.raised.take(), Some(id.clone()));
                self.summary.cleared += 1;
            }
            Kind::Drift => {
                assert_eq!(self.drifted.replace(id.clone()), None, "two drift events stand");
                self.drifts += 1;
            }
            Kind::DriftClear => assert_eq!(self.drifted.take(), Some(id.clone())),
            other => panic!("{other:?}"),
        }
        if matches!(kind, Kind::Raise | Kind::Drift) {
            assert!(self.ids.insert(id), "an id came again");
        }
        if matches!(kind, Kind::Raise | Kind::Clear) {
            assert_eq!(event.frames, Some(self.outliers));
            assert_eq!(event.duration_s, self.since.map(|since| seconds(now.monotonic - since)));
            let pictures = Some(event.snapshot.clone()).filter(|_| kind == Kind::Clear);
            assert_eq!(pictures.flatten().is_some(), kind == Kind::Clear);
        }
    }
}

/// Runs the steps and gives how many raises and drifts there were.
fn run(steps: &[Step]) -> (u64, u64) {
    let start = Time::now();
    let mut machine = Machine::new(&decision(3, 5), Ids::random(), start);
    assert_eq!(machine.set_drift(Some(drift(12)), start), None);
    let mut notes = Notes::default();
    let mut parked = Some(drift(12));
    for (at, step) in (1..).zip(steps) {
        let past = Duration::from_millis(100 * at);
        let now = Time { monotonic: start.monotonic + past, wall: start.wall };
        match *step {
            Step::Frame(score) => {
                notes.summary.frames += 1;
                if score < 0.0 {
                    notes.outliers += 1;
                    notes.since.get_or_insert(now.monotonic);
                } else if notes.raised.is_none() {
                    (notes.outliers, notes.since) = (0, None);
                }
                let events = machine.judged(verdict(score), 0.01, now);
                for event in &events {
                    notes.take(event, now);
                    match event.event {
                        Kind::Raise => {
                            let snapshot = event.id.as_ref().map(Into::into);
                            machine.set_pictures(Pictures { snapshot, ..Pictures::default() });
                        }
                        Kind::Clear => (notes.outliers, notes.since) = (0, None),
                        _ => {}
                    }
                }
            }
            // The change filter skips nothing else.
            Step::Skipped if machine.is_settled() => {
                notes.summary.skipped += 1;
                let score = if notes.raised.is_some() { -1.0 } else { 10.0 };
                machine.skipped(verdict(score), now).iter().for_each(|event| notes.take(event, now));
            }
            Step::Skipped => {}
            Step::Dropped => {
                notes.summary.dropped += 1;
                machine.dropped();
            }
            Step::Failed => {
                notes.summary.dropped += 1;
                machine.failed();
                assert!(!machine.judges());
            }
            Step::Paused => machine.paused(),
            Step::Model => {
                let (old, events) = machine.change_model(parked.take(), now);
                parked = old;
                events.iter().for_each(|event| notes.take(event, now));
                if notes.raised.is_none() {
                    (notes.outliers, notes.since) = (0, None);
                }
            }
            Step::Reload(raise_after, clear_after, window) => {
                machine.reconfigure(&decision(raise_after, clear_after));
                machine.set_drift(Some(drift(window)), now).iter().for_each(|event| notes.take(event, now));
            }
        }
        let status = machine.status(Threshold::default(), true);
        assert_eq!((status.raised, status.drift), (notes.raised.is_some(), Some(notes.drifted.is_some())));
        assert_eq!((status.summary, machine.summary()), (notes.summary, notes.summary));
    }
    let stop = machine.stop(start);
    assert_eq!((&stop.id, stop.frames), (&notes.raised, Some(notes.summary.frames)));
    assert_eq!(stop.snapshot, notes.raised.map(Into::into));
    assert!(!machine.status(Threshold::default(), false).raised);
    (notes.summary.raised, notes.drifts)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn events_begin_and_end_once_and_agree_with_a_hand_count(steps in steps()) {
        run(&steps);
    }
}

#[test]
fn events_and_drift_come_about() {
    let low = [vec![Step::Frame(1.0); 60], vec![Step::Frame(19.0); 30]].concat();
    let outliers = [Step::Frame(-1.0); 8];
    assert_eq!(run(&[low.as_slice(), &outliers, &[Step::Reload(3, 5, 24), Step::Skipped], &low].concat()), (1, 1));
}

#[test]
fn drift_of_a_model_waits_for_its_return() {
    let low = [Step::Frame(1.0); 60];
    let high = [Step::Frame(19.0); 60];
    // The second model knows nothing of the first one's drift, which stands again with it.
    assert_eq!(run(&[&low[..], &[Step::Model], &high, &[Step::Model], &high].concat()), (0, 2));
    assert_eq!(run(&[&low[..], &[Step::Model], &low].concat()), (0, 2));
    // Two outliers of one model and one of another are no three in a row.
    let outlier = Step::Frame(-1.0);
    assert_eq!(run(&[outlier, outlier, Step::Model, outlier]), (0, 0));
    assert_eq!(run(&[outlier, outlier, outlier, Step::Model, outlier]), (1, 0));
}

#[test]
fn a_suspicion_that_passed_does_not_date_a_later_event() {
    let start = Time::now();
    let at = |second| Time { monotonic: start.monotonic + Duration::from_secs(second), ..start };
    let mut machine = Machine::new(&decision(3, 5), Ids::random(), start);
    assert!(machine.judged(verdict(-1.0), 0.01, at(1)).is_empty());
    assert!(machine.judged(verdict(9.0), 0.01, at(2)).is_empty());
    machine.reconfigure(&decision(1, 1));
    let raise = machine.judged(verdict(-1.0), 0.01, at(60)).pop().unwrap();
    assert_eq!((raise.event, raise.duration_s), (Kind::Raise, Some(0.0)));
}

#[test]
fn the_rate_is_averaged_and_a_stop_names_the_event_that_stands() {
    let start = Time::now();
    let mut machine = Machine::new(&decision(1, 1), Ids::random(), start);
    assert_eq!(machine.status(Threshold::default(), true).line([]), "no frame judged yet");
    for at in 1..=100 {
        machine.judged(
            verdict(9.0),
            0.01,
            Time { monotonic: start.monotonic + Duration::from_millis(250 * at), ..start },
        );
    }
    let status = machine.status(Threshold::default(), true);
    assert!((status.rate().unwrap() - 4.0).abs() < 1e-6);
    assert_eq!(
        status.line(["the disk is full"]),
        "normal, p 0.476, 4.0 frames/s, 100 frames, 0 events; the disk is full"
    );
}
