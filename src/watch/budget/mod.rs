//! The alarm budget: the threshold at which the scene raises so many events a day by itself, from what it did.
//!
//! - **What counts.** An event needs a run of `raise_after` frames beyond the threshold, or of so long, so the minimum of
//!   such a run is what passes it; [`peaks`] finds what would be one event. [`blocks`] keeps the highest of ten minutes.
//! - **Light and wear.** The threshold is a base plus [`FOLLOW`] times where the body of the last half hour lies, and
//!   peaks are reckoned from there too: night, clouds and wear move both.
//! - **Rate.** [`rate`] fits the tail of the peaks of a week, older ones with less weight, and takes the level that they
//!   pass as often as the budget allows, or less, with the probability [`rate::CONFIDENCE`].
//! - **Real outliers.** Events that were raised do not enter the fit, only that they were so many at most, and neither
//!   do the highest peaks of each day. What a person takes back enters as it is.
//! - **Storms.** More events than the budget makes likely within six hours, each hardly beyond the threshold, are the
//!   scene's own: real ones lie anywhere beyond. They raise the threshold at once; that fades within a day.
//! - **Settling.** A new model is not trusted yet: until the scene was watched for so long, what lies beyond the lowest
//!   score of the calibration raises, and beyond what raised before.
//!
//! Pure: time comes with the frames. All that it knows comes from them and the thresholds that they were judged by, so
//! a replay of the history gives the state that was. Everything is reckoned in surprisal, `-ln p`.

use std::collections::VecDeque;
use std::fmt;
use std::time::{Duration, SystemTime};

use super::history::{Entry, hundredths};
use super::surprisal::Surprisal;
use crate::config::Span;
use crate::estimators::special::poisson_at_least;

mod blocks;
pub mod ladder;
mod peaks;
mod rate;
mod status;

use blocks::{BLOCK, Block, Blocks, HOUR};
use peaks::Peaks;
use rate::FOLLOW;
pub use status::BudgetStatus;

/// A threshold that raises more often has so many times the model's own p at most, one that raises less is no smaller
/// than [`LEAST`]: outliers beyond all that p can tell still raise.
pub const MOST: f64 = 10.0;
pub const LEAST: f64 = 1e-11;
/// A step of the threshold is a factor of two in p at most, the first after settling excepted.
const STEP: f64 = 0.7;
/// Thresholds are told in steps of an eighth.
const GRID: f64 = 8.0;
/// Shorter blocks, in hundredths of a second watched, go on beyond their ten minutes: a clock that leaps does not make
/// blocks of nothing.
const SHORTEST: u32 = 6000;
/// While settling, what raised moves the threshold to beyond it, by so much at most.
const LEAP: f64 = 2.0;
const BEYOND: f64 = 0.5;
/// An event is hardly beyond the threshold within so much.
const SHALLOW: f64 = 1.0;
/// Blocks of a storm, and how improbable so many events in it must be.
const STORM: i64 = 36;
const IMPROBABLE: f64 = 0.03;
/// What a storm adds to the threshold, and what goes of it again with each block.
const SURGE: f64 = 0.7;
const FADE: f64 = 0.02;
/// With so much of it, events are hardly of the scene's weather any more.
const MOST_SURGE: f64 = 1.4;

/// What the budget is to keep, and for which model.
#[derive(Debug, Clone, PartialEq)]
pub struct Params {
    /// Events per day that the scene may raise by itself.
    pub per_day: f64,
    pub raise_after: Span,
    pub clear_after: Span,
    /// Watched time after a new model until the budget holds.
    pub settle: Duration,
    /// The model's own threshold, a p.
    pub threshold: f64,
    /// p of the lowest score of the calibration.
    pub lowest: f64,
}

/// Why the threshold moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// While settling: the scene went beyond the threshold.
    Settling,
    /// The scene was watched for long enough: the budget holds from now on.
    Settled,
    /// The light, wear, or what the scene did in the last hours.
    Scene,
    /// Several events hardly beyond the threshold.
    Storm,
}

/// A move of the threshold.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Step {
    pub from: f64,
    pub to: f64,
    pub reason: Reason,
}

impl fmt::Display for Step {
    fn fmt(&self, out: &mut fmt::Formatter) -> fmt::Result {
        let reason = match self.reason {
            Reason::Settling => "settling: the scene itself goes beyond it",
            Reason::Settled => "settled, from now on the alarm budget holds",
            Reason::Scene => "the scene changed",
            Reason::Storm => "several events hardly beyond it within hours",
        };
        let text = crate::model::p_text;
        write!(out, "threshold {} instead of {}: {reason}", text(self.to), text(self.from))
    }
}

