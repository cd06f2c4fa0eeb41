//! The layout of a frame in memory, and its checks.

use crate::config::PixelFormat;
use crate::image::{inside, jpeg};

/// Why the bytes of a frame are not a picture.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    #[error("the frame has {got} bytes of {wanted}")]
    Short { wanted: usize, got: usize },
    #[error("a line of {stride} bytes cannot hold {width} pixels")]
    Stride { stride: usize, width: u32 },
    #[error("a plane of {lines} lines cannot hold a picture of {height}")]
    Plane { lines: u32, height: u32 },
    #[error("{format:?} frames have even sides, not {width}x{height}")]
    Odd { format: PixelFormat, width: u32, height: u32 },
    #[error("region {region:?} does not lie inside the {width}x{height} frame")]
    Region { region: [u32; 4], width: u32, height: u32 },
    #[error("damaged JPEG: {0}")]
    Jpeg(jpeg::Error),
    #[error("the JPEG is {got_width}x{got_height}, not {width}x{height}")]
    OtherSize { got_width: u32, got_height: u32, width: u32, height: u32 },
    #[error("\"auto\" is not a pixel format")]
    Auto,
}

/// How YCbCr was made from RGB.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Matrix {
    #[default]
    Bt601,
    Bt709,
}

/// The layout of a frame in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    pub format: PixelFormat,
    pub width: u32,
    pub height: u32,
    /// Bytes from one line to the next (V4L2's `bytesperline`); not used for MJPG.
    pub stride: usize,
    /// Lines from the start of NV12's Y plane to its CbCr plane: `height`, or more where the driver pads.
    pub plane_lines: u32,
    pub matrix: Matrix,
    /// Y from 0 to 255 instead of 16 to 235.
    pub full_range: bool,
}

impl Layout {
    /// Lines without padding, BT.601, limited range: the usual layout of webcams.
    pub fn packed(format: PixelFormat, width: u32, height: u32) -> Self {
        let bytes = (width as usize).saturating_mul(bytes_per_pixel(format));
        Layout { format, width, height, stride: bytes, plane_lines: height, matrix: Matrix::Bt601, full_range: false }
    }

    /// The fewest bytes of a whole frame; of MJPG, the shortest that could be one.
    pub fn min_bytes(&self) -> usize {
        let (width, height) = (self.width as usize, self.height as usize);
        let lines =
            |count: usize, used: usize| self.stride.saturating_mul(count.saturating_sub(1)).saturating_add(used);
        match self.format {
            PixelFormat::Nv12 => {
                self.stride.saturating_mul(self.plane_lines as usize).saturating_add(lines(height / 2, width))
            }
            PixelFormat::Mjpg | PixelFormat::Auto => 4,
            format => lines(height, width.saturating_mul(bytes_per_pixel(format))),
        }
    }

    pub(super) fn check(&self, bytes: &[u8], region: [u32; 4]) -> Result<(), Error> {
        let &Layout { format, width, height, stride, .. } = self;
        if format == PixelFormat::Auto {
            return Err(Error::Auto);
        }
        inside(region, (width, height)).map_err(|_| Error::Region { region, width, height })?;
        let odd = match format {
            PixelFormat::Yuyv => width % 2 != 0,
            PixelFormat::Nv12 => width % 2 != 0 || height % 2 != 0,
            _ => false,
        };
        if odd {
            return Err(Error::Odd { format, width, height });
        }
        if format != PixelFormat::Mjpg && stride < (width as usize).saturating_mul(bytes_per_pixel(format)) {
            return Err(Error::Stride { stride, width });
        }
        if format == PixelFormat::Nv12 && self.plane_lines < height {
            return Err(Error::Plane { lines: self.plane_lines, height });
        }
        let wanted = self.min_bytes();
        if bytes.len() < wanted { Err(Error::Short { wanted, got: bytes.len() }) } else { Ok(()) }
    }
}

fn bytes_per_pixel(format: PixelFormat) -> usize {
    match format {
        PixelFormat::Yuyv => 2,
        PixelFormat::Rgb3 => 3,
        PixelFormat::Nv12 | PixelFormat::Grey | PixelFormat::Mjpg | PixelFormat::Auto => 1,
    }
}
