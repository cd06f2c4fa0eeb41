//! The protobuf wire format, read field by field from a file or from bytes.
//!
//! prost decodes a message as a whole: it would hold all weights in memory, and each byte of a hostile file could become
//! hundreds. Here a field is a place in the source until it is asked for, and all lists are limited. Small messages are
//! left to prost.

use std::io;
use std::ops::Range;

use prost::Message;

use super::source::Source;

const CHUNK: usize = 32 * 1024;

/// What is read beside the data of tensors. A ResNet-152 has a tenth of it.
const MAX_FIELDS: u64 = 1_000_000;
const MAX_TEXT: u64 = 32 << 20;
/// Bytes of a message that prost decodes.
pub(super) const MAX_MESSAGE: u64 = 64 << 10;

/// Why bytes are not the protobuf that was expected.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("at byte {at}: {what}")]
    Malformed { at: u64, what: &'static str },
    #[error("{what}: more than {limit}")]
    Limit { what: &'static str, limit: u64 },
    #[error("{0}")]
    Meaning(String),
}

/// The value of one field. `Bytes` is a place in the source, not yet read.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    Varint(u64),
    Fixed64(u64),
    Bytes(Range<u64>),
    Fixed32(u32),
}

/// A place in a source from which fields are read one after another.
pub struct Cursor<'a> {
    source: &'a Source,
    at: u64,
    buf: Vec<u8>,
    buf_at: u64,
    /// Fields and bytes of text that were taken.
    fields: u64,
    text: u64,
}

impl<'a> Cursor<'a> {
    pub fn new(source: &'a Source) -> Self {
        Cursor { source, at: 0, buf: Vec::new(), buf_at: 0, fields: 0, text: 0 }
    }

    fn malformed(&self, what: &'static str) -> WireError {
        WireError::Malformed { at: self.at, what }
    }

    fn byte(&mut self, end: u64) -> Result<u8, WireError> {
        if self.at >= end {
            return Err(self.malformed("a value runs past the end of what holds it"));
        }
        let inside = self.at.checked_sub(self.buf_at).filter(|&i| i < self.buf.len() as u64);
        let i = match inside {
            Some(i) => i as usize,
            None => {
                let n = (self.source.len().saturating_sub(self.at)).min(CHUNK as u64) as usize;
                if n == 0 {
                    return Err(self.malformed("the file ends early"));
                }
                self.buf.resize(n, 0);
                self.source.read_at(&mut self.buf, self.at)?;
                self.buf_at = self.at;
                0
            }
        };
        self.at += 1;
        Ok(self.buf[i])
    }

