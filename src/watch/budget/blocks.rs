//! What the budget keeps of the past: ten minutes in forty bytes.

use std::collections::VecDeque;

use super::peaks::Peak;
use crate::watch::surprisal::Surprisal;

/// Hundredths of a second of a block.
pub const BLOCK: i64 = 60_000;
/// Blocks that are kept: a week and a half day.
const KEPT: usize = 1080;
/// Peaks that are kept of a block: the highest.
const PEAKS: usize = 4;
/// Blocks of a day.
pub const DAY: f64 = 144.0;
pub const HUNDREDTHS_OF_A_DAY: f64 = 8_640_000.0;
/// Blocks of an hour.
pub const HOUR: i64 = 6;
/// The body of so many blocks is where the scene lies.
const PLACE: usize = 1;

/// What was seen from one full ten minutes of the clock to the next.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Block {
    /// Its start over [`BLOCK`].
    pub number: i64,
    /// Hundredths of a second watched outside of raised events, and in them.
    pub quiet: u32,
    pub raised: u32,
    /// The threshold that held.
    pub limit: Surprisal,
    /// The greatest minimum of a run of `raise_after` outside of raised events, and in them; 0: none.
    pub top: Surprisal,
    pub raised_top: Surprisal,
    /// The highest peaks that no raised event met, falling; 0: none.
    pub peaks: [Surprisal; PEAKS],
    /// Events raised.
    pub alarms: u16,
    /// The median over its minutes of the greatest such minimum outside of raised events; 0: all of it was raised.
    pub body: Surprisal,
    /// Where the scene lay when it began, see [`Blocks::place`]; 0: unknown.
    pub place: Surprisal,
}

impl Block {
    pub fn add_peak(&mut self, peak: Peak) {
        if !peak.raised {
            self.insert(peak.height);
        }
    }

    /// A scene too quiet for peaks has its greatest minimum for one.
    pub fn add_top(&mut self) {
        if self.peaks[0] == Surprisal::default() && self.top > Surprisal::default() {
            self.insert(self.top);
        }
    }

    fn insert(&mut self, height: Surprisal) {
        let at = self.peaks.partition_point(|other| *other >= height);
        if at < PEAKS {
            self.peaks[at..].rotate_right(1);
            self.peaks[at] = height;
        }
    }

    /// What was raised in it is normal.
    pub fn take_back(&mut self) {
        if self.raised_top > Surprisal::default() {
            self.insert(self.raised_top);
            self.top = self.top.max(self.raised_top);
            self.limit = Surprisal::MAX;
        }
        self.quiet = self.quiet.saturating_add(std::mem::take(&mut self.raised));
        self.raised_top = Surprisal::default();
        self.alarms = 0;
    }
}

/// The latest blocks, oldest first.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Blocks {
    all: VecDeque<Block>,
}

impl Blocks {
    pub fn push(&mut self, block: Block) {
        if self.all.len() == KEPT {
            self.all.pop_front();
        }
        self.all.push_back(block);
    }

    pub fn iter(&self) -> impl Iterator<Item = &Block> {
        self.all.iter()
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Block> {
        self.all.iter_mut()
    }

    /// Those before the latest, unbroken run of blocks of the hour `hour`, oldest first.
    pub fn before(&self, hour: i64) -> impl Iterator<Item = &Block> {
        let latest = self.all.iter().rev().take_while(|block| block.number.div_euclid(HOUR) == hour).count();
        self.all.iter().take(self.all.len() - latest)
    }

    /// Where the scene lies: the median of the latest bodies.
    pub fn place(&self) -> Option<Surprisal> {
        let bodies = self.all.iter().rev().map(|block| block.body).filter(|body| *body > Surprisal::default());
        let mut latest: Vec<Surprisal> = bodies.take(PLACE).collect();
        latest.sort();
        latest.get(latest.len() / 2).copied()
    }
}
