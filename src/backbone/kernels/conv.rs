//! Convolution: checks, packs, and walks the output in tiles over the pool's threads.
//!
//! A tap is a kernel position: `in_c` bytes of one pixel, read where they lie. Where `in_c` is no multiple of what a
//! tile step takes (the first layer's 3), the picture is first copied with its border, and a tap is a kernel row.

use std::ops::Range;

use super::error::Error;
use super::isa::Isa;
use super::pack::{self, Aligned, Taps, Weights};
use super::pool::Pool;
use super::tile::{MAX_MR, MAX_NR, Requantization, RequantizedResidual, Rows, Tile, prefetch_read, prefetch_write};

/// Geometry of a convolution, group 1, batch 1. Spelled as ONNX `Conv` does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConvShape {
    pub in_h: usize,
    pub in_w: usize,
    pub in_c: usize,
    pub out_c: usize,
    /// Height, width.
    pub kernel: [usize; 2],
    pub stride: [usize; 2],
    /// Top, left, bottom, right.
    pub pads: [usize; 4],
    pub dilation: [usize; 2],
}

/// 1 x 1, stride 1, no padding; sizes and channels are 1, to be set.
impl Default for ConvShape {
    fn default() -> ConvShape {
        ConvShape {
            in_h: 1,
            in_w: 1,
            in_c: 1,
            out_c: 1,
            kernel: [1, 1],
            stride: [1, 1],
            pads: [0; 4],
            dilation: [1, 1],
        }
    }
}

impl ConvShape {
    /// Height of the output; 0 where the kernel does not fit.
    pub fn out_h(&self) -> usize {
        out_len(self.in_h + self.pads[0] + self.pads[2], self.kernel[0], self.stride[0], self.dilation[0])
    }

    /// Width of the output; 0 where the kernel does not fit.
    pub fn out_w(&self) -> usize {
        out_len(self.in_w + self.pads[1] + self.pads[3], self.kernel[1], self.stride[1], self.dilation[1])
    }

    /// Elements of the input, `in_h x in_w x in_c`.
    pub fn in_len(&self) -> usize {
        self.in_h * self.in_w * self.in_c
    }

    /// Elements of the weights, `out_c x in_c x kernel`.
    pub fn weights_len(&self) -> usize {
        self.out_c * self.in_c * self.kernel[0] * self.kernel[1]
    }
}

fn out_len(padded: usize, kernel: usize, stride: usize, dilation: usize) -> usize {
    match (kernel.checked_sub(1), padded.checked_sub(1)) {
        (Some(k), Some(p)) if stride > 0 && p >= k * dilation => (p - k * dilation) / stride + 1,
        _ => 0,
    }
}

/// The second summand of a fused residual addition: a `u8` map of the output's shape.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Residual {
    /// One step of the other map in steps of the output: `b_scale / y_scale`.
    pub scale: f32,
    pub zero_point: u8,
    /// One step of the convolution's own output in steps of the output, where that is rounded before the addition;
    /// the epilogue's scale and the range are then in steps of that own output. None: it is not rounded.
    pub conv_step: Option<f32>,
    /// Range of the convolution's own result before the addition, in steps of the output; infinite for no clamp.
    /// Where it is rounded, within -255 to 255.
    pub conv_lo: f32,
    pub conv_hi: f32,
}

/// From accumulator to output.
///
/// `u8`: `y = round(clamp(v, lo - zero_point, hi - zero_point)) + zero_point`, half to even, with
/// `v = acc * scale`, or with a residual `v = clamp(acc * scale, conv_lo, conv_hi) + (b - b_zero_point) * b_scale`,
/// or where that is rounded `v = round(clamp(acc * scale, conv_lo, conv_hi)) * conv_step + (b - b_zero_point) * b_scale`.
///
/// `f32`: `v` itself, in steps of the output (multiply by `y_scale` for the real value), not below `lo - zero_point`
/// and, unless `hi` is 255, not above `hi - zero_point`. [`super::quantize_f32`] makes the `u8` output of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Epilogue {
    /// Per output channel: `x_scale * w_scale / y_scale`.
    pub scale: Vec<f32>,
    pub zero_point: u8,
    /// Range of the output; a ReLU is `lo == zero_point`.
    pub lo: u8,
    pub hi: u8,
    pub residual: Option<Residual>,
}

impl Epilogue {
    pub fn new(scale: Vec<f32>, zero_point: u8, lo: u8, hi: u8) -> Epilogue {
        Epilogue { scale, zero_point, lo, hi, residual: None }
    }
}

