//! Walks through the segments of a JPEG: where it ends, whether all of its scans are complete, and whether the decoder
//! handles its layout correctly.

use super::codes::Table;
use super::decoder::{DHT, DRI, EOI, MAX_SCANS, SOI, SOS, is_jpeg};
use super::error::Error;
use super::huffman;
use super::scan::{Coding, Scan};

const DNL: u8 = 0xDC;
const LATE_HEIGHT: &str = "its height follows its scan (DNL)";

/// A colour component of the frame.
struct Component {
    id: u8,
    /// Blocks per MCU.
    across: usize,
    down: usize,
    /// The lowest known bit of each coefficient; None: no bit.
    known: [Option<u8>; 64],
    /// Of a progressive frame, as in [`Coding::Ac`]; filled by the first AC scan.
    nonzero: Vec<u64>,
}

/// What the frame header says.
struct Frame {
    progressive: bool,
    width: usize,
    height: usize,
    components: Vec<Component>,
}

/// A walk through a JPEG, segment by segment; a thumbnail within a segment is skipped with it.
pub struct Walk<'a> {
    bytes: &'a [u8],
    at: usize,
    frame: Option<Frame>,
    tables: Tables,
    restart_interval: usize,
    scans: usize,
    /// Where the first scan's header is, if no Huffman table precedes it.
    pub without_tables: Option<usize>,
}

/// The only scan of a frame: where its header and its data begin.
pub struct OnlyScan {
    pub header: usize,
    pub data: usize,
    pub mcus: usize,
    /// MCUs; 0: there are no restart markers.
    pub restart_interval: usize,
}

impl<'a> Walk<'a> {
    /// Walks to the first scan.
    ///
    /// # Errors
    /// [`Error::OtherSize`] where `wanted` refuses width and height; what is damaged, and what the decoder cannot read.
    pub fn begin(bytes: &'a [u8], wanted: impl Fn(usize, usize) -> bool) -> Result<Walk<'a>, Error> {
        if !is_jpeg(bytes) {
            return Err(Error::NoStart);
        }
        let (at, frame, tables) = (2, None, Tables::default());
        let mut walk = Walk { bytes, at, frame, tables, restart_interval: 0, scans: 0, without_tables: None };
        loop {
            let (marker, header) = walk.marker()?;
            match marker {
                SOS if walk.frame.is_some() => {
                    walk.at = header;
                    if walk.tables.is_empty() {
                        walk.without_tables = Some(header);
                        walk.tables.read(&huffman::segment()[4..])?;
                    }
                    return Ok(walk);
                }
                SOS | EOI => return Err(Error::damaged("it has no frame header")),
                0xC0..=0xC2 => {
                    let frame = Frame::read(walk.segment()?, marker == 0xC2)?;
                    let (width, height) = (frame.width, frame.height);
                    if !wanted(width, height) {
                        return Err(Error::OtherSize { width, height });
                    }
                    if walk.frame.replace(frame).is_some() {
                        return Err(Error::damaged("it has two frame headers"));
                    }
                }
                0xC3 | 0xC5..=0xC7 => return Err(Error::layout("it is lossless or hierarchical")),
                0xC9..=0xCB | 0xCD..=0xCF => return Err(Error::layout("it is coded arithmetically")),
                _ => walk.other(marker)?,
            }
        }
    }

    #[cfg(test)]
    pub fn header(&self) -> usize {
        self.at
    }

    /// Width and height; both are known from the first scan on.
    pub fn size(&self) -> [u32; 2] {
        self.frame.as_ref().map_or([0; 2], |frame| [frame.width as u32, frame.height as u32])
    }

    pub fn is_progressive(&self) -> bool {
        self.frame.as_ref().is_some_and(|frame| frame.progressive)
    }

    /// The next scan, if it has all components of a sequential frame.
    pub fn only_scan(&self) -> Option<OnlyScan> {
        let frame = self.frame.as_ref().filter(|frame| !frame.progressive)?;
        let [high, low, components, ..] = *self.bytes.get(self.at + 2..)? else { return None };
        let most = match &frame.components[..] {
            [_] => (1, 1),
            _ => frame.most(),
        };
        (usize::from(components) == frame.components.len()).then(|| OnlyScan {
            header: self.at,
            data: self.at + 2 + usize::from(u16::from_be_bytes([high, low])),
            mcus: frame.width.div_ceil(8 * most.0) * frame.height.div_ceil(8 * most.1),
            restart_interval: self.restart_interval,
        })
    }

    /// Walks to the end and returns its position.
    pub fn finish(mut self) -> Result<usize, Error> {
        let Some(mut frame) = self.frame.take() else { return Err(Error::damaged("it has no frame header")) };
        loop {
            match self.marker()?.0 {
                SOS => {
                    self.scans += 1;
                    if self.scans > MAX_SCANS {
                        return Err(Error::damaged("it has too many scans"));
                    }
                    let header = self.segment()?;
                    let scan = frame.scan(header, &self.tables, self.restart_interval)?;
                    self.at += scan.walk(&self.bytes[self.at..])?;
                }
                EOI => return frame.is_complete().map(|()| self.at),
                // The next frame began before this one's end.
                SOI => return Err(Error::NoEnd),
                0xC0..=0xC3 | 0xC5..=0xCF => return Err(Error::damaged("it has two frame headers")),
                marker => self.other(marker)?,
            }
        }
    }

    /// The next marker and its position.
    fn marker(&mut self) -> Result<(u8, usize), Error> {
        loop {
            let skipped = self.bytes.get(self.at..).and_then(|rest| rest.iter().position(|&byte| byte == 0xFF));
            let header = self.at + skipped.ok_or(Error::NoEnd)?;
            match *self.bytes.get(header + 1).ok_or(Error::NoEnd)? {
                0xFF => self.at = header + 1,
                0x00 | 0x01 | 0xD0..=0xD7 => self.at = header + 2,
                marker => {
                    self.at = header + 2;
                    return Ok((marker, header));
                }
            }
        }
    }

    /// The body of the segment after its marker.
    fn segment(&mut self) -> Result<&'a [u8], Error> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let (length, _) = rest.split_first_chunk().ok_or(Error::NoEnd)?;
        let length = usize::from(u16::from_be_bytes(*length)).max(2);
        self.at += length;
        rest.get(2..length).ok_or(Error::NoEnd)
    }

