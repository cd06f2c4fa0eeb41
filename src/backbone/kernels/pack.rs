//! Weights, bias and scales in the order in which the tiles read them.

use super::shape::ConvShape;
use super::tile::{Remainder, Table};

/// Pixels of a multiple of this many channels are read where they lie: the largest `kr` of a tile that does so.
const ALIGNED_CHANNELS: usize = 4;

/// Whether the picture is copied with its border before the tiles read it.
pub(super) fn is_copied(shape: &ConvShape) -> bool {
    !shape.in_c.is_multiple_of(ALIGNED_CHANNELS)
}

/// Bytes that start at a 64-byte boundary.
#[derive(Debug, Clone, Default)]
pub(super) struct Aligned {
    lines: Vec<Line>,
    len: usize,
}

#[derive(Debug, Clone, Copy)]
#[repr(align(64))]
struct Line(#[allow(dead_code, reason = "read through pointers")] [u8; 64]);

impl Aligned {
    pub fn filled(len: usize, value: u8) -> Aligned {
        Aligned { lines: vec![Line([value; 64]); len.div_ceil(64)], len }
    }

    /// At least `len` bytes; what it held is kept or replaced by zeros.
    pub fn grow(&mut self, len: usize) {
        if self.lines.len() * 64 < len {
            self.lines = vec![Line([0; 64]); len.div_ceil(64)];
        }
        self.len = len;
    }

    pub fn bytes(&self) -> &[u8] {
        // SAFETY: `lines` owns at least `len` initialised bytes without padding (`Line` is exactly 64 bytes).
        unsafe { std::slice::from_raw_parts(self.lines.as_ptr().cast(), self.len) }
    }

    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `bytes`, and the borrow is exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), self.len) }
    }
}

/// Where the bytes of one tap lie: a kernel position, or a whole kernel row when `in_c * kernel_w` bytes in a row are
/// read together.
#[derive(Debug, Clone, Copy)]
pub(super) struct Taps {
    pub count: usize,
    /// Bytes of a tap that meet weights.
    pub used: usize,
    /// `used` rounded up to a multiple of `kr`; the bytes beyond meet zero weights.
    pub span: usize,
}

impl Taps {
    /// The taps of a convolution as the tiles read them, and as the weights are packed: one tap where rows are gathered.
    pub fn of(table: &Table, shape: &ConvShape) -> (Taps, Taps) {
        let kernel = shape.kernel;
        let (count, used) = match is_copied(shape) && shape.dilation[1] == 1 {
            true => (kernel[0], kernel[1] * shape.in_c),
            false => (kernel[0] * kernel[1], shape.in_c),
        };
        match table.gather {
            None => {
                let taps = Taps { count, used, span: used.next_multiple_of(table.kr) };
                (taps, taps)
            }
            Some(_) => {
                let all = count * used;
                (
                    Taps { count, used, span: used },
                    Taps { count: 1, used: all, span: all.next_multiple_of(table.depth_step) },
                )
            }
        }
    }

    /// Bytes of a panel.
    pub fn panel_len(&self, table: &Table) -> usize {
        self.count * self.span * table.nr
    }
}

/// `[panel][tap][span / kr][nr][kr]` from `[out_c][in_c][taps]` (`OIHW`; a tap may hold several kernel columns).
pub(super) fn panels(table: &Table, oihw: &[i8], shape: &ConvShape) -> Aligned {
    let (_, taps) = Taps::of(table, shape);
    let in_c = shape.in_c;
    let positions = shape.kernel[0] * shape.kernel[1];
    let (nr, kr) = (table.nr, table.kr);
    let panel_len = taps.panel_len(table);
    let mut panels = Aligned::filled(shape.out_c.div_ceil(nr) * panel_len, 0);
    let filter_len = in_c * positions;
    let depth = taps.count * taps.span;
    let in_order = positions == 1 && depth == filter_len;
    let mut rows = if in_order { Vec::new() } else { vec![0i8; nr * depth] };
    let filters = oihw.chunks(nr * filter_len);
    for (panel, filters) in panels.bytes_mut().chunks_exact_mut(panel_len).zip(filters) {
        if !in_order {
            for (row, filter) in rows.chunks_exact_mut(depth).zip(filters.chunks_exact(filter_len)) {
                for (tap, row) in row.chunks_exact_mut(taps.span).enumerate() {
                    for (column, row) in row[..taps.used].chunks_exact_mut(in_c).enumerate() {
                        let position = tap * (taps.used / in_c) + column;
                        for (to, from) in row.iter_mut().zip(filter[position..].iter().step_by(positions)) {
                            *to = *from;
                        }
                    }
                }
            }
        }
        let n = filters.len() / filter_len;
        let rows = if in_order { filters } else { &rows[..n * depth] };
        match kr {
            4 => interleave(rows, depth, nr, 4, panel),
            16 => interleave(rows, depth, nr, 16, panel),
            _ => interleave(rows, depth, nr, kr, panel),
        }
    }
    panels
}