/// The threshold, and what it is made from.
#[derive(Debug, Clone, PartialEq)]
pub struct Budget {
    params: Params,
    peaks: Peaks,
    blocks: Blocks,
    current: Block,
    /// The highest of each minute of the block: the clock's minute and the height.
    minutes: Vec<(i64, Surprisal)>,
    last: Option<i64>,
    raised: bool,
    /// The event that is raised was taken back.
    normal: bool,
    /// The highest of the event that is raised.
    event: Surprisal,
    /// Block numbers of events hardly beyond the threshold.
    shallow: VecDeque<i64>,
    surge: f64,
    /// Hundredths of a second.
    watched: i64,
    settled: bool,
    limit: Surprisal,
    /// The base of the threshold, and the hour that it was fitted in.
    base: Option<f64>,
    hour: i64,
}

impl Budget {
    /// Of a model that nothing was watched with yet.
    pub fn new(params: Params) -> Budget {
        let limit = Surprisal::of_p(params.lowest.min(params.threshold).max(LEAST));
        Budget {
            peaks: Peaks::new(params.raise_after, params.clear_after),
            blocks: Blocks::default(),
            current: Block { number: i64::MIN, ..Block::default() },
            minutes: Vec::new(),
            last: None,
            raised: false,
            normal: false,
            event: Surprisal::default(),
            shallow: VecDeque::new(),
            surge: 0.0,
            watched: 0,
            settled: params.settle.is_zero(),
            limit,
            base: None,
            hour: i64::MIN,
            params,
        }
    }

    /// Frames with a smaller p are outliers. Never 0.
    pub fn threshold(&self) -> f64 {
        self.limit.p()
    }

    /// What is still to be watched before the budget holds; None: it holds.
    pub fn settling(&self) -> Option<Duration> {
        let watched = Duration::from_millis(10 * self.watched.unsigned_abs());
        (!self.settled).then(|| self.params.settle.saturating_sub(watched))
    }

    /// What is known, and what was spent in the last `period`.
    pub fn status(&self, period: Duration) -> BudgetStatus {
        let blocks = i64::try_from(period.as_millis() / 10).unwrap_or(i64::MAX) / BLOCK;
        let first = self.current.number.saturating_sub(blocks);
        let recent = self.blocks.iter().chain([&self.current]).filter(|block| block.number > first);
        BudgetStatus {
            spent: recent.map(|block| u64::from(block.alarms)).sum(),
            watched: Duration::from_millis(10 * self.watched.unsigned_abs()),
            settling: self.settling(),
        }
    }

    /// Takes a frame that was judged by [`Budget::threshold`]; `raised`: with it, an event stands.
    pub fn push(&mut self, time: SystemTime, p: f64, raised: bool) -> Option<Step> {
        self.advance(hundredths(time), Surprisal::of_p(p), raised, true)
    }

    /// Takes what the history tells of frames that were pushed before a restart.
    pub fn replay(&mut self, entry: &Entry) {
        match entry {
            Entry::Frame { frame, threshold } => {
                self.limit = *threshold;
                self.advance(frame.time, frame.surprisal, frame.raised, false);
                self.move_to(threshold.value());
            }
            Entry::TakenBack { from, to } => self.normal_from(*from, *to),
        }
    }

    /// Events of that time were normal; one that still stands is so to its end.
    pub fn take_back(&mut self, from: SystemTime, to: SystemTime) {
        self.normal_from(hundredths(from), hundredths(to));
    }

    fn normal_from(&mut self, from: i64, to: i64) {
        let numbers = from.div_euclid(BLOCK)..=to.div_euclid(BLOCK);
        let blocks = self.blocks.iter_mut().chain([&mut self.current]);
        blocks.filter(|block| numbers.contains(&block.number)).for_each(Block::take_back);
        self.normal = self.raised && self.last.is_some_and(|last| to >= last);
        self.base = None;
    }

