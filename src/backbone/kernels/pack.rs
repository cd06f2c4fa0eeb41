//! Weights, bias and scales in the order in which the tiles read them.

use super::table::Table;

/// Bytes that start at a 64-byte boundary.
#[derive(Debug, Clone, Default)]
pub(super) struct Aligned {
    lines: Vec<Line>,
    len: usize,
}

#[derive(Debug, Clone, Copy)]
#[repr(align(64))]
struct Line([u8; 64]);

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

/// `[panel][tap][span / kr][nr][kr]` from `[out_c][in_c][taps]` (`OIHW`; a tap may hold several kernel columns).
pub(super) fn weights(table: &Table, oihw: &[i8], in_c: usize, kernel: [usize; 2], taps: Taps) -> Aligned {
    let positions = kernel[0] * kernel[1];
    let out_c = oihw.len() / (in_c * positions);
    let (nr, kr) = (table.nr, table.kr);
    let panel_len = taps.count * taps.span * nr;
    let mut packed = Aligned::filled(out_c.div_ceil(nr) * panel_len, 0);
    for (o, filter) in oihw.chunks_exact(in_c * positions).enumerate() {
        let panel = &mut packed.bytes_mut()[o / nr * panel_len..][..panel_len];
        for tap in 0..taps.count {
            for k in 0..taps.used {
                let position = tap * (taps.used / in_c) + k / in_c;
                let group = (tap * taps.span + k) / kr;
                panel[(group * nr + o % nr) * kr + k % kr] = filter[k % in_c * positions + position] as u8;
            }
        }
    }
    packed
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
