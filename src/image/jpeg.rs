//! JPEG, as a file and as a camera's frame: whole, with the tables that webcams leave out, and up to its own end.

use ::image::RgbImage;
use zune_jpeg::zune_core::bytestream::{ZByteReaderTrait, ZCursor};
use zune_jpeg::zune_core::{colorspace::ColorSpace, options::DecoderOptions};

use super::is_decoded;

mod codes;
mod huffman;
mod margin;
mod scan;
mod segments;
#[cfg(test)]
mod tests;

use segments::Walk;

/// Passes over a progressive JPEG; encoders make about ten.
const MAX_SCANS: usize = 32;

const SOI: u8 = 0xD8;
const EOI: u8 = 0xD9;
const SOS: u8 = 0xDA;
const DHT: u8 = 0xC4;
const DRI: u8 = 0xDD;

/// Why a JPEG was not decoded.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    #[error("it does not begin with FF D8")]
    NoStart,
    #[error("it ends early, without FF D9")]
    NoEnd,
    #[error("{0}")]
    Damaged(String),
    #[error("{0}, which is a JPEG that is not read: save it again as an ordinary one")]
    Layout(String),
    #[error("it is {width}x{height}")]
    OtherSize { width: usize, height: usize },
}

impl Error {
    fn damaged(reason: &str) -> Error {
        Error::Damaged(reason.to_owned())
    }

    fn layout(reason: &str) -> Error {
        Error::Layout(reason.to_owned())
    }
}

/// Decodes a JPEG to RGB. What lies behind its end marker is not looked at. A scan that breaks off, has lost bytes or has
/// restart markers out of order is an error, not a grey area. What a damaged scan with all of its blocks and no bits left
/// over shows cannot be told from a picture.
///
/// # Errors
/// [`Error::Layout`] for what is valid and not read; [`Error::OtherSize`], before memory is taken, where `wanted` refuses
/// width and height or they are beyond [`super::MAX_SIDE`] and [`super::MAX_PIXELS`].
pub fn decode(bytes: &[u8], wanted: impl Fn(usize, usize) -> bool) -> Result<RgbImage, Error> {
    let wanted = |width, height| is_decoded(width, height) && wanted(width, height);
    let walk = Walk::begin(bytes, wanted)?;
    if let Some(picture) = margin::decode(bytes, &walk) {
        return Ok(picture);
    }
    if walk.is_progressive() && walk.without_tables.is_none() {
        let (whole, picture) = rayon::join(|| walk.finish(), || pixels(ZCursor::new(bytes)));
        return whole.and(picture);
    }
    let tables = walk.without_tables.map(|at| (at, huffman::segment()));
    let end = walk.finish()?;
    let complete = tables.map(|(at, tables)| [&bytes[..at], &tables, &bytes[at..end]].concat());
    pixels(ZCursor::new(complete.as_deref().unwrap_or(&bytes[..end])))
}

/// What the decoder makes of a JPEG; much damage is pixels to it.
fn pixels(jpeg: impl ZByteReaderTrait) -> Result<RgbImage, Error> {
    let options = DecoderOptions::default()
        .set_strict_mode(true)
        .set_max_width(usize::from(u16::MAX))
        .set_max_height(usize::from(u16::MAX))
        .jpeg_set_max_scans(MAX_SCANS)
        .jpeg_set_out_colorspace(ColorSpace::RGB);
    let mut decoder = zune_jpeg::JpegDecoder::new_with_options(jpeg, options);
    let pixels = decoder.decode().map_err(|e| Error::Layout(format!("the decoder says {e}")))?;
    let (width, height) = decoder.dimensions().ok_or_else(|| Error::damaged("no frame header"))?;
    RgbImage::from_raw(width as u32, height as u32, pixels).ok_or_else(|| Error::damaged("wrong number of pixels"))
}
