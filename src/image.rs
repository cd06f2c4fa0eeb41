//! From pictures to network inputs: geometry (crop, resize) and the [`InputRecipe`].

mod depth;
mod encoded;
mod error;
pub mod jpeg;
pub mod limits;
pub mod mask;

pub use encoded::{MAX_BYTES, bytes, exif, is_picture};
pub use error::Error;
pub use limits::MAX_SIDE;

use std::path::Path;

use ::image::metadata::Orientation;
use ::image::{DynamicImage, RgbImage};
use fast_image_resize as fir;
use fast_image_resize::pixels::U8x3;

/// Order of the colour channels in the network's input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChannelOrder {
    Rgb,
    Bgr,
}

/// How a picture of any shape becomes the network's square.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Geometry {
    /// Resize both sides to the input size, whatever that does to the aspect ratio.
    Stretch,
    /// Resize the short side to `short_side`, then crop the centre.
    Crop { short_side: u32 },
}

/// The name of a geometry, before the network's input size is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resize {
    Stretch,
    Crop,
}

impl std::str::FromStr for Resize {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "stretch" => Ok(Resize::Stretch),
            "crop" => Ok(Resize::Crop),
            _ => Err(format!("unknown geometry '{name}': use stretch or crop")),
        }
    }
}

/// What a network expects of its input: size, channel order, mean, scale, geometry.
///
/// A value `v` (0 to 255) of channel `c` becomes `(v - mean[c]) / std[c]`; `mean` and `std` are in units of
/// 0 to 255 and in the network's channel order.
#[derive(Debug, Clone, PartialEq)]
pub struct InputRecipe {
    pub width: u32,
    pub height: u32,
    pub order: ChannelOrder,
    pub mean: [f32; 3],
    pub std: [f32; 3],
    pub geometry: Geometry,
}

/// A recipe and its name.
type Known = (&'static str, fn() -> InputRecipe);

impl InputRecipe {
    const KNOWN: [Known; 4] =
        [("caffe", Self::caffe), ("torch", Self::torch), ("raw", Self::raw), ("unit", Self::unit)];

    /// Keras' ResNet50: BGR, channel means subtracted, 224 x 224 without regard to aspect ratio.
    pub fn caffe() -> Self {
        InputRecipe {
            width: 224,
            height: 224,
            order: ChannelOrder::Bgr,
            mean: [103.939, 116.779, 123.68],
            std: [1.0; 3],
            geometry: Geometry::Stretch,
        }
    }

    /// torchvision, Gluon and the ONNX Model Zoo: RGB, short side 256, centre crop 224.
    pub fn torch() -> Self {
        InputRecipe {
            width: 224,
            height: 224,
            order: ChannelOrder::Rgb,
            mean: [0.485 * 255.0, 0.456 * 255.0, 0.406 * 255.0],
            std: [0.229 * 255.0, 0.224 * 255.0, 0.225 * 255.0],
            geometry: Geometry::Crop { short_side: 256 },
        }
    }

    /// RGB from 0 to 255, for a network that normalizes its input itself; geometry as [`InputRecipe::torch`].
    pub fn raw() -> Self {
        InputRecipe { mean: [0.0; 3], std: [1.0; 3], ..Self::torch() }
    }

    /// RGB from 0 to 1; geometry as [`InputRecipe::torch`].
    pub fn unit() -> Self {
        InputRecipe { mean: [0.0; 3], std: [255.0; 3], ..Self::torch() }
    }

    /// A known recipe by its name.
    pub fn by_name(name: &str) -> Option<Self> {
        Self::KNOWN.iter().find(|(known, _)| *known == name).map(|(_, recipe)| recipe())
    }

    /// The name of a known recipe, whatever its size and geometry; `custom` for any other.
    pub fn name(&self) -> &'static str {
        let same = |known: InputRecipe| (known.order, known.mean, known.std) == (self.order, self.mean, self.std);
        Self::KNOWN.iter().find(|(_, recipe)| same(recipe())).map_or("custom", |(name, _)| name)
    }

    /// The same recipe with another geometry; a crop takes the short side at 8/7 of the size, as 256 is to 224.
    pub fn with_resize(mut self, resize: Resize) -> Self {
        self.geometry = match resize {
            Resize::Stretch => Geometry::Stretch,
            Resize::Crop => Geometry::Crop { short_side: (self.width.min(self.height) * 8).div_ceil(7) },
        };
        self
    }

    /// The same recipe for a network with another input size; a crop keeps its ratio of short side to size.
    pub fn with_size(mut self, width: u32, height: u32) -> Self {
        if let Geometry::Crop { short_side } = self.geometry {
            let ratio = f64::from(short_side) / f64::from(self.width.min(self.height).max(1));
            let short_side = (f64::from(width.min(height)) * ratio).round() as u32;
            self.geometry = Geometry::Crop { short_side };
        }
        (self.width, self.height) = (width, height);
        self
    }
}

