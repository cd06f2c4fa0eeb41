//! What a kernel is given, and the table of functions that an instruction set has.

use serde::{Deserialize, Serialize};

/// Most rows (output pixels) of any tile.
pub(super) const MAX_MR: usize = 14;
/// Most columns (output channels) of any tile.
pub(super) const MAX_NR: usize = 64;

/// What the epilogue needs beside the per-channel scales. All in steps of the output.
#[derive(Debug, Clone, Copy)]
#[allow(dead_code, reason = "no architecture's kernels read all of it")]
pub(super) struct Requantization {
    pub zero_point: u8,
    pub lo: u8,
    pub hi: u8,
    /// Bounds of the `f32` output: `lo - zero_point`; `hi - zero_point`, or infinity where `hi` is 255.
    pub float_lo: f32,
    pub float_hi: f32,
    pub residual: Option<RequantizedResidual>,
    /// All zero points and `lo` are 0, `hi` is 255, and no value can reach `i32::MAX`: saturation is the only clamp.
    pub plain: bool,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct RequantizedResidual {
    pub scale: f32,
    pub zero_point: u8,
    pub conv_lo: f32,
    pub conv_hi: f32,
    /// Added and subtracted again: it rounds, or is 0.
    pub magic: f32,
    /// Factor of the convolution's own result behind that.
    pub step: f32,
}

/// Raw output that tasks write disjoint parts of.
#[derive(Clone, Copy)]
pub(super) struct Out {
    pub u8: *mut u8,
    pub f32: *mut f32,
    pub other: *const u8,
}

// SAFETY: `Conv::run` hands each task its own rows and columns of the output; `other` is only read.
unsafe impl Sync for Out {}

/// What the tiles read.
pub(super) struct Source<'a> {
    pub data: &'a [u8],
    /// Pixels of a row. A bordered copy has bytes to spare at its end.
    pub width: usize,
    pub bordered: bool,
}

/// One tile: `rows` output pixels by `nr` output channels.
///
/// `rows_at[tap * mr + row]` points at `span` readable bytes, `span` a multiple of `kr`; a kernel with [`Table::gather`]
/// reads what that wrote to `block` instead. `weights` is one panel: `depth / kr` groups of `nr * kr` bytes, 64-byte
/// aligned. `bias` and `scale` hold `nr` values. Row `r`
/// of the output starts at element `r * out_stride` of `out_u8`, or of `out_f32` where that is not null, and of
/// `other` (not null when the epilogue has a residual); `nr` elements of each row are written and read.
#[derive(Debug, Clone, Copy)]
#[allow(dead_code, reason = "no architecture's kernels read all of it")]
pub(super) struct Tile<'a> {
    pub rows_at: *const *const u8,
    pub taps: usize,
    pub span: usize,
    pub block: *const u8,
    /// Bytes of a row that meet weights, padding included.
    pub depth: usize,
    pub weights: *const i8,
    /// Where [`Table::saturates`]: what the weights of this panel lack.
    pub remainders: &'a [Remainder],
    /// A weight of the convolution is -128.
    pub weight_min: bool,
    /// Bytes that the next panel will read, fetched into the cache meanwhile: `prefetch_step` per group of `kr`.
    pub prefetch: *const i8,
    pub prefetch_step: usize,
    pub bias: *const i32,
    pub scale: *const f32,
    pub out_u8: *mut u8,
    pub out_f32: *mut f32,
    pub other: *const u8,
    pub out_stride: usize,
    pub requantization: Requantization,
}

/// The rows of a block, for [`Table::gather`]: `rows` times `taps` pieces of `used` bytes.
#[derive(Debug, Clone, Copy)]
#[allow(dead_code, reason = "no architecture's kernels read all of it")]
pub(super) struct Rows {
    /// `rows_at[tap * mr + row]`.
    pub rows_at: *const *const u8,
    pub rows: usize,
    pub taps: usize,
    pub used: usize,
    /// `taps * used` rounded up to a multiple of `depth_step`.
    pub depth: usize,
    pub out: *mut u8,
}

/// Weights of one group of `kr` bytes that a saturating kernel adds in a second step.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[repr(C, align(64))]
pub(super) struct Remainder {
    /// `[nr][kr]`, in two halves.
    pub weights: [[i8; 32]; 2],
    pub tap: usize,
    /// Offset in the tap.
    pub at: usize,
}

/// One instruction set.
#[derive(Debug)]
pub(super) struct Table {
    pub name: &'static str,
    pub supported: fn() -> bool,
    /// Rows of a full tile.
    pub mr: usize,
    /// Output channels of a panel.
    pub nr: usize,
    /// Bytes of one pixel that a multiply-add step takes together.
    pub kr: usize,
    /// A gathering tile takes rows in pieces of this many bytes, a multiple of `kr`.
    pub depth_step: usize,
    /// What the kernel subtracts from each activation before it multiplies (128 where it works on `s8`).
    pub shift: i32,
    /// The kernel adds the products of two neighbours in `i16`: the packer keeps each pair of weights within what
    /// cannot saturate and lists the rest as [`Tile::remainders`]. `nr * kr` is 64 then.
    pub saturates: bool,
    /// Copies the rows of a block into the order that the tile reads, `mr * depth` bytes, so that the panels share the
    /// work. None: the tile reads the rows where they lie.
    pub gather: Option<unsafe fn(rows: &Rows)>,
    /// Computes one tile of 1 to `mr` rows.
    pub tile: unsafe fn(tile: &Tile, rows: usize),
}

/// Fetches the cache line of this address, which need not be valid. Nothing where the processor does it well itself.
#[inline(always)]
pub(super) fn prefetch_read(at: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch is a hint and never faults; every x86-64 processor has it.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(at.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}

/// As [`prefetch_read`], for a line that will be written.
#[inline(always)]
pub(super) fn prefetch_write(at: *mut u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: as in `prefetch_read`; processors without `prefetchw` take it as a no-op.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_ET0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_ET0>(at.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}
