//! What a convolution computes: its geometry, its epilogue, where its output goes.

use super::error::Error;

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
    /// # Errors
    /// A size is 0, or the kernel does not fit the input.
    pub(super) fn check(&self) -> Result<(), Error> {
        let positive = [self.in_h, self.in_w, self.in_c, self.out_c, self.kernel[0], self.kernel[1]];
        let steps = [self.stride[0], self.stride[1], self.dilation[0], self.dilation[1]];
        if positive.contains(&0) || steps.contains(&0) || self.out_h() == 0 || self.out_w() == 0 {
            let (kernel, stride) = (self.kernel, self.stride);
            let reason = format!("a kernel of {kernel:?} at stride {stride:?} gives no output: {self:?}");
            return Err(Error::Shape(reason));
        }
        Ok(())
    }

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

pub(super) fn length(what: &'static str, got: usize, want: usize) -> Result<(), Error> {
    if got == want { Ok(()) } else { Err(Error::Length { what, got, want }) }
}
