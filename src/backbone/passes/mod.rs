//! Rewrites of a graph, and what they look for, shared by loading and quantizing.
//!
//! | file | does |
//! | --- | --- |
//! | `lower` | the ways in which exporters write an operator become one |
//! | `pads` | a `Pad` goes into the operators behind it |
//! | `redundant` | a rounding that says nothing new disappears |
//! | `input` | the layout and the normalisation of the picture go into the input recipe |
//! | `activations` | operators that compute value by value, and the bounds that they set |
//! | `affine` | operators that scale and shift channels |
//! | `quant` | scale and zero point of maps and constants |
//! | `window` | strides, dilations and pads as a node states them |

pub mod activations;
pub mod affine;
pub mod input;
pub mod lower;
pub mod pads;
pub mod quant;
pub mod redundant;
pub mod window;
