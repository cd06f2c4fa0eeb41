//! Whether normal frames still score as the normals did that calibrated the model.
//!
//! The rank of a score is the share of the calibration's normals that score lower, equal ones counted half; with
//! conformal calibration it is p but for its rounding. Over a window of frames that belong to no event, the mean rank
//! `A` estimates the chance that such a frame scores higher than a normal of the calibration: Mann and Whitney's
//! statistic divided by the product of the sample sizes (1947). Frames like those that calibrated have `A = 1/2`.
//!
//! Neighbouring frames are alike, so that the number of frames says nothing about the error of `A`. The window is cut
//! into [`BLOCKS`] blocks, and the error is taken from how the blocks' means scatter (batch means; Law and Kelton,
//! Simulation Modeling and Analysis), to which the finite calibration adds `1 / (12 n)` of variance:
//!
//! `t = (1/2 - A) / sqrt(S² / BLOCKS + 1 / (12 n))`, S² the variance between the blocks' means, n the effective sample size of the scores.
//!
//! Drift begins where in each of the latest [`WINDOWS`] windows `A` is at most the limit, and in the last of them `t`
//! at least [`T`]; it is over where `A` of the last window is back half of the way from the limit to 1/2. Windows are
//! looked at after every block, and after a restart they fill anew. The windows before the last are what keeps a
//! light that wanders about as slowly as a window is long from being drift: the blocks of one window cannot show its
//! scatter.
//!
//! How long a window must be: a scene can have states that last (night, a shift, an empty belt). A state that takes
//! the share q of a cycle and is the oddest of all that calibration has seen has a mean rank of q/2, so one that can
//! pass for drift takes less than twice the limit of the cycle. [`WINDOWS`] windows that are together longer than
//! that cannot lie inside of it: 15 hours for a limit of 0.3 and a cycle of a day. States that calibration has *not*
//! seen are drift.
//!
//! Time is taken from the monotonic clock and runs only while normal frames are judged: through an event, a lost
//! camera or a stepped wall clock the window does not move.

use std::collections::VecDeque;
use std::time::Instant;

use super::decision::Phase;
use crate::config::{self, Span};
use crate::model::Verdict;

/// Windows in a row that must show drift.
pub const WINDOWS: usize = 3;
/// Blocks of a window.
pub const BLOCKS: usize = 12;
/// The quantile 0.999 of Student's t with `BLOCKS - 1` degrees of freedom.
const T: f64 = 4.02;
/// With fewer calibration scores no window could be told from calibration's own error.
pub const MIN_SCORES: usize = 20;

/// What a block changed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Change {
    Begun(Finding),
    Over(Finding),
}

/// Means over the normal frames of the last window.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Finding {
    /// Share of the calibration's normals that score lower; 0.5 without drift.
    pub rank: f64,
    pub p: f64,
    pub score: f64,
    pub frames: u64,
    /// How many of its standard errors the rank lies below 0.5.
    pub t: f64,
}

/// Watches normal frames for drift.
#[derive(Debug)]
pub struct Drift {
    /// Rising.
    reference: Vec<f64>,
    /// The effective sample size of the reference.
    effective: f64,
    limit: f64,
    window: Span,
    /// The length of a block: seconds, or frames.
    block: f64,
    /// Of the last [`WINDOWS`] windows.
    blocks: VecDeque<Block>,
    open: Block,
    suspected: Vec<(f64, Verdict)>,
    last: Option<Instant>,
    finding: Option<Finding>,
    drifting: bool,
}

#[derive(Debug, Clone, Copy, Default)]
struct Block {
    length: f64,
    frames: u64,
    rank: f64,
    p: f64,
    score: f64,
}

impl Drift {
    /// Watches against the scores of normals that calibrated the model, which rise; `effective` is their effective
    /// sample size.
    ///
    /// # Errors
    /// The reason to give where drift cannot be detected.
    pub fn new(config: &config::Drift, normal_scores: &[f64], effective: f64) -> Result<Self, String> {
        let block = match config.window {
            window if window.is_zero() => return Err("drift.window is 0".into()),
            Span::Time(time) => time.as_secs_f64() / BLOCKS as f64,
            Span::Frames(frames) => frames as f64 / BLOCKS as f64,
        };
        match normal_scores.len() {
            0 => return Err("the model keeps no scores of normals to compare with; fit it again".into()),
            n if n < MIN_SCORES => {
                let reason =
                    format!("the model keeps {n} scores of normals, {MIN_SCORES} are needed: fit it with more");
                return Err(reason);
            }
            _ => {}
        }
        Ok(Drift {
            reference: normal_scores.to_vec(),
            effective,
            limit: config.mean_p,
            window: config.window,
            block,
            blocks: VecDeque::with_capacity(WINDOWS * BLOCKS),
            open: Block::default(),
            suspected: Vec::new(),
            last: None,
            finding: None,
            drifting: false,
        })
    }

