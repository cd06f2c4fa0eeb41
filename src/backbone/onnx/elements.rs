//! The elements of a model's tensors, wherever they lie.

use std::ops::Range;
use std::sync::atomic::Ordering;

use super::model::Model;
use super::source::{Source, external};
use super::tensor::{Chunk, DType, Tensor};
use super::wire::{Cursor, WireError};
use crate::backbone::error::Error;

/// How often a file's tensor data may be read: weights that many nodes share would be unpacked for each of them.
const MAX_READS: u64 = 16;
const FREE_READS: u64 = 64 << 20;

impl Model {
    /// The elements of a tensor, little-endian.
    pub fn read(&self, tensor: &Tensor) -> Result<Vec<u8>, Error> {
        let io = |source| Error::Io { path: self.path.clone(), source };
        let malformed = |e: WireError| match e {
            WireError::Io(source) => io(source),
            e => self.invalid(e.to_string()),
        };
        let size = tensor.half.map_or(tensor.dtype.size(), |_| 2);
        let expected = tensor.len() * size;
        if tensor.data.iter().any(|chunk| !matches!(chunk, Chunk::Owned(_))) {
            let read = self.read.fetch_add(expected as u64, Ordering::Relaxed);
            if read > MAX_READS * self.bytes() + FREE_READS {
                let reason = "its nodes share weights, and read them more than 16 times over; export a plain ResNet";
                return Err(self.unsupported(reason));
            }
        }
        let mut out = Vec::with_capacity(expected);
        let plain = |out: &mut Vec<u8>, source: &Source, range: &Range<u64>| {
            let at = out.len();
            out.resize(at + (range.end - range.start) as usize, 0);
            source.read_at(&mut out[at..], range.start)
        };
        for chunk in &tensor.data {
            match chunk {
                Chunk::Plain(range) => plain(&mut out, &self.source, range).map_err(io)?,
                Chunk::External { file, range } => {
                    let source = external(&self.path, self.folder.as_deref(), file)?;
                    if source.len() < range.end {
                        let reason =
                            format!("{file:?}, which holds the data of its tensors, ends early; copy it again");
                        return Err(self.invalid(reason));
                    }
                    plain(&mut out, &source, range).map_err(io)?;
                }
                Chunk::Varints(range) => Cursor::new(&self.source)
                    .varints(range.clone(), |v| out.extend_from_slice(&v.to_le_bytes()[..size]))
                    .map_err(malformed)?,
                Chunk::Number(v) => out.extend_from_slice(&v.to_le_bytes()[..size]),
                Chunk::Owned(bytes) => out.extend_from_slice(bytes),
            }
        }
        if out.len() != expected {
            let (dims, found) = (&tensor.dims, out.len());
            return Err(self.invalid(format!("a tensor of shape {dims:?} has {found} bytes of data, not {expected}")));
        }
        Ok(match tensor.half {
            Some(half) => out.as_chunks::<2>().0.iter().flat_map(|c| half.wide(*c).to_le_bytes()).collect(),
            None => out,
        })
    }

    /// The elements of a tensor of real numbers.
    pub fn read_f32(&self, tensor: &Tensor) -> Result<Vec<f32>, Error> {
        let bytes = self.read(tensor)?;
        let wide = |c: &[u8]| <[u8; 8]>::try_from(c).map_or(0.0, f64::from_le_bytes) as f32;
        Ok(match tensor.dtype {
            DType::F32 => bytes.as_chunks::<4>().0.iter().map(|c| f32::from_le_bytes(*c)).collect(),
            DType::F64 => bytes.chunks_exact(8).map(wide).collect(),
            other => return Err(self.wrong_type(other, "a float tensor")),
        })
    }

    /// The elements of an integer tensor of any width, as i32 (saturated).
    pub fn read_i32(&self, tensor: &Tensor) -> Result<Vec<i32>, Error> {
        let bytes = self.read(tensor)?;
        let clamp = |v: i64| v.clamp(i32::MIN.into(), i32::MAX.into()) as i32;
        Ok(match tensor.dtype {
            DType::U8 | DType::Bool => bytes.iter().map(|&v| v.into()).collect(),
            DType::I8 => bytes.iter().map(|&v| (v as i8).into()).collect(),
            DType::U16 => bytes.as_chunks::<2>().0.iter().map(|c| u16::from_le_bytes(*c).into()).collect(),
            DType::I16 => bytes.as_chunks::<2>().0.iter().map(|c| i16::from_le_bytes(*c).into()).collect(),
            DType::I32 => bytes.as_chunks::<4>().0.iter().map(|c| i32::from_le_bytes(*c)).collect(),
            DType::I64 => bytes.as_chunks::<8>().0.iter().map(|c| clamp(i64::from_le_bytes(*c))).collect(),
            other => return Err(self.wrong_type(other, "an integer tensor")),
        })
    }

    fn wrong_type(&self, found: DType, wanted: &str) -> Error {
        self.invalid(format!("{found:?} data where {wanted} is needed"))
    }
}
