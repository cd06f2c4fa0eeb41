//! The peaks of a series of frames: what each event at some threshold would be, whatever the threshold.
//!
//! An event at a level begins when a run of `raise_after` exceeds it: when its minimum does. It ends when a run of
//! `clear_after` does not: when their maximum is at or below it. So the running minimum makes the way up
//! to a peak, the running maximum the way down from it, and a peak is shown when that way is longer than
//! [`PROMINENCE`]. There are as many peaks above a level as events at it, but for smaller dips between two.

use std::collections::VecDeque;

use crate::config::Span;
use crate::watch::surprisal::Surprisal;

/// Shorter ways down do not part two peaks: 2.
const PROMINENCE: u16 = 4096;

/// The running extreme of the shortest run of frames that is long enough, amortized O(1).
#[derive(Debug, Clone, PartialEq)]
struct Running {
    length: Span,
    greatest: bool,
    at: u64,
    /// Times of the frames of the run, in hundredths of a second.
    times: VecDeque<i64>,
    /// Candidates: position and value, the extreme first.
    window: VecDeque<(u64, u16)>,
}

impl Running {
    fn new(length: Span, greatest: bool) -> Self {
        Running { length, greatest, at: 0, times: VecDeque::new(), window: VecDeque::new() }
    }

    /// Whether the run has that length without its first `without` frames.
    fn is_long_enough(&self, without: usize) -> bool {
        match (self.length, self.times.get(without), self.times.back()) {
            (Span::Frames(frames), ..) => self.times.len() - without >= frames.max(1) as usize,
            (Span::Time(time), Some(first), Some(last)) => 10 * u128::from(last.abs_diff(*first)) >= time.as_millis(),
            (Span::Time(_), ..) => false,
        }
    }

    /// The extreme, when so much was seen.
    fn push(&mut self, time: i64, value: u16) -> Option<u16> {
        // A clock that was set back begins the run anew.
        if self.times.back().is_some_and(|last| time < *last) {
            self.times.clear();
            self.window.clear();
        }
        let beats = |old: u16| if self.greatest { value >= old } else { value <= old };
        while self.window.back().is_some_and(|(_, old)| beats(*old)) {
            self.window.pop_back();
        }
        self.window.push_back((self.at, value));
        self.times.push_back(time);
        self.at += 1;
        while self.is_long_enough(1) {
            self.times.pop_front();
        }
        let first = self.at - self.times.len() as u64;
        while self.window.front().is_some_and(|(at, _)| *at < first) {
            self.window.pop_front();
        }
        self.is_long_enough(0).then(|| self.window.front().map_or(value, |(_, value)| *value))
    }
}

/// A peak that is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peak {
    pub height: Surprisal,
    /// It met an event that was raised.
    pub raised: bool,
}

/// Finds peaks as frames come.
#[derive(Debug, Clone, PartialEq)]
pub struct Peaks {
    low: Running,
    high: Running,
    way: Way,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Way {
    Down { lowest: u16 },
    Up { highest: u16, raised: bool },
}

impl Peaks {
    pub fn new(raise_after: Span, clear_after: Span) -> Self {
        Peaks {
            low: Running::new(raise_after, false),
            high: Running::new(clear_after, true),
            way: Way::Down { lowest: u16::MAX },
        }
    }

    /// Takes a frame of that time, in hundredths of a second. Returns the minimum of the last `raise_after`, where there
    /// was so much, and the peak that this frame ends.
    pub fn push(&mut self, time: i64, frame: Surprisal, is_raised: bool) -> (Option<Surprisal>, Option<Peak>) {
        let (low, high) = (self.low.push(time, frame.0), self.high.push(time, frame.0));
        let mut peak = None;
        match &mut self.way {
            Way::Down { lowest } => {
                *lowest = high.map_or(*lowest, |high| high.min(*lowest));
                if let Some(low) = low.filter(|low| u32::from(*low) > u32::from(*lowest) + u32::from(PROMINENCE)) {
                    self.way = Way::Up { highest: low, raised: is_raised };
                }
            }
            Way::Up { highest, raised } => {
                *raised |= is_raised;
                *highest = low.map_or(*highest, |low| low.max(*highest));
                if let Some(high) = high.filter(|high| u32::from(*high) + u32::from(PROMINENCE) < u32::from(*highest)) {
                    peak = Some(Peak { height: Surprisal(*highest), raised: *raised });
                    self.way = Way::Down { lowest: high };
                }
            }
        }
        (low.map(Surprisal), peak)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Peaks of a series, heights in tenths.
    fn peaks(raise_after: u32, clear_after: u32, series: &[i32]) -> Vec<i32> {
        let count = found(Peaks::new(Span::Frames(raise_after), Span::Frames(clear_after)), series);
        // A frame a second: so many frames take one second less.
        let time = |frames: u32| Span::Time(Duration::from_secs(u64::from(frames) - 1));
        if raise_after > 1 && clear_after > 1 {
            assert_eq!(found(Peaks::new(time(raise_after), time(clear_after)), series), count);
        }
        count
    }

    fn found(mut peaks: Peaks, series: &[i32]) -> Vec<i32> {
        let push = |(at, value): (i64, &i32)| peaks.push(100 * at, Surprisal::new(f64::from(*value) / 10.0), false).1;
        (1..).zip(series).filter_map(push).map(|peak| (10.0 * peak.height.value()).round() as i32).collect()
    }

    #[test]
    fn a_peak_is_what_raises_and_clears() {
        let series = [5, 5, 60, 5, 5, 60, 70, 65, 5, 5, 90, 90, 5, 80, 80, 5, 5, 5];
        // With one frame each, every way up is an event; with two, a single frame neither raises nor clears.
        assert_eq!(peaks(1, 1, &series), [60, 70, 90, 80]);
        assert_eq!(peaks(2, 2, &series), [65, 90]);
        assert_eq!(peaks(3, 2, &series), [60]);
        assert_eq!(peaks(4, 1, &series), [] as [i32; 0]);
    }

    #[test]
    fn small_dips_part_nothing_and_what_was_raised_is_told() {
        assert_eq!(peaks(1, 1, &[5, 60, 45, 70, 55, 65, 5]), [70]);
        let mut found = Peaks::new(Span::Frames(1), Span::Frames(1));
        let shown: Vec<bool> = [(5, false), (60, false), (70, true), (60, false), (5, false), (50, false), (5, false)]
            .iter()
            .filter_map(|(value, raised)| found.push(0, Surprisal::new(f64::from(*value) / 10.0), *raised).1)
            .map(|peak| peak.raised)
            .collect();
        assert_eq!(shown, [true, false]);
    }
}
