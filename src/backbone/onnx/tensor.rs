//! Constants of an ONNX model: what `TensorProto` says of them, and their elements, which stay in the file, or in the
//! file beside it, until they are asked for.

use std::ops::Range;

use tract_onnx::pb;

use super::wire::{Cursor, MAX_NAME, Value, WireError, limit};

const MAX_RANK: usize = 8;
const MAX_CHUNKS: usize = 65_536;
/// Bytes of one tensor.
const MAX_TENSOR: usize = 1 << 28;

/// The element types that are computed with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DType {
    F32 = 1,
    U8 = 2,
    I8 = 3,
    U16 = 4,
    I16 = 5,
    I32 = 6,
    I64 = 7,
    Bool = 9,
    F64 = 11,
}

impl DType {
    /// The type of that code of `TensorProto`, half precision as single; None for one that nothing computes with.
    pub fn from_code(code: u64) -> Option<DType> {
        use DType::*;
        if Half::from_code(code).is_some() {
            return Some(F32);
        }
        [F32, U8, I8, U16, I16, I32, I64, Bool, F64].into_iter().find(|&t| t as u64 == code)
    }

    /// Bytes of one element.
    pub fn size(self) -> usize {
        match self {
            DType::U8 | DType::I8 | DType::Bool => 1,
            DType::U16 | DType::I16 => 2,
            DType::F32 | DType::I32 => 4,
            DType::I64 | DType::F64 => 8,
        }
    }
}

/// Two bytes that are a real number; read as f32.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Half {
    Ieee,
    Brain,
}

impl Half {
    fn from_code(code: u64) -> Option<Half> {
        match code {
            10 => Some(Half::Ieee),
            16 => Some(Half::Brain),
            _ => None,
        }
    }

    pub(super) fn wide(self, bytes: [u8; 2]) -> f32 {
        match self {
            Half::Ieee => tract_onnx::prelude::f16::from_le_bytes(bytes).to_f32(),
            Half::Brain => f32::from_le_bytes([0, 0, bytes[0], bytes[1]]),
        }
    }
}

/// What to call an element type in a message.
pub fn type_name(code: u64) -> String {
    let name = match code {
        4 => "UINT16",
        5 => "INT16",
        8 => "STRING",
        12 => "UINT32",
        13 => "UINT64",
        14 | 15 => "COMPLEX",
        17..=20 => "FLOAT8",
        21 => "UINT4",
        22 => "INT4",
        23 => "FLOAT4",
        _ => return format!("number {code}"),
    };
    name.into()
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Chunk {
    /// Little-endian elements.
    Plain(Range<u64>),
    /// Packed numbers of `int32_data` and its like.
    Varints(Range<u64>),
    /// One number.
    Number(u64),
    /// Little-endian elements made in memory.
    Owned(Vec<u8>),
    /// Little-endian elements in a file beside the model's.
    External { file: String, range: Range<u64> },
}

/// A constant of the graph.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    pub dtype: DType,
    pub dims: Vec<usize>,
    pub(super) half: Option<Half>,
    pub(super) data: Vec<Chunk>,
}

impl Tensor {
    /// A tensor made in memory from little-endian elements.
    pub fn from_bytes(dtype: DType, dims: Vec<usize>, bytes: Vec<u8>) -> Tensor {
        Tensor { dtype, dims, half: None, data: vec![Chunk::Owned(bytes)] }
    }

    pub fn f32(dims: Vec<usize>, values: &[f32]) -> Tensor {
        Tensor::from_bytes(DType::F32, dims, values.iter().flat_map(|v| v.to_le_bytes()).collect())
    }

    pub fn i32(dims: Vec<usize>, values: &[i32]) -> Tensor {
        Tensor::from_bytes(DType::I32, dims, values.iter().flat_map(|v| v.to_le_bytes()).collect())
    }

    pub fn i64(dims: Vec<usize>, values: &[i64]) -> Tensor {
        Tensor::from_bytes(DType::I64, dims, values.iter().flat_map(|v| v.to_le_bytes()).collect())
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.dims.iter().product()
    }

    #[cfg(any(test, feature = "internals"))]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The file beside the model's that holds the elements.
    pub fn external(&self) -> Option<&str> {
        self.data.iter().find_map(|chunk| match chunk {
            Chunk::External { file, .. } => Some(file.as_str()),
            _ => None,
        })
    }

