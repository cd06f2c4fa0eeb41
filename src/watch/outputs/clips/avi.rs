//! Motion JPEG in an AVI file: the JPEGs as they are, with a header and an index ("AVI RIFF File Reference", Microsoft).

use std::io::{self, Seek, SeekFrom, Write};
use std::time::Duration;

/// Of the header, up to the first frame.
const HEADER: u64 = 224;
/// Bytes in front of a frame: its name and its length.
const CHUNK: u64 = 8;
const HAS_INDEX: u32 = 0x10;
const KEY_FRAME: u32 = 0x10;
/// Microseconds from frame to frame that players can make sense of.
const PERIOD: std::ops::RangeInclusive<u64> = 1000..=60_000_000;

/// A file under way. It can be played once [`Avi::finish`] has written its header and its index.
#[derive(Debug)]
pub struct Avi<W> {
    out: W,
    /// Where the next frame goes.
    end: u64,
    /// Where each frame's chunk begins, and the frame's bytes.
    index: Vec<(u64, u32)>,
    /// Of the first frame; a player scales others to it.
    size: [u32; 2],
}

impl<W: Write + Seek> Avi<W> {
    pub fn new(out: W) -> Self {
        Avi { out, end: HEADER, index: Vec::new(), size: [0; 2] }
    }

    /// Appends a JPEG of that width and height. After an error the same frame may be tried again.
    pub fn push(&mut self, jpeg: &[u8], size: [u32; 2]) -> io::Result<()> {
        let len = u32::try_from(jpeg.len()).map_err(|_| io::ErrorKind::FileTooLarge)?;
        self.out.seek(SeekFrom::Start(self.end))?;
        self.out.write_all(&[&b"00dc"[..], &len.to_le_bytes()].concat())?;
        self.out.write_all(jpeg)?;
        // A chunk begins at an even place.
        self.out.write_all(&[0][..jpeg.len() % 2])?;
        if self.index.is_empty() {
            self.size = size;
        }
        self.index.push((self.end, len));
        self.end += CHUNK + u64::from(len).next_multiple_of(2);
        Ok(())
    }

    /// Writes index and header; `duration` is the time from the first frame to the last. After an error it may be called
    /// again.
    pub fn finish(&mut self, duration: Duration) -> io::Result<&W> {
        let mut index = Vec::with_capacity(self.index.len() * 16 + 8);
        // Offsets count from the name of the list, 4 bytes before the first frame.
        let mut words = vec![u32::from_le_bytes(*b"idx1"), to_u32(self.index.len() as u64 * 16)?];
        for &(at, len) in &self.index {
            words.extend([u32::from_le_bytes(*b"00dc"), KEY_FRAME, to_u32(at - HEADER + 4)?, len]);
        }
        words.iter().for_each(|word| index.extend(word.to_le_bytes()));
        let header = self.header(duration, index.len() as u64)?;
        self.out.seek(SeekFrom::Start(self.end))?;
        self.out.write_all(&index)?;
        self.out.seek(SeekFrom::Start(0))?;
        self.out.write_all(&header)?;
        self.out.flush()?;
        Ok(&self.out)
    }

    fn header(&self, duration: Duration, index: u64) -> io::Result<Vec<u8>> {
        let intervals = self.index.len().saturating_sub(1).max(1) as u64;
        // Of a single frame: a second.
        let whole = if self.index.len() > 1 { duration } else { Duration::from_secs(1) };
        let period = (whole.as_micros() as u64 / intervals).clamp(*PERIOD.start(), *PERIOD.end());
        let (period, frames) = (to_u32(period)?, to_u32(self.index.len() as u64)?);
        let largest = self.index.iter().map(|(_, len)| *len).max().unwrap_or(0);
        let rate = (u64::from(largest) * 1_000_000 / u64::from(period)).min(u64::from(u32::MAX));
        let [width, height] = self.size;
        let name = |name: &[u8; 4]| u32::from_le_bytes(*name);
        let words = [
            name(b"RIFF"),
            to_u32(self.end + index - 8)?,
            name(b"AVI "),
            name(b"LIST"),
            192,
            name(b"hdrl"),
            // The main header.
            name(b"avih"),
            56,
            period,
            rate as u32,
            0,
            HAS_INDEX,
            frames,
            0,
            1,
            largest,
            width,
            height,
            0,
            0,
            0,
            0,
            name(b"LIST"),
            116,
            name(b"strl"),
            // The header of the only stream: its rate is 1,000,000 / period.
            name(b"strh"),
            56,
            name(b"vids"),
            name(b"MJPG"),
            0,
            0,
            0,
            period,
            1_000_000,
            0,
            frames,
            largest,
            u32::MAX,
            0,
            0,
            width | height << 16,
            // Its format, a BITMAPINFOHEADER: one plane of 24 bits.
            name(b"strf"),
            40,
            40,
            width,
            height,
            1 | 24 << 16,
            name(b"MJPG"),
            width * height * 3,
            0,
            0,
            0,
            0,
            name(b"LIST"),
            to_u32(self.end - HEADER + 4)?,
            name(b"movi"),
        ];
        Ok(words.iter().flat_map(|word| word.to_le_bytes()).collect())
    }
}

