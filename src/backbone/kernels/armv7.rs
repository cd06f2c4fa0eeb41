//! armv7 with NEON: 2 rows by 16 channels on `x - 128`, 4 channels at a time, `vmull`, `vmlal`, `vpadal`.
//!
//! Assembly, because the target's baseline lacks NEON and its intrinsics are not stable. Two products fit `i16` unless
//! a weight is -128, so that those convolutions add each product apart.

use std::arch::global_asm;

use super::scalar::epilogue;
use super::tile::{Rows, Table, Tile};

const MR: usize = 2;
const NR: usize = 16;

pub(super) static TABLE: Table = Table {
    name: "neon",
    supported,
    mr: MR,
    nr: NR,
    kr: 16,
    depth_step: 16,
    shift: 128,
    saturates: false,
    gather: Some(gather),
    tile: tile_rows,
};

unsafe extern "C" {
    fn getauxval(kind: core::ffi::c_ulong) -> core::ffi::c_ulong;

    /// Sums of 2 rows and 4 channels over `depth` bytes, `out[row * 16 + channel]`.
    fn outlierd_neon_pairs(block: *const u8, weights: *const i8, depth: usize, out: *mut i32);
    /// The same, each product widened by itself.
    fn outlierd_neon_apart(block: *const u8, weights: *const i8, depth: usize, out: *mut i32);
    /// The epilogue of 16 channels of a row.
    fn outlierd_neon_store(row: *const Row);
    /// The same with the residual addition.
    fn outlierd_neon_store_add(row: *const Row);
    /// `n / 16` pieces of 16 bytes, flipped to `s8`, to every second 16 bytes of `out`.
    fn outlierd_neon_flip(x: *const u8, n: usize, out: *mut u8);
}

/// What `outlierd_neon_store` reads; the assembly knows the order.
#[repr(C)]
struct Row {
    acc: *const i32,
    bias: *const i32,
    scale: *const f32,
    other: *const u8,
    out: *mut u8,
    lo: f32,
    hi: f32,
    /// `1.5 * 2^23`, and its bits subtracted from the zero point.
    magic: f32,
    zero_point: i32,
    conv_lo: f32,
    conv_hi: f32,
    other_scale: f32,
    other_zero_point: i32,
    conv_magic: f32,
    conv_step: f32,
}

fn supported() -> bool {
    const AT_HWCAP: core::ffi::c_ulong = 16;
    const HWCAP_NEON: core::ffi::c_ulong = 1 << 12;
    // SAFETY: `getauxval` takes any number and touches no memory of ours.
    unsafe { getauxval(AT_HWCAP) & HWCAP_NEON != 0 }
}

/// Gathers rows as `[depth / 16][MR][16]` of `s8`; what lies beyond the rows' end is arbitrary, for it meets zero
/// weights.
///
/// # Safety
/// As [`Rows`] says, on a processor with NEON.
unsafe fn gather(rows: &Rows) {
    // SAFETY: the caller vouches for the pointers.
    unsafe {
        for r in 0..rows.rows {
            let out = rows.out.add(16 * r);
            let mut at = 0;
            for tap in 0..rows.taps {
                let x = *rows.rows_at.add(tap * MR + r);
                if rows.used.is_multiple_of(16) {
                    outlierd_neon_flip(x, rows.used, out.add(at * MR));
                    at += rows.used;
                } else {
                    for k in 0..rows.used {
                        *out.add(at / 16 * 16 * MR + at % 16) = *x.add(k) ^ 0x80;
                        at += 1;
                    }
                }
            }
        }
    }
}

/// # Safety
/// As [`Tile`] says, on a processor with NEON.
unsafe fn tile_rows(t: &Tile, rows: usize) {
    let mut acc = [0i32; MR * NR];
    // SAFETY: the caller vouches for every pointer of the tile. A missing second row is computed from whatever lies in
    // the block, which has room for it, and not written.
    unsafe {
        for group in (0..NR).step_by(4) {
            let weights = t.weights.add(16 * group);
            match t.weight_min {
                false => outlierd_neon_pairs(t.block, weights, t.depth, acc.as_mut_ptr().add(group)),
                true => outlierd_neon_apart(t.block, weights, t.depth, acc.as_mut_ptr().add(group)),
            }
        }
        if !t.out_f32.is_null() {
            for (i, acc) in acc.iter_mut().enumerate() {
                *acc = acc.wrapping_add(*t.bias.add(i % NR));
            }
            return epilogue(t, acc.as_ptr(), rows, NR);
        }
        const MAGIC: f32 = 12_582_912.0;
        let zero_point = f32::from(t.requantization.zero_point);
        for r in 0..rows {
            let mut row = Row {
                acc: acc.as_ptr().add(r * NR),
                bias: t.bias,
                scale: t.scale,
                other: std::ptr::null(),
                out: t.out_u8.add(r * t.out_stride),
                lo: f32::from(t.requantization.lo) - zero_point,
                hi: f32::from(t.requantization.hi) - zero_point,
                magic: MAGIC,
                zero_point: i32::from(t.requantization.zero_point) - MAGIC.to_bits() as i32,
                conv_lo: 0.0,
                conv_hi: 0.0,
                other_scale: 0.0,
                other_zero_point: 0,
                conv_magic: 0.0,
                conv_step: 1.0,
            };
            match &t.requantization.residual {
                None => outlierd_neon_store(&row),
                Some(residual) => {
                    row.other = t.other.add(r * t.out_stride);
                    row.conv_lo = residual.conv_lo;
                    row.conv_hi = residual.conv_hi;
                    row.conv_magic = residual.magic;
                    row.conv_step = residual.step;
                    row.other_scale = residual.scale;
                    row.other_zero_point = i32::from(residual.zero_point);
                    outlierd_neon_store_add(&row);
                }
            }
        }
    }
}

