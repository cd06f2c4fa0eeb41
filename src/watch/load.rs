//! What the watch leaves to others of a small board: priority, and the share of the time that judging takes.

use std::time::Duration;

/// How long to wait after a frame that took `took`, so that judging takes the share `duty` of the time at most:
/// `took (1 / duty - 1)`.
pub fn rest(took: Duration, duty: f64) -> Duration {
    let factor = 1.0 / duty - 1.0;
    if factor.is_finite() && factor > 0.0 { took.mul_f64(factor) } else { Duration::ZERO }
}

/// Sets the calling thread's nice value; threads and hooks that it starts from now on have it too. 0: left as it is.
///
/// A process that was started with a higher nice value keeps it: lowering it takes a privilege.
pub fn lower_priority(nice: i32) -> std::io::Result<()> {
    if nice == 0 || rustix::process::getpriority_process(None)? >= nice {
        return Ok(());
    }
    Ok(rustix::process::setpriority_process(None, nice)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn judging_takes_its_share_of_the_time() {
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

    /// In a thread of its own, because what is lowered stays lowered.
    #[test]
    fn priority_goes_down_and_never_up() {
        let nice = |nice| {
            lower_priority(nice).unwrap();
            rustix::process::getpriority_process(None).unwrap()
        };
        let seen = std::thread::spawn(move || {
            let before = nice(0);
            let low = nice(19);
            (before, low, nice(3), std::thread::spawn(move || nice(0)).join().unwrap())
        });
        let (before, low, kept, inherited) = seen.join().unwrap();
        assert!(before <= low);
        assert_eq!((low, kept, inherited), (19, 19, 19));
    }
}
