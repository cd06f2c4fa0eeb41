//! Conversion of camera formats to RGB: YUYV, NV12, GREY, RGB3 and MJPG. Only the wanted region is converted.

use ::image::RgbImage;

pub use super::layout::{Error, Layout, Matrix};
use super::ycbcr;
use crate::config::PixelFormat;
use crate::image::{self, jpeg};

/// The region `[x, y, width, height]` of a frame as RGB.
pub fn to_rgb(layout: &Layout, bytes: &[u8], region: [u32; 4]) -> Result<RgbImage, Error> {
    layout.check(bytes, region)?;
    let [x, y, width, height] = region.map(|v| v as usize);
    if layout.format == PixelFormat::Mjpg {
        return from_jpeg(layout, bytes, region);
    }
    let mut picture = RgbImage::new(region[2], region[3]);
    let rows = picture.as_flat_samples_mut().samples.chunks_exact_mut(width * 3).zip(y..y + height);
    let line = |at: usize| &bytes[at * layout.stride..];
    // Two columns share their Cb and Cr.
    let first = x & !1;
    let pixels = (x + width).next_multiple_of(2) - first;
    match layout.format {
        PixelFormat::Rgb3 => {
            for (row, y) in rows {
                row.copy_from_slice(&line(y)[x * 3..(x + width) * 3]);
            }
        }
        PixelFormat::Grey => {
            for (row, y) in rows {
                for (pixel, &value) in row.chunks_exact_mut(3).zip(&line(y)[x..x + width]) {
                    pixel.fill(value);
                }
            }
        }
        PixelFormat::Yuyv => {
            let mut converted = ycbcr::Row::new(layout, pixels);
            ycbcr::vectorized(
                #[inline(always)]
                || {
                    for (row, y) in rows {
                        let line = &line(y)[first * 2..(first + pixels) * 2];
                        converted.take_luma(line.chunks_exact(2).map(|pixel| pixel[0]));
                        converted.take_chroma::<2>(line.chunks_exact(4).map(|pair| [pair[1], pair[3]]));
                        converted.write(x - first, row);
                    }
                },
            );
        }
        PixelFormat::Nv12 => {
            let mut converted = ycbcr::Row::new(layout, pixels);
            ycbcr::vectorized(
                #[inline(always)]
                || {
                    for (row, at) in rows {
                        // Two lines share theirs, too.
                        if at % 2 == 0 || at == y {
                            let chroma = &line(layout.plane_lines as usize + at / 2)[first..first + pixels];
                            converted.take_chroma::<2>(chroma.chunks_exact(2).map(|pair| [pair[0], pair[1]]));
                        }
                        converted.take_luma(line(at)[first..first + pixels].iter().copied());
                        converted.write(x - first, row);
                    }
                },
            );
        }
        PixelFormat::Mjpg | PixelFormat::Auto => return Err(Error::Auto),
    }
    Ok(picture)
}

fn from_jpeg(layout: &Layout, bytes: &[u8], region: [u32; 4]) -> Result<RgbImage, Error> {
    let (width, height) = (layout.width, layout.height);
    let wanted = |w: usize, h: usize| (w, h) == (width as usize, height as usize);
    let picture = jpeg::decode(bytes, wanted).map_err(|e| match e {
        jpeg::Error::OtherSize { width: w, height: h } => {
            Error::OtherSize { got_width: w as u32, got_height: h as u32, width, height }
        }
        e => Error::Jpeg(e),
    })?;
    if region == [0, 0, width, height] {
        return Ok(picture);
    }
    image::crop(&picture, region).map_err(|_| Error::Region { region, width, height })
}

#[cfg(test)]
mod tests {
    use super::*;

    const YUV: [PixelFormat; 2] = [PixelFormat::Yuyv, PixelFormat::Nv12];

    /// The formulas of BT.601 and BT.709 in floating point.
    fn reference(layout: &Layout, y: u8, cb: u8, cr: u8) -> [f64; 3] {
        let (kr, kb) = if layout.matrix == Matrix::Bt601 { (0.299, 0.114) } else { (0.2126, 0.0722) };
        let (y, cb, cr) = (f64::from(y), f64::from(cb) - 128.0, f64::from(cr) - 128.0);
        let (y, cb, cr) = if layout.full_range {
            (y, cb / 255.0, cr / 255.0)
        } else {
            ((y - 16.0) / 219.0 * 255.0, cb / 224.0, cr / 224.0)
        };
        let red = y + 255.0 * cr * 2.0 * (1.0 - kr);
        let blue = y + 255.0 * cb * 2.0 * (1.0 - kb);
        let green = (y - kr * red - kb * blue) / (1.0 - kr - kb);
        [red, green, blue].map(|v| v.clamp(0.0, 255.0))
    }

