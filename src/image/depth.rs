//! Pictures of 16 bits per sample that use only 10 or 12 of them, as machine vision cameras save them.
//!
//! A PNG says so in its sBIT chunk. Without one the pictures of the folder decide: where none uses more than 12 bits, all
//! are read so. A single picture is not enough: a dark one of 12 bits looks like one of 10.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use ::image::{DynamicImage, ImageBuffer, RgbImage};

use super::encoded::{self, is_picture};
use crate::fs;

/// The pictures of a folder that are examined.
const SET: usize = 64;

/// The bits that the pictures of each folder use, of those examined so far.
static SETS: Mutex<BTreeMap<PathBuf, u32>> = Mutex::new(BTreeMap::new());

/// A decoded picture with 8 bits per sample; `path` and `file` are its source.
pub fn to_rgb8(picture: DynamicImage, path: &Path, file: &[u8]) -> RgbImage {
    let Some(samples) = samples(&picture) else { return picture.into_rgb8() };
    let bits = match significant_bits(file) {
        Some(bits) => bits_with_chunk(&samples, bits),
        None => bits_of_set(path, bits_of(&samples)),
    };
    if !(1..16).contains(&bits) {
        return picture.into_rgb8();
    }
    let wide = picture.into_rgb16();
    let narrow = wide.iter().map(|v| (v >> (bits - 8)).min(255) as u8).collect();
    // As many samples as before.
    ImageBuffer::from_raw(wide.width(), wide.height(), narrow).unwrap_or_default()
}

/// The samples of a picture of 16 bits per sample, without alpha.
fn samples(picture: &DynamicImage) -> Option<Vec<u16>> {
    Some(match picture {
        DynamicImage::ImageLuma16(picture) => picture.as_raw().clone(),
        DynamicImage::ImageRgb16(picture) => picture.as_raw().clone(),
        DynamicImage::ImageLumaA16(picture) => picture.pixels().map(|pixel| pixel.0[0]).collect(),
        DynamicImage::ImageRgba16(picture) => {
            picture.pixels().flat_map(|pixel| [pixel.0[0], pixel.0[1], pixel.0[2]]).collect()
        }
        _ => return None,
    })
}

/// The bits that samples use: 10 or 12 as sensors have, 16 above that, 0 where the picture is too dark to tell.
fn bits_of(samples: &[u16]) -> u32 {
    match samples.iter().max() {
        Some(0x100..=0x3FF) => 10,
        Some(0x400..=0xFFF) => 12,
        Some(0x1000..) => 16,
        _ => 0,
    }
}

/// The same for a picture whose sBIT chunk says `bits`: the standard wants samples scaled to 16 bits, cameras often do not
/// scale them.
fn bits_with_chunk(samples: &[u16], bits: u32) -> u32 {
    if samples.iter().all(|v| u32::from(*v) < 1 << bits) { bits } else { 16 }
}

/// The bits in a PNG's sBIT chunk, the maximum over its channels; None without one, or where it is not 9 to 15.
fn significant_bits(file: &[u8]) -> Option<u32> {
    let mut rest = file.strip_prefix(b"\x89PNG\r\n\x1a\n")?;
    loop {
        let (length, after) = rest.split_first_chunk::<4>()?;
        let (name, after) = after.split_first_chunk::<4>()?;
        let length = u32::from_be_bytes(*length) as usize;
        match name {
            b"sBIT" => {
                let bits = after.get(..length)?.iter().copied().take(3).max();
                return bits.map(u32::from).filter(|bits| (9..16).contains(bits));
            }
            b"IDAT" | b"IEND" => return None,
            _ => rest = after.get(length.checked_add(4)?..)?,
        }
    }
}

/// The bits that the pictures of the folder use, `own` being those of the one at `path`.
fn bits_of_set(path: &Path, own: u32) -> u32 {
    let folder = fs::folder_of(path).to_owned();
    // A panic cannot leave the map inconsistent.
    let mut sets = SETS.lock().unwrap_or_else(PoisonError::into_inner);
    let known = sets.get(&folder).copied();
    let bits = known.unwrap_or_else(|| examine(&folder)).max(own);
    if known != Some(bits) {
        if (1..16).contains(&bits) {
            let folder = folder.display();
            log::warn!(
                "{folder}: the pictures of 16 bits use {bits}: read as such; an sBIT chunk in them would settle it"
            );
        } else if known.is_some_and(|known| known > 0) {
            let path = path.display();
            log::warn!("{path} uses all of its 16 bits, others in its folder do not: from here on 16 are read");
        }
        sets.insert(folder, bits);
    }
    bits
}

