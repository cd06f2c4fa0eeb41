//! Convolution: checks, packs, and cuts the output into tasks for the pool's threads.
//!
//! A tap is a kernel position: `in_c` bytes of one pixel, read where they lie. Where `in_c` is no multiple of what a
//! tile step takes (the first layer's 3), the picture is first copied with its border, and a tap is a kernel row.

use super::error::Error;
use super::isa::Isa;
use super::pack::{self, Aligned, Taps};
use super::packed::Packed;
use super::partition::Partition;
use super::pool::Pool;
use super::shape::{ConvShape, Epilogue, OutputMut, Residual, length};
use super::tile::{Out, Requantization, RequantizedResidual, Source};

/// Buffers that convolutions reuse; one for a whole network.
#[derive(Debug, Default)]
pub struct Scratch {
    bordered: Aligned,
    gathered: Aligned,
}

/// A convolution with packed weights.
#[derive(Debug)]
pub struct Conv {
    pub(super) isa: Isa,
    pub(super) shape: ConvShape,
    pub(super) out_h: usize,
    pub(super) out_w: usize,
    pub(super) taps: Taps,
    /// Bytes of a row that meet weights, padding included.
    pub(super) depth: usize,
    /// The picture is copied with its border before the tiles read it.
    copies: bool,
    pub(super) packed: Packed,
    pub(super) scale: Vec<f32>,
    pub(super) requantization: Requantization,
    x_zero_point: u8,
    /// A pixel of the border.
    pub(super) border: Aligned,
}

/// Weights up to this size stay in the second-level cache while all rows pass.
const WEIGHTS_IN_CACHE: usize = 384 << 10;

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
        shape.check()?;
        Conv::of(isa, shape, Packed::new(isa, shape, weights, bias, x_zero_point)?, x_zero_point, epilogue)
    }

    /// A convolution with weights and bias that are packed already, for this `isa` and `x_zero_point`.
    ///
    /// # Errors
    /// As [`Conv::new`], and what is packed is of another shape.
    pub fn of(
        isa: Isa,
        shape: &ConvShape,
        packed: Packed,
        x_zero_point: u8,
        epilogue: Epilogue,
    ) -> Result<Conv, Error> {
        let s = *shape;
        s.check()?;
        packed.check(isa, shape)?;
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
        let (taps, joined) = Taps::of(table, &s);
        let plain = (zero_point, lo, hi, residual.map_or(0, |r| r.zero_point)) == (0, 0, 255, 0)
            && largest(joined.count * joined.used, &packed.addends.bias, &scale, residual) < i32::MAX as f64;
        scale.resize(s.out_c.next_multiple_of(table.nr), 0.0);
        let steps = |bound: u8| f32::from(bound) - f32::from(zero_point);
        Ok(Conv {
            isa,
            shape: s,
            out_h: s.out_h(),
            out_w: s.out_w(),
            taps,
            depth: joined.count * joined.span,
            copies: pack::is_copied(&s),
            packed,
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
                for block in (Partition { len: blocks.len, parts: blocks.len.min(4 * pool.threads()) }).part(task) {
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
    fn grid(&self, threads: usize) -> (Partition, Partition) {
        let table = self.isa.0;
        let blocks = (self.out_h * self.out_w).div_ceil(table.mr);
        let panels = self.shape.out_c.div_ceil(table.nr);
        let whole = |len| Partition { len, parts: 1 };
        if threads == 1 {
            return (whole(blocks), whole(panels));
        }
        let wanted = threads * 8;
        if self.packed.panels.bytes().len() > WEIGHTS_IN_CACHE && panels >= 2 * threads {
            return (whole(blocks), Partition { len: panels, parts: panels.min(wanted) });
        }
        if blocks >= 4 * threads {
            return (Partition { len: blocks, parts: blocks.min(wanted) }, whole(panels));
        }
        (
            Partition { len: blocks, parts: blocks },
            Partition { len: panels, parts: panels.min(wanted.div_ceil(blocks)) },
        )
    }

    pub(super) fn panel_len(&self) -> usize {
        self.depth * self.isa.0.nr
    }

    /// The input inside its border, and `span` bytes to spare.
    fn copy_with_border(&self, pool: &Pool, input: &[u8], bordered: &mut Aligned) {
        let s = &self.shape;
        let (height, width) = (s.in_h + s.pads[0] + s.pads[2], s.in_w + s.pads[1] + s.pads[3]);
        let row = width * s.in_c;
        bordered.grow(height * row + self.taps.span);
        let target = Out { u8: bordered.bytes_mut().as_mut_ptr(), f32: std::ptr::null_mut(), other: std::ptr::null() };
        let target = &target;
        let cut = Partition { len: height, parts: height.min(pool.threads() * 2) };
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

/// An upper bound of what the epilogue rounds, for filters of `filter` weights and packed `bias`.
fn largest(filter: usize, bias: &[i32], scale: &[f32], residual: Option<Residual>) -> f64 {
    let products = 255.0 * 128.0 * filter as f64;
    let conv = bias
        .iter()
        .zip(scale)
        .map(|(bias, scale)| (products + f64::from(bias.unsigned_abs())) * f64::from(scale.abs()));
    let step = residual.and_then(|r| r.conv_step).map_or(1.0, |step| f64::from(step.abs()));
    1.0 + 1.001 * (conv.fold(0.0, f64::max) * step + residual.map_or(0.0, |r| 255.0 * f64::from(r.scale.abs())))
}