    fn noise(len: usize) -> Vec<u8> {
        let mut state = 0x2545_F491_4F6C_DD1D_u64;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 32) as u8
        };
        (0..len).map(|_| next()).collect()
    }

    fn ycbcr(layout: &Layout, bytes: &[u8], x: usize, y: usize) -> [u8; 3] {
        let line = y * layout.stride;
        if layout.format == PixelFormat::Yuyv {
            let pair = line + x / 2 * 4;
            return [bytes[line + x * 2], bytes[pair + 1], bytes[pair + 3]];
        }
        let chroma = (layout.plane_lines as usize + y / 2) * layout.stride + x / 2 * 2;
        [bytes[line + x], bytes[chroma], bytes[chroma + 1]]
    }

    #[test]
    fn ycbcr_formats_follow_the_formulas_with_any_padding_and_region() {
        for format in YUV {
            for (matrix, full_range, stride_pad, line_pad) in
                [(Matrix::Bt601, false, 0, 0), (Matrix::Bt709, true, 7, 4), (Matrix::Bt601, true, 32, 10)]
            {
                let mut layout = Layout { matrix, full_range, ..Layout::packed(format, 22, 14) };
                layout.stride += stride_pad;
                layout.plane_lines += line_pad;
                let bytes = noise(layout.min_bytes());
                for region in [[0, 0, 22, 14], [3, 5, 9, 7], [21, 13, 1, 1], [1, 0, 2, 3], [4, 1, 1, 2]] {
                    let picture = to_rgb(&layout, &bytes, region).unwrap();
                    for (x, y, pixel) in picture.enumerate_pixels() {
                        let [luma, cb, cr] = ycbcr(&layout, &bytes, (region[0] + x) as usize, (region[1] + y) as usize);
                        for (got, wanted) in pixel.0.iter().zip(reference(&layout, luma, cb, cr)) {
                            assert!((f64::from(*got) - wanted).abs() <= 0.55, "{format:?} {got} is not {wanted}");
                        }
                    }
                }
                for cut in 0..bytes.len() {
                    assert!(matches!(to_rgb(&layout, &bytes[..cut], [0, 0, 1, 1]), Err(Error::Short { .. })));
                }
            }
        }
    }

    #[test]
    fn grey_and_rgb_are_copied() {
        let mut layout = Layout::packed(PixelFormat::Rgb3, 5, 3);
        layout.stride += 2;
        let bytes = noise(layout.min_bytes());
        let picture = to_rgb(&layout, &bytes, [1, 1, 3, 2]).unwrap();
        assert_eq!(picture.get_pixel(2, 1).0, bytes[2 * 17 + 9..2 * 17 + 12]);
        let layout = Layout { stride: 6, ..Layout::packed(PixelFormat::Grey, 5, 3) };
        let picture = to_rgb(&layout, &bytes, [0, 0, 5, 3]).unwrap();
        assert_eq!(picture.get_pixel(4, 2).0, [bytes[16]; 3]);
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let bytes = [0; 1000];
        for format in YUV {
            assert!(matches!(to_rgb(&Layout::packed(format, 5, 4), &bytes, [0, 0, 1, 1]), Err(Error::Odd { .. })));
        }
        let layout = Layout { stride: 9, ..Layout::packed(PixelFormat::Yuyv, 6, 4) };
        assert!(matches!(to_rgb(&layout, &bytes, [0, 0, 1, 1]), Err(Error::Stride { .. })));
        let layout = Layout { plane_lines: 3, ..Layout::packed(PixelFormat::Nv12, 6, 4) };
        assert_eq!(to_rgb(&layout, &bytes, [0, 0, 1, 1]), Err(Error::Plane { lines: 3, height: 4 }));
        let layout = Layout::packed(PixelFormat::Grey, 6, 4);
        for region in [[0, 0, 7, 1], [0, 0, 0, 1], [6, 0, 1, 1], [u32::MAX, 0, 2, 2]] {
            assert!(matches!(to_rgb(&layout, &bytes, region), Err(Error::Region { .. })));
        }
        assert_eq!(to_rgb(&Layout::packed(PixelFormat::Auto, 6, 4), &bytes, [0, 0, 1, 1]), Err(Error::Auto));
    }

    fn encoded(width: u32, height: u32) -> Vec<u8> {
        let picture = RgbImage::from_fn(width, height, |x, y| ::image::Rgb([x as u8 * 4, y as u8 * 4, 90]));
        jpeg::encode(&picture, 90).unwrap()
    }

    #[test]
    fn mjpg_is_decoded_and_cropped() {
        let layout = Layout::packed(PixelFormat::Mjpg, 48, 32);
        let whole = encoded(48, 32);
        let expected = jpeg::decode(&whole, |_, _| true).unwrap();
        assert_eq!(to_rgb(&layout, &whole, [0, 0, 48, 32]).unwrap(), expected);
        let region = [5, 3, 20, 10];
        assert_eq!(to_rgb(&layout, &whole, region).unwrap(), image::crop(&expected, region).unwrap());
    }

    #[test]
    fn damaged_mjpg_is_refused() {
        let layout = Layout::packed(PixelFormat::Mjpg, 48, 32);
        let whole = encoded(48, 32);
        for cut in 0..whole.len() - 1 {
            assert!(to_rgb(&layout, &whole[..cut], [0, 0, 48, 32]).is_err(), "cut at {cut}");
        }
        let half = [&whole[..whole.len() / 2], &[0xFF, 0xD9]].concat();
        assert!(matches!(to_rgb(&layout, &half, [0, 0, 48, 32]), Err(Error::Jpeg(_))));
        let other = Layout::packed(PixelFormat::Mjpg, 32, 32);
        assert!(matches!(to_rgb(&other, &whole, [0, 0, 1, 1]), Err(Error::OtherSize { .. })));
        assert_eq!(to_rgb(&layout, b"text, really", [0, 0, 1, 1]), Err(Error::Jpeg(jpeg::Error::NoStart)));
    }
}
