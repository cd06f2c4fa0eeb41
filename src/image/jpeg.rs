//! JPEG, as a file and as a camera's frame: whole, with the tables that webcams leave out, and up to its own end.

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

pub use error::Error;

use decoder::pixels;
use segments::Walk;

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
