//! When the next frame is due.

use std::time::{Duration, Instant};

/// `interval` after the last frame was due, or later where that frame has taken its share of the time.
pub fn next_due(due: Instant, interval: Duration, now: Instant, rest: Duration) -> Instant {
    (due + interval).max(now + rest)
}

/// How long to rest after a frame that took `took`, so that frames take the share `duty` of the time at most:
/// `took (1 / duty - 1)`.
pub fn rest(took: Duration, duty: f64) -> Duration {
    let factor = 1.0 / duty - 1.0;
    if factor.is_finite() && factor > 0.0 { took.mul_f64(factor) } else { Duration::ZERO }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_take_their_share_of_the_time() {
        let took = Duration::from_millis(300);
        assert_eq!(rest(took, 1.0), Duration::ZERO);
        assert_eq!(rest(took, 0.5), took);
        for duty in [0.01, 0.1, 0.25, 0.9] {
            let share = took.as_secs_f64() / (took + rest(took, duty)).as_secs_f64();
            assert!((share - duty).abs() < 1e-6, "{share} of {duty}");
        }
        assert_eq!(rest(took, 0.0), Duration::ZERO);
        assert_eq!(rest(took, 2.0), Duration::ZERO);
    }
}
