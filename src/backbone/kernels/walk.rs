//! The walk over the output of a convolution: blocks of rows, panels of channels, tile by tile.

use std::ops::Range;

use super::conv::Conv;
use super::partition::Partition;
use super::tile::{MAX_MR, MAX_NR, Out, Rows, Source, Tile, prefetch_read, prefetch_write};

/// Outputs from this size on leave the second-level cache, so that their lines are worth fetching early.
const OUTPUT_BEYOND_CACHE: usize = 512 << 10;

impl Conv {
    /// Row by row: the weights of these panels stay in the cache.
    pub(super) fn blocks_first(
        &self,
        source: &Source<'_>,
        out: &Out,
        blocks: Range<usize>,
        panels: Range<usize>,
        gathered: *mut u8,
    ) {
        let mut rows_at = self.rows_at();
        let mut tile = self.template(out);
        tile.block = gathered;
        let pixels = self.out_h * self.out_w;
        let ahead = !out.u8.is_null() && pixels * self.shape.out_c >= OUTPUT_BEYOND_CACHE;
        for block in blocks {
            let rows = self.block(block);
            self.point(source, rows.clone(), &mut rows_at);
            self.gather(rows.len(), &rows_at, gathered);
            tile.rows_at = rows_at.as_ptr();
            let next = rows.end..if ahead { (rows.end + rows.len()).min(pixels) } else { rows.end };
            let mut lines = (next.start * self.shape.out_c..next.end * self.shape.out_c).step_by(64);
            let share = lines.len().div_ceil(panels.len());
            for panel in panels.clone() {
                for at in lines.by_ref().take(share) {
                    prefetch_write(out.u8.wrapping_add(at));
                    if !out.other.is_null() {
                        prefetch_read(out.other.wrapping_add(at));
                    }
                }
                self.tile(&mut tile, rows.clone(), panel, out);
            }
        }
    }

    /// Panel by panel: each is read once, and the next is fetched meanwhile.
    pub(super) fn panels_first(
        &self,
        source: &Source<'_>,
        out: &Out,
        blocks: Range<usize>,
        panels: Range<usize>,
        gathered: impl Fn(usize) -> *mut u8,
    ) {
        let panel_len = self.panel_len();
        let mut rows_at = self.rows_at();
        let mut tile = self.template(out);
        tile.rows_at = rows_at.as_ptr();
        tile.prefetch_step = (panel_len * self.isa.0.kr).div_ceil(self.depth * blocks.len());
        for panel in panels {
            let next = self.packed.panels.bytes()[panel * panel_len..].as_ptr().wrapping_add(panel_len);
            for block in blocks.clone() {
                let rows = self.block(block);
                tile.prefetch = next.wrapping_add((block - blocks.start) * panel_len / blocks.len()).cast();
                match self.isa.0.gather {
                    Some(_) => tile.block = gathered(block),
                    None => self.point(source, rows.clone(), &mut rows_at),
                }
                self.tile(&mut tile, rows, panel, out);
            }
        }
    }

    /// Room for the pointers of a block, `[tap][mr]`.
    pub(super) fn rows_at(&self) -> Vec<*const u8> {
        vec![std::ptr::null(); self.taps.count * self.isa.0.mr]
    }

    /// Where the tile wants it, copies the rows at `rows_at`, made by `point`, to `gathered`, `block_len` bytes.
    pub(super) fn gather(&self, rows: usize, rows_at: &[*const u8], gathered: *mut u8) {
        if let Some(gather) = self.isa.0.gather {
            let rows = Rows {
                rows_at: rows_at.as_ptr(),
                rows,
                taps: self.taps.count,
                used: self.taps.used,
                depth: self.depth,
                out: gathered,
            };
            // SAFETY: `point` made each row's pointers, to `used` readable bytes; `run` gave each block or task
            // `block_len` bytes of its own at `gathered`.
            unsafe { gather(&rows) };
        }
    }

    /// Output pixels of a block: all blocks have the same number, or one less.
    pub(super) fn block(&self, block: usize) -> Range<usize> {
        let pixels = self.out_h * self.out_w;
        Partition { len: pixels, parts: pixels.div_ceil(self.isa.0.mr) }.part(block)
    }

