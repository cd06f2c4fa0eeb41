//! The bits of a scan and the Huffman codes in them (ITU-T T.81, annexes C and F), without the values.

use super::error::Error;

/// Bits of a code that one table lookup covers.
const LOOK: u32 = 11;
/// Symbols of AC tables: end of block, and sixteen zeros.
const EOB: u8 = 0x00;
const ZRL: u8 = 0xF0;

/// Bits of a segment of a scan, without stuffing. The end is followed by ones, which are not a code.
pub struct Bits<'a> {
    bytes: &'a [u8],
    /// The next byte that is not in `held` yet; may be beyond the end.
    at: usize,
    /// The next bits, from the highest; bits below the `count` valid ones are repeated by the next refill.
    held: u64,
    count: u32,
}

impl<'a> Bits<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Bits { bytes, at: 0, held: 0, count: 0 }
    }

    /// Makes at least 56 bits ready.
    #[inline(always)]
    fn refill(&mut self) {
        let next = match self.bytes.get(self.at..).and_then(<[u8]>::first_chunk::<8>) {
            Some(eight) => u64::from_be_bytes(*eight),
            None => self.last_bytes(),
        };
        self.held |= next >> self.count;
        self.at += (63 - self.count as usize) >> 3;
        self.count |= 56;
    }

    #[cold]
    fn last_bytes(&self) -> u64 {
        let mut eight = [0xFF; 8];
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        eight[..rest.len()].copy_from_slice(rest);
        u64::from_be_bytes(eight)
    }

    #[inline(always)]
    fn want(&mut self, bits: u32) {
        if self.count < bits {
            self.refill();
        }
    }

    #[inline(always)]
    fn drop(&mut self, bits: u32) {
        self.held <<= bits;
        self.count -= bits;
    }

    /// Drops up to 64 bits.
    pub fn skip(&mut self, bits: u32) {
        for part in [bits / 2, bits - bits / 2] {
            self.want(part);
            self.drop(part);
        }
    }

    /// The value of up to 16 bits.
    pub fn take(&mut self, bits: u32) -> u32 {
        self.want(16);
        let value = (self.held >> 48) as u32 >> (16 - bits);
        self.drop(bits);
        value
    }

    /// The number of bits consumed.
    fn taken(&self) -> usize {
        self.at * 8 - self.count as usize
    }

    /// Whether more bits were consumed than there are.
    pub fn overran(&self) -> bool {
        self.taken() > self.bytes.len() * 8
    }

    /// The whole bytes that were not consumed.
    pub fn rest(&self) -> &'a [u8] {
        self.bytes.get(self.taken().div_ceil(8)..).unwrap_or_default()
    }
}

/// A Huffman table.
#[derive(Debug, Clone)]
pub struct Table {
    /// By the next [`LOOK`] bits: length of the code and its symbol; length 0 where the code is longer.
    short: Box<[(u8, u8); 1 << LOOK]>,
    /// Of an AC table, by the next [`LOOK`] bits: all complete symbols in them together, packed by [`Run`].
    runs: Box<[u16; 1 << LOOK]>,
    /// By length: the end of its codes, left-aligned in 16 bits; and the offset from a code to the index of its symbol.
    limits: [u32; 17],
    offsets: [i32; 17],
    symbols: Vec<u8>,
}

/// Symbols with the bits of their values: the bits they consume, the coefficients they fill (an end of block counts as
/// one), and whether the block ends.
struct Run;

impl Run {
    fn pack(bits: u32, places: u32, ends: bool) -> u16 {
        (bits << 8 | places << 1 | u32::from(ends)) as u16
    }
}

impl Table {
    /// From the counts of codes by length in a DHT segment, and its symbols.
    pub fn new(lengths: &[u8; 16], symbols: &[u8], is_ac: bool) -> Result<Table, Error> {
        let mut table = Table {
            short: Box::new([(0, 0); 1 << LOOK]),
            runs: Box::new([0; 1 << LOOK]),
            limits: [0; 17],
            offsets: [0; 17],
            symbols: symbols.to_vec(),
        };
        let (mut code, mut place) = (0_u32, 0);
        for length in 1..=16_u32 {
            let count = u32::from(lengths[length as usize - 1]);
            // The code of all ones is not allowed.
            if code + count >= 1 << length && count > 0 {
                return Err(Error::damaged("a Huffman table has too many codes"));
            }
            table.offsets[length as usize] = place as i32 - code as i32;
            if length <= LOOK {
                for (code, &symbol) in (code..code + count).zip(&symbols[place..]) {
                    let first = (code << (LOOK - length)) as usize;
                    table.short[first..first + (1 << (LOOK - length))].fill((length as u8, symbol));
                }
            }
            code += count;
            place += count as usize;
            table.limits[length as usize] = code << (16 - length);
            code <<= 1;
        }
        if is_ac {
            table.fill_runs();
        }
        Ok(table)
    }

