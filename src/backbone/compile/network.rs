//! A network that is ready to run.

use std::sync::Arc;

use ::image::RgbImage;
use tract_onnx::tract_hir::internal::*;

use super::fusion::Fusion;

/// A model ready to run: RGB u8 `[1, h, w, 3]` in, one f32 `[1, h, w, c]` per tap out.
#[derive(Debug)]
pub struct Network {
    pub plan: Arc<TypedSimplePlan>,
    /// Height, width and channels of each output.
    pub outputs: Vec<[usize; 3]>,
    pub fusion: Fusion,
    /// Multiplications of one run, about.
    pub work: u64,
}

impl Network {
    /// Runs the model on a picture of its size: the taps' maps, f32 NHWC.
    pub fn run(&self, picture: &RgbImage) -> TractResult<TVec<TValue>> {
        let picture = self::picture(picture)?;
        // What tract's own operators make of a damaged graph must not end the process.
        let run = std::panic::AssertUnwindSafe(|| self.plan.run(tvec!(picture)));
        std::panic::catch_unwind(run).unwrap_or_else(|_| bail!("an operator panicked"))
    }
}

/// A picture as plans take it: RGB u8 `[1, h, w, 3]`.
pub fn picture(picture: &RgbImage) -> TractResult<TValue> {
    let shape = [1, picture.height() as usize, picture.width() as usize, 3];
    Ok(Tensor::from_shape(&shape, picture.as_raw())?.into_tvalue())
}
