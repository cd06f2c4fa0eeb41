//! x86-64 with AVX-512 VNNI: 14 rows by 32 channels, 28 accumulators, one `vpdpbusd` per 64 multiply-adds.

use std::arch::x86_64::*;

use super::scalar::epilogue;
use super::tile::{Requantization, RequantizedResidual, Table, Tile};

const MR: usize = 14;
const NR: usize = 32;

pub(super) static TABLE: Table = Table {
    name: "avx512vnni",
    supported,
    mr: MR,
    nr: NR,
    kr: 4,
    depth_step: 4,
    shift: 0,
    saturates: false,
    gather: None,
    tile: tile_rows,
};

fn supported() -> bool {
    is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512vnni")
}

/// # Safety
/// As [`Tile`] says, on a processor where `supported` is true.
unsafe fn tile_rows(t: &Tile, rows: usize) {
    // SAFETY: passed on.
    unsafe {
        match rows {
            1 => tile::<1>(t),
            2 => tile::<2>(t),
            3 => tile::<3>(t),
            4 => tile::<4>(t),
            5 => tile::<5>(t),
            6 => tile::<6>(t),
            7 => tile::<7>(t),
            8 => tile::<8>(t),
            9 => tile::<9>(t),
            10 => tile::<10>(t),
            11 => tile::<11>(t),
            12 => tile::<12>(t),
            13 => tile::<13>(t),
            _ => tile::<14>(t),
        }
    }
}

/// # Safety
/// As `tile_rows`.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
unsafe fn tile<const R: usize>(t: &Tile) {
    // SAFETY: the caller vouches for every pointer of the tile.
    unsafe {
        let bias = [_mm512_loadu_si512(t.bias.cast()), _mm512_loadu_si512(t.bias.add(16).cast())];
        let mut acc = [bias; R];
        let (mut weights, mut next) = (t.weights, t.prefetch);
        for tap in 0..t.taps {
            let rows: [*const u8; R] = std::array::from_fn(|r| *t.rows_at.add(tap * MR + r));
            let mut k = 0;
            while k < t.span {
                let w0 = _mm512_load_si512(weights.cast());
                let w1 = _mm512_load_si512(weights.add(64).cast());
                _mm_prefetch::<_MM_HINT_T1>(next);
                for r in 0..R {
                    let x = _mm512_set1_epi32(rows[r].add(k).cast::<i32>().read_unaligned());
                    acc[r][0] = _mm512_dpbusd_epi32(acc[r][0], x, w0);
                    acc[r][1] = _mm512_dpbusd_epi32(acc[r][1], x, w1);
                }
                weights = weights.add(4 * NR);
                next = next.wrapping_add(t.prefetch_step);
                k += 4;
            }
        }
        if !t.out_f32.is_null() {
            // A copy, so that the accumulators themselves need no address and stay in registers.
            let acc = acc;
            return epilogue(t, (&raw const acc).cast(), R, NR);
        }
        match (&t.requantization.residual, t.requantization.plain) {
            (None, true) => store::<R, true>(t, &acc, |v, _| v),
            (None, false) => store::<R, false>(t, &acc, |v, _| v),
            (Some(residual), true) => {
                let residual = Add::new(residual);
                store::<R, true>(t, &acc, |v, at| residual.add::<true>(v, t.other.add(at)));
            }
            (Some(residual), false) => {
                let residual = Add::new(residual);
                store::<R, false>(t, &acc, |v, at| residual.add::<false>(v, t.other.add(at)));
            }
        }
    }
}

/// Scales, adds, clamps, rounds and writes the tile. `PLAIN` as [`Requantization::plain`].
///
/// # Safety
/// As `tile_rows`; `add` gets the offset of the 16 elements from the tile's first.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
unsafe fn store<const R: usize, const PLAIN: bool>(
    t: &Tile,
    acc: &[[__m512i; 2]; R],
    add: impl Fn(__m512, usize) -> __m512,
) {
    let Requantization { zero_point, lo, hi, .. } = t.requantization;
    // Too negative a value converts to `i32::MIN` and saturates with the packs; too large a one needs the minimum.
    let top = _mm512_set1_ps(f32::from(hi) - f32::from(zero_point));
    let (zero_point, bottom) = (_mm512_set1_epi16(i16::from(zero_point)), _mm512_set1_epi8(lo as i8));
    let order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    // SAFETY: the caller vouches for every pointer of the tile.
    unsafe {
        let scale = [_mm512_loadu_ps(t.scale), _mm512_loadu_ps(t.scale.add(16))];
        let row = |r: usize| {
            let half = |h: usize| {
                let value = _mm512_mul_ps(_mm512_cvtepi32_ps(acc[r][h]), scale[h]);
                let value = add(value, r * t.out_stride + 16 * h);
                _mm512_cvtps_epi32(if PLAIN { value } else { _mm512_min_ps(top, value) })
            };
            let steps = _mm512_packs_epi32(half(0), half(1));
            if PLAIN { steps } else { _mm512_adds_epi16(steps, zero_point) }
        };
        macro_rules! pairs {
            ($($r:literal)*) => {$(
                if $r < R {
                    let first = row($r);
                    let second = if $r + 1 < R { row($r + 1) } else { first };
                    let bytes = _mm512_packus_epi16(first, second);
                    let bytes = if PLAIN { bytes } else { _mm512_max_epu8(bytes, bottom) };
                    let bytes = _mm512_permutexvar_epi32(order, bytes);
                    _mm256_storeu_si256(t.out_u8.add($r * t.out_stride).cast(), _mm512_castsi512_si256(bytes));
                    if $r + 1 < R {
                        let at = t.out_u8.add(($r + 1) * t.out_stride);
                        _mm256_storeu_si256(at.cast(), _mm512_extracti64x4_epi64::<1>(bytes));
                    }
                }
            )*};
        }
        // Unrolled by hand: an index into `acc` that is no constant would keep the accumulators in memory.
        pairs!(0 2 4 6 8 10 12);
    }
}

/// The fused residual addition.
struct Add {
    scale: __m512,
    zero_point: __m512i,
    lo: __m512,
    hi: __m512,
    magic: __m512,
    step: __m512,
}

impl Add {
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn new(r: &RequantizedResidual) -> Add {
        Add {
            scale: _mm512_set1_ps(r.scale),
            zero_point: _mm512_set1_epi32(i32::from(r.zero_point)),
            lo: _mm512_set1_ps(r.conv_lo),
            hi: _mm512_set1_ps(r.conv_hi),
            magic: _mm512_set1_ps(r.magic),
            step: _mm512_set1_ps(r.step),
        }
    }

    /// # Safety
    /// 16 readable bytes at `other`.
    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn add<const PLAIN: bool>(&self, value: __m512, other: *const u8) -> __m512 {
        // SAFETY: the caller vouches for `other`.
        let other = unsafe { _mm512_cvtepu8_epi32(_mm_loadu_si128(other.cast())) };
        let other = _mm512_cvtepi32_ps(if PLAIN { other } else { _mm512_sub_epi32(other, self.zero_point) });
        let value = _mm512_max_ps(self.lo, _mm512_min_ps(self.hi, value));
        let value = _mm512_sub_ps(_mm512_add_ps(value, self.magic), self.magic);
        _mm512_add_ps(_mm512_mul_ps(value, self.step), _mm512_mul_ps(other, self.scale))
    }
}