/// Reads a picture file as upright RGB. Too large a picture is refused before it is decoded.
pub fn read(path: &Path) -> Result<RgbImage, Error> {
    decode(path, &bytes(path)?)
}

/// Decodes a picture file in memory and applies its EXIF orientation. `path` names it in errors; the folder tells how many
/// of 16 bits are used where the picture itself does not.
///
/// A damaged JPEG is an error: half a picture would look like an outlier.
pub fn decode(path: &Path, bytes: &[u8]) -> Result<RgbImage, Error> {
    let picture = encoded::decoded(path, bytes)?;
    Ok(upright(depth::to_rgb8(picture, path, bytes), bytes))
}

/// Applies the EXIF orientation of the picture's `file`.
fn upright(picture: RgbImage, file: &[u8]) -> RgbImage {
    let orientation = exif(file)
        .and_then(|exif| exif.get_field(exif::Tag::Orientation, exif::In::PRIMARY)?.value.get_uint(0))
        .and_then(|value| Orientation::from_exif(u8::try_from(value).ok()?));
    let mut picture = DynamicImage::from(picture);
    picture.apply_orientation(orientation.unwrap_or(Orientation::NoTransforms));
    picture.into_rgb8()
}

/// The region `[x, y, width, height]`, if it lies inside a picture of that size.
pub fn inside(region: [u32; 4], (image_width, image_height): (u32, u32)) -> Result<[u32; 4], Error> {
    let [x, y, width, height] = region;
    let fits = |at: u32, len: u32, all: u32| len > 0 && at.checked_add(len).is_some_and(|end| end <= all);
    if !fits(x, width, image_width) || !fits(y, height, image_height) {
        return Err(Error::Crop { x, y, width, height, image_width, image_height });
    }
    Ok(region)
}

/// The region `[x, y, width, height]` of a picture.
pub fn crop(picture: &RgbImage, region: [u32; 4]) -> Result<RgbImage, Error> {
    let [x, y, width, height] = inside(region, picture.dimensions())?;
    Ok(::image::imageops::crop_imm(picture, x, y, width, height).to_image())
}

/// The picture itself, or a smaller one whose longer side has `side` pixels.
pub fn reduced(picture: &RgbImage, side: u32) -> RgbImage {
    let (width, height) = picture.dimensions();
    let longer = width.max(height);
    if longer <= side {
        return picture.clone();
    }
    let scaled = |pixels: u32| (u64::from(pixels) * u64::from(side) / u64::from(longer)).max(1) as u32;
    ::image::imageops::thumbnail(picture, scaled(width), scaled(height))
}

/// The part of a picture of `width` x `height` pixels that the recipe's geometry shows to the network: left, top,
/// width, height in pixels of the picture.
pub fn seen(width: u32, height: u32, recipe: &InputRecipe) -> [f64; 4] {
    let (w, h) = (f64::from(width), f64::from(height));
    match recipe.geometry {
        Geometry::Stretch => [0.0, 0.0, w, h],
        Geometry::Crop { short_side } => {
            let scale = w.min(h) / f64::from(short_side);
            let (cw, ch) = (f64::from(recipe.width) * scale, f64::from(recipe.height) * scale);
            let (cw, ch) = (cw.min(w), ch.min(h));
            [(w - cw) / 2.0, (h - ch) / 2.0, cw, ch]
        }
    }
}

/// Resizes and crops a picture to the recipe's size: RGB, u8, NHWC. Bilinear with the support widened when
/// shrinking, as Pillow does it, in Pillow's order: each pass rounds, and the other order moves a feature vector by
/// 1e-4 in cosine.
pub fn prepare(picture: &RgbImage, recipe: &InputRecipe) -> Result<RgbImage, Error> {
    let (width, height) = picture.dimensions();
    if width == 0 || height == 0 {
        return Err(Error::Resize { width, height, reason: "it has no pixels".into() });
    }
    let (w, h) = (f64::from(width), f64::from(height));
    let [left, top, part_w, part_h] = seen(width, height, recipe);
    if (width, height) == (recipe.width, recipe.height) && recipe.geometry == Geometry::Stretch {
        return Ok(picture.clone());
    }
    let (out_w, out_h) = (f64::from(recipe.width), f64::from(recipe.height));
    if part_h > out_h && 2.0 * (part_w - out_w) < part_h - out_h {
        let low = resize(picture, [0.0, top, w, part_h], [width, recipe.height])?;
        return resize(&low, [left, 0.0, part_w, out_h], [recipe.width, recipe.height]);
    }
    let narrow = resize(picture, [left, 0.0, part_w, h], [recipe.width, height])?;
    resize(&narrow, [0.0, top, out_w, part_h], [recipe.width, recipe.height])
}

