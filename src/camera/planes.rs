//! Planar YCbCr of 8 bits into RGB, as YUV4MPEG2 carries it: all of Y, then all of Cb, then all of Cr, without padding.

use ::image::RgbImage;

use super::layout::{Error, Layout};
use super::ycbcr;
use crate::config::PixelFormat;

/// How a frame's planes lie in memory. The matrix is BT.601's: nothing in the stream names another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Planes {
    pub width: u32,
    pub height: u32,
    pub subsampling: Subsampling,
    /// Y from 0 to 255 instead of 16 to 235.
    pub full_range: bool,
}

/// How many pixels share a Cb and a Cr.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subsampling {
    /// Two by two.
    Cs420,
    /// Two of a line.
    Cs422,
    /// None do.
    Cs444,
    /// There is only Y.
    Mono,
}

impl Planes {
    /// Width and height of a plane of Cb or Cr.
    fn chroma(&self) -> (usize, usize) {
        let (width, height) = (self.width as usize, self.height as usize);
        match self.subsampling {
            Subsampling::Cs420 => (width.div_ceil(2), height.div_ceil(2)),
            Subsampling::Cs422 => (width.div_ceil(2), height),
            Subsampling::Cs444 => (width, height),
            Subsampling::Mono => (0, 0),
        }
    }

    /// Of a whole frame.
    pub fn bytes(&self) -> usize {
        let (width, height) = self.chroma();
        self.width as usize * self.height as usize + 2 * width * height
    }

    /// The region `[x, y, width, height]` of a frame as RGB.
    pub fn to_rgb(self, bytes: &[u8], region: [u32; 4]) -> Result<RgbImage, Error> {
        let mut layout = Layout::packed(PixelFormat::Grey, self.width, self.height);
        layout.full_range = self.full_range;
        layout.check(bytes, region)?;
        if bytes.len() < self.bytes() {
            return Err(Error::Short { wanted: self.bytes(), got: bytes.len() });
        }
        let [x, y, width, height] = region.map(|v| v as usize);
        let (luma, colours) = bytes.split_at(self.width as usize * self.height as usize);
        let (chroma_width, chroma_height) = self.chroma();
        let (cb, cr) = colours.split_at(chroma_width * chroma_height);
        let (shared_columns, shared_lines) = match self.subsampling {
            Subsampling::Cs420 => (2, 2),
            Subsampling::Cs422 => (2, 1),
            Subsampling::Cs444 | Subsampling::Mono => (1, 1),
        };
        // Two columns may share their Cb and Cr.
        let first = x & !1;
        let mut row = ycbcr::Row::new(&layout, (x + width).next_multiple_of(2) - first);
        let mut picture = RgbImage::new(region[2], region[3]);
        let rows = picture.as_flat_samples_mut().samples.chunks_exact_mut(width * 3).zip(y..y + height);
        ycbcr::vectorized(
            #[inline(always)]
            || {
                for (rgb, at) in rows {
                    let line = at / shared_lines * chroma_width;
                    // Mono has none.
                    let chroma = line + first.min(chroma_width * shared_columns) / shared_columns..line + chroma_width;
                    let pairs = cb[chroma.clone()].iter().zip(&cr[chroma]).map(|(&cb, &cr)| [cb, cr]);
                    match self.subsampling {
                        Subsampling::Cs420 | Subsampling::Cs422 => row.take_chroma::<2>(pairs),
                        Subsampling::Cs444 => row.take_chroma::<1>(pairs),
                        Subsampling::Mono => {}
                    }
                    let line = at * self.width as usize;
                    row.take_luma(luma[line + first..line + self.width as usize].iter().copied());
                    row.write(x - first, rgb);
                }
            },
        );
        Ok(picture)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// BT.601 in floating point.
    fn reference(full_range: bool, y: u8, cb: u8, cr: u8) -> [f64; 3] {
        let (y, cb, cr) = (f64::from(y), f64::from(cb) - 128.0, f64::from(cr) - 128.0);
        let (y, cb, cr) =
            if full_range { (y, cb, cr) } else { ((y - 16.0) * 255.0 / 219.0, cb * 255.0 / 224.0, cr * 255.0 / 224.0) };
        let (red, blue) = (y + 1.402 * cr, y + 1.772 * cb);
        [red, (y - 0.299 * red - 0.114 * blue) / 0.587, blue].map(|v| v.clamp(0.0, 255.0))
    }

    #[test]
    fn planes_follow_the_formulas_at_odd_sizes_and_in_any_region() {
        for subsampling in [Subsampling::Cs420, Subsampling::Cs422, Subsampling::Cs444, Subsampling::Mono] {
            for (full_range, width, height) in [(false, 9, 7), (true, 10, 6), (false, 1, 1), (true, 2, 1)] {
                let planes = Planes { width, height, subsampling, full_range };
                let bytes: Vec<u8> = (0..planes.bytes()).map(|i| (i * 37 % 251) as u8).collect();
                let (columns, lines) = planes.chroma();
                for region in [[0, 0, width, height], [width - 1, height - 1, 1, 1], [width / 3, 0, width / 2, height]]
                {
                    let Ok(picture) = planes.to_rgb(&bytes, region) else {
                        assert_eq!(region[2], 0);
                        continue;
                    };
                    for (x, y, pixel) in picture.enumerate_pixels() {
                        let (x, y) = ((region[0] + x) as usize, (region[1] + y) as usize);
                        let luma = bytes[y * width as usize + x];
                        let all = width as usize * height as usize;
                        let at = match subsampling {
                            Subsampling::Cs420 => y / 2 * columns + x / 2,
                            Subsampling::Cs422 => y * columns + x / 2,
                            Subsampling::Cs444 | Subsampling::Mono => y * columns + x,
                        };
                        let [cb, cr] = match subsampling {
                            Subsampling::Mono => [128; 2],
                            _ => [bytes[all + at], bytes[all + columns * lines + at]],
                        };
                        for (got, wanted) in pixel.0.iter().zip(reference(full_range, luma, cb, cr)) {
                            assert!((f64::from(*got) - wanted).abs() <= 0.55, "{planes:?} {got} is not {wanted}");
                        }
                    }
                }
                assert!(matches!(planes.to_rgb(&bytes[1..], [0, 0, 1, 1]), Err(Error::Short { .. })));
            }
        }
    }
}
