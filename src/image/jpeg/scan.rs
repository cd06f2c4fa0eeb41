//! Walks through the entropy-coded data of a scan and counts its blocks (ITU-T T.81, annexes F and G): every block must be
//! there, restart markers must be in order, and nothing may be left over. Values are not decoded.

use std::ops::Range;

use super::codes::{Bits, Table};
use super::error::Error;

/// Fill bytes before a marker that some cameras write, all of the same value.
const MAX_FILL: usize = 64;
/// Stray bytes that some webcams leave between blocks and a restart marker; libjpeg skips them with a warning.
const MAX_STRAY: usize = 8;

/// What a scan holds.
pub struct Scan<'a> {
    pub coding: Coding<'a>,
    pub mcus: usize,
    /// MCUs between restart markers; 0: there are none.
    pub restart_interval: usize,
}

/// How a scan's MCUs are coded.
pub enum Coding<'a> {
    /// DC and AC table of each block of an MCU.
    Sequential(Vec<(&'a Table, &'a Table)>),
    /// DC table of each block of an MCU.
    DcFirst(Vec<&'a Table>),
    /// The number of blocks of an MCU, with a bit each.
    DcRefine(u32),
    /// A band of coefficients of one block per MCU; bit `k` of `nonzero` tells whether coefficient `k` is not 0 so far.
    Ac { table: &'a Table, band: [u32; 2], refine: bool, nonzero: &'a mut [u64] },
}

impl Scan<'_> {
    /// Walks the scan at the start of `data` and returns the position of the marker after it.
    pub fn walk(mut self, data: &[u8]) -> Result<usize, Error> {
        let (mut segment, mut at, mut done, mut restart) = (Vec::with_capacity(data.len()), 0, 0, 0);
        loop {
            segment.clear();
            at += unstuff(&data[at..], &mut segment)?;
            let wanted = match self.restart_interval {
                0 => self.mcus,
                interval => self.mcus.min(done + interval),
            };
            let mut bits = Bits::new(&segment);
            let broken = self.coding.take(&mut bits, done..wanted);
            if let Some(mcu) = broken.or(bits.overran().then_some(wanted - 1)) {
                return Err(Error::Damaged(format!("its data break off at block {mcu} of {}", self.mcus)));
            }
            let marker = data[at + 1];
            let is_restart = (0xD0..=0xD7).contains(&marker);
            let rest = bits.rest();
            let stray = is_restart && rest.len() <= MAX_STRAY;
            if !stray && (rest.len() > MAX_FILL || rest.iter().any(|byte| *byte != rest[0])) {
                let message = format!("{} surplus bytes before block {wanted} of {}", rest.len(), self.mcus);
                return Err(Error::Damaged(message));
            }
            done = wanted;
            if done == self.mcus {
                // Some encoders write a restart marker at the end.
                return Ok(if is_restart { at + 2 } else { at });
            }
            if marker != 0xD0 + restart {
                let message = format!("restart marker {restart} is missing at block {done} of {}", self.mcus);
                return Err(Error::Damaged(message));
            }
            restart = (restart + 1) % 8;
            at += 2;
        }
    }
}

impl Coding<'_> {
    /// Consumes MCUs and returns the first that is incomplete.
    fn take(&mut self, bits: &mut Bits, mut mcus: Range<usize>) -> Option<usize> {
        match self {
            Coding::Sequential(blocks) => mcus.find(|_| {
                let block = |(dc, ac): &(&Table, &Table)| dc.take_dc(bits).and_then(|()| ac.take_block(bits));
                blocks.iter().try_for_each(block).is_none()
            }),
            Coding::DcFirst(blocks) => mcus.find(|_| blocks.iter().try_for_each(|dc| dc.take_dc(bits)).is_none()),
            Coding::DcRefine(blocks) => {
                mcus.for_each(|_| bits.skip(*blocks));
                None
            }
            Coding::Ac { table, band, refine, nonzero } => {
                let (mut run, mut band) = (0, Band { table, first: band[0], last: band[1] });
                let take = if *refine { Band::take_refinement } else { Band::take_first };
                let broken = mcus.clone().find(|&mcu| take(&mut band, bits, &mut nonzero[mcu], &mut run).is_none());
                // A run of ended blocks must not go beyond the last block.
                broken.or((run > 0).then_some(mcus.end - 1))
            }
        }
    }
}

/// Coefficients of a block of a progressive AC scan.
struct Band<'a> {
    table: &'a Table,
    first: u32,
    last: u32,
}

impl Band<'_> {
    /// `run` counts the blocks, from this one on, that have no more coefficients.
    fn take_first(&mut self, bits: &mut Bits, nonzero: &mut u64, run: &mut u32) -> Option<()> {
        let mut place = self.first;
        while *run == 0 && place <= self.last {
            let symbol = self.table.symbol(bits)?;
            let (zeros, size) = (u32::from(symbol >> 4), u32::from(symbol & 15));
            if size == 0 && zeros < 15 {
                *run = (1 << zeros) + bits.take(zeros);
                break;
            }
            place += zeros;
            if place > self.last {
                return None;
            }
            *nonzero |= u64::from(size > 0) << place;
            bits.skip(size);
            place += 1;
        }
        *run = run.saturating_sub(1);
        Some(())
    }

    /// The same, with a bit for every coefficient that was not 0 before.
    fn take_refinement(&mut self, bits: &mut Bits, nonzero: &mut u64, run: &mut u32) -> Option<()> {
        let mut place = self.first;
        while *run == 0 && place <= self.last {
            let symbol = self.table.symbol(bits)?;
            let (mut zeros, size) = (u32::from(symbol >> 4), u32::from(symbol & 15));
            if size == 0 && zeros < 15 {
                *run = (1 << zeros) + bits.take(zeros);
                break;
            }
            if size > 1 {
                return None;
            }
            bits.skip(size);
            while place <= self.last && (zeros > 0 || *nonzero >> place & 1 == 1) {
                match *nonzero >> place & 1 {
                    1 => bits.skip(1),
                    _ => zeros -= 1,
                }
                place += 1;
            }
            if place > self.last {
                return None;
            }
            *nonzero |= u64::from(size) << place;
            place += 1;
        }
        if *run > 0 {
            let left = u64::MAX << place & u64::MAX >> (63 - self.last);
            bits.skip((*nonzero & left).count_ones());
            *run -= 1;
        }
        Some(())
    }
}

/// Appends the data up to the next marker to `segment`, without stuffing, and returns the position of the marker's last FF.
fn unstuff(data: &[u8], segment: &mut Vec<u8>) -> Result<usize, Error> {
    let mut at = 0;
    loop {
        let plain = data.get(at..).and_then(find_ff).ok_or(Error::NoEnd)?;
        segment.extend_from_slice(&data[at..at + plain]);
        at += plain;
        let fill = data[at..].iter().position(|byte| *byte != 0xFF).ok_or(Error::NoEnd)?;
        at += fill;
        if data[at] != 0 {
            return Ok(at - 1);
        }
        segment.push(0xFF);
        at += 1;
    }
}

/// The first FF.
pub fn find_ff(data: &[u8]) -> Option<usize> {
    let has_ff = |eight: &[u8; 8]| {
        let word = u64::from_ne_bytes(*eight);
        word & !word.wrapping_add(0x0101_0101_0101_0101) & 0x8080_8080_8080_8080 != 0
    };
    let whole = data.as_chunks::<8>().0.iter().take_while(|eight| !has_ff(eight)).count() * 8;
    Some(whole + data[whole..].iter().position(|byte| *byte == 0xFF)?)
}
