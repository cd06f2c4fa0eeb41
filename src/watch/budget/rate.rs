//! How far beyond the body of a scene its peaks reach as often as a budget allows.

use std::collections::BTreeMap;

use super::blocks::{Block, Blocks, DAY, HUNDREDTHS_OF_A_DAY};
use crate::estimators::exceedances::{Exceedances, Observed};
use crate::watch::surprisal::Surprisal;

/// How much of a move of the body the tail makes: between none and all.
pub const FOLLOW: f64 = 0.4;
/// How sure it must be that the scene raises no more than the budget.
pub const CONFIDENCE: f64 = 0.85;
/// Days after which what was seen weighs half.
const HALF_LIFE: f64 = 4.0;
/// The tail is fitted to so many times as many peaks as the budget allows events, and to so many at least.
const PEAKS: f64 = 30.0;
const FEWEST: f64 = 30.0;
/// Fewer tell nothing.
const TOO_FEW: f64 = 5.0;
/// So many of the highest peaks of a day, raised or not, may be real outliers, and so many times as many as the budget
/// allows where that is more: how far off they lie does not matter.
const FOREIGN: f64 = 5.0;
/// Excesses are told apart by a twentieth.
const GRID: f64 = 20.0;

/// The level above [`FOLLOW`] times the body that peaks pass no more than `per_day` times a day, from the blocks before
/// the hour `hour` that the latest are of. None where too little was seen.
pub fn base(blocks: &Blocks, hour: i64, per_day: f64) -> Option<f64> {
    let blocks: Vec<&Block> = blocks.before(hour).collect();
    // The first block has no place: it is that of the next.
    let first = blocks.iter().map(|block| block.place).find(|place| *place > Surprisal::default())?;
    let body = |block: &Block| match block.place > Surprisal::default() {
        true => FOLLOW * block.place.value(),
        false => FOLLOW * first.value(),
    };
    let days = |hundredths: u32| f64::from(hundredths) / HUNDREDTHS_OF_A_DAY;
    let mut age = 0.0;
    let mut weighted: Vec<(&Block, f64)> = Vec::with_capacity(blocks.len());
    for block in blocks.iter().rev() {
        weighted.push((block, 0.5_f64.powf(age / HALF_LIFE)));
        age += days(block.quiet) + days(block.raised);
    }
    let watched: f64 = weighted.iter().map(|(block, weight)| weight * days(block.quiet)).sum();
    let alarms: f64 = weighted.iter().map(|(block, weight)| weight * f64::from(block.alarms)).sum();
    let mut peaks: Vec<(f64, f64)> = Vec::new();
    for (block, weight) in &weighted {
        let heights = block.peaks.iter().filter(|height| **height > Surprisal::default());
        peaks.extend(heights.map(|height| (height.value() - body(block), *weight)));
    }
    peaks.sort_by(|a, b| b.0.total_cmp(&a.0));

    let foreign = FOREIGN.max(3.0 * per_day) * watched;
    let (mut highest, mut left_out) = (f64::INFINITY, alarms);
    let mut rest = peaks.as_slice();
    // Alarms take half of that place: a burst of them must not make all else the scene's own.
    let mut place = alarms.min(0.5 * foreign);
    while place < foreign
        && let Some(((height, weight), others)) = rest.split_first()
    {
        (highest, left_out, place, rest) = (*height, left_out + weight, place + weight, others);
    }
    let wanted = FEWEST.max(PEAKS * per_day * watched);
    let mut sum = 0.0;
    let reaches = |(_, weight): &(f64, f64)| {
        sum += weight;
        sum >= wanted
    };
    let at = rest.iter().position(reaches).unwrap_or(rest.len().checked_sub(1)?);
    let base = rest[at].0;
    let peaks: Vec<(f64, f64)> = rest[..at]
        .iter()
        .filter(|(height, _)| *height > base)
        .map(|(height, weight)| (height - base, *weight))
        .collect();
    let count: f64 = peaks.iter().map(|(_, weight)| weight).sum();
    if count < TOO_FEW {
        // Where p has steps, many peaks are of one height: the threshold lies beyond it.
        return (sum >= TOO_FEW).then_some(base + 2.0 / GRID);
    }
    let scale = peaks[peaks.len() / 2].0 / std::f64::consts::LN_2;

    // Stretches of time with the same excess of the threshold count together.
    let mut stretches: BTreeMap<i64, f64> = BTreeMap::new();
    for (block, weight) in &weighted {
        let limit = if block.limit == Surprisal::MAX { f64::INFINITY } else { block.limit.value() - body(block) };
        let excess = (limit.min(highest) - base).clamp(0.0, 2.0 * DAY);
        *stretches.entry((GRID * excess).round() as i64).or_default() += weight * days(block.quiet);
    }
    let watched = stretches.into_iter().map(|(limit, time)| (time, limit as f64 / GRID)).collect();
    let fitted = Exceedances::fit(&Observed { peaks, watched, alarms: left_out, scale })?;
    let (mut low, mut high) = (0.0, 32.0);
    for _ in 0..20 {
        let middle = 0.5 * (low + high);
        *(if fitted.confidence(middle, per_day) >= CONFIDENCE { &mut high } else { &mut low }) = middle;
    }
    Some(base + high)
}
