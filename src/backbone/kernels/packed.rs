//! Weights and bias of a convolution as the tiles of one instruction set read them: packed here, or mapped from a file.

use std::ops::Range;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::error::Error;
use super::isa::Isa;
use super::mapped::Mapped;
use super::pack::{self, Aligned, Taps};
use super::shape::{ConvShape, length};
use super::tile::{Remainder, Table};

/// Panels start at multiples of so many bytes.
pub const ALIGNMENT: usize = 64;

/// Weights and bias of a convolution, packed. Of its shape, channels, kernel and dilation matter.
#[derive(Debug)]
pub struct Packed {
    pub(super) panels: Panels,
    pub(super) addends: Addends,
}

/// `[panel][tap][span / kr][nr][kr]`, at a 64-byte boundary: without a question where they are, as every tile asks.
#[derive(Debug)]
pub(super) struct Panels {
    bytes: &'static [u8],
    _owner: Owner,
}

#[derive(Debug)]
#[allow(dead_code, reason = "they keep the memory")]
enum Owner {
    Own(Aligned),
    Mapped(Arc<Mapped>),
}

impl Panels {
    fn own(aligned: Aligned) -> Panels {
        // SAFETY: the bytes stay where they are and as they are as long as their owner lives, which nothing changes or
        // takes out of here; nobody gets them for longer than `self` lives.
        let bytes = unsafe { std::slice::from_raw_parts(aligned.bytes().as_ptr(), aligned.bytes().len()) };
        Panels { bytes, _owner: Owner::Own(aligned) }
    }

    /// None where the range does not lie in the file.
    fn mapped(mapped: &Arc<Mapped>, range: Range<usize>) -> Option<Panels> {
        let bytes = mapped.bytes().get(range)?;
        // SAFETY: as in `own`.
        let bytes = unsafe { std::slice::from_raw_parts(bytes.as_ptr(), bytes.len()) };
        Some(Panels { bytes, _owner: Owner::Mapped(mapped.clone()) })
    }

    #[inline]
    pub fn bytes(&self) -> &[u8] {
        self.bytes
    }
}

/// What goes with the panels: some kilobytes.
#[derive(Debug, Serialize, Deserialize)]
pub struct Addends {
    /// One per channel of whole panels, with the zero point's share.
    pub(super) bias: Vec<i32>,
    /// A weight is -128.
    pub(super) weight_min: bool,
    remainders: Vec<Remainder>,
    /// Where the remainders of each panel start, and the end; where the kernel does not saturate, 0 alone.
    starts: Vec<usize>,
}

impl Addends {
    /// What a saturating kernel adds to this panel.
    pub(super) fn remainders(&self, panel: usize) -> &[Remainder] {
        match self.starts.get(panel + 1) {
            Some(&end) => &self.remainders[self.starts[panel]..end],
            None => &[],
        }
    }

    /// Whether every remainder is of a panel, and lies within its taps.
    fn fits(&self, table: &Table, n_panels: usize, taps: Taps) -> bool {
        let n_starts = if table.saturates { n_panels + 1 } else { 1 };
        let inside =
            |r: &Remainder| r.tap < taps.count && r.at.checked_add(table.kr).is_some_and(|end| end <= taps.span);
        self.starts.len() == n_starts
            && self.starts.first() == Some(&0)
            && self.starts.last() == Some(&self.remainders.len())
            && self.starts.is_sorted()
            && self.remainders.iter().all(inside)
    }
}

impl Packed {
    /// Packs `weights` (`out_c x in_c x kernel_h x kernel_w`) and folds `x_zero_point` into `bias`, one per output
    /// channel.
    ///
    /// # Errors
    /// There are no weights, or not as many as the shape says.
    pub fn new(isa: Isa, shape: &ConvShape, weights: &[i8], bias: &[i32], x_zero_point: u8) -> Result<Packed, Error> {
        length("weights", weights.len(), shape.weights_len())?;
        length("bias", bias.len(), shape.out_c)?;
        if weights.is_empty() {
            return Err(Error::Shape(format!("it has no weights: {shape:?}")));
        }
        let table = isa.0;
        let mut panels = pack::panels(table, weights, shape);
        let (remainders, starts) = pack::remainders(table, &mut panels, Taps::of(table, shape).1);
        let addends = Addends {
            bias: pack::bias(table, weights, bias, x_zero_point),
            weight_min: weights.contains(&i8::MIN),
            remainders,
            starts,
        };
        Ok(Packed { panels: Panels::own(panels), addends })
    }

    /// Takes panels from `start` of a mapped file, with what [`Packed::parts`] gave beside them.
    ///
    /// # Errors
    /// They are not of that shape, do not lie in the file, or not at a multiple of [`ALIGNMENT`].
    pub fn mapped(
        isa: Isa,
        shape: &ConvShape,
        mapped: &Arc<Mapped>,
        start: usize,
        addends: Addends,
    ) -> Result<Packed, Error> {
        let len = Packed::panels_len(isa, shape);
        let end = start.checked_add(len).filter(|_| start.is_multiple_of(ALIGNMENT));
        let panels = end.and_then(|end| Panels::mapped(mapped, start..end));
        let panels = panels.ok_or_else(|| Error::Shape(format!("no {len} bytes of panels at {start}")))?;
        let packed = Packed { panels, addends };
        packed.check(isa, shape)?;
        Ok(packed)
    }

    /// The panels, and what goes with them.
    pub fn parts(&self) -> (&[u8], &Addends) {
        (self.panels.bytes(), &self.addends)
    }

    /// Bytes of the panels of a shape.
    pub fn panels_len(isa: Isa, shape: &ConvShape) -> usize {
        shape.out_c.div_ceil(isa.0.nr) * Taps::of(isa.0, shape).1.panel_len(isa.0)
    }

    /// Whether the tiles of `isa` find what they read for `shape`.
    pub(super) fn check(&self, isa: Isa, shape: &ConvShape) -> Result<(), Error> {
        let table = isa.0;
        length("packed weights", self.panels.bytes().len(), Packed::panels_len(isa, shape))?;
        length("packed bias", self.addends.bias.len(), shape.out_c.next_multiple_of(table.nr))?;
        match self.addends.fits(table, shape.out_c.div_ceil(table.nr), Taps::of(table, shape).1) {
            true => Ok(()),
            false => Err(Error::Shape("remainders lie outside of the packed weights".into())),
        }
    }
}
