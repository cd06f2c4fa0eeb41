//! How often each of several thresholds would have raised.

use std::collections::VecDeque;
use std::time::Duration;

use crate::config::Span;
use crate::watch::frame::decision::{Change, Decision};
use crate::watch::history::Entry;
use crate::watch::surprisal::Surprisal;

/// Times that are kept of a rung: the latest.
const LATEST: usize = 5;
/// Longer pauses between two frames, in hundredths of a second, were not watched.
const PAUSE: i64 = 60_000;

/// A threshold, and the events that it would have raised.
#[derive(Debug, Clone, PartialEq)]
pub struct Rung {
    /// A p.
    pub threshold: f64,
    pub events: u64,
    /// When the latest were raised, in hundredths of a second since 1970.
    pub latest: VecDeque<i64>,
    /// Events in each of as many parts of the time.
    pub parts: Vec<u32>,
    limit: Surprisal,
    decision: Decision,
}

/// Thresholds by falling p, and what the same frames make of each.
#[derive(Debug, Clone, PartialEq)]
pub struct Ladder {
    pub rungs: Vec<Rung>,
    from: i64,
    to: i64,
    last: Option<i64>,
    /// Hundredths of a second.
    watched: i64,
    pub frames: u64,
}

impl Ladder {
    /// Of frames between two times, in hundredths of a second since 1970, that is told in `parts` parts.
    pub fn new(
        thresholds: &[f64],
        raise_after: Span,
        clear_after: Span,
        (from, to): (i64, i64),
        parts: usize,
    ) -> Ladder {
        let mut thresholds = thresholds.to_vec();
        thresholds.sort_by(|a, b| b.total_cmp(a));
        thresholds.dedup();
        let rung = |threshold: f64| Rung {
            threshold,
            events: 0,
            latest: VecDeque::with_capacity(LATEST),
            parts: vec![0; parts.max(1)],
            limit: Surprisal::of_p(threshold),
            decision: Decision::new(raise_after, clear_after),
        };
        Ladder { rungs: thresholds.into_iter().map(rung).collect(), from, to, last: None, watched: 0, frames: 0 }
    }

    /// Takes all frames of a history.
    pub fn climb(&mut self, history: impl Iterator<Item = Entry>) {
        for entry in history {
            if let Entry::Frame { frame, .. } = entry {
                self.push(frame.time, frame.surprisal);
            }
        }
    }

    /// The next frame; one of another time is left out.
    pub fn push(&mut self, time: i64, surprisal: Surprisal) {
        if !(self.from..=self.to).contains(&time) {
            return;
        }
        self.watched += self.last.map_or(0, |last| time.saturating_sub(last).clamp(0, PAUSE));
        self.last = Some(time);
        self.frames += 1;
        let now = Duration::from_millis(10 * time.max(0).unsigned_abs());
        for rung in &mut self.rungs {
            if !matches!(rung.decision.push(surprisal > rung.limit, now), Some(Change::Raised { .. })) {
                continue;
            }
            rung.events += 1;
            if rung.latest.len() == LATEST {
                rung.latest.pop_front();
            }
            rung.latest.push_back(time);
            let way = (time as f64 - self.from as f64) / (self.to as f64 - self.from as f64).max(1.0);
            let parts = rung.parts.len();
            rung.parts[((way * parts as f64) as usize).min(parts - 1)] += 1;
        }
    }

    /// Days that were watched.
    pub fn days(&self) -> f64 {
        self.watched as f64 / 8_640_000.0
    }

    /// The greatest of the thresholds with which, and with every lower one, there were no more than `per_day` events a
    /// day; None where there is none, or nothing was watched.
    pub fn within(&self, per_day: f64) -> Option<&Rung> {
        let most = per_day * self.days();
        let kept = self.rungs.iter().rev().take_while(|rung| rung.events as f64 <= most);
        kept.last().filter(|_| self.watched > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_rung_counts_as_the_daemon_would() {
        let mut ladder = Ladder::new(&[0.001, 0.1, 0.01], Span::Frames(2), Span::Frames(2), (0, 1999), 2);
        // Two dips: to 0.005 for three frames, to 0.05 for two; and a single frame of 0.
        let dips = [(100, 3, 0.005), (1200, 2, 0.05), (1500, 1, 0.0)];
        for at in 0..3000 {
            let dip = dips.iter().find(|(from, frames, _)| (*from..from + frames).contains(&at));
            ladder.push(at, Surprisal::of_p(dip.map_or(0.5, |(_, _, p)| *p)));
        }
        let row = |rung: &Rung| (rung.threshold, rung.events, rung.parts.clone(), Vec::from(rung.latest.clone()));
        assert_eq!(
            ladder.rungs.iter().map(row).collect::<Vec<_>>(),
            [(0.1, 2, vec![1, 1], vec![101, 1201]), (0.01, 1, vec![1, 0], vec![101]), (0.001, 0, vec![0, 0], vec![]),]
        );
        assert_eq!(ladder.frames, 2000);
        let within = |events: f64| ladder.within(events / ladder.days()).map(|rung| rung.threshold);
        assert_eq!([within(0.5), within(1.5), within(2.5)], [Some(0.001), Some(0.01), Some(0.1)]);
    }
}