    fn other(&mut self, marker: u8) -> Result<(), Error> {
        if marker == SOI {
            return Ok(());
        }
        let body = self.segment()?;
        match marker {
            DHT => self.tables.read(body),
            DRI => {
                self.restart_interval = usize::from(word(body, 0)?);
                Ok(())
            }
            DNL => Err(Error::layout(LATE_HEIGHT)),
            _ => Ok(()),
        }
    }
}

fn byte(body: &[u8], at: usize) -> Result<u8, Error> {
    body.get(at).copied().ok_or(Error::damaged("a segment is too short"))
}

fn word(body: &[u8], at: usize) -> Result<u16, Error> {
    Ok(u16::from_be_bytes([byte(body, at)?, byte(body, at + 1)?]))
}

/// DC and AC tables by their number.
#[derive(Default)]
struct Tables([[Option<Table>; 4]; 2]);

impl Tables {
    fn is_empty(&self) -> bool {
        self.0.iter().flatten().all(Option::is_none)
    }

    /// Reads a DHT segment.
    fn read(&mut self, mut body: &[u8]) -> Result<(), Error> {
        while let Some((number, rest)) = body.split_first() {
            let (lengths, rest) =
                rest.split_first_chunk::<16>().ok_or(Error::damaged("a Huffman table is cut short"))?;
            let count = lengths.iter().map(|count| usize::from(*count)).sum();
            let (symbols, rest) = rest.split_at_checked(count).ok_or(Error::damaged("a Huffman table is cut short"))?;
            let (class, number) = (usize::from(number >> 4), usize::from(number & 15));
            let slot = self.0.get_mut(class).and_then(|tables| tables.get_mut(number));
            *slot.ok_or(Error::damaged("a Huffman table has no valid number"))? =
                Some(Table::new(lengths, symbols, class == 1)?);
            body = rest;
        }
        Ok(())
    }

    fn get(&self, class: usize, number: u8) -> Result<&Table, Error> {
        let table = self.0[class].get(usize::from(number)).and_then(Option::as_ref);
        table.ok_or(Error::damaged("a scan's Huffman table is missing"))
    }
}

impl Frame {
    /// Reads the body of SOF0, SOF1 or SOF2.
    fn read(body: &[u8], progressive: bool) -> Result<Frame, Error> {
        if byte(body, 0)? != 8 {
            return Err(Error::layout("it has more than 8 bits per sample"));
        }
        let (height, width) = (usize::from(word(body, 1)?), usize::from(word(body, 3)?));
        if height == 0 {
            return Err(Error::layout(LATE_HEIGHT));
        }
        let mut components = Vec::new();
        for at in (6..).step_by(3).take(usize::from(byte(body, 5)?)) {
            let (id, sampling) = (byte(body, at)?, byte(body, at + 1)?);
            let (across, down) = (usize::from(sampling >> 4), usize::from(sampling & 15));
            if ![across, down].iter().all(|blocks| (1..=4).contains(blocks)) {
                return Err(Error::damaged("a component has invalid sampling factors"));
            }
            components.push(Component { id, across, down, known: [None; 64], nonzero: Vec::new() });
        }
        let frame = Frame { progressive, width, height, components };
        let (across, _) = frame.most();
        match &frame.components[..] {
            [] => Err(Error::damaged("it has no components")),
            [first, ..] if first.across < across => Err(Error::layout("its chroma is finer than its luma")),
            _ if width == 0 => Err(Error::damaged("it has no columns")),
            _ => Ok(frame),
        }
    }