fn to_u32(value: u64) -> io::Result<u32> {
    u32::try_from(value).map_err(|_| io::ErrorKind::FileTooLarge.into())
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    fn word(file: &[u8], at: usize) -> u32 {
        u32::from_le_bytes(file[at..at + 4].try_into().unwrap())
    }

    /// The chunks of a part of a file, by their names.
    fn chunks(mut part: &[u8]) -> Vec<(String, &[u8])> {
        let mut found = Vec::new();
        while !part.is_empty() {
            let (name, len) = (String::from_utf8(part[..4].to_vec()).unwrap(), word(part, 4) as usize);
            found.push((name, &part[8..8 + len]));
            part = &part[8 + len.next_multiple_of(2)..];
        }
        found
    }

    fn finished(frames: &[&[u8]], duration: Duration) -> Vec<u8> {
        let mut avi = Avi::new(Cursor::new(Vec::new()));
        frames.iter().for_each(|frame| avi.push(frame, [640, 360]).unwrap());
        avi.finish(duration).unwrap().get_ref().clone()
    }

    #[test]
    fn the_frames_are_where_the_lists_and_the_index_say() {
        let frames: [&[u8]; 3] = [b"one", b"three.", b""];
        let file = finished(&frames, Duration::from_secs(1));
        let riff = chunks(&file);
        assert_eq!((riff.len(), riff[0].0.as_str(), &riff[0].1[..4]), (1, "RIFF", &b"AVI "[..]));
        let parts = chunks(&riff[0].1[4..]);
        let names: Vec<_> = parts.iter().map(|(name, body)| (name.as_str(), &body[..4])).collect();
        assert_eq!(names[..2], [("LIST", &b"hdrl"[..]), ("LIST", b"movi")]);
        let movie = chunks(&parts[1].1[4..]);
        assert_eq!(movie.iter().map(|(_, body)| *body).collect::<Vec<_>>(), frames);
        assert_eq!((parts[2].0.as_str(), parts[2].1.len()), ("idx1", 3 * 16));
        let movi = HEADER as usize - 4;
        for (entry, frame) in parts[2].1.chunks(16).zip(frames) {
            let at = movi + word(entry, 8) as usize;
            assert_eq!((&file[at..at + 4], word(&file, at + 4) as usize), (&b"00dc"[..], frame.len()));
            assert_eq!((&entry[..4], word(entry, 12) as usize), (&b"00dc"[..], frame.len()));
        }
        let header = chunks(&parts[0].1[4..]);
        assert_eq!((header[0].0.as_str(), header[0].1.len()), ("avih", 56));
        let stream = chunks(&header[1].1[4..]);
        assert_eq!(
            stream.iter().map(|(name, body)| (name.as_str(), body.len())).collect::<Vec<_>>(),
            [("strh", 56), ("strf", 40)]
        );
        // Two intervals in a second; three frames of 640 x 360, of 6 bytes at most.
        let main = header[0].1;
        assert_eq!([0, 16, 28, 32, 36].map(|at| word(main, at)), [500_000, 3, 6, 640, 360]);
        assert_eq!([20, 24, 32].map(|at| word(stream[0].1, at)), [500_000, 1_000_000, 3]);
        assert_eq!([4, 8].map(|at| word(stream[1].1, at)), [640, 360]);
    }

    #[test]
    fn any_duration_gives_a_rate() {
        let period = |frames: usize, duration| word(&finished(&vec![&b"x"[..]; frames], duration), 32);
        assert_eq!(period(0, Duration::ZERO), 1_000_000);
        assert_eq!(period(1, Duration::from_secs(9)), 1_000_000);
        assert_eq!(period(5, Duration::ZERO), 1000);
        assert_eq!(period(2, Duration::from_secs(1_000_000)), 60_000_000);
        assert_eq!(period(11, Duration::from_secs(2)), 200_000);
    }

    /// Takes so many bytes and no more.
    struct Full(Cursor<Vec<u8>>, usize);

    impl Write for Full {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            match self.1.checked_sub(bytes.len()) {
                Some(left) => {
                    self.1 = left;
                    self.0.write(bytes)
                }
                None => Err(io::ErrorKind::StorageFull.into()),
            }
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Seek for Full {
        fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
            self.0.seek(to)
        }
    }

    #[test]
    fn what_failed_for_lack_of_space_can_be_tried_again_at_any_byte() {
        let frames: [&[u8]; 2] = [b"first", b"second"];
        let expected = finished(&frames, Duration::from_secs(1));
        for room in 0..expected.len() {
            let mut avi = Avi::new(Full(Cursor::new(Vec::new()), room));
            let mut failures = 0;
            let mut more = |avi: &mut Avi<Full>| {
                failures += 1;
                avi.out.1 = 10_000;
            };
            for frame in frames {
                while avi.push(frame, [640, 360]).is_err() {
                    more(&mut avi);
                }
            }
            while avi.finish(Duration::from_secs(1)).is_err() {
                more(&mut avi);
            }
            assert_eq!((avi.out.0.get_ref(), failures), (&expected, 1), "{room}");
        }
    }
}
