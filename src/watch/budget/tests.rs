use std::time::UNIX_EPOCH;

use super::*;

fn params() -> Params {
    Params {
        per_day: 1.0,
        raise_after: Span::Frames(2),
        clear_after: Span::Frames(2),
        settle: Duration::from_secs(7200),
        threshold: 0.01,
        lowest: 0.002,
    }
}

fn at(seconds: f64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs_f64(1_700_000_000.0 + seconds)
}

/// Noise whose p is spread evenly from 0 to 1.
fn noise(at: u32) -> f64 {
    let hash = at.wrapping_mul(0x9e37_79b1) ^ (at.wrapping_mul(0x85eb_ca6b) >> 13);
    (f64::from(hash.wrapping_mul(0xc2b2_ae35)) + 0.5) / 4_294_967_296.0
}

#[test]
fn settling_raises_what_is_beyond_all_before_and_ends() {
    let mut budget = Budget::new(params());
    assert!((budget.threshold() / 0.002 - 1.0).abs() < 1e-3);
    assert_eq!(budget.settling(), Some(Duration::from_secs(7200)));
    let mut reasons = Vec::new();
    for second in 0..7210 {
        // One event, at 0.0005.
        let raised = (1000..1010).contains(&second);
        let step = budget.push(at(f64::from(second)), if raised { 0.0005 } else { noise(second).max(0.02) }, raised);
        reasons.extend(step.map(|step| step.reason));
        if second == 1700 {
            assert!(budget.threshold() < 0.0005, "{}", budget.threshold());
        }
    }
    assert_eq!(reasons[0], Reason::Settling);
    for second in 7210..9000 {
        budget.push(at(f64::from(second)), noise(second).max(0.02), false);
    }
    assert_eq!(budget.settling(), None);
}

#[test]
fn the_end_of_settling_is_told_once_though_the_threshold_stays() {
    let mut budget = Budget::new(params());
    let steps: Vec<Step> = (0..20_000).filter_map(|second| budget.push(at(f64::from(second)), 0.5, false)).collect();
    let settled = steps.iter().filter(|step| step.reason == Reason::Settled).count();
    assert_eq!((settled, budget.settling()), (1, None), "{steps:?}");
}

#[test]
fn the_threshold_moves_in_limited_steps_within_its_bounds() {
    let mut budget = Budget::new(Params { settle: Duration::ZERO, ..params() });
    let (mut before, mut loosest) = (budget.threshold(), 0.0_f64);
    // A quiet scene, a rough one, and one where p is 0.
    for frame in 0..300_000_u32 {
        let p = match frame / 100_000 {
            0 => 0.3 + 0.7 * noise(frame),
            1 => noise(frame).powi(4),
            _ => 0.0,
        };
        budget.push(at(f64::from(frame)), p, false);
        let now = budget.threshold();
        assert!((now / before).ln().abs() < STEP + 0.5 / GRID + 1e-3, "{before} to {now} at {frame}");
        assert!((0.99 * LEAST..=0.1001).contains(&now), "{now}");
        loosest = loosest.max(now);
        before = now;
    }
    assert!(loosest > 0.05 && before < 1e-9, "{loosest} {before}");
}

#[test]
fn clocks_that_step_break_nothing() {
    let mut budget = Budget::new(Params { settle: Duration::ZERO, ..params() });
    for frame in 0..20_000_u32 {
        let step = [0.0, 1e6, -1e6, 3e8][(frame / 7 % 4) as usize];
        let raised = frame % 50 < 3;
        budget.push(at(f64::from(frame) + step), if frame % 11 == 0 { f64::NAN } else { noise(frame) }, raised);
        if frame % 1000 == 0 {
            budget.take_back(at(f64::from(frame)), at(f64::from(frame) - 1e5));
            budget.take_back(UNIX_EPOCH, at(1e9));
        }
        assert!((0.99 * LEAST..=0.1001).contains(&budget.threshold()));
    }
}

#[test]
fn a_standing_event_that_is_taken_back_is_followed() {
    let run = |taken_back: bool| {
        let mut budget = Budget::new(Params { settle: Duration::ZERO, ..params() });
        let mut raised = false;
        for second in 0..2 * 86_400_u32 {
            let changed = second > 86_400;
            let p = if changed { 1e-5 * noise(second) } else { noise(second) };
            raised = p < budget.threshold() && changed;
            budget.push(at(f64::from(second)), p, raised);
            if taken_back && second == 86_400 + 3600 {
                budget.take_back(at(86_000.0), at(f64::from(second)));
            }
        }
        (raised, budget.threshold())
    };
    let (followed, stayed) = (run(true), run(false));
    assert!(stayed.1 > 20.0 * followed.1 && stayed.0, "{followed:?} {stayed:?}");
}

#[test]
fn a_week_takes_tens_of_kilobytes() {
    assert!(size_of::<Block>() <= 48, "{}", size_of::<Block>());
}
