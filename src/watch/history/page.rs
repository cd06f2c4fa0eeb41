//! A page of the history: some seconds of frames, written in one piece and good by itself.
//!
//! ```text
//! 0   "OHp\x01"         the mark of a page, and the version
//! 4   u16               bytes of the body
//! 6   u8                kind: 0 frames, 1 taken back
//! 7   u8                frames in it
//! 8   u32               number of the first frame, counted over all pages
//! 12  u32               the model's mark
//! 16  i64               time of the first frame, hundredths of a second since 1970
//! 24  f32               score of the first frame
//! 28  u16               the threshold that held, as a surprisal
//! 30  body
//!     u32               CRC-32 of all before it
//! ```
//!
//! Little-endian. A frame is one byte of flags and time (bit 0: raised; bit 1: the time needs more bytes; bits 2 to 7:
//! how much longer than the step before it the step to it was, in hundredths of a second, zigzag), two of surprisal, and
//! two of its score's difference from the first: the upper half of an f32, so that 8 bits of it are kept.
//! The body of a page of what was taken back is the other end of its time, i64.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::watch::surprisal::Surprisal;

pub const MARK: [u8; 4] = *b"OHp\x01";
pub const HEAD: usize = 30;
pub const CRC: usize = 4;
/// Frames of a page at most.
pub const FRAMES: usize = 255;
/// Bytes of a frame at most: flags, ten of time, four.
const FRAME: usize = 15;
pub const LARGEST: usize = HEAD + FRAMES * FRAME + CRC;

/// A judged frame as it is kept.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Frame {
    /// Hundredths of a second since 1970.
    pub time: i64,
    pub score: f32,
    pub surprisal: Surprisal,
    /// It belongs to an event that is raised.
    pub raised: bool,
}

/// What a page holds.
#[derive(Debug, Clone, PartialEq)]
pub enum Body {
    Frames(Vec<Frame>),
    /// Events from one time to another were normal.
    TakenBack {
        from: i64,
        to: i64,
    },
}

#[derive(Debug, Clone, PartialEq)]
pub struct Page {
    /// Number of the first frame.
    pub number: u32,
    pub model: u32,
    /// The threshold that held.
    pub threshold: Surprisal,
    pub body: Body,
}

/// Why bytes are no page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wrong {
    /// They may be one when more of them come.
    Short,
    Damaged,
}

impl Page {
    pub fn encode(&self, bytes: &mut Vec<u8>) {
        let mut body = Vec::new();
        let (kind, count, time, score) = match &self.body {
            Body::Frames(frames) => {
                let first = frames.first().map_or((0, 0.0), |frame| (frame.time, frame.score));
                let (mut before, mut step) = (first.0, 0);
                for frame in frames.iter().take(FRAMES) {
                    let now = frame.time.wrapping_sub(before);
                    put_time(&mut body, frame.raised, now.wrapping_sub(step));
                    (before, step) = (frame.time, now);
                    body.extend(frame.surprisal.0.to_le_bytes());
                    body.extend(upper_half(frame.score - first.1).to_le_bytes());
                }
                (0, frames.len().min(FRAMES) as u8, first.0, first.1)
            }
            Body::TakenBack { from, to } => {
                body.extend(to.to_le_bytes());
                (1, 0, *from, 0.0)
            }
        };
        let start = bytes.len();
        bytes.extend(MARK);
        bytes.extend((body.len() as u16).to_le_bytes());
        bytes.extend([kind, count]);
        bytes.extend(self.number.to_le_bytes());
        bytes.extend(self.model.to_le_bytes());
        bytes.extend(time.to_le_bytes());
        bytes.extend(score.to_le_bytes());
        bytes.extend(self.threshold.0.to_le_bytes());
        bytes.extend(body);
        let crc = crc32fast::hash(&bytes[start..]);
        bytes.extend(crc.to_le_bytes());
    }

    /// The page that bytes begin with, and its length.
    ///
    /// # Errors
    /// They begin with none.
    pub fn decode(bytes: &[u8]) -> Result<(Page, usize), Wrong> {
        if !MARK.starts_with(&bytes[..bytes.len().min(4)]) {
            return Err(Wrong::Damaged);
        }
        let head: &[u8; HEAD] = bytes.first_chunk().ok_or(Wrong::Short)?;
        let length = HEAD + usize::from(u16::from_le_bytes(part(head, 4))) + CRC;
        if length > LARGEST {
            return Err(Wrong::Damaged);
        }
        let (page, crc) = bytes.get(..length).and_then(|page| page.split_last_chunk::<CRC>()).ok_or(Wrong::Short)?;
        if crc32fast::hash(page) != u32::from_le_bytes(*crc) {
            return Err(Wrong::Damaged);
        }
        let (time, mut body) = (i64::from_le_bytes(part(head, 16)), &page[HEAD..]);
        let body = match head[6] {
            0 => {
                let first = f32::from_le_bytes(part(head, 24));
                let (mut before, mut step) = (time, 0_i64);
                let mut frames = Vec::with_capacity(usize::from(head[7]));
                for _ in 0..head[7] {
                    let (raised, more) = take_time(&mut body).ok_or(Wrong::Damaged)?;
                    let (values, rest) = body.split_first_chunk::<4>().ok_or(Wrong::Damaged)?;
                    body = rest;
                    step = step.wrapping_add(more);
                    before = before.wrapping_add(step);
                    let [a, b, c, d] = *values;
                    let score = first + f32::from_bits(u32::from(u16::from_le_bytes([c, d])) << 16);
                    let surprisal = Surprisal(u16::from_le_bytes([a, b]));
                    frames.push(Frame { time: before, score, surprisal, raised });
                }
                Body::Frames(frames)
            }
            1 => Body::TakenBack { from: time, to: i64::from_le_bytes(*body.first_chunk().ok_or(Wrong::Damaged)?) },
            _ => return Err(Wrong::Damaged),
        };
        let page = Page {
            number: u32::from_le_bytes(part(head, 8)),
            model: u32::from_le_bytes(part(head, 12)),
            threshold: Surprisal(u16::from_le_bytes(part(head, 28))),
            body,
        };
        Ok((page, length))
    }

