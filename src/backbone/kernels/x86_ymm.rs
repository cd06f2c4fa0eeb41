//! Tiles of 6 rows by 16 channels in 256-bit registers, for AVX2 and AVX-VNNI: the same code about another product.

/// Makes `TABLE` of the including module: its name, the features to compile for and to ask for, whether the product
/// saturates, and `dot(acc, x, w)`, which adds to 8 `i32` the products of groups of 4 `u8` and 4 `s8`.
macro_rules! tiles {
    ($name:literal, $features:literal, [$($feature:tt),*], $saturates:literal, $dot:expr) => {
        use std::arch::x86_64::*;

        use super::scalar::epilogue;
        use super::tile::{Requantization, RequantizedResidual, Table, Tile};

        const MR: usize = 6;
        const NR: usize = 16;

        pub(super) static TABLE: Table = Table {
            name: $name,
            supported: || $(std::arch::is_x86_feature_detected!($feature))&&*,
            mr: MR,
            nr: NR,
            kr: 4, depth_step: 4,
            shift: 0,
            saturates: $saturates,
            gather: None,
            tile: tile_rows,
        };

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
                    _ => tile::<6>(t),
                }
            }
        }

        /// # Safety
        /// As `tile_rows`.
        #[target_feature(enable = $features)]
        unsafe fn tile<const R: usize>(t: &Tile) {
            // SAFETY: the caller vouches for every pointer of the tile.
            unsafe {
                let bias = [_mm256_loadu_si256(t.bias.cast()), _mm256_loadu_si256(t.bias.add(8).cast())];
                let mut acc = [bias; R];
                let (mut weights, mut next) = (t.weights, t.prefetch);
                for tap in 0..t.taps {
                    let rows: [*const u8; R] = std::array::from_fn(|r| *t.rows_at.add(tap * MR + r));
                    let mut k = 0;
                    while k < t.span {
                        let w0 = _mm256_load_si256(weights.cast());
                        let w1 = _mm256_load_si256(weights.add(32).cast());
                        _mm_prefetch::<_MM_HINT_T1>(next);
                        for r in 0..R {
                            let x = _mm256_set1_epi32(rows[r].add(k).cast::<i32>().read_unaligned());
                            acc[r][0] = $dot(acc[r][0], x, w0);
                            acc[r][1] = $dot(acc[r][1], x, w1);
                        }
                        weights = weights.add(4 * NR);
                        next = next.wrapping_add(t.prefetch_step);
                        k += 4;
                    }
                }
                for remainder in t.remainders {
                    let w0 = _mm256_load_si256(remainder.weights[0].as_ptr().cast());
                    let w1 = _mm256_load_si256(remainder.weights[1].as_ptr().cast());
                    let rows = t.rows_at.add(remainder.tap * MR);
                    for r in 0..R {
                        let x = _mm256_set1_epi32((*rows.add(r)).add(remainder.at).cast::<i32>().read_unaligned());
                        acc[r][0] = $dot(acc[r][0], x, w0);
                        acc[r][1] = $dot(acc[r][1], x, w1);
                    }
                }
                if !t.out_f32.is_null() {
                    // A copy, so that the accumulators themselves need no address and stay in registers.
                    let acc = acc;
                    return epilogue(t, (&raw const acc).cast(), R, NR);
                }
                match &t.requantization.residual {
                    None => store(t, &acc, |v, _| v),
                    Some(residual) => {
                        let residual = Add::new(residual);
                        store(t, &acc, |v, at| residual.add(v, t.other.add(at)));
                    }
                }
            }
        }

        /// Scales, adds, clamps, rounds and writes the tile.
        ///
        /// # Safety
        /// As `tile_rows`; `add` gets the offset of the 8 elements from the tile's first.
        #[inline]
        #[target_feature(enable = $features)]
        unsafe fn store<const R: usize>(t: &Tile, acc: &[[__m256i; 2]; R], add: impl Fn(__m256, usize) -> __m256) {
            let Requantization { zero_point, lo, hi, .. } = t.requantization;
            // Too negative a value converts to `i32::MIN` and saturates with the packs; too large a one needs the
            // minimum.
            let top = _mm256_set1_ps(f32::from(hi) - f32::from(zero_point));
            let (zero_point, bottom) = (_mm256_set1_epi16(i16::from(zero_point)), _mm256_set1_epi8(lo as i8));
            let order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
            // SAFETY: the caller vouches for every pointer of the tile.
            unsafe {
                let scale = [_mm256_loadu_ps(t.scale), _mm256_loadu_ps(t.scale.add(8))];
                let row = |r: usize| {
                    let half = |h: usize| {
                        let value = _mm256_mul_ps(_mm256_cvtepi32_ps(acc[r][h]), scale[h]);
                        _mm256_cvtps_epi32(_mm256_min_ps(top, add(value, r * t.out_stride + 8 * h)))
                    };
                    _mm256_adds_epi16(_mm256_packs_epi32(half(0), half(1)), zero_point)
                };
                macro_rules! pairs {
                    ($r0:literal $r1:literal $r2:literal) => {
                        pairs!($r0);
                        pairs!($r1);
                        pairs!($r2);
                    };
                    ($r:literal) => {
                        if $r < R {
                            let first = row($r);
                            let second = if $r + 1 < R { row($r + 1) } else { first };
                            let bytes = _mm256_max_epu8(_mm256_packus_epi16(first, second), bottom);
                            let bytes = _mm256_permutevar8x32_epi32(bytes, order);
                            _mm_storeu_si128(t.out_u8.add($r * t.out_stride).cast(), _mm256_castsi256_si128(bytes));
                            if $r + 1 < R {
                                let at = t.out_u8.add(($r + 1) * t.out_stride);
                                _mm_storeu_si128(at.cast(), _mm256_extracti128_si256::<1>(bytes));
                            }
                        }
                    };
                }
                // Unrolled by hand: an index into `acc` that is no constant would keep the accumulators in memory.
                pairs!(0 2 4);
            }
        }

        /// The fused residual addition.
        struct Add {
            scale: __m256,
            zero_point: __m256i,
            lo: __m256,
            hi: __m256,
            magic: __m256,
            step: __m256,
        }

        impl Add {
            #[inline]
            #[target_feature(enable = $features)]
            fn new(r: &RequantizedResidual) -> Add {
                Add {
                    scale: _mm256_set1_ps(r.scale),
                    zero_point: _mm256_set1_epi32(i32::from(r.zero_point)),
                    lo: _mm256_set1_ps(r.conv_lo),
                    hi: _mm256_set1_ps(r.conv_hi),
                    magic: _mm256_set1_ps(r.magic),
                    step: _mm256_set1_ps(r.step),
                }
            }

            /// # Safety
            /// 8 readable bytes at `other`.
            #[inline]
            #[target_feature(enable = $features)]
            unsafe fn add(&self, value: __m256, other: *const u8) -> __m256 {
                // SAFETY: the caller vouches for `other`.
                let other = unsafe { _mm256_cvtepu8_epi32(_mm_loadl_epi64(other.cast())) };
                let other = _mm256_cvtepi32_ps(_mm256_sub_epi32(other, self.zero_point));
                let value = _mm256_max_ps(self.lo, _mm256_min_ps(self.hi, value));
                let value = _mm256_sub_ps(_mm256_add_ps(value, self.magic), self.magic);
                _mm256_add_ps(_mm256_mul_ps(value, self.step), _mm256_mul_ps(other, self.scale))
            }
        }
    };
}

pub(super) use tiles;