    /// Fills in where each row's taps start.
    pub(super) fn point(&self, source: &Source<'_>, rows: Range<usize>, rows_at: &mut [*const u8]) {
        let s = &self.shape;
        let mr = self.isa.0.mr;
        let kernel_w = if self.taps.count == s.kernel[0] * s.kernel[1] { s.kernel[1] } else { 1 };
        let reach = [0, 1].map(|i| (s.kernel[i] - 1) * s.dilation[i]);
        let (pad_y, pad_x) = if source.bordered { (0, 0) } else { (s.pads[0], s.pads[1]) };
        let (height, pitch) = (source.data.len() / (source.width * s.in_c), source.width * s.in_c);
        let (step_y, step_x) = (s.dilation[0] * pitch, s.dilation[1] * s.in_c);
        let (mut oy, mut ox) = (rows.start / self.out_w, rows.start % self.out_w);
        for row in 0..rows.len() {
            let (y, x) = (oy * s.stride[0], ox * s.stride[1]);
            let inside =
                y >= pad_y && x >= pad_x && y + reach[0] < height + pad_y && x + reach[1] < source.width + pad_x;
            if inside {
                let mut line = source.data[(y - pad_y) * pitch + (x - pad_x) * s.in_c..].as_ptr();
                let mut slots = rows_at[row..].iter_mut().step_by(mr);
                for _ in 0..s.kernel[0] {
                    let mut at = line;
                    for slot in slots.by_ref().take(kernel_w) {
                        *slot = at;
                        at = at.wrapping_add(step_x);
                    }
                    line = line.wrapping_add(step_y);
                }
            } else {
                for ky in 0..s.kernel[0] {
                    for kx in 0..kernel_w {
                        let (y, x) = (y + ky * s.dilation[0], x + kx * s.dilation[1]);
                        let inside = y >= pad_y && x >= pad_x && y < height + pad_y && x < source.width + pad_x;
                        rows_at[(ky * kernel_w + kx) * mr + row] = match inside {
                            true => source.data[(y - pad_y) * pitch + (x - pad_x) * s.in_c..].as_ptr(),
                            false => self.border.bytes().as_ptr(),
                        };
                    }
                }
            }
            ox += 1;
            if ox == self.out_w {
                (oy, ox) = (oy + 1, 0);
            }
        }
    }

    /// What all tiles of a run share.
    fn template(&self, out: &Out) -> Tile<'_> {
        Tile {
            rows_at: std::ptr::null(),
            taps: self.taps.count,
            span: self.taps.span,
            block: std::ptr::null(),
            depth: self.depth,
            weights: std::ptr::null(),
            remainders: &[],
            weight_min: self.packed.addends.weight_min,
            prefetch: self.packed.panels.bytes().as_ptr().cast(),
            prefetch_step: 0,
            bias: std::ptr::null(),
            scale: std::ptr::null(),
            out_u8: out.u8,
            out_f32: out.f32,
            other: out.other,
            out_stride: self.shape.out_c,
            requantization: self.requantization,
        }
    }

    /// Computes the tile of these rows and this panel. `rows_at` or `block` of `tile` are the rows'.
    #[inline]
    fn tile<'a>(&'a self, tile: &mut Tile<'a>, rows: Range<usize>, panel: usize, out: &Out) {
        let table = self.isa.0;
        let (column, out_c) = (panel * table.nr, self.shape.out_c);
        let at = rows.start * out_c + column;
        tile.weights = self.packed.panels.bytes()[panel * self.panel_len()..].as_ptr().cast();
        tile.remainders = self.packed.addends.remainders(panel);
        tile.bias = self.packed.addends.bias[column..].as_ptr();
        tile.scale = self.scale[column..].as_ptr();
        if column + table.nr > out_c {
            return self.edge(*tile, rows, column, out);
        }
        tile.out_u8 = out.u8.wrapping_add(at);
        if !out.f32.is_null() {
            tile.out_f32 = out.f32.wrapping_add(at);
        }
        tile.other = out.other.wrapping_add(at);
        // SAFETY: the table's `supported` was true when the `Isa` was made; `point` filled `rows_at` with pointers to at
        // least `span` readable bytes (a border pixel, a pixel of `in_c == span` bytes, or a place in the bordered copy
        // that has `span` bytes to spare), or `gather` filled `block` from them; weights, bias and scale hold whole
        // panels; rows and columns lie inside the output and `other`, whose lengths `run` checked.
        unsafe { (table.tile)(tile, rows.len()) };
    }

    /// The tile of a panel that reaches beyond the last channel.
    #[cold]
    fn edge(&self, mut tile: Tile<'_>, rows: Range<usize>, column: usize, out: &Out) {
        let (nr, out_c) = (self.isa.0.nr, self.shape.out_c);
        let at = rows.start * out_c + column;
        let columns = out_c - column;
        let mut u8s = [0u8; MAX_MR * MAX_NR];
        let mut f32s = [0f32; MAX_MR * MAX_NR];
        let mut others = [0u8; MAX_MR * MAX_NR];
        for r in 0..rows.len() {
            for c in 0..if out.other.is_null() { 0 } else { columns } {
                // SAFETY: row `r` and column `c` lie inside `other`, whose length `run` checked.
                others[r * nr + c] = unsafe { *out.other.add(at + r * out_c + c) };
            }
        }
        tile.out_u8 = u8s.as_mut_ptr();
        tile.out_f32 = if out.f32.is_null() { out.f32 } else { f32s.as_mut_ptr() };
        tile.other = others.as_ptr();
        tile.out_stride = nr;
        // SAFETY: as in `tile`, with buffers of `MAX_MR x MAX_NR` in the place of output and `other`.
        unsafe { (self.isa.0.tile)(&tile, rows.len()) };
        for r in 0..rows.len() {
            for c in 0..columns {
                // SAFETY: row `r` and column `c` lie inside the output, whose length `run` checked.
                unsafe {
                    match out.f32.is_null() {
                        true => *out.u8.add(at + r * out_c + c) = u8s[r * nr + c],
                        false => *out.f32.add(at + r * out_c + c) = f32s[r * nr + c],
                    }
                }
            }
        }
    }
}
