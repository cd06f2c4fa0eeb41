//! The largest picture that is decoded.

/// Larger pictures are refused before memory is allocated.
pub const MAX_SIDE: u32 = 16_384;
pub const MAX_PIXELS: u64 = 50_000_000;

/// Whether a picture of that size is decoded at all.
pub fn is_decoded(width: usize, height: usize) -> bool {
    width.max(height) <= MAX_SIDE as usize && width as u64 * height as u64 <= MAX_PIXELS
}