/// Takes out of the panels what a saturating kernel adds in a second step, with where each panel's starts.
pub(super) fn remainders(table: &Table, panels: &mut Aligned, taps: Taps) -> (Vec<Remainder>, Vec<usize>) {
    let mut remainders = Vec::new();
    let mut starts = vec![0];
    if table.saturates {
        for panel in panels.bytes_mut().chunks_exact_mut(taps.panel_len(table)) {
            for (group, weights) in panel.chunks_exact_mut(table.nr * table.kr).enumerate() {
                let at = group * table.kr;
                let found = split(weights);
                remainders.extend(found.map(|weights| Remainder { weights, tap: at / taps.span, at: at % taps.span }));
            }
            starts.push(remainders.len());
        }
    }
    (remainders, starts)
}

/// Rows of `depth` bytes to `[depth / kr][nr][kr]`. Inlined, so that a constant `kr` makes the copies moves.
#[inline(always)]
fn interleave(rows: &[i8], depth: usize, nr: usize, kr: usize, panel: &mut [u8]) {
    for (group, panel) in panel.chunks_exact_mut(nr * kr).enumerate() {
        let parts = rows.chunks_exact(depth).map(|row| &row[group * kr..][..kr]);
        for (to, from) in panel.chunks_exact_mut(kr).zip(parts) {
            for (to, from) in to.iter_mut().zip(from) {
                *to = *from as u8;
            }
        }
    }
}

/// Takes from each pair of neighbours what could leave `i16` when multiplied by 255, and returns it.
fn split(weights: &mut [u8]) -> Option<[[i8; 32]; 2]> {
    let mut rest = [[0; 32]; 2];
    for (pair, rest) in weights.chunks_exact_mut(2).zip(rest.as_flattened_mut().chunks_exact_mut(2)) {
        let (a, b) = (i32::from(pair[0] as i8), i32::from(pair[1] as i8));
        let excess = a + b - (a + b).clamp(-128, 128);
        // The excess has the sign of both: beyond 128 neither can be of the other sign.
        let from_a = match excess.signum() {
            1 => excess.min(a),
            -1 => excess.max(a),
            _ => 0,
        };
        let from_b = excess - from_a;
        pair[0] = (a - from_a) as i8 as u8;
        pair[1] = (b - from_b) as i8 as u8;
        rest[0] = from_a as i8;
        rest[1] = from_b as i8;
    }
    (rest != [[0; 32]; 2]).then_some(rest)
}

/// Bias with the zero point's share folded in: `bias - (x_zero_point - shift) * sum(weights)`, padded with zeros to
/// whole panels.
pub(super) fn bias(table: &Table, oihw: &[i8], bias: &[i32], x_zero_point: u8) -> Vec<i32> {
    let filter = oihw.len() / bias.len();
    let zero_point = i32::from(x_zero_point) - table.shift;
    let mut folded: Vec<i32> = bias
        .iter()
        .zip(oihw.chunks_exact(filter))
        .map(|(b, w)| {
            let sum = w.iter().fold(0i32, |sum, &w| sum.wrapping_add(i32::from(w)));
            b.wrapping_sub(zero_point.wrapping_mul(sum))
        })
        .collect();
    folded.resize(bias.len().next_multiple_of(table.nr), 0);
    folded
}
