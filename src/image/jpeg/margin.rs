//! Lets the decoder itself check whether a scan is complete, at almost no cost: [`super::segments::Walk`] takes a fifth of the
//! time of decoding.
//!
//! The decoder continues a truncated scan with zeros, which are codes, and skips surplus bytes. Here every marker is preceded
//! by ones, which are not a code, and a scan without a restart interval gets one of the whole scan. At its end the decoder
//! searches for the marker: its read position then tells where in the scan it is, to within its look-ahead.

use std::cell::Cell;

use ::image::RgbImage;
use zune_jpeg::zune_core::bytestream::{ZByteIoError, ZByteReaderTrait, ZCursor, ZSeekFrom};

use super::decoder::{DRI, EOI, pixels};
use super::segments::Walk;

/// Bytes of ones before a marker: more than the decoder looks ahead.
const ONES: usize = 16;
/// With stuffing.
const MARGIN: usize = 2 * ONES;
/// Bytes read ahead: at the end of a scan the decoder holds 32 to 63 bits, of which up to 7 pad the last byte.
const IN_STORE: std::ops::RangeInclusive<usize> = 4..=7;

/// The picture of a sequential JPEG with one scan, if it is certainly sound; 4 or more surplus bytes are detected.
pub fn decode(bytes: &[u8], walk: &Walk) -> Option<RgbImage> {
    let scan = walk.only_scan()?;
    let interval = u16::try_from(if scan.restart_interval == 0 { scan.mcus } else { scan.restart_interval }).ok()?;
    let mut jpeg = Vec::with_capacity(bytes.len() + 1024);
    jpeg.extend_from_slice(&bytes[..scan.header]);
    if walk.without_tables.is_some() {
        jpeg.extend(super::huffman::segment());
    }
    jpeg.extend_from_slice(&[0xFF, DRI, 0, 4]);
    jpeg.extend_from_slice(&interval.to_be_bytes());
    jpeg.extend_from_slice(bytes.get(scan.header..scan.data)?);
    let (start, count) = (jpeg.len(), scan.mcus.div_ceil(usize::from(interval)));
    let (mut at, mut ends) = (scan.data, Vec::with_capacity(count));
    loop {
        let marker = at + find_marker(bytes.get(at..)?)?;
        jpeg.extend_from_slice(&bytes[at..marker]);
        ends.push(jpeg.len());
        jpeg.extend_from_slice(&[0xFF, 0].repeat(ONES));
        let restart = 0xD0 + ((ends.len() - 1) % 8) as u8;
        let wanted = if ends.len() == count { EOI } else { restart };
        if bytes[marker + 1] != wanted {
            return None;
        }
        jpeg.extend_from_slice(&[0xFF, wanted]);
        if wanted == EOI {
            break;
        }
        at = marker + 2;
    }
    let sound = Cell::new(0);
    let watched = Watched { cursor: ZCursor::new(&jpeg), start, ends: &ends, sound: &sound };
    let picture = pixels(watched).ok()?;
    (sound.get() == count).then_some(picture)
}

/// The position of the first marker that is neither stuffing nor preceded by fill bytes.
fn find_marker(data: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        at += super::scan::find_ff(&data[at..])?;
        match data.get(at + 1)? {
            0 => at += 2,
            0xFF => return None,
            _ => return Some(at),
        }
    }
}

/// The decoder's input, which observes where it begins to search for the marker after each part of the scan.
struct Watched<'a> {
    cursor: ZCursor<&'a Vec<u8>>,
    /// Where the scan's data begin.
    start: usize,
    /// The start of the margin of each part.
    ends: &'a [usize],
    /// The number of parts, from the first on, that the decoder read to the end.
    sound: &'a Cell<usize>,
}

impl ZByteReaderTrait for Watched<'_> {
    #[inline(always)]
    fn read_byte_no_error(&mut self) -> u8 {
        self.cursor.read_byte_no_error()
    }

    #[inline(always)]
    fn read_exact_bytes(&mut self, buffer: &mut [u8]) -> Result<(), ZByteIoError> {
        // The search reads single bytes, refills four at a time.
        if buffer.len() == 1 {
            let at = self.cursor.z_position()? as usize;
            if let Some(&end) = self.ends.get(self.sound.get())
                && at >= self.start
            {
                if !at.checked_sub(end).is_some_and(|read| IN_STORE.contains(&read.div_ceil(2))) {
                    return Err(ZByteIoError::Generic("a scan is incomplete"));
                }
                self.sound.set(self.sound.get() + 1);
                self.cursor.z_seek(ZSeekFrom::Start((end + MARGIN) as u64))?;
            }
        }
        self.cursor.read_exact_bytes(buffer)
    }

    fn read_bytes(&mut self, buffer: &mut [u8]) -> Result<usize, ZByteIoError> {
        self.cursor.read_bytes(buffer)
    }

    fn peek_bytes(&mut self, buffer: &mut [u8]) -> Result<usize, ZByteIoError> {
        self.cursor.peek_bytes(buffer)
    }

    fn peek_exact_bytes(&mut self, buffer: &mut [u8]) -> Result<(), ZByteIoError> {
        self.cursor.peek_exact_bytes(buffer)
    }

    fn z_seek(&mut self, from: ZSeekFrom) -> Result<u64, ZByteIoError> {
        self.cursor.z_seek(from)
    }

    fn is_eof(&mut self) -> Result<bool, ZByteIoError> {
        self.cursor.is_eof()
    }

    fn z_position(&mut self) -> Result<u64, ZByteIoError> {
        self.cursor.z_position()
    }

    fn read_remaining(&mut self, sink: &mut Vec<u8>) -> Result<usize, ZByteIoError> {
        self.cursor.read_remaining(sink)
    }
}