    fn fill_runs(&mut self) {
        for look in 0..1 << LOOK {
            let (mut bits, mut places, mut ends) = (0, 0, false);
            while !ends {
                let (length, symbol) = self.short[(look << bits) & ((1 << LOOK) - 1)];
                let (length, zeros, size) = (u32::from(length), u32::from(symbol >> 4), u32::from(symbol & 15));
                let whole = length > 0 && bits + length + size <= LOOK;
                if !whole || (size == 0 && symbol != EOB && symbol != ZRL) {
                    break;
                }
                ends = symbol == EOB;
                bits += length + size;
                places += zeros + 1;
            }
            self.runs[look] = Run::pack(bits, places, ends);
        }
    }

    /// The next symbol; consumes at most 16 of the bits in `held`.
    #[inline(always)]
    fn ready_symbol(&self, bits: &mut Bits) -> Option<u8> {
        let (length, symbol) = self.short[(bits.held >> (64 - LOOK)) as usize];
        if length > 0 {
            bits.drop(u32::from(length));
            return Some(symbol);
        }
        self.long_symbol(bits)
    }

    fn long_symbol(&self, bits: &mut Bits) -> Option<u8> {
        let next = (bits.held >> 48) as u32;
        let length = (LOOK + 1..=16).find(|&length| next < self.limits[length as usize])?;
        let place = (next >> (16 - length)) as i32 + self.offsets[length as usize];
        bits.drop(length);
        self.symbols.get(place as usize).copied()
    }

    /// The next symbol; None where there is no code.
    pub fn symbol(&self, bits: &mut Bits) -> Option<u8> {
        bits.want(32);
        self.ready_symbol(bits)
    }

    /// Takes a DC difference.
    #[inline(always)]
    pub fn take_dc(&self, bits: &mut Bits) -> Option<()> {
        bits.want(32);
        let size = self.ready_symbol(bits).filter(|size| *size < 16)?;
        bits.drop(u32::from(size));
        Some(())
    }

    /// Takes the AC coefficients of a block of a sequential scan.
    #[inline(always)]
    pub fn take_block(&self, bits: &mut Bits) -> Option<()> {
        let mut place = 1;
        while place < 64 {
            bits.want(32);
            let run = u32::from(self.runs[(bits.held >> (64 - LOOK)) as usize]);
            let (taken, behind) = (run >> 8, place + (run >> 1 & 127));
            // Beyond 64 the block ends within the run.
            if taken > 0 && behind <= 64 {
                bits.drop(taken);
                if run & 1 == 1 {
                    return Some(());
                }
                place = behind;
                continue;
            }
            let symbol = self.ready_symbol(bits)?;
            let size = u32::from(symbol & 15);
            match symbol {
                EOB => return Some(()),
                _ if size == 0 && symbol != ZRL => return None,
                _ => place += u32::from(symbol >> 4) + 1,
            }
            if place > 64 {
                return None;
            }
            bits.drop(size);
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_are_counted_to_the_last_one() {
        let bytes: Vec<u8> = (0..40).collect();
        for step in 1..=64 {
            let mut bits = Bits::new(&bytes);
            for taken in (step..=320).step_by(step as usize) {
                bits.skip(step);
                assert_eq!((bits.taken(), bits.overran()), (taken as usize, false));
                assert_eq!(bits.rest(), &bytes[(taken as usize).div_ceil(8)..]);
            }
            bits.skip(64);
            assert!(bits.overran() && bits.rest().is_empty());
        }
        let mut bits = Bits::new(&[0b1010_0000, 0b0001_1111, 0xFF]);
        assert_eq!([bits.take(3), bits.take(0), bits.take(13)], [5, 0, 31]);
        assert_eq!((bits.take(8), bits.take(16), bits.overran()), (0xFF, 0xFFFF, true));
    }

    #[test]
    fn codes_of_every_length_are_found() {
        // One code a length: 0, 10, 110, ...
        let table = Table::new(&[1; 16], &(1..=16).collect::<Vec<_>>(), false).unwrap();
        for length in 1..=16_u32 {
            let code = ((1_u32 << 16) - (1 << (17 - length))) as u16;
            assert_eq!(table.symbol(&mut Bits::new(&code.to_be_bytes())), Some(length as u8), "{length}");
        }
        assert_eq!(table.symbol(&mut Bits::new(&[])), None);
        let mut lengths = [0; 16];
        lengths[1] = 4;
        assert!(Table::new(&lengths, &[0; 4], false).is_err());
    }
}