    pub fn varint(&mut self, end: u64) -> Result<u64, WireError> {
        let mut value = 0u64;
        for shift in (0..70).step_by(7) {
            let byte = self.byte(end)?;
            value |= u64::from(byte & 0x7f).checked_shl(shift).unwrap_or(0);
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(self.malformed("a number of more than ten bytes"))
    }

    fn fixed(&mut self, n: u32, end: u64) -> Result<u64, WireError> {
        let mut value = 0;
        for i in 0..n {
            value |= u64::from(self.byte(end)?) << (8 * i);
        }
        Ok(value)
    }

    /// The next field before `end`, None at `end`. The cursor then stands behind the field.
    pub fn field(&mut self, end: u64) -> Result<Option<(u64, Value)>, WireError> {
        if self.at >= end {
            return Ok(None);
        }
        let key = self.varint(end)?;
        let value = match key & 7 {
            0 => Value::Varint(self.varint(end)?),
            1 => Value::Fixed64(self.fixed(8, end)?),
            2 => {
                let len = self.varint(end)?;
                let stop = self.at.checked_add(len).filter(|&stop| stop <= end);
                let stop = stop.ok_or_else(|| self.malformed("a length runs past the end of what holds it"))?;
                let start = std::mem::replace(&mut self.at, stop);
                Value::Bytes(start..stop)
            }
            5 => Value::Fixed32(self.fixed(4, end)? as u32),
            _ => return Err(self.malformed("an unknown wire type")),
        };
        if key >> 3 == 0 {
            return Err(self.malformed("field number 0"));
        }
        self.fields += 1;
        if self.fields > MAX_FIELDS {
            return Err(WireError::Limit { what: "fields", limit: MAX_FIELDS });
        }
        Ok(Some((key >> 3, value)))
    }

    /// Calls `each` for every field of the message in `range`.
    pub fn message(
        &mut self,
        range: Range<u64>,
        mut each: impl FnMut(&mut Self, u64, Value) -> Result<(), WireError>,
    ) -> Result<(), WireError> {
        self.at = range.start;
        while let Some((number, value)) = self.field(range.end)? {
            let behind = self.at;
            each(self, number, value)?;
            self.at = behind;
        }
        Ok(())
    }

    /// The bytes of a field, refused if longer than `limit`.
    pub fn bytes(&mut self, range: Range<u64>, what: &'static str, limit: u64) -> Result<Vec<u8>, WireError> {
        let len = range.end - range.start;
        if len > limit {
            return Err(WireError::Limit { what, limit });
        }
        self.text += len;
        if self.text > MAX_TEXT {
            return Err(WireError::Limit { what: "bytes of text", limit: MAX_TEXT });
        }
        let mut bytes = vec![0; len as usize];
        self.source.read_at(&mut bytes, range.start)?;
        Ok(bytes)
    }

    /// A string field; bytes that are not UTF-8 are an error.
    pub fn string(&mut self, range: Range<u64>, what: &'static str, limit: u64) -> Result<String, WireError> {
        let at = range.start;
        String::from_utf8(self.bytes(range, what, limit)?)
            .map_err(|_| WireError::Malformed { at, what: "a string that is not UTF-8" })
    }

    /// A message as a whole, for those that are small and hold neither tensors nor nodes.
    pub fn decode<M: Message + Default>(&mut self, range: Range<u64>, what: &'static str) -> Result<M, WireError> {
        let bytes = self.bytes(range, what, MAX_MESSAGE)?;
        M::decode(bytes.as_slice()).map_err(|error| WireError::Meaning(format!("{what}: {error}")))
    }

    /// Calls `each` for every number of a packed field.
    pub fn varints(&mut self, range: Range<u64>, mut each: impl FnMut(u64)) -> Result<(), WireError> {
        self.at = range.start;
        while self.at < range.end {
            each(self.varint(range.end)?);
        }
        Ok(())
    }
}

pub(super) const MAX_NAME: u64 = 4096;

/// One more entry of a list, if it may have one.
pub(super) fn limit<T>(list: &[T], what: &'static str, limit: usize) -> Result<(), WireError> {
    if list.len() >= limit { Err(WireError::Limit { what, limit: limit as u64 }) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_every_wire_type() {
        let bytes = vec![0x08, 0x96, 0x01, 0x12, 2, b'h', b'i', 0x1d, 1, 0, 0, 0, 0x21, 2, 0, 0, 0, 0, 0, 0, 0];
        let source = Source::Bytes(bytes.into());
        let mut seen = Vec::new();
        let mut cursor = Cursor::new(&source);
        cursor
            .message(0..source.len(), |_, number, value| {
                seen.push((number, value));
                Ok(())
            })
            .unwrap();
        let expected =
            [(1, Value::Varint(150)), (2, Value::Bytes(5..7)), (3, Value::Fixed32(1)), (4, Value::Fixed64(2))];
        assert_eq!(seen, expected);
        assert_eq!(cursor.string(5..7, "text", 2).unwrap(), "hi");
        assert!(cursor.string(5..7, "text", 1).is_err());
    }

    #[test]
    fn lengths_beyond_the_end_are_errors() {
        for bytes in [vec![0x12, 3, b'a', b'b'], vec![0x12], vec![0x08], vec![0x80; 11], vec![0x0b], vec![0x00, 0]] {
            let source = Source::Bytes(bytes.into());
            assert!(Cursor::new(&source).message(0..source.len(), |_, _, _| Ok(())).is_err(), "{source:?}");
        }
    }
}
