//! The rate limit of error events.

use std::time::{Duration, Instant};

/// Error events that pass before the limit holds.
const BURST: u32 = 10;
/// Then one in this time.
const EVERY: Duration = Duration::from_secs(60);

/// A bucket of tokens: a burst, then one in a while.
#[derive(Debug)]
pub struct Throttle {
    tokens: u32,
    refilled: Instant,
    held_back: u64,
}

impl Throttle {
    pub fn new(now: Instant) -> Self {
        Throttle { tokens: BURST, refilled: now, held_back: 0 }
    }

    /// None: hold this one back. Some: let it pass; so many were held back before.
    pub fn pass(&mut self, now: Instant) -> Option<u64> {
        while self.tokens < BURST && now.duration_since(self.refilled) >= EVERY {
            self.tokens += 1;
            self.refilled += EVERY;
        }
        if self.tokens == 0 {
            self.held_back += 1;
            return None;
        }
        if self.tokens == BURST {
            self.refilled = now;
        }
        self.tokens -= 1;
        Some(std::mem::take(&mut self.held_back))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floods_of_errors_are_thinned_out_and_counted() {
        let start = Instant::now();
        let mut throttle = Throttle::new(start);
        let passed = (0..100).filter(|_| throttle.pass(start).is_some()).count();
        assert_eq!(passed as u32, BURST);
        assert_eq!(throttle.pass(start + EVERY), Some(90));
        assert_eq!(throttle.pass(start + EVERY), None);
        assert_eq!(throttle.pass(start + EVERY * 1000), Some(1));
        let passed = (1..100).filter(|_| throttle.pass(start + EVERY * 1000).is_some()).count();
        assert_eq!(passed as u32, BURST - 1);
    }
}
