//! YUV4MPEG2: a header line, then frames of planes, each after a line of its own (`yuv4mpeg(5)` of mjpegtools).

use crate::camera::planes::{Planes, Subsampling};
use crate::image::MAX_SIDE;

/// What a stream begins with.
pub(super) const MAGIC: &[u8] = b"YUV4MPEG2";
const FRAME: &[u8] = b"FRAME";
/// No line is longer.
const MAX_LINE: usize = 1024;

/// Splits a stream into frames of [`Planes::bytes`] bytes.
#[derive(Debug)]
pub(super) struct Splitter {
    planes: Option<Planes>,
    line: Vec<u8>,
    frame: Vec<u8>,
    /// Of the frame, so many are missing; None: a line is read.
    missing: Option<usize>,
    max: usize,
}

impl Splitter {
    /// Streams whose frames have more than `max` bytes are refused.
    pub(super) fn new(max: usize) -> Self {
        Splitter { planes: None, line: Vec::new(), frame: Vec::new(), missing: None, max }
    }

    /// Takes bytes of the stream and gives every frame that they end. What is left in the vector is overwritten.
    ///
    /// # Errors
    /// The stream is not understood, and why.
    pub(super) fn push(&mut self, mut bytes: &[u8], mut each: impl FnMut(Planes, &mut Vec<u8>)) -> Result<(), String> {
        while !bytes.is_empty() {
            if let (Some(missing), Some(planes)) = (self.missing, self.planes) {
                let taken = missing.min(bytes.len());
                self.frame.extend_from_slice(&bytes[..taken]);
                bytes = &bytes[taken..];
                self.missing = Some(missing - taken);
                if missing == taken {
                    each(planes, &mut self.frame);
                    self.frame.clear();
                    self.missing = None;
                }
                continue;
            }
            let end = bytes.iter().position(|&b| b == b'\n');
            self.line.extend_from_slice(&bytes[..end.unwrap_or(bytes.len())]);
            if self.line.len() > MAX_LINE {
                return Err("a line of its headers does not end".into());
            }
            let Some(end) = end else { return Ok(()) };
            bytes = &bytes[end + 1..];
            let line = std::mem::take(&mut self.line);
            match self.planes {
                None => {
                    let planes = header(&line)?;
                    let size = planes.bytes();
                    if size > self.max {
                        return Err(format!("frames of {}x{} are too large", planes.width, planes.height));
                    }
                    self.planes = Some(planes);
                }
                Some(planes) if line == FRAME || line.starts_with(b"FRAME ") => {
                    self.missing = Some(planes.bytes());
                }
                Some(_) => return Err("where a frame should begin there is something else".into()),
            }
        }
        Ok(())
    }
}

/// The stream's header line, without its end.
fn header(line: &[u8]) -> Result<Planes, String> {
    let line = std::str::from_utf8(line).map_err(|_| "its header is no text")?;
    let mut words = line.split(' ');
    if words.next().map(str::as_bytes) != Some(MAGIC) {
        return Err("it does not begin with YUV4MPEG2".into());
    }
    let (mut width, mut height, mut full_range) = (0, 0, false);
    let mut subsampling = Subsampling::Cs420;
    for word in words {
        let Some(key) = word.chars().next() else { continue };
        let value = &word[key.len_utf8()..];
        let side = || match value.parse::<u32>() {
            Ok(side) if (1..=MAX_SIDE).contains(&side) => Ok(side),
            _ => Err(format!("its size {word} is not 1 to {MAX_SIDE}")),
        };
        match key {
            'W' => width = side()?,
            'H' => height = side()?,
            'C' => {
                subsampling = match value {
                    "420" | "420jpeg" | "420mpeg2" | "420paldv" => Subsampling::Cs420,
                    "422" => Subsampling::Cs422,
                    "444" => Subsampling::Cs444,
                    "mono" => Subsampling::Mono,
                    _ => {
                        return Err(format!(
                            "its colours {value} are not read, but 420, 422, 444 and mono of 8 bits are (ffmpeg: -pix_fmt yuv420p)"
                        ));
                    }
                }
            }
            'I' if !matches!(value, "p" | "?") => {
                return Err("it is interlaced; let its source deinterlace it (ffmpeg: -vf yadif)".into());
            }
            'X' if value == "COLORRANGE=FULL" => full_range = true,
            _ => {}
        }
    }
    if width == 0 || height == 0 {
        return Err("its header has no size".into());
    }
    Ok(Planes { width, height, subsampling, full_range })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(stream: &[u8], piece: usize) -> Result<Vec<(Planes, Vec<u8>)>, String> {
        let mut splitter = Splitter::new(1 << 20);
        let mut frames = Vec::new();
        for bytes in stream.chunks(piece) {
            splitter.push(bytes, |planes, frame| frames.push((planes, frame.clone())))?;
        }
        Ok(frames)
    }

    #[test]
    fn frames_come_out_as_they_are_however_they_arrive() {
        for (colours, subsampling, size) in [
            ("", Subsampling::Cs420, 15 + 2 * 6),
            ("C420jpeg ", Subsampling::Cs420, 15 + 2 * 6),
            ("C422 ", Subsampling::Cs422, 15 + 2 * 9),
            ("C444 ", Subsampling::Cs444, 45),
            ("Cmono ", Subsampling::Mono, 15),
        ] {
            let planes = Planes { width: 5, height: 3, subsampling, full_range: true };
            let frames: Vec<Vec<u8>> = (0..3).map(|n| (0..size).map(|i| (i * 7 + n) as u8).collect()).collect();
            let mut stream = format!("YUV4MPEG2 W5 H3 F30:1 Ip A1:1 {colours}XCOLORRANGE=FULL\n").into_bytes();
            for (frame, line) in frames.iter().zip(["FRAME\n", "FRAME Ip XSOMETHING\n", "FRAME\n"]) {
                stream.extend_from_slice(line.as_bytes());
                stream.extend_from_slice(frame);
            }
            let expected: Vec<_> = frames.into_iter().map(|frame| (planes, frame)).collect();
            for piece in [1, 2, 11, stream.len()] {
                assert_eq!(split(&stream, piece).unwrap(), expected, "{colours} {piece}");
            }
        }
    }

    #[test]
    fn what_is_not_understood_is_named() {
        for (stream, reason) in [
            ("YUV4MPEG2 W5 H3 C420p10\n", "C420p10"),
            ("YUV4MPEG2 W5 H3 It\n", "interlaced"),
            ("YUV4MPEG2 W0 H3\n", "W0"),
            ("YUV4MPEG2 W99999999999 H3\n", "W99999999999"),
            ("YUV4MPEG2 W5\n", "no size"),
            ("YUV4MPEG2 W4000 H4000\n", "too large"),
            ("YUV4MPEG2 W1 H1 Cmono\nFRAME\nxFRAMES\n", "something else"),
            ("RIFF\n", "YUV4MPEG2"),
        ] {
            let error = split(stream.as_bytes(), 4).unwrap_err();
            assert!(error.contains(reason.trim_start_matches('C')), "{stream}: {error}");
        }
        assert!(split(&[b'Y'; 5000], 100).unwrap_err().contains("does not end"));
    }
}