    /// Reads what a `TensorProto` says, without its elements. `Err` in the pair is the code of a type that nothing
    /// computes with (text, 4 bits).
    pub(super) fn parse(cursor: &mut Cursor, range: Range<u64>) -> Result<(String, Result<Tensor, u64>), WireError> {
        let (mut name, mut code) = (String::new(), 0);
        let mut dims: Vec<u64> = Vec::new();
        let mut data: Vec<Chunk> = Vec::new();
        let mut outside = false;
        let mut external: Vec<(String, String)> = Vec::new();
        cursor.message(range, |c, number, value| {
            limit(&data, "pieces of a tensor", MAX_CHUNKS)?;
            match (number, value) {
                (1, Value::Varint(v)) => {
                    limit(&dims, "dimensions", MAX_RANK)?;
                    dims.push(v);
                }
                (1, Value::Bytes(r)) => {
                    if r.end - r.start > 10 * MAX_RANK as u64 {
                        return Err(WireError::Limit { what: "dimensions", limit: MAX_RANK as u64 });
                    }
                    c.varints(r, |v| dims.push(v))?;
                }
                (2, Value::Varint(v)) => code = v,
                (4, Value::Fixed32(bits)) => data.push(Chunk::Number(bits.into())),
                (10, Value::Fixed64(bits)) => data.push(Chunk::Number(bits)),
                (4 | 9 | 10, Value::Bytes(r)) => data.push(Chunk::Plain(r)),
                (5 | 7 | 11, Value::Varint(v)) => data.push(Chunk::Number(v)),
                (5 | 7 | 11, Value::Bytes(r)) => data.push(Chunk::Varints(r)),
                (8, Value::Bytes(r)) => name = c.string(r, "tensor name", MAX_NAME)?,
                (13, Value::Bytes(r)) => {
                    limit(&external, "entries of external data", MAX_RANK)?;
                    let entry: pb::StringStringEntryProto = c.decode(r, "external data")?;
                    external.push((entry.key, entry.value));
                }
                (14, Value::Varint(1)) => outside = true,
                _ => {}
            }
            Ok(())
        })?;
        let Some(dtype) = DType::from_code(code) else { return Ok((name, Err(code))) };
        let half = Half::from_code(code);
        let size = half.map_or(dtype.size(), |_| 2);
        let sizes: Option<Vec<usize>> = dims.iter().map(|&d| usize::try_from(d).ok()).collect();
        // A dimension of 0 counts as 1, so that no part of the product is larger than the whole.
        let most = sizes.as_ref().and_then(|s| s.iter().try_fold(dtype.size(), |n, &d| n.checked_mul(d.max(1))));
        let (Some(dims), true) = (sizes, most.is_some_and(|n| n <= MAX_TENSOR)) else {
            return Err(WireError::Meaning(format!("tensor {name:?} has an impossible shape {dims:?}")));
        };
        let total = (dims.iter().product::<usize>() * size) as u64;
        let wrong_size = || {
            let text = format!("tensor {name:?} of shape {dims:?} does not have as much data as its shape says");
            WireError::Meaning(text)
        };
        if outside {
            let entry = |key: &str| external.iter().find(|(k, _)| k == key).map(|(_, text)| text.as_str());
            let number = |key: &str, none: u64| entry(key).map_or(Some(none), |text| text.parse().ok());
            let (start, length) = (number("offset", 0), number("length", total));
            let range = start.zip(length).filter(|(_, length)| *length == total);
            let range = range.and_then(|(start, length)| Some(start..start.checked_add(length)?));
            let file = entry("location").unwrap_or_default().to_string();
            data = vec![Chunk::External { file, range: range.ok_or_else(wrong_size)? }];
            return Ok((name, Ok(Tensor { dtype, dims, half, data })));
        }
        let (mut least, mut most) = (0, 0);
        for chunk in &data {
            let (lo, hi) = match chunk {
                Chunk::Plain(r) => (r.end - r.start, r.end - r.start),
                Chunk::Varints(r) => ((r.end - r.start) / 10, (r.end - r.start) * size as u64),
                _ => (size as u64, size as u64),
            };
            least += lo;
            most += hi;
        }
        if total < least || total > most {
            return Err(wrong_size());
        }
        Ok((name, Ok(Tensor { dtype, dims, half, data })))
    }
}
