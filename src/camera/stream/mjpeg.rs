//! A stream of JPEG pictures, one after the other, split at their markers (ITU-T T.81, B.1). What stands between two
//! pictures, such as the headers of `multipart/x-mixed-replace`, is passed over.

const SOI: u8 = 0xD8;
const EOI: u8 = 0xD9;
const SOS: u8 = 0xDA;

/// Splits a stream. Memory is bounded by the longest picture that is taken, time by the length of the stream: after
/// damage the search goes on from where it was found.
#[derive(Debug)]
pub(super) struct Splitter {
    picture: Vec<u8>,
    max: usize,
    at: At,
}

/// What the next byte is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    /// Anything; `true` after a 0xFF.
    Outside(bool),
    /// The first of a marker, 0xFF.
    Marker,
    /// The code of a marker.
    Code,
    /// The first of a segment's length.
    Length { scan: bool },
    /// The second one, and the first.
    Length2 { scan: bool, high: u8 },
    /// Of a segment, so many from its end.
    Segment { scan: bool, left: u16 },
    /// Entropy-coded.
    Scan,
    /// After a 0xFF in a scan.
    ScanCode,
}

impl Splitter {
    /// Pictures of more than `max` bytes are passed over.
    pub(super) fn new(max: usize) -> Self {
        Splitter { picture: Vec::new(), max, at: At::Outside(false) }
    }

    /// Takes bytes of the stream and gives every picture that they end. What is left in the vector is overwritten.
    pub(super) fn push(&mut self, mut bytes: &[u8], mut each: impl FnMut(&mut Vec<u8>)) {
        while let Some((&byte, rest)) = bytes.split_first() {
            // Runs of bytes without meaning are taken at once.
            let run = match self.at {
                At::Outside(false) => {
                    bytes = &bytes[bytes.iter().position(|&b| b == 0xFF).unwrap_or(bytes.len())..];
                    if let Some((_, rest)) = bytes.split_first() {
                        self.at = At::Outside(true);
                        bytes = rest;
                    }
                    continue;
                }
                At::Segment { left, .. } => bytes.len().min(left.into()),
                At::Scan => bytes.iter().position(|&b| b == 0xFF).unwrap_or(bytes.len()),
                _ => 0,
            };
            if self.picture.len() + run.max(1) > self.max {
                self.picture.clear();
                self.at = At::Outside(false);
                continue;
            }
            if run > 0 {
                self.picture.extend_from_slice(&bytes[..run]);
                bytes = &bytes[run..];
                if let At::Segment { scan, left } = self.at {
                    // `run` is at most `left`.
                    let left = left - run as u16;
                    self.at = if left > 0 { At::Segment { scan, left } } else { after_segment(scan) };
                }
                continue;
            }
            bytes = rest;
            self.picture.push(byte);
            self.at = match (self.at, byte) {
                (At::Outside(_), SOI) => {
                    self.begin();
                    At::Marker
                }
                (At::Outside(_), 0xFF) => At::Outside(true),
                (At::Outside(_), _) => At::Outside(false),
                (At::Marker, 0xFF) => At::Code,
                // Fill bytes.
                (At::Code, 0xFF) => At::Code,
                (At::Code | At::ScanCode, EOI) => {
                    each(&mut self.picture);
                    At::Outside(false)
                }
                // The one before was cut off.
                (At::Code | At::ScanCode, SOI) => {
                    self.begin();
                    At::Marker
                }
                (At::Code | At::ScanCode, SOS) => At::Length { scan: true },
                (At::ScanCode, 0x00 | 0xD0..=0xD7) => At::Scan,
                (At::ScanCode, 0xFF) => At::ScanCode,
                (At::Code | At::ScanCode, 0xC0..=0xFE) => At::Length { scan: false },
                (At::Length { scan }, high) => At::Length2 { scan, high },
                (At::Length2 { scan, high }, low) => match u16::from_be_bytes([high, low]) {
                    0 | 1 => At::Outside(false),
                    2 => after_segment(scan),
                    length => At::Segment { scan, left: length - 2 },
                },
                (At::Scan, 0xFF) => At::ScanCode,
                (At::Marker | At::Code | At::ScanCode, _) => At::Outside(false),
                (At::Segment { .. } | At::Scan, _) => self.at,
            };
            if matches!(self.at, At::Outside(_)) {
                self.picture.clear();
            }
        }
    }

