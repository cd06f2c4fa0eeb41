//! Picture files: bytes, pixels, EXIF.

use std::path::Path;

use ::image::{DynamicImage, ImageReader};

use super::error::Error;
use super::jpeg;
use super::limits::{MAX_PIXELS, is_decoded};
use crate::fs;

/// Extensions of the supported formats.
pub const EXTENSIONS: [&str; 5] = ["jpg", "jpeg", "png", "bmp", "webp"];

/// Whether a path's extension is one of [`EXTENSIONS`], in whatever case.
pub fn is_picture(path: &Path) -> bool {
    path.extension().and_then(|e| e.to_str()).is_some_and(|e| EXTENSIONS.iter().any(|x| e.eq_ignore_ascii_case(x)))
}

/// Larger picture files are refused before they are read.
pub const MAX_BYTES: u64 = 256 << 20;

/// The bytes of a picture file.
pub fn bytes(path: &Path) -> Result<Vec<u8>, Error> {
    let io = |source| Error::Io { path: path.to_owned(), source };
    fs::read(path, MAX_BYTES).map_err(io)
}

/// A picture before its orientation is applied.
pub(super) fn decoded(path: &Path, bytes: &[u8]) -> Result<DynamicImage, Error> {
    let fail = |reason: String| Error::Decode { path: path.to_owned(), reason };
    let reader = || {
        let mut reader = ImageReader::new(std::io::Cursor::new(bytes));
        reader.limits(limits());
        reader.with_guessed_format()
    };
    let too_large = |width, height| Error::TooLarge { path: path.to_owned(), width, height };
    let sized = reader().map_err(|e| fail(e.to_string()))?;
    let format = sized.format().ok_or_else(|| fail("not a JPEG, PNG, BMP or WebP picture".into()))?;
    if format == ::image::ImageFormat::Jpeg {
        let picture = jpeg::decode(bytes, |_, _| true).map_err(|e| match e {
            jpeg::Error::OtherSize { width, height } => too_large(width as u32, height as u32),
            e => fail(e.to_string()),
        })?;
        return Ok(picture.into());
    }
    let (width, height) = sized.into_dimensions().map_err(|e| fail(e.to_string()))?;
    if !is_decoded(width as usize, height as usize) {
        return Err(too_large(width, height));
    }
    reader().map_err(|e| fail(e.to_string()))?.decode().map_err(|e| fail(e.to_string()))
}

fn limits() -> ::image::Limits {
    let mut limits = ::image::Limits::default();
    limits.max_alloc = Some(MAX_PIXELS * 8);
    limits
}

/// The EXIF data of a JPEG, PNG or WebP file; None if there are none or they are damaged.
pub fn exif(bytes: &[u8]) -> Option<exif::Exif> {
    exif::Reader::new().read_from_container(&mut std::io::Cursor::new(bytes)).ok()
}