    /// Frames in it.
    pub fn count(&self) -> u32 {
        match &self.body {
            Body::Frames(frames) => frames.len() as u32,
            Body::TakenBack { .. } => 0,
        }
    }
}

/// Hundredths of a second since 1970, as the history keeps time.
pub fn hundredths(time: SystemTime) -> i64 {
    let of = |time: Duration| i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
    match time.duration_since(UNIX_EPOCH) {
        Ok(after) => of(after).div_euclid(10),
        Err(before) => of(before.duration()).saturating_neg().div_euclid(10),
    }
}

/// The time of so many hundredths since 1970; one that no clock shows is 1970.
pub fn time_of(hundredths: i64) -> SystemTime {
    let length = Duration::from_millis(hundredths.unsigned_abs().saturating_mul(10));
    let time = if hundredths < 0 { UNIX_EPOCH.checked_sub(length) } else { UNIX_EPOCH.checked_add(length) };
    time.unwrap_or(UNIX_EPOCH)
}

/// What pages say of the model: a hash of its identity, folded.
pub fn mark(model: u64) -> u32 {
    (model ^ (model >> 32)) as u32
}

fn part<const N: usize>(head: &[u8; HEAD], at: usize) -> [u8; N] {
    std::array::from_fn(|i| head[at + i])
}

/// The upper half of an f32, rounded; what is no number or too large for one is 0.
fn upper_half(value: f32) -> u16 {
    let rounded = value.to_bits().wrapping_add(0x8000) >> 16;
    if value.is_finite() && f32::from_bits(rounded << 16).is_finite() { rounded as u16 } else { 0 }
}

fn put_time(body: &mut Vec<u8>, raised: bool, more: i64) {
    let mut zigzag = ((more << 1) ^ (more >> 63)) as u64;
    let rest = zigzag >> 6;
    body.push(u8::from(raised) | u8::from(rest > 0) << 1 | ((zigzag & 0x3f) as u8) << 2);
    zigzag = rest;
    while zigzag > 0 {
        let rest = zigzag >> 7;
        body.push((zigzag & 0x7f) as u8 | u8::from(rest > 0) << 7);
        zigzag = rest;
    }
}

fn take_time(body: &mut &[u8]) -> Option<(bool, i64)> {
    let (flags, mut rest) = body.split_first()?;
    let (mut zigzag, mut shift, mut goes_on) = (u64::from(flags >> 2), 6, flags & 2 > 0);
    while goes_on {
        let (byte, others) = rest.split_first()?;
        zigzag |= u64::from(byte & 0x7f).checked_shl(shift)?;
        (rest, shift, goes_on) = (others, shift + 7, byte & 0x80 > 0);
    }
    *body = rest;
    Some((flags & 1 > 0, (zigzag >> 1) as i64 ^ -((zigzag & 1) as i64)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_come_back() {
        let times = [0, 50, 100, 151, 200, 100_000, 99_000, i64::MAX, i64::MIN, -5];
        let frames = times.iter().zip(1..).map(|(time, at)| Frame {
            time: *time,
            score: -870.0 + if at % 2 == 0 { 0.25 } else { -0.5 * at as f32 },
            surprisal: Surprisal(at * 77),
            raised: at % 3 == 0,
        });
        let frames = Page { number: 9, model: 7, threshold: Surprisal(3), body: Body::Frames(frames.collect()) };
        let back = Page { body: Body::TakenBack { from: -3, to: 1 << 40 }, ..frames.clone() };
        for page in [frames, back] {
            let mut bytes = Vec::new();
            page.encode(&mut bytes);
            assert_eq!(Page::decode(&bytes), Ok((page, bytes.len())));
            for cut in 0..bytes.len() {
                assert_eq!(Page::decode(&bytes[..cut]), Err(Wrong::Short), "{cut}");
            }
            for at in 0..bytes.len() {
                let mut damaged = bytes.clone();
                damaged[at] ^= 1;
                assert!(Page::decode(&damaged).is_err(), "{at}");
            }
        }
    }

    #[test]
    fn a_steady_frame_takes_five_bytes() {
        let frame = |at: i64| Frame { time: 50 * at, score: -1.0, surprisal: Surprisal(1), raised: false };
        let page = |frames| Page {
            number: 0,
            model: 0,
            threshold: Surprisal(0),
            body: Body::Frames((0..frames).map(frame).collect()),
        };
        let length = |frames| {
            let mut bytes = Vec::new();
            page(frames).encode(&mut bytes);
            bytes.len()
        };
        assert_eq!(length(40) - length(30), 50);
    }

    #[test]
    fn scores_keep_eight_bits_of_their_difference() {
        for value in [0.0, 1.0, -3.3, 1e-3, 812.4, 1e30] {
            let kept = f32::from_bits(u32::from(upper_half(value)) << 16);
            assert!((kept - value).abs() <= value.abs() / 256.0, "{value}: {kept}");
        }
        assert_eq!((upper_half(f32::NAN), upper_half(f32::INFINITY), upper_half(f32::MAX)), (0, 0, 0));
    }
}
