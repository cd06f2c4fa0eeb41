//! What the aarch64 kernels share: gathering of rows as `s8`, and the epilogue of 16 channels.

use std::arch::aarch64::*;

use super::tile::{Requantization, RequantizedResidual, Rows, Tile};

/// Rows up to this length are put together on the stack.
const SHORT_ROW: usize = 256;

/// Gathers rows as `[depth / 16][MR][16]` of `s8` (`x - 128`); what lies beyond the rows' end is arbitrary, for it
/// meets zero weights.
///
/// # Safety
/// As [`Rows`] says.
pub(super) unsafe fn gather<const MR: usize>(rows: &Rows) {
    // SAFETY: NEON is part of every aarch64 processor; the caller vouches for the pointers.
    unsafe {
        let flip = vdupq_n_u8(0x80);
        for r in 0..rows.rows {
            let mut out = rows.out.add(16 * r);
            if rows.used.is_multiple_of(16) {
                for tap in 0..rows.taps {
                    let x = *rows.rows_at.add(tap * MR + r);
                    for k in (0..rows.used).step_by(16) {
                        vst1q_u8(out, veorq_u8(vld1q_u8(x.add(k)), flip));
                        out = out.add(16 * MR);
                    }
                }
            } else if rows.depth <= SHORT_ROW {
                let mut row = [0; SHORT_ROW];
                for tap in 0..rows.taps {
                    let x = *rows.rows_at.add(tap * MR + r);
                    std::ptr::copy_nonoverlapping(x, row.as_mut_ptr().add(tap * rows.used), rows.used);
                }
                for k in (0..rows.depth).step_by(16) {
                    vst1q_u8(out.add(k * MR), veorq_u8(vld1q_u8(row.as_ptr().add(k)), flip));
                }
            } else {
                let mut at = 0;
                for tap in 0..rows.taps {
                    let x = *rows.rows_at.add(tap * MR + r);
                    for k in 0..rows.used {
                        *out.add(at / 16 * 16 * MR + at % 16) = *x.add(k) ^ 0x80;
                        at += 1;
                    }
                }
            }
        }
    }
}

/// Scales, adds, clamps, rounds and writes `R` rows of 16 channels.
///
/// # Safety
/// As [`Tile`] says, for the `u8` output.
#[inline(always)]
pub(super) unsafe fn store<const R: usize>(t: &Tile, acc: &[[int32x4_t; 4]; R]) {
    // SAFETY: NEON is part of every aarch64 processor; the caller vouches for every pointer of the tile.
    unsafe {
        let scale: [float32x4_t; 4] = std::array::from_fn(|c| vld1q_f32(t.scale.add(4 * c)));
        match &t.requantization.residual {
            None => {
                for (r, acc) in acc.iter().enumerate() {
                    let values = std::array::from_fn(|c| vmulq_f32(vcvtq_f32_s32(acc[c]), scale[c]));
                    quantize(&t.requantization, values, t.out_u8.add(r * t.out_stride));
                }
            }
            Some(residual) => {
                for (r, acc) in acc.iter().enumerate() {
                    let values = std::array::from_fn(|c| vmulq_f32(vcvtq_f32_s32(acc[c]), scale[c]));
                    let values = add(residual, values, t.other.add(r * t.out_stride));
                    quantize(&t.requantization, values, t.out_u8.add(r * t.out_stride));
                }
            }
        }
    }
}

/// # Safety
/// 16 writable bytes at `out`.
#[inline(always)]
unsafe fn quantize(requantization: &Requantization, values: [float32x4_t; 4], out: *mut u8) {
    // SAFETY: NEON is part of every aarch64 processor; the caller vouches for `out`. The conversions saturate, so
    // that the clamps may follow them.
    unsafe {
        let steps = values.map(|v| vcvtnq_s32_f32(v));
        let low = vqmovn_high_s32(vqmovn_s32(steps[0]), steps[1]);
        let high = vqmovn_high_s32(vqmovn_s32(steps[2]), steps[3]);
        let zero_point = vdupq_n_s16(i16::from(requantization.zero_point));
        let bytes = vqmovun_high_s16(vqmovun_s16(vqaddq_s16(low, zero_point)), vqaddq_s16(high, zero_point));
        vst1q_u8(out, vminq_u8(vmaxq_u8(bytes, vdupq_n_u8(requantization.lo)), vdupq_n_u8(requantization.hi)));
    }
}

/// # Safety
/// 16 readable bytes at `other`.
#[inline(always)]
unsafe fn add(r: &RequantizedResidual, values: [float32x4_t; 4], other: *const u8) -> [float32x4_t; 4] {
    // SAFETY: NEON is part of every aarch64 processor; the caller vouches for `other`.
    unsafe {
        let other = vld1q_u8(other);
        let zero_point = vdup_n_u8(r.zero_point);
        let low = vreinterpretq_s16_u16(vsubl_u8(vget_low_u8(other), zero_point));
        let high = vreinterpretq_s16_u16(vsubl_high_u8(other, vcombine_u8(zero_point, zero_point)));
        let other =
            [vmovl_s16(vget_low_s16(low)), vmovl_high_s16(low), vmovl_s16(vget_low_s16(high)), vmovl_high_s16(high)];
        let (lo, hi) = (vdupq_n_f32(r.conv_lo), vdupq_n_f32(r.conv_hi));
        let (magic, step) = (vdupq_n_f32(r.magic), vdupq_n_f32(r.step));
        std::array::from_fn(|c| {
            let b = vmulq_n_f32(vcvtq_f32_s32(other[c]), r.scale);
            let own = vmaxq_f32(vminq_f32(values[c], hi), lo);
            vaddq_f32(vmulq_f32(vsubq_f32(vaddq_f32(own, magic), magic), step), b)
        })
    }
}
