//! Int8 kernels per instruction set: convolution with its epilogue fused, pooling, table look-up.
//!
//! Activations are `u8`, NHWC, one picture (batch 1); weights are `s8` with zero point 0. Accumulators are `i32` and
//! wrap. Rounding follows ONNX `QLinearConv` as MLAS computes it: the accumulator (bias included) becomes `f32`, is
//! multiplied by the scale, clamped in float, rounded half to even, and the zero point is added. Every instruction
//! set gives the same bytes as `scalar`.
//!
//! ```
//! use outlierd::internals::backbone::kernels::{Conv, ConvShape, Epilogue, Isa, OutputMut, Pool, Scratch};
//!
//! let shape = ConvShape { in_h: 4, in_w: 4, in_c: 8, out_c: 16, ..ConvShape::default() };
//! let weights = vec![1i8; 16 * 8];
//! let epilogue = Epilogue::new(vec![0.25; 16], 0, 0, 255);
//! let conv = Conv::new(Isa::detect()?, &shape, &weights, &[0; 16], 0, epilogue)?;
//! let mut out = vec![0u8; 4 * 4 * 16];
//! conv.run(&Pool::new(1), &mut Scratch::default(), &[2u8; 4 * 4 * 8], None, OutputMut::U8(&mut out))?;
//! assert!(out.iter().all(|&y| y == 4));
//! # Ok::<(), outlierd::internals::backbone::kernels::Error>(())
//! ```

#[cfg(target_arch = "aarch64")]
mod aarch64_dotprod;
#[cfg(target_arch = "aarch64")]
mod aarch64_epilogue;
#[cfg(target_arch = "aarch64")]
mod aarch64_neon;
#[cfg(target_arch = "arm")]
mod armv7;
mod conv;
mod error;
mod isa;
mod mapped;
mod maps;
mod pack;
mod packed;
mod partition;
mod pool;
mod scalar;
mod shape;
#[cfg(test)]
mod tests;
mod tile;
mod walk;
#[cfg(target_arch = "x86_64")]
mod x86_avx2;
#[cfg(target_arch = "x86_64")]
mod x86_avx512vnni;
#[cfg(target_arch = "x86_64")]
mod x86_avxvnni;
#[cfg(target_arch = "x86_64")]
mod x86_ymm;

pub use conv::{Conv, Scratch};
pub use error::Error;
pub use isa::Isa;
pub use mapped::Mapped;
pub use maps::{MaxPool, average_pool_f32, lut_u8, max_pool_f32, quantize_f32};
pub use packed::{ALIGNMENT, Addends, Packed};
pub use pool::Pool;
pub use shape::{ConvShape, Epilogue, OutputMut, Residual};
