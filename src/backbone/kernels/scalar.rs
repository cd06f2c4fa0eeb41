//! The portable tile, the reference for all others, and the epilogue in plain Rust.

use super::tile::{MAX_MR, Requantization, Table, Tile};

const MR: usize = 4;
const NR: usize = 16;
const KR: usize = 4;

pub(super) static TABLE: Table = Table {
    name: "scalar",
    supported: || true,
    mr: MR,
    nr: NR,
    kr: KR,
    depth_step: KR,
    shift: 0,
    saturates: false,
    gather: None,
    tile: tile_rows,
};

/// `1.5 * 2^23`: adding and subtracting it rounds an `f32` below `2^22` half to even.
pub(super) const MAGIC: f32 = 12_582_912.0;

/// The larger; the second where they are equal.
#[inline(always)]
fn max(a: f32, b: f32) -> f32 {
    if a > b { a } else { b }
}

/// The smaller; the second where they are equal.
#[inline(always)]
fn min(a: f32, b: f32) -> f32 {
    if a < b { a } else { b }
}

impl Requantization {
    /// Value before rounding and zero point, in steps of the output; not yet clamped to the output's range.
    #[inline(always)]
    pub(super) fn value(&self, acc: i32, scale: f32, other: u8) -> f32 {
        let value = acc as f32 * scale;
        match self.residual {
            None => value,
            Some(r) => {
                let b = (i32::from(other) - i32::from(r.zero_point)) as f32 * r.scale;
                let own = max(r.conv_lo, min(r.conv_hi, value));
                ((own + r.magic) - r.magic) * r.step + b
            }
        }
    }

    #[inline(always)]
    pub(super) fn float(&self, value: f32) -> f32 {
        max(self.float_lo, min(self.float_hi, value))
    }

    /// Clamps in float, rounds half to even, adds the zero point.
    #[inline(always)]
    pub(super) fn quantize(&self, value: f32) -> u8 {
        let zero_point = f32::from(self.zero_point);
        let value = max(f32::from(self.lo) - zero_point, min(f32::from(self.hi) - zero_point, value));
        (((value + MAGIC).to_bits() as i32) - (MAGIC.to_bits() as i32) + i32::from(self.zero_point)) as u8
    }
}

/// Writes a tile of accumulators (`nr` per row, bias included) through the epilogue.
///
/// # Safety
/// As [`Tile`] says, and `acc` holds `rows * nr` values.
#[inline(always)]
pub(super) unsafe fn epilogue(t: &Tile, acc: *const i32, rows: usize, nr: usize) {
    // SAFETY: the caller vouches for every pointer of the tile, for `rows` rows of `nr` elements.
    unsafe {
        let scale = std::slice::from_raw_parts(t.scale, nr);
        for r in 0..rows {
            let acc = std::slice::from_raw_parts(acc.add(r * nr), nr);
            let at = r * t.out_stride;
            let other = |c: usize| if t.requantization.residual.is_some() { *t.other.add(at + c) } else { 0 };
            if t.out_f32.is_null() {
                let out = std::slice::from_raw_parts_mut(t.out_u8.add(at), nr);
                for c in 0..nr {
                    out[c] = t.requantization.quantize(t.requantization.value(acc[c], scale[c], other(c)));
                }
            } else {
                let out = std::slice::from_raw_parts_mut(t.out_f32.add(at), nr);
                for c in 0..nr {
                    out[c] = t.requantization.float(t.requantization.value(acc[c], scale[c], other(c)));
                }
            }
        }
    }
}

/// # Safety
/// As [`Tile`] says, for `rows` rows.
unsafe fn tile_rows(t: &Tile, rows: usize) {
    debug_assert!(rows <= MR && MR <= MAX_MR);
    let mut acc = [0i32; MR * NR];
    // SAFETY: the caller vouches for every pointer of the tile.
    unsafe {
        let bias = std::slice::from_raw_parts(t.bias, NR);
        for r in 0..rows {
            let acc = &mut acc[r * NR..][..NR];
            acc.copy_from_slice(bias);
            let mut weights = t.weights;
            for tap in 0..t.taps {
                let row = std::slice::from_raw_parts(*t.rows_at.add(tap * MR + r), t.span);
                for x in row.chunks_exact(KR) {
                    let group = std::slice::from_raw_parts(weights, NR * KR);
                    for (acc, w) in acc.iter_mut().zip(group.chunks_exact(KR)) {
                        for k in 0..KR {
                            *acc = acc.wrapping_add(i32::from(x[k]) * i32::from(w[k]));
                        }
                    }
                    weights = weights.add(NR * KR);
                }
            }
        }
        epilogue(t, acc.as_ptr(), rows, NR);
    }
}
