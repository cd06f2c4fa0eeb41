//! aarch64 without the dot product (Cortex-A53, A72): 4 rows by 16 channels on `x - 128`, 4 channels at a time.
//!
//! Each accumulator holds four partial sums of one row and one channel: `smull`, `smlal2`, `sadalp` take 16
//! multiply-adds. Two products fit `i16` unless a weight is -128, so that those convolutions add each product apart.

use std::arch::aarch64::*;
use std::arch::asm;

use super::aarch64_epilogue::{gather, store};
use super::scalar::epilogue;
use super::tile::{Table, Tile};

const MR: usize = 4;
const NR: usize = 16;

pub(super) static TABLE: Table = Table {
    name: "neon",
    supported: || std::arch::is_aarch64_feature_detected!("neon"),
    mr: MR,
    nr: NR,
    kr: 16,
    depth_step: 16,
    shift: 128,
    saturates: false,
    gather: Some(gather::<MR>),
    tile: tile_rows,
};

/// # Safety
/// As [`Tile`] says.
unsafe fn tile_rows(t: &Tile, rows: usize) {
    // SAFETY: passed on.
    unsafe {
        match (rows, t.weight_min) {
            (1, false) => tile::<1>(t, products_1),
            (2, false) => tile::<2>(t, products_2),
            (3, false) => tile::<3>(t, products_3),
            (_, false) => tile::<4>(t, products_4),
            (1, true) => tile::<1>(t, products_apart_1),
            (2, true) => tile::<2>(t, products_apart_2),
            (3, true) => tile::<3>(t, products_apart_3),
            (_, true) => tile::<4>(t, products_apart_4),
        }
    }
}

/// # Safety
/// As `tile_rows`, with the `products` of `R` rows.
#[inline(always)]
unsafe fn tile<const R: usize>(t: &Tile, products: unsafe fn(*const u8, *const i8, usize) -> [[int32x4_t; 4]; R]) {
    // SAFETY: the caller vouches for every pointer of the tile.
    unsafe {
        let mut acc = [[vdupq_n_s32(0); 4]; R];
        for group in 0..4 {
            let bias = vld1q_s32(t.bias.add(4 * group));
            let sums = products(t.block, t.weights.add(64 * group), t.depth);
            for (acc, [a, b, c, d]) in acc.iter_mut().zip(sums) {
                acc[group] = vaddq_s32(vpaddq_s32(vpaddq_s32(a, b), vpaddq_s32(c, d)), bias);
            }
        }
        match t.out_f32.is_null() {
            true => store(t, &acc),
            false => epilogue(t, (&raw const acc).cast(), R, NR),
        }
    }
}

/// 16 bytes of a row by 16 of each of four channels; two products are added in `i16`.
macro_rules! pairs {
    ($x:tt $t0:tt $t1:tt $t2:tt $t3:tt; $a:tt $b:tt $c:tt $d:tt) => {
        concat!(
            "smull ",
            $t0,
            ".8h, ",
            $x,
            ".8b, v4.8b\n",
            "smull ",
            $t1,
            ".8h, ",
            $x,
            ".8b, v5.8b\n",
            "smull ",
            $t2,
            ".8h, ",
            $x,
            ".8b, v6.8b\n",
            "smull ",
            $t3,
            ".8h, ",
            $x,
            ".8b, v7.8b\n",
            "smlal2 ",
            $t0,
            ".8h, ",
            $x,
            ".16b, v4.16b\n",
            "smlal2 ",
            $t1,
            ".8h, ",
            $x,
            ".16b, v5.16b\n",
            "smlal2 ",
            $t2,
            ".8h, ",
            $x,
            ".16b, v6.16b\n",
            "smlal2 ",
            $t3,
            ".8h, ",
            $x,
            ".16b, v7.16b\n",
            "sadalp ",
            $a,
            ".4s, ",
            $t0,
            ".8h\n",
            "sadalp ",
            $b,
            ".4s, ",
            $t1,
            ".8h\n",
            "sadalp ",
            $c,
            ".4s, ",
            $t2,
            ".8h\n",
            "sadalp ",
            $d,
            ".4s, ",
            $t3,
            ".8h\n",
        )
    };
}

