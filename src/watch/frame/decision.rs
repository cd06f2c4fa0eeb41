//! When an outlier becomes an event: so many outlier frames in a row raise it, so many inlier frames in a
//! row clear it.

/// The state of raise and clear. Pure: it knows frames, not time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    raise_after: u32,
    clear_after: u32,
    raised: bool,
    run: u32,
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
    /// Both counts are consecutive frames; 0 is taken as 1.
    pub fn new(raise_after: u32, clear_after: u32) -> Self {
        Decision {
            raise_after: raise_after.max(1),
            clear_after: clear_after.max(1),
            raised: false,
            run: 0,
            outliers: 0,
        }
    }

    /// New counts; an event that stands keeps standing.
    pub fn reconfigure(&mut self, raise_after: u32, clear_after: u32) {
        self.raise_after = raise_after.max(1);
        self.clear_after = clear_after.max(1);
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
    pub fn push(&mut self, outlier: bool) -> Option<Change> {
        if outlier {
            self.outliers += 1;
        }
        if outlier == self.raised {
            self.run = 0;
            if !self.raised {
                self.outliers = 0;
            }
            return None;
        }
        self.run = self.run.saturating_add(1);
        if !self.raised && self.run >= self.raise_after {
            self.raised = true;
            self.run = 0;
            return Some(Change::Raised { frames: self.outliers });
        }
        if self.raised && self.run >= self.clear_after {
            self.raised = false;
            self.run = 0;
            return Some(Change::Cleared { frames: std::mem::take(&mut self.outliers) });
        }
        (!self.raised && self.run == 1).then_some(Change::Suspected)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `o` is an outlier frame, `.` an inlier; the answer has R and C where an event is raised and cleared.
    fn changes(decision: &mut Decision, frames: &str) -> String {
        let letter = |frame| match decision.push(frame == 'o') {
            Some(Change::Raised { .. }) => 'R',
            Some(Change::Cleared { .. }) => 'C',
            Some(Change::Suspected) | None => frame,
        };
        frames.chars().map(letter).collect()
    }

    #[test]
    fn runs_raise_and_clear() {
        let mut decision = Decision::new(3, 5);
        assert_eq!(changes(&mut decision, "oo.oo.ooooo....o.....oo.ooo"), "oo.oo.ooRoo....o....Coo.ooR");
        assert_eq!(decision.phase(), Phase::Raised);
    }

    #[test]
    fn one_frame_is_enough_if_asked() {
        let mut decision = Decision::new(1, 1);
        assert_eq!(changes(&mut decision, ".o.o."), ".RCRC");
    }

    #[test]
    fn outlier_frames_are_counted() {
        let mut decision = Decision::new(2, 2);
        let pushes = [true, false, true, true, true, false, true, false, false];
        let changes: Vec<_> = pushes.iter().filter_map(|&outlier| decision.push(outlier)).collect();
        assert_eq!(
            changes,
            [Change::Suspected, Change::Suspected, Change::Raised { frames: 2 }, Change::Cleared { frames: 4 }]
        );
        assert_eq!(decision.outliers, 0);
    }

    #[test]
    fn frames_are_evidence_while_the_verdict_is_not_the_announced_one() {
        let mut decision = Decision::new(3, 2);
        let settled: String = ".oo.ooo.o..o"
            .chars()
            .map(|frame| {
                decision.push(frame == 'o');
                if decision.is_settled() { 's' } else { '-' }
            })
            .collect();
        assert_eq!(settled, "s--s--s-s-s-");
    }

    #[test]
    fn a_standing_event_outlives_new_counts() {
        let mut decision = Decision::new(1, 5);
        assert_eq!(changes(&mut decision, "o.."), "R..");
        decision.reconfigure(4, 3);
        assert_eq!(changes(&mut decision, ".ooo"), "Cooo");
        assert_eq!(changes(&mut decision, "o"), "R");
    }
}