/// The most bits that the first pictures of a folder use; 0 where none has 16 bits without an sBIT chunk.
fn examine(folder: &Path) -> u32 {
    let entries = std::fs::read_dir(folder).map(|entries| entries.flatten().map(|entry| entry.path()).collect());
    let mut paths: Vec<PathBuf> = entries.unwrap_or_default();
    paths.retain(|path| is_picture(path));
    paths.sort();
    let bits = |path: &PathBuf| {
        let file = encoded::bytes(path).ok().filter(|file| is_deep(file) && significant_bits(file).is_none())?;
        Some(bits_of(&samples(&encoded::decoded(path, &file).ok()?)?))
    };
    paths.iter().take(SET).filter_map(bits).max().unwrap_or(0)
}

/// Whether a file is a PNG of 16 bits per sample.
fn is_deep(file: &[u8]) -> bool {
    file.starts_with(b"\x89PNG") && file.get(24) == Some(&16)
}

#[cfg(test)]
mod tests {
    use ::image::codecs::png::PngEncoder;
    use ::image::{ExtendedColorType, ImageEncoder};

    use super::*;

    const SIDE: u32 = 16;

    /// A PNG of 16 bits; sBIT goes behind IHDR.
    fn png(samples: impl Fn(u32) -> u16, significant: Option<u8>) -> Vec<u8> {
        let samples: Vec<u8> = (0..SIDE * SIDE).flat_map(|at| samples(at).to_ne_bytes()).collect();
        let mut file = Vec::new();
        PngEncoder::new(&mut file).write_image(&samples, SIDE, SIDE, ExtendedColorType::L16).unwrap();
        if let Some(bits) = significant {
            let chunk = [b"sBIT".as_slice(), &[bits]].concat();
            let crc = crc32fast::hash(&chunk).to_be_bytes();
            file.splice(33..33, [&[0, 0, 0, 1], &chunk[..], &crc].concat());
        }
        file
    }

    /// The levels that a file of that content is read with.
    fn levels(folder: &Path, name: &str, file: &[u8]) -> Vec<u8> {
        let path = folder.join(name);
        std::fs::write(&path, file).unwrap();
        super::super::read(&path).unwrap().pixels().map(|pixel| pixel.0[0]).collect()
    }

    fn ramp() -> Vec<u8> {
        (0..=255).collect()
    }

    #[test]
    fn significant_bits_are_those_that_the_file_names() {
        let dir = tempfile::tempdir().unwrap();
        for bits in [10, 12, 14] {
            let scale = |at: u32| ((at << bits) - at) / 255;
            let low = png(|at| scale(at) as u16, Some(bits));
            assert_eq!(levels(dir.path(), "low.png", &low), ramp(), "{bits} in the low bits");
            let coarse = png(|at| (at << (bits - 8)) as u16, Some(bits));
            assert_eq!(levels(dir.path(), "coarse.png", &coarse), ramp(), "{bits} in the low bits, in steps");
            // As the standard has it: scaled to 16.
            let full = png(|at| (scale(at) << (16 - bits) | scale(at) >> (2 * bits - 16)) as u16, Some(bits));
            assert_eq!(levels(dir.path(), "full.png", &full), ramp(), "{bits} scaled");
        }
    }

    #[test]
    fn without_an_sbit_chunk_the_folder_decides() {
        let dir = tempfile::tempdir().unwrap();
        let folder = |name: &str| {
            let folder = dir.path().join(name);
            std::fs::create_dir(&folder).unwrap();
            folder
        };
        let (twelve, ten, full) = (folder("twelve"), folder("ten"), folder("full"));
        std::fs::write(twelve.join("bright.png"), png(|at| (at * 4095 / 255) as u16, None)).unwrap();
        // Dark, and read first: not taken for 10 bits.
        let dark = levels(&twelve, "dark.png", &png(|at| (at * 4095 / 255 / 8) as u16, None));
        assert_eq!(dark.iter().max(), Some(&31));
        assert_eq!(levels(&twelve, "black.png", &png(|_| 255, None)).iter().max(), Some(&15));
        assert_eq!(levels(&twelve, "third.png", &png(|at| (at * 4095 / 255) as u16, None)), ramp());
        assert_eq!(levels(&ten, "a.png", &png(|at| (at * 1023 / 255) as u16, None)), ramp());
        std::fs::write(full.join("bright.png"), png(|at| (at * 257) as u16, None)).unwrap();
        let dark = levels(&full, "dark.png", &png(|at| (at * 257 / 32) as u16, None));
        assert_eq!(dark.iter().max(), Some(&8));
        assert_eq!(levels(&full, "black.png", &png(|_| 0, None)), [0; 256]);
    }
}