/// The same, each product by itself.
macro_rules! apart {
    ($x:tt $t0:tt $t1:tt $t2:tt $t3:tt; $a:tt $b:tt $c:tt $d:tt) => {
        concat!(
            "smull ",
            $t0,
            ".8h, ",
            $x,
            ".8b, v4.8b\n",
            "smull ",
            $t1,
            ".8h, ",
            $x,
            ".8b, v5.8b\n",
            "smull ",
            $t2,
            ".8h, ",
            $x,
            ".8b, v6.8b\n",
            "smull ",
            $t3,
            ".8h, ",
            $x,
            ".8b, v7.8b\n",
            "sadalp ",
            $a,
            ".4s, ",
            $t0,
            ".8h\n",
            "sadalp ",
            $b,
            ".4s, ",
            $t1,
            ".8h\n",
            "sadalp ",
            $c,
            ".4s, ",
            $t2,
            ".8h\n",
            "sadalp ",
            $d,
            ".4s, ",
            $t3,
            ".8h\n",
            "smull2 ",
            $t0,
            ".8h, ",
            $x,
            ".16b, v4.16b\n",
            "smull2 ",
            $t1,
            ".8h, ",
            $x,
            ".16b, v5.16b\n",
            "smull2 ",
            $t2,
            ".8h, ",
            $x,
            ".16b, v6.16b\n",
            "smull2 ",
            $t3,
            ".8h, ",
            $x,
            ".16b, v7.16b\n",
            "sadalp ",
            $a,
            ".4s, ",
            $t0,
            ".8h\n",
            "sadalp ",
            $b,
            ".4s, ",
            $t1,
            ".8h\n",
            "sadalp ",
            $c,
            ".4s, ",
            $t2,
            ".8h\n",
            "sadalp ",
            $d,
            ".4s, ",
            $t3,
            ".8h\n",
        )
    };
}

/// The partial sums of `$rows` rows and four channels over `depth` bytes.
macro_rules! products {
    ($name:ident, $kind:ident, $rows:literal, $loads:literal;
     $($r:tt $x:tt $t0:tt $t1:tt $t2:tt $t3:tt $a:tt $b:tt $c:tt $d:tt),*) => {
        /// # Safety
        /// `depth / 16` groups of `MR` rows of 16 bytes at `block`, and as many of `NR` channels at `weights`, of
        /// which the first four are taken; `depth` is a positive multiple of 16.
        unsafe fn $name(block: *const u8, weights: *const i8, depth: usize) -> [[int32x4_t; 4]; $rows] {
            // SAFETY: the loop reads what the caller vouches for.
            unsafe {
                let mut acc = [[vdupq_n_s32(0); 4]; $rows];
                asm!(
                    "2:",
                    $loads,
                    "ldp q4, q5, [{w}]",
                    "ldp q6, q7, [{w}, #32]",
                    "add {x}, {x}, #64",
                    "add {w}, {w}, #256",
                    "subs {n}, {n}, #16",
                    $($kind!($x $t0 $t1 $t2 $t3; $a $b $c $d),)*
                    "b.ne 2b",
                    x = inout(reg) block => _,
                    w = inout(reg) weights => _,
                    n = inout(reg) depth => _,
                    $(inout($a) acc[$r][0], inout($b) acc[$r][1], inout($c) acc[$r][2], inout($d) acc[$r][3],)*
                    out("v0") _, out("v1") _, out("v2") _, out("v3") _,
                    out("v4") _, out("v5") _, out("v6") _, out("v7") _,
                    out("v8") _, out("v9") _, out("v10") _, out("v11") _,
                    out("v12") _, out("v13") _, out("v14") _, out("v15") _,
                    options(nostack, readonly),
                );
                acc
            }
        }
    };
}

macro_rules! all_rows {
    ($kind:ident: $one:ident $two:ident $three:ident $four:ident) => {
        products!($one, $kind, 1, "ldr q0, [{x}]"; 0 "v0" "v8" "v9" "v10" "v11" "v16" "v17" "v18" "v19");
        products!($two, $kind, 2, "ldp q0, q1, [{x}]";
            0 "v0" "v8" "v9" "v10" "v11" "v16" "v17" "v18" "v19",
            1 "v1" "v12" "v13" "v14" "v15" "v20" "v21" "v22" "v23");
        products!($three, $kind, 3, "ldp q0, q1, [{x}]\nldr q2, [{x}, #32]";
            0 "v0" "v8" "v9" "v10" "v11" "v16" "v17" "v18" "v19",
            1 "v1" "v12" "v13" "v14" "v15" "v20" "v21" "v22" "v23",
            2 "v2" "v8" "v9" "v10" "v11" "v24" "v25" "v26" "v27");
        products!($four, $kind, 4, "ldp q0, q1, [{x}]\nldp q2, q3, [{x}, #32]";
            0 "v0" "v8" "v9" "v10" "v11" "v16" "v17" "v18" "v19",
            1 "v1" "v12" "v13" "v14" "v15" "v20" "v21" "v22" "v23",
            2 "v2" "v8" "v9" "v10" "v11" "v24" "v25" "v26" "v27",
            3 "v3" "v12" "v13" "v14" "v15" "v28" "v29" "v30" "v31");
    };
}

all_rows!(pairs: products_1 products_2 products_3 products_4);
all_rows!(apart: products_apart_1 products_apart_2 products_apart_3 products_apart_4);
