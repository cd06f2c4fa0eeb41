//! What is not a convolution: pooling, table look-up, quantization.

use super::error::Error;
use super::partition::Partition;
use super::pool::Pool;
use super::shape::length;

/// Geometry of a `u8` max pool, NHWC, batch 1. Spelled as ONNX `MaxPool` does (`ceil_mode` 0).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MaxPool {
    pub in_h: usize,
    pub in_w: usize,
    pub channels: usize,
    pub kernel: [usize; 2],
    pub stride: [usize; 2],
    /// Top, left, bottom, right; what lies there never wins.
    pub pads: [usize; 4],
}

impl MaxPool {
    /// Height of the output; 0 where the kernel does not fit.
    pub fn out_h(&self) -> usize {
        let padded = self.in_h + self.pads[0] + self.pads[2];
        padded.checked_sub(self.kernel[0]).map_or(0, |rest| rest / self.stride[0].max(1) + 1)
    }

    /// Width of the output; 0 where the kernel does not fit.
    pub fn out_w(&self) -> usize {
        let padded = self.in_w + self.pads[1] + self.pads[3];
        padded.checked_sub(self.kernel[1]).map_or(0, |rest| rest / self.stride[1].max(1) + 1)
    }

    /// `input` is `in_h x in_w x channels`, `out` is `out_h x out_w x channels`.
    ///
    /// # Errors
    /// A length is wrong, or a window lies wholly in the padding.
    pub fn run(&self, pool: &Pool, input: &[u8], out: &mut [u8]) -> Result<(), Error> {
        let (out_h, out_w, c) = (self.out_h(), self.out_w(), self.channels);
        let padded = (0..2).any(|i| self.pads[i] >= self.kernel[i] || self.pads[i + 2] >= self.kernel[i]);
        if padded || self.stride.contains(&0) || c == 0 {
            return Err(Error::Shape(format!("a max pool with windows in the padding alone, or of no size: {self:?}")));
        }
        length("input", input.len(), self.in_h * self.in_w * c)?;
        length("output", out.len(), out_h * out_w * c)?;
        let row = out_w * c;
        let rows = Rows(out.as_mut_ptr());
        let cut = Partition { len: out_h, parts: out_h.min(pool.threads() * 4).max(1) };
        pool.run(cut.parts, |task| {
            for oy in cut.part(task) {
                // SAFETY: row `oy` lies inside `out`, whose length is checked, and no other task writes it.
                let line = unsafe { std::slice::from_raw_parts_mut(rows.at(oy * row), row) };
                self.line(input, oy, line);
            }
        });
        Ok(())
    }

    fn line(&self, input: &[u8], oy: usize, line: &mut [u8]) {
        let c = self.channels;
        let range = |o: usize, axis: usize, len: usize| {
            let start = o * self.stride[axis];
            start.saturating_sub(self.pads[axis])..(start + self.kernel[axis]).saturating_sub(self.pads[axis]).min(len)
        };
        for (ox, out) in line.chunks_exact_mut(c).enumerate() {
            let (ys, xs) = (range(oy, 0, self.in_h), range(ox, 1, self.in_w));
            let pixels = |from: usize| {
                let xs = xs.clone();
                ys.clone().flat_map(move |y| xs.clone().map(move |x| (y * self.in_w + x) * c + from))
            };
            // In pieces that stay in registers.
            let (pieces, rest) = out.as_chunks_mut::<64>();
            for (i, piece) in pieces.iter_mut().enumerate() {
                let mut max = [0; 64];
                for at in pixels(64 * i) {
                    for (max, &x) in max.iter_mut().zip(&input[at..at + 64]) {
                        *max = x.max(*max);
                    }
                }
                *piece = max;
            }
            let from = c - rest.len();
            rest.fill(0);
            for at in pixels(from) {
                for (max, &x) in rest.iter_mut().zip(&input[at..]) {
                    *max = x.max(*max);
                }
            }
        }
    }
}

/// Rows of an output that tasks write apart.
struct Rows(*mut u8);

// SAFETY: tasks write disjoint rows.
unsafe impl Sync for Rows {}

impl Rows {
    fn at(&self, offset: usize) -> *mut u8 {
        self.0.wrapping_add(offset)
    }
}

/// A picture of RGB pixels to the network's input: `out[3 p + i] = tables[i][rgb[3 p + order[i]]]`.
///
/// `order` is `[0, 1, 2]` for RGB, `[2, 1, 0]` for BGR; `tables[i]` holds crop-free normalisation and quantization of
/// the network's channel `i`.
///
/// # Errors
/// A length is wrong or an `order` is above 2.
pub fn lut_u8(rgb: &[u8], tables: &[[u8; 256]; 3], order: [usize; 3], out: &mut [u8]) -> Result<(), Error> {
    length("picture", rgb.len(), rgb.len() / 3 * 3)?;
    length("output", out.len(), rgb.len())?;
    if order.iter().any(|&c| c > 2) {
        return Err(Error::Shape(format!("channel order {order:?}")));
    }
    let [first, second, third] = order;
    for (out, rgb) in out.chunks_exact_mut(3).zip(rgb.chunks_exact(3)) {
        out[0] = tables[0][usize::from(rgb[first])];
        out[1] = tables[1][usize::from(rgb[second])];
        out[2] = tables[2][usize::from(rgb[third])];
    }
    Ok(())
}

/// `round(clamp(v, lo - zero_point, hi - zero_point)) + zero_point`, half to even, for values in steps of the output
/// as [`super::OutputMut::F32`] gives them.
///
/// # Errors
/// A length is wrong.
pub fn quantize_f32(values: &[f32], zero_point: u8, lo: u8, hi: u8, out: &mut [u8]) -> Result<(), Error> {
    length("output", out.len(), values.len())?;
    let requantization = super::tile::Requantization {
        zero_point,
        lo,
        hi,
        float_lo: f32::NEG_INFINITY,
        float_hi: f32::INFINITY,
        residual: None,
        plain: false,
    };
    for (out, &value) in out.iter_mut().zip(values) {
        *out = requantization.quantize(value);
    }
    Ok(())
}

/// Mean over the pixels of an `h x w x channels` map, one value per channel; empty where the map is.
pub fn average_pool_f32(map: &[f32], channels: usize) -> Vec<f32> {
    let mut sum = vec![0f32; channels];
    let pixels = map.len() / channels.max(1);
    for pixel in map.chunks_exact(channels.max(1)) {
        for (sum, x) in sum.iter_mut().zip(pixel) {
            *sum += x;
        }
    }
    sum.iter_mut().for_each(|sum| *sum /= pixels as f32);
    sum
}

/// Maximum over the pixels of an `h x w x channels` map, one value per channel.
pub fn max_pool_f32(map: &[f32], channels: usize) -> Vec<f32> {
    let mut max = vec![f32::NEG_INFINITY; channels];
    for pixel in map.chunks_exact(channels.max(1)) {
        for (max, &x) in max.iter_mut().zip(pixel) {
            *max = max.max(x);
        }
    }
    max
}
