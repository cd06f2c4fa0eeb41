//! aarch64 with the dot product extension: 6 rows by 16 channels, 24 accumulators, `sdot` by element on `x - 128`.
//!
//! The loop is assembly: it uses all 32 registers, and the intrinsics of `sdot` are not stable.

use std::arch::aarch64::*;
use std::arch::asm;

use super::aarch64_epilogue::{gather, store};
use super::scalar::epilogue;
use super::tile::{Table, Tile};

const MR: usize = 6;
const NR: usize = 16;

pub(super) static TABLE: Table = Table {
    name: "dotprod",
    supported: || std::arch::is_aarch64_feature_detected!("dotprod"),
    mr: MR,
    nr: NR,
    kr: 4,
    depth_step: 16,
    shift: 128,
    saturates: false,
    gather: Some(gather::<MR>),
    tile: tile_rows,
};

/// # Safety
/// As [`Tile`] says, on a processor with the dot product.
unsafe fn tile_rows(t: &Tile, rows: usize) {
    // SAFETY: passed on.
    unsafe {
        match rows {
            1 => tile_1(t),
            2 => tile_2(t),
            3 => tile_3(t),
            4 => tile_4(t),
            5 => tile_5(t),
            _ => tile_6(t),
        }
    }
}

/// The products of element `$i` of the rows with two registers of weights, into columns of accumulators.
macro_rules! products {
    ($w0:literal $w1:literal $i:literal; $($row:tt $a:tt $b:tt),*) => {
        concat!("ldp ", $w0, ", ", $w1, ", [{w}], #32\n", $(
            "sdot ", $a, ".4s, v6.16b, v", $row, ".4b[", $i, "]\n",
            "sdot ", $b, ".4s, v7.16b, v", $row, ".4b[", $i, "]\n",
        )*)
    };
}

/// A tile of `$rows` rows; `$loads` fetch 16 bytes of each, and each row names its four accumulators.
macro_rules! tile {
    ($name:ident, $rows:literal, $loads:literal;
     $($row:tt $r:tt $a:tt $b:tt $c:tt $d:tt),*) => {
        /// # Safety
        /// As `tile_rows`.
        #[target_feature(enable = "dotprod")]
        unsafe fn $name(t: &Tile) {
            // SAFETY: the caller vouches for every pointer of the tile: `depth / 16` groups of `MR` rows of 16 bytes
            // at `block`, and as many of 4 x 64 bytes at `weights`.
            unsafe {
                let bias: [int32x4_t; 4] = std::array::from_fn(|c| vld1q_s32(t.bias.add(4 * c)));
                let mut acc = [bias; $rows];
                asm!(
                    "2:",
                    $loads,
                    "add {x}, {x}, #96",
                    "subs {n}, {n}, #16",
                    products!("q6" "q7" "0"; $($row $a $b),*),
                    products!("q6" "q7" "0"; $($row $c $d),*),
                    products!("q6" "q7" "1"; $($row $a $b),*),
                    products!("q6" "q7" "1"; $($row $c $d),*),
                    products!("q6" "q7" "2"; $($row $a $b),*),
                    products!("q6" "q7" "2"; $($row $c $d),*),
                    products!("q6" "q7" "3"; $($row $a $b),*),
                    products!("q6" "q7" "3"; $($row $c $d),*),
                    "b.ne 2b",
                    x = inout(reg) t.block => _,
                    w = inout(reg) t.weights => _,
                    n = inout(reg) t.depth => _,
                    $(inout($a) acc[$r][0], inout($b) acc[$r][1], inout($c) acc[$r][2], inout($d) acc[$r][3],)*
                    out("v0") _, out("v1") _, out("v2") _, out("v3") _,
                    out("v4") _, out("v5") _, out("v6") _, out("v7") _,
                    options(nostack, readonly),
                );
                match t.out_f32.is_null() {
                    true => store(t, &acc),
                    false => epilogue(t, (&raw const acc).cast(), $rows, NR),
                }
            }
        }
    };
}

tile!(tile_1, 1, "ldr q0, [{x}]"; "0" 0 "v8" "v9" "v10" "v11");
tile!(tile_2, 2, "ldp q0, q1, [{x}]"; "0" 0 "v8" "v9" "v10" "v11", "1" 1 "v12" "v13" "v14" "v15");
tile!(tile_3, 3, "ldp q0, q1, [{x}]\nldr q2, [{x}, #32]";
    "0" 0 "v8" "v9" "v10" "v11", "1" 1 "v12" "v13" "v14" "v15", "2" 2 "v16" "v17" "v18" "v19");
tile!(tile_4, 4, "ldp q0, q1, [{x}]\nldp q2, q3, [{x}, #32]";
    "0" 0 "v8" "v9" "v10" "v11", "1" 1 "v12" "v13" "v14" "v15", "2" 2 "v16" "v17" "v18" "v19",
    "3" 3 "v20" "v21" "v22" "v23");
tile!(tile_5, 5, "ldp q0, q1, [{x}]\nldp q2, q3, [{x}, #32]\nldr q4, [{x}, #64]";
    "0" 0 "v8" "v9" "v10" "v11", "1" 1 "v12" "v13" "v14" "v15", "2" 2 "v16" "v17" "v18" "v19",
    "3" 3 "v20" "v21" "v22" "v23", "4" 4 "v24" "v25" "v26" "v27");
tile!(tile_6, 6, "ldp q0, q1, [{x}]\nldp q2, q3, [{x}, #32]\nldp q4, q5, [{x}, #64]";
    "0" 0 "v8" "v9" "v10" "v11", "1" 1 "v12" "v13" "v14" "v15", "2" 2 "v16" "v17" "v18" "v19",
    "3" 3 "v20" "v21" "v22" "v23", "4" 4 "v24" "v25" "v26" "v27", "5" 5 "v28" "v29" "v30" "v31");
