//! The demo's scene: a fixed picture with changing light and noise, and an object that passes through.

use ::image::{Rgb, RgbImage};
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

pub const WIDTH: u32 = 320;
pub const HEIGHT: u32 = 240;

/// Draws frames; the same seed draws the same frames.
pub struct Scene {
    still: RgbImage,
    rng: ChaCha8Rng,
}

impl Scene {
    pub fn new(seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        Scene { still: still(&mut rng), rng }
    }

    /// The next frame. `object` is how far the object has come: 0 at the left edge, 1 at the right; None: no object.
    pub fn frame(&mut self, object: Option<f32>) -> RgbImage {
        let mut frame = self.still.clone();
        if let Some(way) = object {
            draw_object(&mut frame, way);
        }
        let gain: f32 = self.rng.random_range(0.85..1.15);
        let tint = [self.rng.random_range(0.97..1.03), 1.0, self.rng.random_range(0.97..1.03)];
        let slope: f32 = self.rng.random_range(-0.06..0.06);
        let rng = &mut self.rng;
        for (x, _, pixel) in frame.enumerate_pixels_mut() {
            let light = gain * (1.0 + slope * (2.0 * x as f32 / WIDTH as f32 - 1.0));
            for (value, tint) in pixel.0.iter_mut().zip(tint) {
                *value = (f32::from(*value) * light * tint + noise(rng)).clamp(0.0, 255.0) as u8;
            }
        }
        frame
    }
}

/// About normal, standard deviation 4: the sum of the four bytes of one draw.
fn noise(rng: &mut ChaCha8Rng) -> f32 {
    let sum: i32 = rng.next_u32().to_le_bytes().iter().map(|b| i32::from(*b)).sum();
    (sum - 510) as f32 / 37.0
}

/// A belt between two rails, with rollers below and a wall behind.
fn still(rng: &mut ChaCha8Rng) -> RgbImage {
    let mut picture = RgbImage::from_fn(WIDTH, HEIGHT, |x, y| {
        let wall = 150 + (y / 8) as u8 + if (x / 40 + y / 24) % 2 == 0 { 8 } else { 0 };
        Rgb([wall, wall - 6, wall - 20])
    });
    let belt = |y: u32| (120..190).contains(&y);
    for (x, y, pixel) in picture.enumerate_pixels_mut() {
        if belt(y) {
            let weave = ((x * 7 + y * 13) % 11) as u8 + rng.random_range(0..10);
            *pixel = Rgb([58 + weave, 60 + weave, 66 + weave]);
        }
        if (114..120).contains(&y) || (190..196).contains(&y) {
            *pixel = Rgb([196, 180, 60]);
        }
    }
    for roller in 0..8 {
        let (cx, cy) = (20 + roller * 40, 215);
        disc(&mut picture, cx, cy, 14, [92, 96, 104]);
        disc(&mut picture, cx, cy, 5, [40, 40, 44]);
    }
    picture
}

/// A red box with a label, standing on the belt.
fn draw_object(frame: &mut RgbImage, way: f32) {
    let (width, height) = (64, 56);
    let left = (way * (WIDTH + width) as f32) as i32 - width as i32;
    for y in 0..height {
        for x in 0..width {
            let label = (16..48).contains(&x) && (16..40).contains(&y);
            let colour = match (label, (x + y) % 6 < 3) {
                (true, true) => [236, 232, 220],
                (true, false) => [30, 30, 40],
                (false, _) => [190, 44 + (y / 2) as u8, 36],
            };
            put(frame, left + x as i32, 122 + y as i32, colour);
        }
    }
}

fn disc(picture: &mut RgbImage, cx: i32, cy: i32, radius: i32, colour: [u8; 3]) {
    for y in -radius..=radius {
        for x in -radius..=radius {
            if x * x + y * y <= radius * radius {
                put(picture, cx + x, cy + y, colour);
            }
        }
    }
}

fn put(picture: &mut RgbImage, x: i32, y: i32, colour: [u8; 3]) {
    if let (Ok(x), Ok(y)) = (u32::try_from(x), u32::try_from(y))
        && let Some(pixel) = picture.get_pixel_mut_checked(x, y)
    {
        *pixel = Rgb(colour);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_seeded_and_the_object_shows() {
        let (mut a, mut b) = (Scene::new(1), Scene::new(1));
        assert_eq!(a.frame(None), b.frame(None));
        let red = |picture: &RgbImage| picture.pixels().filter(|p| p[0] > 120 && p[1] < 100).count();
        assert_eq!(red(&a.frame(None)), 0);
        assert!(red(&a.frame(Some(0.5))) > 1000);
    }
}