    fn advance(&mut self, now: i64, surprisal: Surprisal, raised: bool, live: bool) -> Option<Step> {
        let judged_by = self.limit;
        let past = self.last.map_or(0, |last| now.saturating_sub(last).clamp(0, BLOCK));
        self.last = Some(now);
        self.watched = self.watched.saturating_add(past);
        let number = now.div_euclid(BLOCK);
        let mut reason = None;
        if self.current.number != number {
            if self.current.quiet.saturating_add(self.current.raised) >= SHORTEST {
                reason = self.close(live);
                let place = self.blocks.place().unwrap_or_default();
                self.current = Block { place, ..Block::default() };
            }
            self.current.number = number;
        }
        self.current.limit = judged_by;
        self.normal &= raised;
        let alarm = raised && !self.normal;
        let (low, peak) = self.peaks.push(now, surprisal, alarm);
        let low = low.unwrap_or_default();
        if alarm {
            self.current.raised = self.current.raised.saturating_add(past as u32);
            self.current.raised_top = self.current.raised_top.max(low);
            if !self.raised {
                self.current.alarms = self.current.alarms.saturating_add(1);
                self.event = low;
            }
            self.event = self.event.max(low);
        } else {
            self.current.quiet = self.current.quiet.saturating_add(past as u32);
            self.current.top = self.current.top.max(low);
            let minute = now.div_euclid(BLOCK / 10);
            match self.minutes.last_mut() {
                Some((at, highest)) if *at == minute => *highest = low.max(*highest),
                _ => self.minutes.push((minute, low)),
            }
            if self.raised && !raised && self.storms(number, judged_by) {
                self.move_to(self.limit.value() + SURGE);
                reason = Some(Reason::Storm);
            }
        }
        if let Some(peak) = peak {
            self.current.add_peak(peak);
        }
        self.raised = raised;
        let step = Step { from: judged_by.p(), to: self.limit.p(), reason: reason? };
        (self.limit != judged_by || step.reason == Reason::Settled).then_some(step)
    }

    /// Whether the event that has just ended is one too many of those hardly beyond the threshold.
    fn storms(&mut self, number: i64, judged_by: Surprisal) -> bool {
        if !self.settled || self.event.value() > judged_by.value() + SHALLOW {
            return false;
        }
        self.shallow.retain(|at| (0..STORM).contains(&number.saturating_sub(*at)));
        self.shallow.push_back(number);
        let storms = self.surge < MOST_SURGE
            && self.shallow.len() > 1
            && poisson_at_least(self.shallow.len() as u32, self.params.per_day * STORM as f64 / blocks::DAY)
                < IMPROBABLE;
        if storms {
            self.shallow.clear();
            self.surge += SURGE;
        }
        storms
    }

    /// Ends a block, and finds the threshold of the next.
    fn close(&mut self, live: bool) -> Option<Reason> {
        self.minutes.sort_by_key(|(_, highest)| *highest);
        let middle = self.minutes.get(self.minutes.len() / 2);
        self.current.body = middle.map_or(Surprisal::default(), |(_, highest)| *highest);
        self.minutes.clear();
        self.current.add_top();
        self.blocks.push(self.current);
        self.surge = (self.surge - FADE).max(0.0);
        let settle = i64::try_from(self.params.settle.as_millis() / 10).unwrap_or(i64::MAX);
        let first = !self.settled && self.watched >= settle;
        self.settled |= first;
        if !live {
            return None;
        }
        if !self.settled {
            let beyond = self.current.raised_top.min(Surprisal::new(self.limit.value() + LEAP));
            if beyond > self.limit {
                self.move_to(beyond.value() + BEYOND);
            }
            return Some(Reason::Settling);
        }
        let hour = self.current.number.div_euclid(HOUR);
        if self.base.is_none() || self.hour != hour {
            self.hour = hour;
            self.base = rate::base(&self.blocks, hour, self.params.per_day);
        }
        let (Some(base), Some(place)) = (self.base, self.blocks.place()) else {
            // Too little was seen: what held while settling goes on.
            return first.then_some(Reason::Settled);
        };
        let wanted = base + FOLLOW * place.value() + self.surge;
        let now = self.limit.value();
        let next = if first { wanted } else { wanted.clamp(now - STEP, now + STEP) };
        self.move_to((GRID * next).round() / GRID);
        Some(if first { Reason::Settled } else { Reason::Scene })
    }

    fn move_to(&mut self, surprisal: f64) {
        let most = (MOST * self.params.threshold).min(0.5);
        self.limit = Surprisal::new(surprisal.max(-most.ln()).min(-LEAST.ln()));
    }
}

#[cfg(test)]
mod tests;
