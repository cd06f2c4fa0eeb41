//! When an outlier becomes an event: so many outliers in a row, or outliers for so long, raise it; so many inliers, or
//! inliers for so long, clear it.

use std::time::Duration;

use crate::config::Span;

/// The state of raise and clear. Pure: time comes with the frames, from any start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    raise_after: Span,
    clear_after: Span,
    raised: bool,
    /// Frames in a row for or against an event.
    run: u32,
    /// The time of the first of them since a pause.
    since: Option<Duration>,
    outliers: u64,
}

/// What the latest frame is to the decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// The verdict is inlier and no event stands.
    Normal,
    /// An outlier frame that may become an event.
    Suspected,
    /// A frame of an event.
    Raised,
}

/// What a frame changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// An outlier frame that may become an event: the first of a run.
    Suspected,
    /// `frames` outlier frames in a row: the event begins.
    Raised { frames: u64 },
    /// The event is over; `frames` outlier frames belong to it.
    Cleared { frames: u64 },
}

impl Decision {
    /// What is zero is taken as one frame.
    pub fn new(raise_after: Span, clear_after: Span) -> Self {
        Decision { raise_after, clear_after, raised: false, run: 0, since: None, outliers: 0 }
    }

    /// Another length of runs; an event that stands keeps standing.
    pub fn reconfigure(&mut self, raise_after: Span, clear_after: Span) {
        (self.raise_after, self.clear_after) = (raise_after, clear_after);
    }

    /// The frames of the run under way count for nothing any more.
    pub fn restart(&mut self) {
        (self.run, self.since) = (0, None);
        if !self.raised {
            self.outliers = 0;
        }
    }

    /// No frame comes for a while: that time is not a run's.
    pub fn pause(&mut self) {
        self.since = None;
    }

    pub fn phase(&self) -> Phase {
        match (self.raised, self.is_settled()) {
            (true, _) => Phase::Raised,
            (false, false) => Phase::Suspected,
            (false, true) => Phase::Normal,
        }
    }

    /// The latest verdict is the announced one: no run for or against an event is under way.
    pub fn is_settled(&self) -> bool {
        self.run == 0
    }

    /// Takes one judged frame.
    pub fn push(&mut self, outlier: bool, now: Duration) -> Option<Change> {
        if outlier {
            self.outliers += 1;
        }
        if outlier == self.raised {
            self.restart();
            return None;
        }
        self.run = self.run.saturating_add(1);
        let lasted = now.saturating_sub(*self.since.get_or_insert(now));
        let is_enough = match if self.raised { self.clear_after } else { self.raise_after } {
            Span::Frames(frames) => self.run >= frames,
            Span::Time(time) => lasted >= time,
        };
        if !is_enough {
            return (!self.raised && self.run == 1).then_some(Change::Suspected);
        }
        (self.raised, self.run, self.since) = (!self.raised, 0, None);
        Some(match self.raised {
            true => Change::Raised { frames: self.outliers },
            false => Change::Cleared { frames: std::mem::take(&mut self.outliers) },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `o` is an outlier frame, `.` an inlier; the answer has R and C where an event is raised and cleared.
    fn changes(decision: &mut Decision, frames: &str) -> String {
        let letter = |(at, frame)| match decision.push(frame == 'o', Duration::from_secs(at)) {
            Some(Change::Raised { .. }) => 'R',
            Some(Change::Cleared { .. }) => 'C',
            Some(Change::Suspected) | None => frame,
        };
        (100..).zip(frames.chars()).map(letter).collect()
    }

    fn frames(raise_after: u32, clear_after: u32) -> Decision {
        Decision::new(Span::Frames(raise_after), Span::Frames(clear_after))
    }

    /// Seconds: one goes by from frame to frame.
    fn seconds(raise_after: u64, clear_after: u64) -> Decision {
        let time = |seconds| Span::Time(Duration::from_secs(seconds));
        Decision::new(time(raise_after), time(clear_after))
    }

    #[test]
    fn runs_raise_and_clear() {
        let mut decision = frames(3, 5);
        assert_eq!(changes(&mut decision, "oo.oo.ooooo....o.....oo.ooo"), "oo.oo.ooRoo....o....Coo.ooR");
        assert_eq!(decision.phase(), Phase::Raised);
    }

    #[test]
    fn one_frame_is_enough_if_asked() {
        let mut decision = frames(1, 1);
        assert_eq!(changes(&mut decision, ".o.o."), ".RCRC");
    }

    #[test]
    fn outlier_frames_are_counted() {
        let mut decision = frames(2, 2);
        let pushes = [true, false, true, true, true, false, true, false, false];
        let changes: Vec<_> = pushes.iter().filter_map(|&outlier| decision.push(outlier, Duration::ZERO)).collect();
        assert_eq!(
            changes,
            [Change::Suspected, Change::Suspected, Change::Raised { frames: 2 }, Change::Cleared { frames: 4 }]
        );
        assert_eq!(decision.outliers, 0);
    }

    #[test]
    fn frames_are_evidence_while_the_verdict_is_not_the_announced_one() {
        let mut decision = frames(3, 2);
        let settled: String = ".oo.ooo.o..o"
            .chars()
            .map(|frame| {
                decision.push(frame == 'o', Duration::ZERO);
                if decision.is_settled() { 's' } else { '-' }
            })
            .collect();
        assert_eq!(settled, "s--s--s-s-s-");
    }

    #[test]
    fn a_standing_event_outlives_new_counts() {
        let mut decision = frames(1, 5);
        assert_eq!(changes(&mut decision, "o.."), "R..");
        decision.reconfigure(Span::Frames(4), Span::Frames(3));
        assert_eq!(changes(&mut decision, ".ooo"), "Cooo");
        assert_eq!(changes(&mut decision, "o"), "R");
    }

    #[test]
    fn a_run_of_frames_may_be_measured_by_its_time() {
        assert_eq!(changes(&mut seconds(2, 4), "oo.oo.ooooo....o.....oo.ooo"), "oo.oo.ooRoo....o....Coo.ooR");
        // Frames that come rarely: what matters is the time from the first of them.
        let mut rare = seconds(2, 3);
        let at = Duration::from_secs;
        assert_eq!(rare.push(true, at(0)), Some(Change::Suspected));
        assert_eq!(rare.push(true, at(60)), Some(Change::Raised { frames: 2 }));
        assert_eq!((rare.push(false, at(120)), rare.push(false, at(122))), (None, None));
        assert_eq!(rare.push(false, at(123)), Some(Change::Cleared { frames: 2 }));
    }

    #[test]
    fn a_pause_is_no_part_of_the_time() {
        let mut decision = seconds(2, 2);
        assert_eq!(changes(&mut decision, "o"), "o");
        decision.pause();
        // A run of the frames 100 and 101, 200 and up.
        assert_eq!(decision.push(true, Duration::from_secs(200)), None);
        assert_eq!(decision.push(true, Duration::from_secs(202)), Some(Change::Raised { frames: 3 }));
    }

    #[test]
    fn a_restart_forgets_the_run_but_not_the_event() {
        let mut decision = frames(3, 2);
        assert_eq!(changes(&mut decision, "oo"), "oo");
        decision.restart();
        assert_eq!(changes(&mut decision, "ooo."), "ooR.");
        decision.restart();
        assert_eq!(changes(&mut decision, ".."), ".C");
    }
}
