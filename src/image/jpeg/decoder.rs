//! The decoder, and markers.

use ::image::RgbImage;
use zune_jpeg::zune_core::bytestream::ZByteReaderTrait;
use zune_jpeg::zune_core::{colorspace::ColorSpace, options::DecoderOptions};

use super::error::Error;

/// The most scans of a progressive JPEG; encoders write about ten.
pub const MAX_SCANS: usize = 32;

pub const SOI: u8 = 0xD8;
pub const EOI: u8 = 0xD9;
pub const SOS: u8 = 0xDA;
pub const DHT: u8 = 0xC4;
pub const DRI: u8 = 0xDD;

/// Whether bytes begin as a JPEG does.
pub fn is_jpeg(bytes: &[u8]) -> bool {
    bytes.starts_with(&[0xFF, SOI])
}

/// Decodes a JPEG. Much damage is not detected here.
pub fn pixels(jpeg: impl ZByteReaderTrait) -> Result<RgbImage, Error> {
    let options = DecoderOptions::default()
        .set_strict_mode(true)
        .set_max_width(usize::from(u16::MAX))
        .set_max_height(usize::from(u16::MAX))
        .jpeg_set_max_scans(MAX_SCANS)
        .jpeg_set_out_colorspace(ColorSpace::RGB);
    let mut decoder = zune_jpeg::JpegDecoder::new_with_options(jpeg, options);
    let pixels = decoder.decode().map_err(|e| Error::Layout(format!("the decoder fails ({e})")))?;
    let (width, height) = decoder.dimensions().ok_or_else(|| Error::damaged("no frame header"))?;
    RgbImage::from_raw(width as u32, height as u32, pixels).ok_or_else(|| Error::damaged("wrong number of pixels"))
}