/// One pass, along the axis in which the sizes differ. `part` is left, top, width, height.
fn resize(picture: &RgbImage, part: [f64; 4], size: [u32; 2]) -> Result<RgbImage, Error> {
    let (width, height) = picture.dimensions();
    let fail = |reason: String| Error::Resize { width, height, reason };
    let mut target = RgbImage::new(size[0], size[1]);
    let options = fir::ResizeOptions::new()
        .resize_alg(fir::ResizeAlg::Convolution(fir::FilterType::Bilinear))
        .crop(part[0], part[1], part[2], part[3]);
    let source = fir::images::TypedImageRef::<U8x3>::from_buffer(width, height, picture.as_raw())
        .map_err(|e| fail(e.to_string()))?;
    let pixels = target.as_flat_samples_mut().samples;
    let mut sink =
        fir::images::TypedImage::<U8x3>::from_buffer(size[0], size[1], pixels).map_err(|e| fail(e.to_string()))?;
    fir::Resizer::new().resize_typed(&source, &mut sink, &options).map_err(|e| fail(e.to_string()))?;
    drop(sink);
    Ok(target)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ::image::codecs::{jpeg::JpegEncoder, png::PngEncoder, webp::WebPEncoder};
    use ::image::{ExtendedColorType, ImageEncoder};

    fn exif_of(orientation: u16) -> Vec<u8> {
        use ::exif::{Field, In, Tag, Value, experimental::Writer};
        let field = Field { tag: Tag::Orientation, ifd_num: In::PRIMARY, value: Value::Short(vec![orientation]) };
        let (mut writer, mut bytes) = (Writer::new(), std::io::Cursor::new(Vec::new()));
        writer.push_field(&field);
        writer.write(&mut bytes, false).unwrap();
        bytes.into_inner()
    }

    fn write(mut encoder: impl ImageEncoder, orientation: Option<u16>, picture: &RgbImage) {
        if let Some(orientation) = orientation {
            encoder.set_exif_metadata(exif_of(orientation)).unwrap();
        }
        let (width, height) = picture.dimensions();
        encoder.write_image(picture, width, height, ExtendedColorType::Rgb8).unwrap();
    }

    #[test]
    fn exif_orientation_is_applied() {
        let (w, h) = (24, 16);
        let stored = RgbImage::from_fn(w, h, |x, y| ::image::Rgb([x as u8 * 10, y as u8 * 15, (x * y) as u8 / 2]));
        for format in ["jpeg", "png", "webp"] {
            let file = |orientation: Option<u16>| {
                let mut bytes = Vec::new();
                match format {
                    "jpeg" => write(JpegEncoder::new(&mut bytes), orientation, &stored),
                    "png" => write(PngEncoder::new(&mut bytes), orientation, &stored),
                    _ => write(WebPEncoder::new_lossless(&mut bytes), orientation, &stored),
                }
                decode(Path::new(format), &bytes).unwrap()
            };
            let plain = file(None);
            assert_eq!(plain.dimensions(), (w, h));
            for orientation in 0..=9 {
                let turned = file(Some(orientation));
                let (width, height) = if (5..=8).contains(&orientation) { (h, w) } else { (w, h) };
                // CIPA DC-008, table 5: the visual side of row 0 and column 0.
                let wanted = RgbImage::from_fn(width, height, |x, y| {
                    let (x, y) = match orientation {
                        2 => (w - 1 - x, y),
                        3 => (w - 1 - x, h - 1 - y),
                        4 => (x, h - 1 - y),
                        5 => (y, x),
                        6 => (y, h - 1 - x),
                        7 => (w - 1 - y, h - 1 - x),
                        8 => (w - 1 - y, x),
                        _ => (x, y),
                    };
                    *plain.get_pixel(x, y)
                });
                assert_eq!(turned, wanted, "{format} {orientation}");
            }
        }
    }
}
