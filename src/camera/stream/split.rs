//! A stream of pictures of either kind, told apart by how it begins.

use super::{mjpeg, y4m};
use crate::camera::planes::Planes;

/// A stream without a picture in so many bytes is none.
const MAX_SILENCE: usize = 2 * MAX_BYTES;
/// Longer pictures are passed over.
pub(super) const MAX_BYTES: usize = 32 << 20;

/// What a picture's bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Jpeg,
    Planes(Planes),
}

/// Splits a stream; memory is bounded by [`MAX_BYTES`].
#[derive(Debug)]
pub(super) struct Splitter {
    inner: Inner,
    /// Since the last picture.
    silence: usize,
}

#[derive(Debug)]
enum Inner {
    /// Too few bytes to tell.
    Unknown(Vec<u8>),
    Mjpeg(mjpeg::Splitter),
    Y4m(y4m::Splitter),
}

impl Splitter {
    pub(super) fn new() -> Self {
        Splitter { inner: Inner::Unknown(Vec::new()), silence: 0 }
    }

    /// Takes bytes of the stream and gives every picture that they end. What is left in the vector is overwritten.
    ///
    /// # Errors
    /// It is no stream of pictures, and why.
    pub(super) fn push(&mut self, bytes: &[u8], mut each: impl FnMut(Kind, &mut Vec<u8>)) -> Result<(), String> {
        let mut first = Vec::new();
        let mut bytes = bytes;
        if let Inner::Unknown(seen) = &mut self.inner {
            seen.extend_from_slice(bytes);
            if seen.len() < y4m::MAGIC.len() {
                return Ok(());
            }
            std::mem::swap(&mut first, seen);
            bytes = &first;
            if bytes.starts_with(&[0, 0, 0, 1]) || bytes.starts_with(&[0, 0, 1]) {
                return Err("it is H.264 or H.265, which is not read: ask its source for MJPEG, such as `rpicam-vid \
                            --codec mjpeg` or `ffmpeg ... -c:v mjpeg -f mjpeg -`"
                    .into());
            }
            self.inner = match bytes.starts_with(y4m::MAGIC) {
                true => Inner::Y4m(y4m::Splitter::new(MAX_BYTES)),
                false => Inner::Mjpeg(mjpeg::Splitter::new(MAX_BYTES)),
            };
        }
        self.silence = self.silence.saturating_add(bytes.len());
        let silence = &mut self.silence;
        match &mut self.inner {
            Inner::Unknown(_) => {}
            Inner::Mjpeg(splitter) => splitter.push(bytes, |picture| {
                *silence = 0;
                each(Kind::Jpeg, picture);
            }),
            Inner::Y4m(splitter) => splitter
                .push(bytes, |planes, frame| {
                    *silence = 0;
                    each(Kind::Planes(planes), frame);
                })
                .map_err(|reason| format!("its YUV4MPEG2 is not understood: {reason}"))?,
        }
        match self.silence > MAX_SILENCE {
            true => Err(format!("{} MB without a picture: it is neither MJPEG nor YUV4MPEG2", MAX_SILENCE / 1_000_000)),
            false => Ok(()),
        }
    }
}

/// How many pictures a stream has, and whether it was understood.
#[cfg(any(test, feature = "internals"))]
pub fn count(stream: &[u8], piece: usize) -> (usize, bool) {
    let (mut splitter, mut pictures) = (Splitter::new(), 0);
    let understood = stream.chunks(piece.max(1)).all(|bytes| splitter.push(bytes, |_, _| pictures += 1).is_ok());
    (pictures, understood)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_told_apart_by_the_first_bytes() {
        let y4m = b"YUV4MPEG2 W1 H1 Cmono\nFRAME\nxFRAME\ny";
        for piece in 1..y4m.len() {
            assert_eq!(count(y4m, piece), (2, true), "{piece}");
        }
        let mut jpeg = Vec::new();
        ::image::codecs::jpeg::JpegEncoder::new(&mut jpeg).encode_image(&::image::RgbImage::new(8, 8)).unwrap();
        let stream = [b"HTTP/1.0 200 OK\r\n\r\n", jpeg.as_slice(), &jpeg].concat();
        for piece in [1, 8, 9, 10, stream.len()] {
            assert_eq!(count(&stream, piece), (2, true), "{piece}");
        }
    }

    #[test]
    fn what_has_no_pictures_is_refused() {
        let push = |bytes: &[u8]| Splitter::new().push(bytes, |_, _| {}).unwrap_err();
        assert!(push(&[0, 0, 0, 1, 0x67, 0x64, 0, 0, 0, 0]).contains("H.264"));
        let mut splitter = Splitter::new();
        let text = [b'x'; 1 << 20];
        let pushes = (0..100).find(|_| splitter.push(&text, |_, _| {}).is_err());
        assert_eq!(pushes, Some(MAX_SILENCE >> 20));
    }
}