/// Two rows (`d0`..`d3`) by two channels (`d4`..`d7`) into four accumulators.
macro_rules! pairs {
    ($a:literal $b:literal $c:literal $d:literal) => {
        concat!(
            "vmull.s8 q4, d0, d4\nvmull.s8 q5, d0, d6\nvmull.s8 q6, d2, d4\nvmull.s8 q7, d2, d6\n",
            "vmlal.s8 q4, d1, d5\nvmlal.s8 q5, d1, d7\nvmlal.s8 q6, d3, d5\nvmlal.s8 q7, d3, d7\n",
            "vpadal.s16 ",
            $a,
            ", q4\nvpadal.s16 ",
            $b,
            ", q5\nvpadal.s16 ",
            $c,
            ", q6\nvpadal.s16 ",
            $d,
            ", q7\n",
        )
    };
}

/// The same, each product by itself.
macro_rules! apart {
    ($a:literal $b:literal $c:literal $d:literal) => {
        concat!(
            "vmull.s8 q4, d0, d4\nvmull.s8 q5, d0, d6\nvmull.s8 q6, d2, d4\nvmull.s8 q7, d2, d6\n",
            "vpadal.s16 ",
            $a,
            ", q4\nvpadal.s16 ",
            $b,
            ", q5\nvpadal.s16 ",
            $c,
            ", q6\nvpadal.s16 ",
            $d,
            ", q7\n",
            "vmull.s8 q4, d1, d5\nvmull.s8 q5, d1, d7\nvmull.s8 q6, d3, d5\nvmull.s8 q7, d3, d7\n",
            "vpadal.s16 ",
            $a,
            ", q4\nvpadal.s16 ",
            $b,
            ", q5\nvpadal.s16 ",
            $c,
            ", q6\nvpadal.s16 ",
            $d,
            ", q7\n",
        )
    };
}

/// A function `(block r0, weights r1, depth r2, out r3)`.
macro_rules! products {
    ($name:literal, $kind:ident) => {
        concat!(
            ".global ", $name, "\n.hidden ", $name, "\n.type ", $name, ", %function\n", $name, ":\n",
            "vpush {{d8-d15}}\n",
            "vmov.i32 q8, #0\nvmov.i32 q9, #0\nvmov.i32 q10, #0\nvmov.i32 q11, #0\n",
            "vmov.i32 q12, #0\nvmov.i32 q13, #0\nvmov.i32 q14, #0\nvmov.i32 q15, #0\n",
            "mov r12, #224\n",
            "2:\n",
            "vld1.8 {{d0-d3}}, [r0]!\n",
            "vld1.8 {{d4-d7}}, [r1]!\n",
            "subs r2, r2, #16\n",
            $kind!("q8" "q9" "q12" "q13"),
            "vld1.8 {{d4-d7}}, [r1], r12\n",
            $kind!("q10" "q11" "q14" "q15"),
            "bne 2b\n",
            "vpadd.i32 d0, d16, d17\nvpadd.i32 d1, d18, d19\nvpadd.i32 d2, d20, d21\nvpadd.i32 d3, d22, d23\n",
            "vpadd.i32 d4, d24, d25\nvpadd.i32 d5, d26, d27\nvpadd.i32 d6, d28, d29\nvpadd.i32 d7, d30, d31\n",
            "vpadd.i32 d0, d0, d1\nvpadd.i32 d1, d2, d3\nvpadd.i32 d4, d4, d5\nvpadd.i32 d5, d6, d7\n",
            "add r12, r3, #64\n",
            "vst1.32 {{d0-d1}}, [r3]\nvst1.32 {{d4-d5}}, [r12]\n",
            "vpop {{d8-d15}}\nbx lr\n",
            ".size ", $name, ", . - ", $name, "\n",
        )
    };
}

