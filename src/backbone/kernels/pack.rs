//! Weights, bias and scales in the order in which the tiles read them.

use super::tile::{Remainder, Table};

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

/// Packed weights of a convolution.
#[derive(Debug)]
pub(super) struct Weights {
    /// `[panel][tap][span / kr][nr][kr]`.
    pub panels: Aligned,
    remainders: Vec<Remainder>,
    /// Where the remainders of each panel start, and the end.
    starts: Vec<usize>,
}

impl Weights {
    /// From `[out_c][in_c][taps]` (`OIHW`; a tap may hold several kernel columns).
    pub fn pack(table: &Table, oihw: &[i8], in_c: usize, kernel: [usize; 2], taps: Taps) -> Weights {
        let positions = kernel[0] * kernel[1];
        let out_c = oihw.len() / (in_c * positions);
        let (nr, kr) = (table.nr, table.kr);
        let panel_len = taps.count * taps.span * nr;
        let mut panels = Aligned::filled(out_c.div_ceil(nr) * panel_len, 0);
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
        let mut remainders = Vec::new();
        let mut starts = vec![0];
        if table.saturates {
            for panel in panels.bytes_mut().chunks_exact_mut(panel_len) {
                for (group, weights) in panel.chunks_exact_mut(nr * kr).enumerate() {
                    remainders.extend(split(weights).map(|weights| Remainder {
                        weights,
                        tap: group * kr / taps.span,
                        at: group * kr % taps.span,
                    }));
                }
                starts.push(remainders.len());
            }
        }
        Weights { panels, remainders, starts }
    }

    /// What a saturating kernel adds to this panel.
    pub fn remainders(&self, panel: usize) -> &[Remainder] {
        match self.starts.get(panel + 1) {
            Some(&end) => &self.remainders[self.starts[panel]..end],
            None => &[],
        }
    }
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
fn split(weights: &mut [u8]) -> Option<[i8; 64]> {
    let mut rest = [0; 64];
    for (pair, rest) in weights.chunks_exact_mut(2).zip(rest.chunks_exact_mut(2)) {
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
    (rest != [0; 64]).then_some(rest)
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