    /// The same comparison as `other` makes: it may go on through a reload.
    pub fn is_like(&self, other: &Drift) -> bool {
        (self.window, self.limit, self.effective, &self.reference)
            == (other.window, other.limit, other.effective, &other.reference)
    }

    pub fn is_drifting(&self) -> bool {
        self.drifting
    }

    pub fn window(&self) -> Span {
        self.window
    }

    /// The latest whole window; None until there is one.
    pub fn finding(&self) -> Option<Finding> {
        self.finding
    }

    /// No normal frame is seen for a while: the window's time stands still until the next.
    pub fn pause(&mut self) {
        self.last = None;
    }

    /// Takes a frame that was judged, or taken for the same as the last judged one.
    pub fn push(&mut self, now: Instant, verdict: Verdict, phase: Phase) -> Option<Change> {
        if phase == Phase::Raised {
            self.suspected.clear();
            self.pause();
            return None;
        }
        let length = match self.window {
            Span::Frames(_) => 1.0,
            Span::Time(_) => self.last.map_or(0.0, |last| now.saturating_duration_since(last).as_secs_f64()),
        };
        self.last = Some(now);
        self.suspected.push((length, verdict));
        if phase == Phase::Suspected {
            return None;
        }
        let mut change = None;
        for (length, verdict) in std::mem::take(&mut self.suspected) {
            change = self.take(length, verdict).or(change);
        }
        change
    }

    fn take(&mut self, length: f64, verdict: Verdict) -> Option<Change> {
        let block = &mut self.open;
        block.length += length;
        block.frames += 1;
        block.rank += rank(&self.reference, verdict.score);
        block.p += verdict.p;
        block.score += verdict.score;
        if block.length < self.block {
            return None;
        }
        if self.blocks.len() == WINDOWS * BLOCKS {
            self.blocks.pop_front();
        }
        self.blocks.push_back(std::mem::take(&mut self.open));
        if self.blocks.len() < BLOCKS {
            return None;
        }
        let finding = self.look();
        self.finding = Some(finding);
        if !self.drifting && finding.t >= T && self.is_low_in_all() {
            self.drifting = true;
            return Some(Change::Begun(finding));
        }
        if self.drifting && finding.rank >= (self.limit + 0.5) / 2.0 {
            self.drifting = false;
            return Some(Change::Over(finding));
        }
        None
    }

    fn is_low_in_all(&self) -> bool {
        self.blocks.len() == WINDOWS * BLOCKS
            && (0..WINDOWS).all(|window| {
                let blocks = self.blocks.range(window * BLOCKS..(window + 1) * BLOCKS);
                mean(blocks, |block| block.rank) <= self.limit
            })
    }

    fn look(&self) -> Finding {
        let last = || self.blocks.range(self.blocks.len() - BLOCKS..);
        let rank = mean(last(), |block| block.rank);
        let scatter: f64 = last().map(|block| (block.rank / block.frames as f64 - rank).powi(2)).sum();
        let count = BLOCKS as f64;
        let variance = scatter / (count - 1.0) / count + 1.0 / (12.0 * self.effective);
        Finding {
            rank,
            p: mean(last(), |block| block.p),
            score: mean(last(), |block| block.score),
            frames: last().map(|block| block.frames).sum(),
            t: (0.5 - rank) / variance.sqrt(),
        }
    }
}

/// The mean of the blocks' means.
fn mean<'a>(blocks: impl ExactSizeIterator<Item = &'a Block>, sum: impl Fn(&Block) -> f64) -> f64 {
    let count = blocks.len() as f64;
    blocks.map(|block| sum(block) / block.frames as f64).sum::<f64>() / count
}

/// The share of `reference`, which rises, below the score; equal ones count half.
fn rank(reference: &[f64], score: f64) -> f64 {
    let below = reference.partition_point(|s| *s < score);
    let equal = reference[below..].partition_point(|s| *s <= score);
    (below as f64 + 0.5 * equal as f64) / reference.len() as f64
}

/// What a change means, for people.
pub fn message(change: &Change, window: Span) -> String {
    match change {
        Change::Begun(finding) => format!(
            "normal frames score lower than at calibration: above {:.0} % of its normals on average, where 50 % is \
             expected, in {WINDOWS} windows of {window} in a row; is the lens dirty, the lamp old, the season another? \
             `outlierd learn` takes single false alarms back; else collect and fit again",
            100.0 * finding.rank
        ),
        Change::Over(finding) => format!(
            "normal frames score as at calibration again: above {:.0} % of its normals on average, in a window of \
             {window}",
            100.0 * finding.rank
        ),
    }
}

#[cfg(test)]
#[path = "drift_tests.rs"]
mod tests;