    fn begin(&mut self) {
        self.picture.clear();
        self.picture.extend_from_slice(&[0xFF, SOI]);
    }
}

fn after_segment(scan: bool) -> At {
    if scan { At::Scan } else { At::Marker }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture(seed: u8, width: u32) -> Vec<u8> {
        let picture = ::image::RgbImage::from_fn(width, 16, |x, y| ::image::Rgb([seed, x as u8 * 9, y as u8 * 31]));
        let mut bytes = Vec::new();
        ::image::codecs::jpeg::JpegEncoder::new_with_quality(&mut bytes, 90).encode_image(&picture).unwrap();
        bytes
    }

    /// The stream in pieces of one length each.
    fn split(stream: &[u8], piece: usize, max: usize) -> Vec<Vec<u8>> {
        let mut splitter = Splitter::new(max);
        let mut pictures = Vec::new();
        stream.chunks(piece).for_each(|bytes| splitter.push(bytes, |picture| pictures.push(picture.clone())));
        assert!(splitter.picture.len() <= max);
        pictures
    }

    #[test]
    fn pictures_come_out_as_they_are_however_they_arrive() {
        let pictures: Vec<_> = (0..4).map(|seed| picture(seed, 16 + u32::from(seed) * 16)).collect();
        let part = |bytes: &Vec<u8>| [b"--x\r\nContent-Type: image/jpeg\r\n\r\n\xFF", bytes.as_slice()].concat();
        for stream in [pictures.concat(), pictures.iter().map(part).collect::<Vec<_>>().concat()] {
            for piece in [1, 2, 3, 7, 100, stream.len()] {
                assert_eq!(split(&stream, piece, 1 << 20), pictures, "{piece}");
            }
        }
    }

    #[test]
    fn a_thumbnail_is_part_of_its_picture() {
        let (inner, outer) = (picture(1, 16), picture(2, 32));
        let length = u16::try_from(inner.len() + 2).unwrap().to_be_bytes();
        let whole = [&outer[..2], &[0xFF, 0xE1], &length, &inner, &outer[2..]].concat();
        assert_eq!(split(&[whole.clone(), outer.clone()].concat(), 5, 1 << 20), [whole, outer]);
    }

    #[test]
    fn a_picture_that_is_cut_off_costs_no_more_than_a_segment_can_hold() {
        let (first, second) = (picture(1, 32), picture(2, 32));
        let third = picture(3, 32).repeat(70_000 / second.len());
        let scan = first.windows(2).rposition(|bytes| bytes == [0xFF, SOS]).unwrap() + 14;
        for cut in 0..first.len() {
            let found = split(&[&first[..cut], &second, &third].concat(), 64, 1 << 20);
            assert_eq!(found.last(), Some(&picture(3, 32)), "cut at {cut}");
            assert!(found.contains(&second) || cut < scan, "cut at {cut}");
        }
    }

    #[test]
    fn giants_and_noise_are_passed_over_in_bounded_memory() {
        let small = picture(1, 16);
        let giant = [&small[..small.len() - 2], &[0x55; 5000], &[0xFF, 0xD9]].concat();
        let found = split(&[giant, small.clone()].concat(), 100, small.len() + 100);
        assert_eq!(found, std::slice::from_ref(&small));
        let mut state = 1u64;
        let noise: Vec<u8> = (0..200_000)
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                (state >> 56) as u8
            })
            .collect();
        split(&noise, 1000, 4096);
    }
}