/// Where a convolution writes: `out_h x out_w x out_c`.
#[derive(Debug)]
pub enum OutputMut<'a> {
    U8(&'a mut [u8]),
    F32(&'a mut [f32]),
}

/// Buffers that convolutions reuse; one for a whole network.
#[derive(Debug, Default)]
pub struct Scratch {
    bordered: Aligned,
    gathered: Aligned,
}

/// A convolution with packed weights.
#[derive(Debug)]
pub struct Conv {
    isa: Isa,
    shape: ConvShape,
    out_h: usize,
    out_w: usize,
    taps: Taps,
    /// Bytes of a row that meet weights, padding included.
    depth: usize,
    /// The picture is copied with its border before the tiles read it.
    copies: bool,
    weights: Weights,
    weight_min: bool,
    bias: Vec<i32>,
    scale: Vec<f32>,
    requantization: Requantization,
    x_zero_point: u8,
    /// A pixel of the border.
    border: Aligned,
}

/// Raw output that tasks write disjoint parts of.
#[derive(Clone, Copy)]
struct Out {
    u8: *mut u8,
    f32: *mut f32,
    other: *const u8,
}

// SAFETY: `Conv::run` hands each task its own rows and columns of the output; `other` is only read.
unsafe impl Sync for Out {}

/// Pixels of a multiple of this many channels are read where they lie: the largest `kr` of a tile that does so.
const ALIGNED_CHANNELS: usize = 4;

/// Weights up to this size stay in the second-level cache while all rows pass.
const WEIGHTS_IN_CACHE: usize = 384 << 10;

/// Outputs from this size on leave the second-level cache, so that their lines are worth fetching early.
const OUTPUT_BEYOND_CACHE: usize = 512 << 10;

/// Room for gathered blocks, apart for each block or task.
struct Gathered(*mut u8);

// SAFETY: tasks write disjoint blocks, and read them when all are written or only they themselves do.
unsafe impl Sync for Gathered {}

impl Gathered {
    fn at(&self, offset: usize) -> *mut u8 {
        self.0.wrapping_add(offset)
    }
}

impl Conv {
    /// Packs `weights` (`out_c x in_c x kernel_h x kernel_w`) and folds `x_zero_point` into `bias` (per output
    /// channel, in units of `x_scale * w_scale`). The border has the value `x_zero_point`.
    ///
    /// # Errors
    /// A size is 0, the kernel does not fit the input, a vector has the wrong length, a scale is not finite, or
    /// `lo > hi`.
    pub fn new(
        isa: Isa,
        shape: &ConvShape,
        weights: &[i8],
        bias: &[i32],
        x_zero_point: u8,
        epilogue: Epilogue,
    ) -> Result<Conv, Error> {
        let s = *shape;
        let positive = [s.in_h, s.in_w, s.in_c, s.out_c, s.kernel[0], s.kernel[1], s.stride[0], s.stride[1]];
        if positive.contains(&0) || s.dilation.contains(&0) || s.out_h() == 0 || s.out_w() == 0 {
            return Err(Error::Shape(format!("no output for {s:?}")));
        }
        length("weights", weights.len(), s.weights_len())?;
        length("bias", bias.len(), s.out_c)?;
        length("scale", epilogue.scale.len(), s.out_c)?;
        let Epilogue { mut scale, zero_point, lo, hi, residual } = epilogue;
        let finite = scale.iter().all(|s| s.is_finite())
            && residual.is_none_or(|r| r.scale.is_finite() && r.conv_lo <= r.conv_hi)
            && residual.is_none_or(|r| {
                r.conv_step.is_none_or(|step| step.is_finite() && r.conv_lo >= -255.0 && r.conv_hi <= 255.0)
            });
        if !finite || lo > hi {
            return Err(Error::Shape(format!("scales must be finite, lower bounds below upper ones; {residual:?}")));
        }
        let table = isa.0;
        let copies = !s.in_c.is_multiple_of(ALIGNED_CHANNELS);
        let (count, used) = match copies && s.dilation[1] == 1 {
            true => (s.kernel[0], s.kernel[1] * s.in_c),
            false => (s.kernel[0] * s.kernel[1], s.in_c),
        };
        let (taps, packed) = match table.gather {
            None => {
                let taps = Taps { count, used, span: used.next_multiple_of(table.kr) };
                (taps, taps)
            }
            Some(_) => {
                let all =
                    Taps { count: 1, used: count * used, span: (count * used).next_multiple_of(table.depth_step) };
                (Taps { count, used, span: used }, all)
            }
        };
        let plain = (zero_point, lo, hi, residual.map_or(0, |r| r.zero_point)) == (0, 0, 255, 0)
            && largest(weights, bias, &scale, residual) < i32::MAX as f64;
        scale.resize(s.out_c.next_multiple_of(table.nr), 0.0);
        let steps = |bound: u8| f32::from(bound) - f32::from(zero_point);
        Ok(Conv {
            isa,
            shape: s,
            out_h: s.out_h(),
            out_w: s.out_w(),
            taps,
            depth: packed.count * packed.span,
            copies,
            weight_min: weights.contains(&i8::MIN),
            weights: Weights::pack(table, weights, s.in_c, s.kernel, packed),
            bias: pack::bias(table, weights, bias, x_zero_point),
            scale,
            requantization: Requantization {
                zero_point,
                lo,
                hi,
                float_lo: steps(lo),
                float_hi: if hi == 255 { f32::INFINITY } else { steps(hi) },
                residual: residual.map(|r| RequantizedResidual {
                    scale: r.scale,
                    zero_point: r.zero_point,
                    conv_lo: r.conv_lo,
                    conv_hi: r.conv_hi,
                    magic: r.conv_step.map_or(0.0, |_| super::scalar::MAGIC),
                    step: r.conv_step.unwrap_or(1.0),
                }),
                plain,
            },
            x_zero_point,
            border: Aligned::filled(taps.span, x_zero_point),
        })
    }

    /// `input` is `in_h x in_w x in_c`; `other` the residual's second summand, of the output's shape.
    ///
    /// # Errors
    /// A length is wrong, or `other` is there without a residual in the epilogue or missing with one.
    pub fn run(
        &self,
        pool: &Pool,
        scratch: &mut Scratch,
        input: &[u8],
        other: Option<&[u8]>,
        out: OutputMut<'_>,
    ) -> Result<(), Error> {
        length("input", input.len(), self.shape.in_len())?;
        let len = self.out_h * self.out_w * self.shape.out_c;
        length("other", other.map_or(0, <[u8]>::len), self.requantization.residual.map_or(0, |_| len))?;
        let mut target = Out {
            u8: std::ptr::null_mut(),
            f32: std::ptr::null_mut(),
            other: other.map_or(std::ptr::null(), <[u8]>::as_ptr),
        };
        match out {
            OutputMut::U8(out) => {
                length("output", out.len(), len)?;
                target.u8 = out.as_mut_ptr();
            }
            OutputMut::F32(out) => {
                length("output", out.len(), len)?;
                target.f32 = out.as_mut_ptr();
            }
        }
        let source = match self.copies {
            false => Source { data: input, width: self.shape.in_w, bordered: false },
            true => {
                let width = self.shape.in_w + self.shape.pads[1] + self.shape.pads[3];
                self.copy_with_border(pool, input, &mut scratch.bordered);
                Source { data: scratch.bordered.bytes(), width, bordered: true }
            }
        };
        let (blocks, panels) = self.grid(pool.threads());
        let (target, source) = (&target, &source);
        let block_len = self.block_len();
        // Panels that leave the cache pass once, over rows gathered beforehand; else each block is gathered in its turn.
        let whole = panels.part(0).len() * self.panel_len() > WEIGHTS_IN_CACHE;
        let n_gathered = if whole { blocks.len } else { blocks.parts * panels.parts };
        scratch.gathered.grow(n_gathered * block_len);
        let gathered = Gathered(scratch.gathered.bytes_mut().as_mut_ptr());
        let gathered = &gathered;
        if whole && block_len > 0 {
            pool.run(blocks.len.min(4 * pool.threads()), |task| {
                let mut rows_at = self.rows_at();
                for block in (Cut { len: blocks.len, parts: blocks.len.min(4 * pool.threads()) }).part(task) {
                    let rows = self.block(block);
                    self.point(source, rows.clone(), &mut rows_at);
                    self.gather(rows.len(), &rows_at, gathered.at(block * block_len));
                }
            });
        }
        pool.run(blocks.parts * panels.parts, |task| {
            let (blocks, panels) = (blocks.part(task % blocks.parts), panels.part(task / blocks.parts));
            match whole {
                true => self.panels_first(source, target, blocks, panels, |block| gathered.at(block * block_len)),
                false => self.blocks_first(source, target, blocks, panels, gathered.at(task * block_len)),
            }
        });
        Ok(())
    }

    /// Bytes of a gathered block; 0 where the tile reads rows where they lie.
    fn block_len(&self) -> usize {
        self.isa.0.gather.map_or(0, |_| self.isa.0.mr * self.depth)
    }

    /// How row blocks and panels are cut into tasks.
    fn grid(&self, threads: usize) -> (Cut, Cut) {
        let table = self.isa.0;
        let blocks = (self.out_h * self.out_w).div_ceil(table.mr);
        let panels = self.shape.out_c.div_ceil(table.nr);
        let whole = |len| Cut { len, parts: 1 };
        if threads == 1 {
            return (whole(blocks), whole(panels));
        }
        let wanted = threads * 8;
        if self.weights.panels.bytes().len() > WEIGHTS_IN_CACHE && panels >= 2 * threads {
            return (whole(blocks), Cut { len: panels, parts: panels.min(wanted) });
        }
        if blocks >= 4 * threads {
            return (Cut { len: blocks, parts: blocks.min(wanted) }, whole(panels));
        }
        (Cut { len: blocks, parts: blocks }, Cut { len: panels, parts: panels.min(wanted.div_ceil(blocks)) })
    }

    /// Row by row: the weights of these panels stay in the cache.
    fn blocks_first(
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
    fn panels_first(
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
            let next = self.weights.panels.bytes()[panel * panel_len..].as_ptr().wrapping_add(panel_len);
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
    fn rows_at(&self) -> Vec<*const u8> {
        vec![std::ptr::null(); self.taps.count * self.isa.0.mr]
    }

    /// Where the tile wants it, copies the rows at `rows_at`, made by `point`, to `gathered`, `block_len` bytes.
    fn gather(&self, rows: usize, rows_at: &[*const u8], gathered: *mut u8) {
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

    fn panel_len(&self) -> usize {
        self.depth * self.isa.0.nr
    }

    /// Output pixels of a block: all blocks have the same number, or one less.
    fn block(&self, block: usize) -> Range<usize> {
        let pixels = self.out_h * self.out_w;
        Cut { len: pixels, parts: pixels.div_ceil(self.isa.0.mr) }.part(block)
    }

    /// Fills in where each row's taps start.
    fn point(&self, source: &Source<'_>, rows: Range<usize>, rows_at: &mut [*const u8]) {
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
            weight_min: self.weight_min,
            prefetch: self.weights.panels.bytes().as_ptr().cast(),
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
        tile.weights = self.weights.panels.bytes()[panel * self.panel_len()..].as_ptr().cast();
        tile.remainders = self.weights.remainders(panel);
        tile.bias = self.bias[column..].as_ptr();
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

    /// The input inside its border, and `span` bytes to spare.
    fn copy_with_border(&self, pool: &Pool, input: &[u8], bordered: &mut Aligned) {
        let s = &self.shape;
        let (height, width) = (s.in_h + s.pads[0] + s.pads[2], s.in_w + s.pads[1] + s.pads[3]);
        let row = width * s.in_c;
        bordered.grow(height * row + self.taps.span);
        let target = Out { u8: bordered.bytes_mut().as_mut_ptr(), f32: std::ptr::null_mut(), other: std::ptr::null() };
        let target = &target;
        let cut = Cut { len: height, parts: height.min(pool.threads() * 2) };
        pool.run(cut.parts, |task| {
            for y in cut.part(task) {
                // SAFETY: row `y` lies inside the buffer grown above, and no other task writes it.
                let line = unsafe { std::slice::from_raw_parts_mut(target.u8.add(y * row), row) };
                match y.checked_sub(s.pads[0]).filter(|&y| y < s.in_h) {
                    None => line.fill(self.x_zero_point),
                    Some(y) => {
                        let (left, len) = (s.pads[1] * s.in_c, s.in_w * s.in_c);
                        line[..left].fill(self.x_zero_point);
                        line[left..left + len].copy_from_slice(&input[y * len..][..len]);
                        line[left + len..].fill(self.x_zero_point);
                    }
                }
            }
        });
    }
}

/// An upper bound of what the epilogue rounds.
fn largest(weights: &[i8], bias: &[i32], scale: &[f32], residual: Option<Residual>) -> f64 {
    let filters = weights.chunks_exact(weights.len() / bias.len());
    let conv = filters.zip(bias).zip(scale).map(|((filter, &bias), &scale)| {
        // Parts whose sum fits 32 bits.
        let part = |w: &[i8]| f64::from(w.iter().map(|w| u32::from(w.unsigned_abs())).sum::<u32>());
        let sum: f64 = filter.chunks(1 << 16).map(part).sum();
        (255.0 * sum + f64::from(bias.unsigned_abs())) * f64::from(scale.abs())
    });
    let step = residual.and_then(|r| r.conv_step).map_or(1.0, |step| f64::from(step.abs()));
    1.0 + 1.001 * (conv.fold(0.0, f64::max) * step + residual.map_or(0.0, |r| 255.0 * f64::from(r.scale.abs())))
}

/// What the tiles read.
struct Source<'a> {
    data: &'a [u8],
    /// Pixels of a row. A bordered copy has bytes to spare at its end.
    width: usize,
    bordered: bool,
}

/// `0..len` in `parts` parts that differ by at most one.
#[derive(Clone, Copy)]
pub(super) struct Cut {
    pub len: usize,
    pub parts: usize,
}

impl Cut {
    pub fn part(&self, part: usize) -> Range<usize> {
        let at = |part: usize| part * (self.len / self.parts) + part.min(self.len % self.parts);
        at(part)..at(part + 1)
    }
}

pub(super) fn length(what: &'static str, got: usize, want: usize) -> Result<(), Error> {
    if got == want { Ok(()) } else { Err(Error::Length { what, got, want }) }
}
