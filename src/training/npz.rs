//! Reads arrays that `numpy.savez` or `numpy.savez_compressed` wrote.
//!
//! An .npz file is a ZIP archive (PKWARE APPNOTE 6.3) of .npy members (NEP 1), stored or deflated. Sizes are those of
//! the central directory; no more is allocated than the file's own size and [`MAX_BYTES`] allow.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

use ndarray::{Array, ArrayD, Dimension, IxDyn, ShapeBuilder};

use crate::fs;

/// Larger files are refused, and so are members that inflate to more than this together.
pub const MAX_BYTES: u64 = 128 << 20;
const MAX_MEMBERS: usize = 64;
const MAX_DIMENSIONS: usize = 4;
const END_OF_DIRECTORY: usize = 22;

/// Why a file holds no usable arrays.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("it is larger than {MAX_BYTES} bytes")]
    TooLarge,
    #[error("it is not an .npz file, or cut short: {0}")]
    Zip(&'static str),
    #[error("its member {name}: {reason}")]
    Member { name: String, reason: String },
    #[error("it has no array {0}; write it with models/export_sklearn.py")]
    Missing(&'static str),
    #[error("its array {name} has the shape {got:?}, not {wanted}")]
    Shape { name: &'static str, got: Vec<usize>, wanted: String },
    #[error("its array {name} {reason}")]
    Value { name: &'static str, reason: &'static str },
}

/// The arrays of a file by name, as f64.
#[derive(Debug, Default)]
pub struct Npz {
    arrays: BTreeMap<String, ArrayD<f64>>,
}

impl Npz {
    /// Reads a file.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::TooLarge`], and those of [`Npz::parse`].
    pub fn read(path: &Path) -> Result<Npz, Error> {
        Npz::parse(&fs::read(path, MAX_BYTES)?)
    }

    /// Reads a file's bytes.
    ///
    /// # Errors
    /// [`Error::TooLarge`], [`Error::Zip`], [`Error::Member`].
    pub fn parse(bytes: &[u8]) -> Result<Npz, Error> {
        if bytes.len() as u64 > MAX_BYTES {
            return Err(Error::TooLarge);
        }
        let mut arrays = BTreeMap::new();
        let mut left = MAX_BYTES;
        for member in directory(bytes)? {
            let fail = |reason: String| Error::Member { name: member.name.clone(), reason };
            let content = member.content(bytes, left).map_err(fail)?;
            left -= content.len() as u64;
            let array = npy(&content).map_err(fail)?;
            let name = member.name.strip_suffix(".npy").unwrap_or(&member.name).to_owned();
            if arrays.insert(name, array).is_some() {
                return Err(fail("it occurs twice".into()));
            }
        }
        Ok(Npz { arrays })
    }

    pub fn has(&self, name: &str) -> bool {
        self.arrays.contains_key(name)
    }

    /// An array of finite values with the dimensions of `D`, in C order.
    ///
    /// # Errors
    /// [`Error::Missing`], [`Error::Shape`], [`Error::Value`] for NaN or infinity.
    pub fn array<D: Dimension>(&self, name: &'static str) -> Result<Array<f64, D>, Error> {
        let found = self.arrays.get(name).ok_or(Error::Missing(name))?;
        let wanted = || format!("{} dimensions", D::NDIM.unwrap_or_default());
        let array = found.view().into_dimensionality::<D>().map_err(|_| Error::Shape {
            name,
            got: found.shape().to_vec(),
            wanted: wanted(),
        })?;
        if array.iter().any(|v| !v.is_finite()) {
            return Err(Error::Value { name, reason: "holds NaN or infinity" });
        }
        Ok(array.as_standard_layout().into_owned())
    }

    /// A finite number: an array of one element, of any dimensions.
    ///
    /// # Errors
    /// As [`Npz::array`].
    pub fn number(&self, name: &'static str) -> Result<f64, Error> {
        let found = self.arrays.get(name).ok_or(Error::Missing(name))?;
        let got = || Error::Shape { name, got: found.shape().to_vec(), wanted: "one number".into() };
        match (found.len(), found.first()) {
            (1, Some(value)) if value.is_finite() => Ok(*value),
            (1, _) => Err(Error::Value { name, reason: "is not finite" }),
            _ => Err(got()),
        }
    }

    /// A whole number from 0 to `most`.
    ///
    /// # Errors
    /// As [`Npz::number`]; [`Error::Value`] for another number.
    pub fn count(&self, name: &'static str, most: u32) -> Result<u32, Error> {
        whole(self.number(name)?, most).ok_or(Error::Value { name, reason: "is not a whole number in its range" })
    }

    /// Whole numbers from 0 to `most`, one dimension.
    ///
    /// # Errors
    /// As [`Npz::array`]; [`Error::Value`] for another number.
    pub fn counts(&self, name: &'static str, most: u32) -> Result<Vec<u32>, Error> {
        let values = self.array::<ndarray::Ix1>(name)?;
        let all: Option<Vec<u32>> = values.iter().map(|v| whole(*v, most)).collect();
        all.ok_or(Error::Value { name, reason: "holds a value that is not a whole number in its range" })
    }
}

fn whole(value: f64, most: u32) -> Option<u32> {
    (value.fract() == 0.0 && (0.0..=f64::from(most)).contains(&value)).then_some(value as u32)
}

/// One entry of the archive's central directory.
struct Member {
    name: String,
    method: u16,
    crc: u32,
    packed: usize,
    size: usize,
    offset: usize,
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// The entries, found from the end of the file.
fn directory(bytes: &[u8]) -> Result<Vec<Member>, Error> {
    let last = bytes.len().checked_sub(END_OF_DIRECTORY).ok_or(Error::Zip("it has too few bytes"))?;
    let ends = |at: &usize| {
        bytes[*at..].starts_with(b"PK\x05\x06")
            && u16_at(bytes, at + 20).is_some_and(|comment| at + END_OF_DIRECTORY + usize::from(comment) == bytes.len())
    };
    let end = (last.saturating_sub(usize::from(u16::MAX))..=last).rev().find(ends);
    let end = end.ok_or(Error::Zip("it has no end of the archive's directory"))?;
    let damaged = Error::Zip("the archive's directory is damaged");
    let (Some(count), Some(start)) = (u16_at(bytes, end + 10), u32_at(bytes, end + 16)) else { return Err(damaged) };
    if usize::from(count) > MAX_MEMBERS {
        return Err(Error::Zip("it has more members than a model"));
    }
    let mut members = Vec::new();
    let mut rest = bytes.get(start as usize..end).ok_or(Error::Zip("the archive's directory is damaged"))?;
    for _ in 0..count {
        let (member, used) = entry(rest).ok_or(Error::Zip("the archive's directory is damaged"))?;
        members.push(member);
        rest = &rest[used..];
    }
    if rest.is_empty() { Ok(members) } else { Err(damaged) }
}

/// An entry at the front of `bytes`, and its length.
fn entry(bytes: &[u8]) -> Option<(Member, usize)> {
    if !bytes.starts_with(b"PK\x01\x02") {
        return None;
    }
    let lengths = [28, 30, 32].map(|at| u16_at(bytes, at).map(usize::from));
    let [Some(name), Some(extra), Some(comment)] = lengths else { return None };
    let used = 46 + name + extra + comment;
    bytes.get(..used)?;
    let member = Member {
        name: String::from_utf8_lossy(bytes.get(46..46 + name)?).into_owned(),
        method: u16_at(bytes, 10)?,
        crc: u32_at(bytes, 16)?,
        packed: u32_at(bytes, 20)? as usize,
        size: u32_at(bytes, 24)? as usize,
        offset: u32_at(bytes, 42)? as usize,
    };
    Some((member, used))
}

impl Member {
    /// The unpacked bytes, at most `most`; their checksum is verified.
    fn content(&self, bytes: &[u8], most: u64) -> Result<Vec<u8>, String> {
        let short = || "it lies outside of the file".to_owned();
        if [self.packed, self.size, self.offset].contains(&(u32::MAX as usize)) {
            return Err("it is in a 64-bit archive".into());
        }
        if self.size as u64 > most {
            return Err(format!("the arrays are larger than {MAX_BYTES} bytes"));
        }
        let local = bytes.get(self.offset..).ok_or_else(short)?;
        if !local.starts_with(b"PK\x03\x04") {
            return Err("it is not where the archive's directory says".into());
        }
        let (Some(name), Some(extra)) = (u16_at(local, 26), u16_at(local, 28)) else { return Err(short()) };
        let start = 30 + usize::from(name) + usize::from(extra);
        let packed = local.get(start..).and_then(|l| l.get(..self.packed)).ok_or_else(short)?;
        let content = match self.method {
            0 => packed.to_vec(),
            8 => {
                let mut content = Vec::new();
                let inflated = flate2::read::DeflateDecoder::new(packed).take(self.size as u64 + 1);
                { inflated }.read_to_end(&mut content).map_err(|e| format!("it does not inflate: {e}"))?;
                content
            }
            method => return Err(format!("it is packed by method {method}; use numpy.savez or savez_compressed")),
        };
        if content.len() != self.size || crc32fast::hash(&content) != self.crc {
            return Err("its checksum is wrong: it is damaged".into());
        }
        Ok(content)
    }
}

/// An array of little-endian f4, f8, i4, i8 or u4.
fn npy(bytes: &[u8]) -> Result<ArrayD<f64>, String> {
    let short = || "its header is cut short".to_owned();
    let rest = bytes.strip_prefix(b"\x93NUMPY").ok_or("it is not an .npy array")?;
    let (version, rest) = rest.split_first_chunk::<2>().ok_or_else(short)?;
    let (length, rest) = match version[0] {
        1 => rest.split_first_chunk().map(|(n, rest)| (usize::from(u16::from_le_bytes(*n)), rest)),
        2 | 3 => rest.split_first_chunk().map(|(n, rest)| (u32::from_le_bytes(*n) as usize, rest)),
        other => return Err(format!("it has .npy version {other}")),
    }
    .ok_or_else(short)?;
    let (header, data) = rest.split_at_checked(length).ok_or_else(short)?;
    let header = std::str::from_utf8(header).map_err(|_| "its header is not text")?;
    let field = |name: &str| header.split_once(name).map(|(_, rest)| rest.trim_start_matches([':', ' ']));
    let descr = field("'descr'").and_then(|f| f.strip_prefix('\'')).and_then(|f| f.split_once('\''));
    let (descr, _) = descr.ok_or("its header names no number type: only plain arrays of numbers can be read")?;
    let fortran = match field("'fortran_order'") {
        Some(f) if f.starts_with("True") => true,
        Some(f) if f.starts_with("False") => false,
        _ => return Err("its header names no order".into()),
    };
    let shape = field("'shape'").and_then(|f| f.strip_prefix('(')).and_then(|f| f.split_once(')'));
    let (shape, _) = shape.ok_or("its header names no shape")?;
    let sizes = shape.split(',').map(str::trim).filter(|n| !n.is_empty()).take(MAX_DIMENSIONS + 1);
    let sizes: Vec<usize> = sizes.map(str::parse).collect::<Result<_, _>>().map_err(|_| "its shape is invalid")?;
    if sizes.len() > MAX_DIMENSIONS {
        return Err(format!("it has more than {MAX_DIMENSIONS} dimensions"));
    }
    let values = numbers(descr, data)?;
    if sizes.iter().try_fold(1_usize, |n, size| n.checked_mul(*size)) != Some(values.len()) {
        return Err(format!("it has {} values, its shape is {sizes:?}", values.len()));
    }
    ArrayD::from_shape_vec(IxDyn(&sizes).set_f(fortran), values).map_err(|e| e.to_string())
}

fn numbers(descr: &str, data: &[u8]) -> Result<Vec<f64>, String> {
    fn each<const N: usize>(data: &[u8], value: fn([u8; N]) -> f64) -> Result<Vec<f64>, String> {
        let (chunks, rest) = data.as_chunks::<N>();
        if rest.is_empty() {
            Ok(chunks.iter().map(|c| value(*c)).collect())
        } else {
            Err("it ends within a number".into())
        }
    }
    match descr {
        "<f8" => each(data, f64::from_le_bytes),
        "<f4" => each(data, |b| f64::from(f32::from_le_bytes(b))),
        "<i8" => each(data, |b| i64::from_le_bytes(b) as f64),
        "<i4" => each(data, |b| f64::from(i32::from_le_bytes(b))),
        "<u4" => each(data, |b| f64::from(u32::from_le_bytes(b))),
        other => Err(format!("it has numbers of type {other}; f4, f8, i4, i8 and u4, little-endian, can be read")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(header: &str, data: &[u8]) -> Vec<u8> {
        let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
        bytes.extend_from_slice(&(header.len() as u16).to_le_bytes());
        bytes.extend_from_slice(header.as_bytes());
        bytes.extend_from_slice(data);
        bytes
    }

    #[test]
    fn every_type_and_both_orders() {
        let header = |descr: &str, fortran: &str| {
            format!("{{'descr': '{descr}', 'fortran_order': {fortran}, 'shape': (2, 3), }}\n")
        };
        let values = [1, 2, 3, 4, 5, 6];
        let data: [(&str, Vec<u8>); 5] = [
            ("<i4", values.iter().flat_map(|v: &i32| v.to_le_bytes()).collect()),
            ("<i8", values.iter().flat_map(|v| i64::from(*v).to_le_bytes()).collect()),
            ("<u4", values.iter().flat_map(|v| v.unsigned_abs().to_le_bytes()).collect()),
            ("<f4", values.iter().flat_map(|v| (*v as f32).to_le_bytes()).collect()),
            ("<f8", values.iter().flat_map(|v| f64::from(*v).to_le_bytes()).collect()),
        ];
        for (descr, data) in data {
            let c = npy(&written(&header(descr, "False"), &data)).unwrap();
            assert_eq!(c, ndarray::array![[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]].into_dyn());
            let fortran = npy(&written(&header(descr, "True"), &data)).unwrap();
            assert_eq!(fortran, ndarray::array![[1.0, 3.0, 5.0], [2.0, 4.0, 6.0]].into_dyn());
        }
    }

    #[test]
    fn headers_that_lie_are_refused() {
        for (header, word) in [
            ("{'descr': '>f8', 'fortran_order': False, 'shape': (1,), }", "type >f8"),
            ("{'descr': [('a', '<f8')], 'fortran_order': False, 'shape': (1,), }", "plain arrays"),
            ("{'descr': '<f8', 'fortran_order': False, 'shape': (18446744073709551615, 9), }", "1 values"),
            ("{'descr': '<f8', 'fortran_order': False, 'shape': (99999999999999999999,), }", "shape is invalid"),
            ("{'descr': '<f8', 'fortran_order': False, 'shape': (1, 1, 1, 1, 1), }", "dimensions"),
            ("{'descr': '<f8', 'shape': (1,), }", "order"),
        ] {
            let reason = npy(&written(header, &[0; 8])).unwrap_err();
            assert!(reason.contains(word), "{header}: {reason}");
        }
        assert!(npy(&written("{'descr': '<f8', 'fortran_order': False, 'shape': (1,), }", &[0; 9])).is_err());
    }
}
