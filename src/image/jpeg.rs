//! JPEG, as a file and as a camera's frame: strict, with the tables that webcams leave out, and up to its own end.

use ::image::RgbImage;
use zune_jpeg::zune_core::{bytestream::ZCursor, colorspace::ColorSpace, options::DecoderOptions};

use super::is_decoded;

mod huffman;

/// Passes over a progressive JPEG; encoders make about ten.
const MAX_SCANS: usize = 32;

const SOI: u8 = 0xD8;
const EOI: u8 = 0xD9;
const SOS: u8 = 0xDA;
const DHT: u8 = 0xC4;

/// Why a JPEG was not decoded.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    #[error("it does not begin with FF D8")]
    NoStart,
    #[error("it ends early, without FF D9")]
    NoEnd,
    #[error("{0}")]
    Damaged(String),
    #[error("it is {width}x{height}")]
    OtherSize { width: usize, height: usize },
}

/// Decodes a JPEG to RGB. What lies behind its end marker is not looked at. A truncated or damaged scan is an error,
/// not a grey area.
///
/// # Errors
/// [`Error::OtherSize`], before memory is taken, where `wanted` refuses width and height or they are beyond
/// [`super::MAX_SIDE`] and [`super::MAX_PIXELS`].
pub fn decode(bytes: &[u8], wanted: impl Fn(usize, usize) -> bool) -> Result<RgbImage, Error> {
    let layout = Layout::of(bytes)?;
    let jpeg = &bytes[..layout.end];
    let complete = layout.without_tables.map(|at| [&jpeg[..at], &huffman::segment(), &jpeg[at..]].concat());
    let options = DecoderOptions::default()
        .set_strict_mode(true)
        .set_max_width(usize::from(u16::MAX))
        .set_max_height(usize::from(u16::MAX))
        .jpeg_set_max_scans(MAX_SCANS)
        .jpeg_set_out_colorspace(ColorSpace::RGB);
    let damaged = |reason: &str| Error::Damaged(reason.to_owned());
    let source = ZCursor::new(complete.as_deref().unwrap_or(jpeg));
    let mut decoder = zune_jpeg::JpegDecoder::new_with_options(source, options);
    decoder.decode_headers().map_err(|e| damaged(&e.to_string()))?;
    let (width, height) = decoder.dimensions().ok_or_else(|| damaged("no frame header"))?;
    if !is_decoded(width, height) || !wanted(width, height) {
        return Err(Error::OtherSize { width, height });
    }
    let pixels = decoder.decode().map_err(|e| damaged(&e.to_string()))?;
    RgbImage::from_raw(width as u32, height as u32, pixels).ok_or_else(|| damaged("wrong number of pixels"))
}

/// Where the parts of a JPEG lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Layout {
    /// Behind the end marker.
    end: usize,
    /// The first scan's header, where no Huffman table comes before it.
    without_tables: Option<usize>,
}

impl Layout {
    /// Walks the segments; those of a thumbnail within one are its own.
    fn of(bytes: &[u8]) -> Result<Layout, Error> {
        if !bytes.starts_with(&[0xFF, SOI]) {
            return Err(Error::NoStart);
        }
        let (mut at, mut has_tables, mut without_tables, mut in_scan) = (2, false, None, false);
        loop {
            // Between segments a marker is due; in a scan it is searched for.
            let skipped = bytes.get(at..).and_then(|rest| rest.iter().position(|&byte| byte == 0xFF));
            at += skipped.ok_or(Error::NoEnd)?;
            match bytes.get(at + 1).ok_or(Error::NoEnd)? {
                0xFF => at += 1,
                0x00 | 0x01 | 0xD0..=0xD7 => at += 2,
                &EOI => return Ok(Layout { end: at + 2, without_tables }),
                // A frame that another one overtook.
                &SOI if in_scan => return Err(Error::NoEnd),
                marker => {
                    has_tables |= *marker == DHT;
                    if *marker == SOS {
                        in_scan = true;
                        if !has_tables {
                            without_tables.get_or_insert(at);
                        }
                    }
                    let &[high, low] = bytes.get(at + 2..at + 4).ok_or(Error::NoEnd)? else { return Err(Error::NoEnd) };
                    at += 2 + usize::from(u16::from_be_bytes([high, low]));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(width: u32, height: u32) -> Vec<u8> {
        let picture = RgbImage::from_fn(width, height, |x, y| ::image::Rgb([x as u8 * 4, y as u8 * 4, 90]));
        let mut bytes = Vec::new();
        ::image::codecs::jpeg::JpegEncoder::new_with_quality(&mut bytes, 90).encode_image(&picture).unwrap();
        bytes
    }

    fn decoded(bytes: &[u8]) -> Result<RgbImage, Error> {
        decode(bytes, |_, _| true)
    }

    /// Takes the Huffman tables out, as webcams do.
    fn without_tables(jpeg: &[u8]) -> Vec<u8> {
        let (mut stripped, mut at) = (jpeg[..2].to_vec(), 2);
        while jpeg[at + 1] != SOS {
            let len = 2 + usize::from(u16::from_be_bytes([jpeg[at + 2], jpeg[at + 3]]));
            if jpeg[at + 1] != DHT {
                stripped.extend_from_slice(&jpeg[at..at + len]);
            }
            at += len;
        }
        stripped.extend_from_slice(&jpeg[at..]);
        stripped
    }

    #[test]
    fn missing_tables_are_supplied_and_what_lies_behind_the_end_is_not_looked_at() {
        let whole = encoded(48, 32);
        let expected = decoded(&whole).unwrap();
        let stripped = without_tables(&whole);
        assert!(stripped.len() + 400 < whole.len());
        for bytes in [&whole, &stripped] {
            assert_eq!(decoded(bytes).unwrap(), expected);
            for behind in [&[0; 100][..], &[0x5A; 33], &[0xFF, 0xFF, 0xD8], &encoded(16, 16)] {
                assert_eq!(decoded(&[bytes, behind].concat()).unwrap(), expected, "{behind:?}");
            }
        }
    }

    #[test]
    fn a_thumbnail_s_end_is_not_the_picture_s() {
        let (whole, thumbnail) = (encoded(48, 32), encoded(16, 16));
        let mut segment = vec![0xFF, 0xE1];
        segment.extend_from_slice(&(thumbnail.len() as u16 + 2).to_be_bytes());
        segment.extend_from_slice(&thumbnail);
        let with_thumbnail = [&whole[..2], &segment, &whole[2..]].concat();
        assert_eq!(decoded(&with_thumbnail).unwrap(), decoded(&whole).unwrap());
    }

    #[test]
    fn every_cut_is_refused() {
        let whole = encoded(48, 32);
        for cut in 0..whole.len() - 1 {
            assert!(decoded(&whole[..cut]).is_err(), "cut at {cut}");
        }
        assert_eq!(decoded(b"text, really"), Err(Error::NoStart));
        // The next frame began before this one's end.
        let overtaken = [&whole[..whole.len() - 20], &whole[..]].concat();
        assert_eq!(decoded(&overtaken), Err(Error::NoEnd));
    }
}
