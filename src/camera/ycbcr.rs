//! Conversion of YCbCr to RGB, row by row: plain loops over 16-bit numbers that the compiler vectorizes, for the running
//! processor if they are called through [`vectorized`].

use super::layout::{Layout, Matrix};

/// Runs a loop compiled for the vector instructions that the processor has; the loop and what it calls must be
/// inlined.
pub(super) fn vectorized(run: impl FnOnce()) {
    pulp::Arch::new().dispatch(run);
}

/// Products are the high halves of 16 by 16 bits, with this number of fractional bits.
const FRACTION: u32 = 5;
const LUMA_SHIFT: u32 = 7;
const CHROMA_SHIFT: u32 = 8;
/// Half a level, plus half of the truncation error of three products.
const ROUND: i16 = (1 << (FRACTION - 1)) + 1;

/// Luma and colour differences of a row, in units of 1/2^5, and the coefficients of their conversion (ITU-R BT.601, BT.709).
pub(super) struct Row {
    black: i16,
    y: i16,
    red_cr: i16,
    green_cb: i16,
    green_cr: i16,
    blue_cb: i16,
    luma: Vec<i16>,
    red: Vec<i16>,
    green: Vec<i16>,
    blue: Vec<i16>,
}

impl Row {
    /// A row of an even number of pixels.
    pub(super) fn new(layout: &Layout, pixels: usize) -> Self {
        let (kr, kb) = match layout.matrix {
            Matrix::Bt601 => (0.299, 0.114),
            Matrix::Bt709 => (0.2126, 0.0722),
        };
        let kg = 1.0 - kr - kb;
        let (black, luma, chroma) = if layout.full_range { (0, 1.0, 1.0) } else { (16, 255.0 / 219.0, 255.0 / 224.0) };
        let fixed = |factor: f64, shift: u32| (factor * f64::from(1 << (16 + FRACTION - shift))).round() as i16;
        Row {
            black,
            y: fixed(luma, LUMA_SHIFT),
            red_cr: fixed(chroma * 2.0 * (1.0 - kr), CHROMA_SHIFT),
            green_cb: fixed(-chroma * 2.0 * (1.0 - kb) * kb / kg, CHROMA_SHIFT),
            green_cr: fixed(-chroma * 2.0 * (1.0 - kr) * kr / kg, CHROMA_SHIFT),
            blue_cb: fixed(chroma * 2.0 * (1.0 - kb), CHROMA_SHIFT),
            luma: vec![0; pixels],
            red: vec![0; pixels],
            green: vec![0; pixels],
            blue: vec![0; pixels],
        }
    }

    /// Y of each pixel.
    #[inline(always)]
    pub(super) fn take_luma(&mut self, values: impl Iterator<Item = u8>) {
        let (black, y) = (self.black, self.y);
        for (luma, value) in self.luma.iter_mut().zip(values) {
            *luma = high((i16::from(value) - black) << LUMA_SHIFT, y) + ROUND;
        }
    }

    /// Cb and Cr of each `N` pixels.
    #[inline(always)]
    pub(super) fn take_chroma<const N: usize>(&mut self, values: impl Iterator<Item = [u8; 2]>) {
        let Row { red_cr, green_cb, green_cr, blue_cb, .. } = *self;
        let (red, green, blue) = (&mut self.red, &mut self.green, &mut self.blue);
        let groups = red.chunks_exact_mut(N).zip(green.chunks_exact_mut(N)).zip(blue.chunks_exact_mut(N));
        for (((red, green), blue), value) in groups.zip(values) {
            let [cb, cr] = value.map(|v| (i16::from(v) - 128) << CHROMA_SHIFT);
            red.fill(high(cr, red_cr));
            green.fill(high(cb, green_cb) + high(cr, green_cr));
            blue.fill(high(cb, blue_cb));
        }
    }

    /// Writes the pixels from `first` on into `rgb`.
    #[inline(always)]
    pub(super) fn write(&self, first: usize, rgb: &mut [u8]) {
        let colours = self.red[first..].iter().zip(&self.green[first..]).zip(&self.blue[first..]);
        for ((pixel, luma), ((red, green), blue)) in rgb.chunks_exact_mut(3).zip(&self.luma[first..]).zip(colours) {
            let level = |colour: &i16| ((luma + colour) >> FRACTION).clamp(0, 255) as u8;
            pixel[0] = level(red);
            pixel[1] = level(green);
            pixel[2] = level(blue);
        }
    }
}

#[inline(always)]
fn high(a: i16, b: i16) -> i16 {
    ((i32::from(a) * i32::from(b)) >> 16) as i16
}
