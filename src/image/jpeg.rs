//! JPEG files and MJPG frames. Damage is refused, missing Huffman tables are supplied.

use std::borrow::Cow;

use ::image::RgbImage;
use zune_jpeg::zune_core::bytestream::ZCursor;

use super::limits::is_decoded;

mod codes;
mod decoder;
mod error;
mod huffman;
mod margin;
mod scan;
mod segments;
#[cfg(test)]
mod tests;

pub use decoder::is_jpeg;
pub use error::Error;

use decoder::pixels;
use segments::Walk;

/// Encodes a picture, at a quality of 1 to 100.
///
/// # Errors
/// Where a side is 0 or above 65,535.
pub fn encode(picture: &RgbImage, quality: u8) -> Result<Vec<u8>, ::image::ImageError> {
    let mut jpeg = Vec::new();
    ::image::codecs::jpeg::JpegEncoder::new_with_quality(&mut jpeg, quality).encode_image(picture)?;
    Ok(jpeg)
}

/// Decodes a JPEG to RGB. Bytes after its end marker are ignored. A scan that breaks off, has lost bytes or has restart
/// markers out of order is an error, not a grey area. A damaged scan with all of its blocks and no bits left over cannot
/// be distinguished from a sound one.
///
/// # Errors
/// [`Error::Layout`] for valid layouts that are not supported; [`Error::OtherSize`], before memory is allocated, where
/// `wanted` refuses width and height or they are beyond the limits of [`super::limits`].
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
    pixels(ZCursor::new(&*completed(bytes, walk)?))
}

/// Width and height of a JPEG, and its bytes as any program opens them: with Huffman tables, and up to its end marker.
///
/// # Errors
/// As [`decode`].
pub fn complete(bytes: &[u8]) -> Result<([u32; 2], Cow<'_, [u8]>), Error> {
    let walk = Walk::begin(bytes, is_decoded)?;
    let size = walk.size();
    Ok((size, completed(bytes, walk)?))
}

fn completed<'a>(bytes: &'a [u8], walk: Walk<'a>) -> Result<Cow<'a, [u8]>, Error> {
    let tables = walk.without_tables.map(|at| (at, huffman::segment()));
    let end = walk.finish()?;
    Ok(match tables {
        Some((at, tables)) => Cow::Owned([&bytes[..at], &tables, &bytes[at..end]].concat()),
        None => Cow::Borrowed(&bytes[..end]),
    })
}