/// A function `(row r0)`: 16 channels, 8 at a time; `$add` stands between the product with the scale (`q0`, `q1`) and
/// the clamp, and may use `q8` to `q15`, and `r2`, the other map.
macro_rules! store {
    ($name:literal, $add:expr) => {
        concat!(
            ".global ",
            $name,
            "\n.hidden ",
            $name,
            "\n.type ",
            $name,
            ", %function\n",
            $name,
            ":\n",
            "push {{r4-r6, lr}}\nvpush {{d8-d15}}\n",
            "ldr r1, [r0]\nldr r4, [r0, #4]\nldr r5, [r0, #8]\nldr r2, [r0, #12]\nldr r3, [r0, #16]\n",
            "add r12, r0, #20\nvld1.32 {{d8[], d9[]}}, [r12]\n",
            "add r12, r0, #24\nvld1.32 {{d10[], d11[]}}, [r12]\n",
            "add r12, r0, #28\nvld1.32 {{d12[], d13[]}}, [r12]\n",
            "add r12, r0, #32\nvld1.32 {{d14[], d15[]}}, [r12]\n",
            "add r12, r0, #36\nvld1.32 {{d24[], d25[]}}, [r12]\n",
            "add r12, r0, #40\nvld1.32 {{d26[], d27[]}}, [r12]\n",
            "add r12, r0, #44\nvld1.32 {{d28[], d29[]}}, [r12]\n",
            "add r12, r0, #48\nvld1.32 {{d30[], d31[]}}, [r12]\n",
            "mov r6, #2\n",
            "3:\n",
            "vld1.32 {{d0-d3}}, [r1]!\nvld1.32 {{d4-d7}}, [r4]!\n",
            "vadd.i32 q0, q0, q2\nvadd.i32 q1, q1, q3\n",
            "vld1.32 {{d4-d7}}, [r5]!\n",
            "vcvt.f32.s32 q0, q0\nvcvt.f32.s32 q1, q1\nvmul.f32 q0, q0, q2\nvmul.f32 q1, q1, q3\n",
            $add,
            "vmin.f32 q0, q0, q5\nvmin.f32 q1, q1, q5\nvmax.f32 q0, q0, q4\nvmax.f32 q1, q1, q4\n",
            "vadd.f32 q0, q0, q6\nvadd.f32 q1, q1, q6\nvadd.i32 q0, q0, q7\nvadd.i32 q1, q1, q7\n",
            "vmovn.i32 d0, q0\nvmovn.i32 d1, q1\nvmovn.i16 d0, q0\nvst1.8 {{d0}}, [r3]!\n",
            "subs r6, r6, #1\nbne 3b\n",
            "vpop {{d8-d15}}\npop {{r4-r6, pc}}\n",
            ".size ",
            $name,
            ", . - ",
            $name,
            "\n",
        )
    };
}

global_asm!(
    ".fpu neon",
    ".text",
    ".arm",
    ".p2align 4",
    products!("outlierd_neon_pairs", pairs),
    ".p2align 4",
    products!("outlierd_neon_apart", apart),
    ".p2align 4",
    store!("outlierd_neon_store", ""),
    ".p2align 4",
    store!(
        "outlierd_neon_store_add",
        concat!(
            "vld1.8 {{d16}}, [r2]!\nvmovl.u8 q8, d16\nvmovl.u16 q9, d16\nvmovl.u16 q10, d17\n",
            "vsub.i32 q9, q9, q15\nvsub.i32 q10, q10, q15\nvcvt.f32.s32 q9, q9\nvcvt.f32.s32 q10, q10\n",
            "vmul.f32 q9, q9, q14\nvmul.f32 q10, q10, q14\n",
            "vmin.f32 q0, q0, q13\nvmin.f32 q1, q1, q13\nvmax.f32 q0, q0, q12\nvmax.f32 q1, q1, q12\n",
            "add r12, r0, #52\nvld1.32 {{d4[], d5[]}}, [r12]\nadd r12, r0, #56\nvld1.32 {{d6[], d7[]}}, [r12]\n",
            "vadd.f32 q0, q0, q2\nvadd.f32 q1, q1, q2\nvsub.f32 q0, q0, q2\nvsub.f32 q1, q1, q2\n",
            "vmul.f32 q0, q0, q3\nvmul.f32 q1, q1, q3\n",
            "vadd.f32 q0, q0, q9\nvadd.f32 q1, q1, q10\n",
        )
    ),
    ".p2align 4",
    ".global outlierd_neon_flip\n.hidden outlierd_neon_flip\n.type outlierd_neon_flip, %function\noutlierd_neon_flip:",
    "vmov.i8 q1, #0x80",
    "mov r3, #32",
    "4:",
    "vld1.8 {{d0-d1}}, [r0]!",
    "subs r1, r1, #16",
    "veor q0, q0, q1",
    "vst1.8 {{d0-d1}}, [r2], r3",
    "bne 4b",
    "bx lr",
    ".size outlierd_neon_flip, . - outlierd_neon_flip",
    // The baseline of the target, for what the compiler emits after this.
    ".fpu vfpv3-d16",
);