    /// The maximum of the components' blocks per MCU, across and down.
    fn most(&self) -> (usize, usize) {
        let most = |blocks: fn(&Component) -> usize| self.components.iter().map(blocks).max().unwrap_or(1);
        (most(|component| component.across), most(|component| component.down))
    }

    /// Reads the body of SOS.
    fn scan<'a>(&'a mut self, body: &[u8], tables: &'a Tables, restart_interval: usize) -> Result<Scan<'a>, Error> {
        let count = usize::from(byte(body, 0)?);
        let (most_across, most_down) = self.most();
        let mut chosen = Vec::new();
        for at in (1..).step_by(2).take(count) {
            let (id, numbers) = (byte(body, at)?, byte(body, at + 1)?);
            let index = self.components.iter().position(|component| component.id == id);
            chosen.push((index.ok_or(Error::damaged("a scan has an unknown component"))?, numbers >> 4, numbers & 15));
        }
        let [start, end, bits] = [0, 1, 2].map(|at| byte(body, 1 + 2 * count + at));
        let (start, end, bits) = (start?, end?, bits?);
        let (high, low) = (bits >> 4, bits & 15);
        let of_all = chosen.len() == self.components.len();
        let &[(first, _, ac), ref more @ ..] = &chosen[..] else {
            return Err(Error::damaged("a scan has no components"));
        };

        // A component in a scan of its own has no blocks beyond the picture's edge.
        let blocks = |side: usize, own: usize, most: usize| (side * own).div_ceil(most * 8);
        let (across, down) = match more {
            [] => {
                let component = &self.components[first];
                (blocks(self.width, component.across, most_across), blocks(self.height, component.down, most_down))
            }
            _ => (blocks(self.width, 1, most_across), blocks(self.height, 1, most_down)),
        };
        let mcus = across * down;
        let band = if self.progressive { start..=end } else { 0..=63 };
        let is_valid = if self.progressive { start <= end && end < 64 && low < 14 } else { true };
        let is_valid = is_valid && (start > 0 || end == 0 || !self.progressive) && (start == 0 || more.is_empty());
        if !is_valid {
            return Err(Error::damaged("a scan's header is invalid"));
        }
        let (before, after) = if self.progressive { ((high > 0).then_some(high), low) } else { (None, 0) };
        for &(index, ..) in &chosen {
            for known in &mut self.components[index].known[usize::from(*band.start())..=usize::from(*band.end())] {
                if *known != before || before.is_some_and(|before| before != after + 1) {
                    return Err(Error::damaged("its scans are out of order, or one is missing"));
                }
                *known = Some(after);
            }
        }
        if !self.progressive && !of_all {
            // The decoder's rows of MCUs are those of the whole frame.
            let in_order = self.components[..first].iter().all(|component| component.known[0].is_some());
            let plain =
                |&(index, ..): &(usize, u8, u8)| (self.components[index].across, self.components[index].down) == (1, 1);
            let rows = restart_interval.is_multiple_of(across) || across.is_multiple_of(restart_interval);
            let plain = more.is_empty() || chosen.iter().all(plain);
            if !in_order || !plain || most_down > 1 || !rows {
                return Err(Error::layout("its components have scans of their own (not interleaved)"));
            }
        }

        let blocks = |index: usize| match more {
            [] => 1,
            _ => self.components[index].across * self.components[index].down,
        };
        let coding = match (self.progressive, start, high) {
            (false, ..) => {
                let mut coded = Vec::new();
                for &(index, dc, ac) in &chosen {
                    coded.resize(coded.len() + blocks(index), (tables.get(0, dc)?, tables.get(1, ac)?));
                }
                Coding::Sequential(coded)
            }
            (true, 0, 0) => {
                let mut coded = Vec::new();
                for &(index, dc, _) in &chosen {
                    coded.resize(coded.len() + blocks(index), tables.get(0, dc)?);
                }
                Coding::DcFirst(coded)
            }
            (true, 0, _) => Coding::DcRefine(chosen.iter().map(|&(index, ..)| blocks(index) as u32).sum()),
            (true, ..) => {
                let nonzero = &mut self.components[first].nonzero;
                nonzero.resize(mcus, 0);
                let band = [u32::from(start), u32::from(end)];
                Coding::Ac { table: tables.get(1, ac)?, band, refine: high > 0, nonzero }
            }
        };
        Ok(Scan { coding, mcus, restart_interval })
    }

    /// Fails unless every bit of every coefficient has been read.
    fn is_complete(&self) -> Result<(), Error> {
        let whole = |component: &Component| component.known.iter().all(|known| *known == Some(0));
        match self.components.iter().all(whole) {
            true => Ok(()),
            false => Err(Error::damaged("its last scans are missing")),
        }
    }
}
