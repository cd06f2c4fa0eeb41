//! Synthetic outliers: normal pictures with a local edit.
//!
//! They replace real outliers where none are given: to estimate recall, and in a grid search. Edits are made at the
//! network's input size, so that they are neither cropped nor lost in resizing.

use std::sync::atomic::AtomicBool;

use ::image::{Rgb, RgbImage};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::cross::Synthetic;
use super::features::{self, Cache, Features};
use crate::backbone::{self, Backbone};
use crate::image;

/// The least mean change of the covered pixels, in levels of 255; an edit below it is drawn again.
const MIN_CHANGE: f32 = 8.0;
/// Draws of an edit before a spot replaces it: a uniform picture cannot be changed by its own patches.
const MAX_DRAWS: usize = 10;

/// The kind of edit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A rectangle of the same picture at another place.
    Patch,
    /// A soft-edged piece of another picture.
    Transplant,
    /// A thin bent line, darker or lighter than what it crosses.
    Scar,
    /// A large blurred shade.
    Smudge,
    /// A small sharp disc of one colour.
    Spot,
}

impl Kind {
    pub const ALL: [Kind; 5] = [Kind::Patch, Kind::Transplant, Kind::Scar, Kind::Smudge, Kind::Spot];
}

/// One outlier to make: its picture, the donor of a transplant, and its fold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Job {
    pub fold: usize,
    pub picture: usize,
    pub donor: usize,
    pub kind: Kind,
    /// The number of its random stream.
    pub stream: u64,
}

/// At most `limit` outliers, evenly over the folds. Every picture gets each kind at most once, and its donor is of the same
/// fold, so that it contains nothing of the pictures that are fitted on.
pub fn plan(folds: &[Vec<usize>], limit: usize) -> Vec<Job> {
    let mut jobs = Vec::new();
    for (number, fold) in folds.iter().enumerate() {
        let share = (limit / folds.len()).max(1).min(fold.len() * Kind::ALL.len());
        for job in 0..share {
            let (at, pass) = (job % fold.len(), job / fold.len());
            jobs.push(Job {
                fold: number,
                picture: fold[at],
                donor: fold[(at + pass + 1) % fold.len()],
                kind: Kind::ALL[(at + pass) % Kind::ALL.len()],
                stream: jobs.len() as u64,
            });
        }
    }
    jobs
}

/// The features of the outliers of `jobs`; `done` is called once for each, from several threads.
///
/// # Errors
/// Those of [`features::extract_made`].
pub fn extract(
    backbone: &Backbone,
    normal: &Features,
    jobs: &[Job],
    seed: u64,
    (cache, stop): (&mut Cache, &AtomicBool),
    done: &(dyn Fn() + Sync),
) -> Result<Synthetic, features::Error> {
    let read = |at: usize| image::read(&normal.paths[at]).map_err(backbone::Error::from);
    let one = |index: usize| {
        let job = &jobs[index];
        let read_picture = read(job.picture)?;
        let masked = backbone.masked(read_picture.width(), read_picture.height())?;
        let picture = backbone.prepare(&read_picture)?;
        let donor = if job.donor == job.picture { picture.clone() } else { backbone.prepare(&read(job.donor)?)? };
        Ok(make(&Normal { picture: &picture, masked: masked.as_deref() }, &donor, job, seed))
    };
    let (rows, cells) = features::extract_made(backbone, jobs.len(), &one, cache, stop, done)?;
    Ok(Synthetic { rows, cells, part: jobs.iter().map(|job| job.fold).collect() })
}

/// A prepared picture, and its masked pixels, which an edit must neither change nor copy.
#[derive(Debug, Clone, Copy)]
pub struct Normal<'a> {
    pub picture: &'a RgbImage,
    pub masked: Option<&'a [bool]>,
}

impl Normal<'_> {
    fn is_masked(self, x: f32, y: f32) -> bool {
        let (x, y) = nearest(self.picture, x, y);
        self.masked.is_some_and(|masked| masked[(y * self.picture.width() + x) as usize])
    }
}

/// The picture with the job's edit; `seed` and the job's stream determine place, size and strength.
pub fn make(normal: &Normal<'_>, donor: &RgbImage, job: &Job, seed: u64) -> RgbImage {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(job.stream);
    for _ in 0..MAX_DRAWS {
        let edit = draw(normal, donor, job.kind, &mut rng);
        if edit.change >= MIN_CHANGE {
            return edit.picture;
        }
    }
    let mut spots = (0..MAX_DRAWS).map(|_| draw(normal, donor, Kind::Spot, &mut rng));
    spots.find(|edit| edit.change > 0.0).map_or_else(|| normal.picture.clone(), |edit| edit.picture)
}

struct Edit {
    picture: RgbImage,
    /// Mean absolute change of the covered pixels.
    change: f32,
}

fn draw(normal: &Normal<'_>, donor: &RgbImage, kind: Kind, rng: &mut ChaCha8Rng) -> Edit {
    let picture = normal.picture;
    let (width, height) = (picture.width() as f32, picture.height() as f32);
    let side = width.min(height);
    let at = [rng.random_range(0.1..0.9) * width, rng.random_range(0.1..0.9) * height];
    match kind {
        Kind::Patch | Kind::Transplant => {
            let (area, aspect): (f32, f32) = (rng.random_range(0.004..0.05), rng.random_range(-1.0..1.0));
            let half = (area * width * height).sqrt() / 2.0;
            let half = [half * aspect.exp2(), half * (-aspect).exp2()];
            let from = [rng.random_range(0.1..0.9) * width, rng.random_range(0.1..0.9) * height];
            let source = if kind == Kind::Patch { picture } else { donor };
            let cover = |x: f32, y: f32| {
                let (u, v) = ((x - at[0]) / half[0], (y - at[1]) / half[1]);
                match kind {
                    _ if normal.is_masked(x - at[0] + from[0], y - at[1] + from[1]) => 0.0,
                    Kind::Patch => f32::from(u.abs() <= 1.0 && v.abs() <= 1.0),
                    _ => ((1.2 - u.hypot(v)) / 0.3).clamp(0.0, 1.0),
                }
            };
            blend(normal, cover, |x, y, _| pixel(source, x - at[0] + from[0], y - at[1] + from[1]))
        }
        Kind::Scar => {
            let (angle, bend) = (rng.random_range(0.0..std::f32::consts::TAU), rng.random_range(-0.6..0.6_f32));
            let (length, thick) = (rng.random_range(0.1..0.35) * side, rng.random_range(0.004..0.014) * side);
            let shift = shift(pixel(picture, at[0], at[1]), rng.random_range(25.0..90.0), rng);
            let cover = |x: f32, y: f32| {
                let (dx, dy) = (x - at[0], y - at[1]);
                let (along, across) = (dx * angle.cos() + dy * angle.sin(), dy * angle.cos() - dx * angle.sin());
                let across = across - bend * along * along / length;
                let end = ((length / 2.0 - along.abs()) / thick).clamp(0.0, 1.0);
                end * (thick + 0.5 - across.abs()).clamp(0.0, 1.0)
            };
            blend(normal, cover, |_, _, old| add(old, shift))
        }
        Kind::Smudge => {
            let radius = [rng.random_range(0.04..0.12) * side, rng.random_range(0.04..0.12) * side];
            let shift = shift(pixel(picture, at[0], at[1]), rng.random_range(20.0..60.0), rng);
            let cover = |x: f32, y: f32| {
                let (u, v) = ((x - at[0]) / radius[0], (y - at[1]) / radius[1]);
                let cover = (-(u * u + v * v) / 2.0).exp();
                if cover > 0.05 { cover } else { 0.0 }
            };
            blend(normal, cover, |_, _, old| add(old, shift))
        }
        Kind::Spot => {
            let radius = [rng.random_range(0.015..0.045) * side, rng.random_range(0.015..0.045) * side];
            let middle = pixel(picture, at[0], at[1]);
            let colour = add(middle, shift(middle, rng.random_range(40.0..120.0), rng));
            let cover = |x: f32, y: f32| {
                let (u, v) = ((x - at[0]) / radius[0].max(1.0), (y - at[1]) / radius[1].max(1.0));
                f32::from(u.hypot(v) <= 1.0)
            };
            blend(normal, cover, |_, _, _| colour)
        }
    }
}

/// A slightly tinted change by `strength` levels, away from the nearer end of the scale.
fn shift(colour: [f32; 3], strength: f32, rng: &mut ChaCha8Rng) -> [f32; 3] {
    let level = colour.iter().sum::<f32>() / 3.0;
    let sign = match level {
        _ if level < strength => 1.0,
        _ if level > 255.0 - strength => -1.0,
        _ if rng.random_bool(0.5) => 1.0,
        _ => -1.0,
    };
    colour.map(|_| sign * strength * rng.random_range(0.85..1.0))
}

fn add(colour: [f32; 3], shift: [f32; 3]) -> [f32; 3] {
    std::array::from_fn(|c| colour[c] + shift[c])
}

/// The pixel at a place; outside of the picture the nearest one.
fn pixel(picture: &RgbImage, x: f32, y: f32) -> [f32; 3] {
    let (x, y) = nearest(picture, x, y);
    picture.get_pixel(x, y).0.map(f32::from)
}

fn nearest(picture: &RgbImage, x: f32, y: f32) -> (u32, u32) {
    let clamp = |v: f32, len: u32| (v.round().max(0.0) as u32).min(len.saturating_sub(1));
    (clamp(x, picture.width()), clamp(y, picture.height()))
}

/// Replaces a share `cover(x, y)` of every pixel by `colour(x, y, old)`.
fn blend(
    normal: &Normal<'_>,
    cover: impl Fn(f32, f32) -> f32,
    colour: impl Fn(f32, f32, [f32; 3]) -> [f32; 3],
) -> Edit {
    let mut edited = normal.picture.clone();
    let (mut change, mut covered) = (0.0, 0.0);
    for (x, y, pixel) in edited.enumerate_pixels_mut() {
        let (x, y) = (x as f32, y as f32);
        let cover = if normal.is_masked(x, y) { 0.0 } else { cover(x, y) };
        if cover <= 0.0 {
            continue;
        }
        let old = pixel.0.map(f32::from);
        let new = colour(x, y, old);
        *pixel = Rgb(std::array::from_fn(|c| (old[c] + cover * (new[c] - old[c])).round().clamp(0.0, 255.0) as u8));
        covered += 1.0;
        change += (0..3).map(|c| (f32::from(pixel.0[c]) - old[c]).abs()).sum::<f32>() / 3.0;
    }
    Edit { picture: edited, change: if covered > 0.0 { change / covered } else { 0.0 } }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn textured(phase: u32) -> RgbImage {
        RgbImage::from_fn(112, 96, |x, y| {
            let v = ((x + phase) * 3 + y * 2 + (x / 9 + y / 7) % 2 * 60) as u8 / 2;
            Rgb([v, v / 2 + 60, 140 - v / 2])
        })
    }

    fn plain(picture: &RgbImage) -> Normal<'_> {
        Normal { picture, masked: None }
    }

    fn changed(a: &RgbImage, b: &RgbImage) -> f64 {
        a.pixels().zip(b.pixels()).filter(|(a, b)| a != b).count() as f64 / f64::from(a.width() * a.height())
    }

    #[test]
    fn every_kind_changes_a_part_and_leaves_the_rest() {
        let (picture, donor) = (textured(0), textured(31));
        for kind in Kind::ALL {
            for stream in 0..40 {
                let job = Job { fold: 0, picture: 0, donor: 1, kind, stream };
                let share = changed(&picture, &make(&plain(&picture), &donor, &job, 7));
                assert!(share > 0.0 && share < 0.45, "{kind:?} {stream}: {share}");
            }
        }
    }

    #[test]
    fn masked_pixels_are_neither_changed_nor_copied() {
        let paint = Rgb([1, 2, 3]);
        let masked: Vec<bool> = (0..112 * 96).map(|i| i % 112 >= 40).collect();
        let mut painted = textured(0);
        painted.pixels_mut().zip(&masked).for_each(|(pixel, masked)| {
            if *masked {
                *pixel = paint
            }
        });
        for kind in Kind::ALL {
            for stream in 0..40 {
                let job = Job { fold: 0, picture: 0, donor: 0, kind, stream };
                let made = make(&Normal { picture: &painted, masked: Some(&masked) }, &painted, &job, 7);
                assert!(changed(&painted, &made) > 0.0, "{kind:?} {stream}");
                let copied = made.pixels().zip(&masked).filter(|(pixel, masked)| **pixel == paint && !**masked).count();
                let kept = made.pixels().zip(&masked).filter(|(pixel, masked)| **masked && **pixel != paint).count();
                assert_eq!((copied, kept), (0, 0), "{kind:?} {stream}");
            }
        }
        let all = vec![true; masked.len()];
        let job = Job { fold: 0, picture: 0, donor: 0, kind: Kind::Spot, stream: 0 };
        assert_eq!(make(&Normal { picture: &painted, masked: Some(&all) }, &painted, &job, 7), painted);
    }

    #[test]
    fn seeds_and_streams_decide() {
        let (picture, donor) = (textured(0), textured(31));
        let job = Job { fold: 0, picture: 0, donor: 1, kind: Kind::Scar, stream: 3 };
        let first = make(&plain(&picture), &donor, &job, 7);
        assert_eq!(first, make(&plain(&picture), &donor, &job, 7));
        assert_ne!(first, make(&plain(&picture), &donor, &job, 8));
        assert_ne!(first, make(&plain(&picture), &donor, &Job { stream: 4, ..job }, 7));
    }

    #[test]
    fn uniform_and_tiny_pictures_change_too() {
        for level in [0, 128, 255] {
            for (width, height) in [(64, 64), (3, 2), (1, 1)] {
                let flat = RgbImage::from_pixel(width, height, Rgb([level; 3]));
                for kind in Kind::ALL {
                    let job = Job { fold: 0, picture: 0, donor: 0, kind, stream: 1 };
                    let made = make(&plain(&flat), &flat, &job, 0);
                    assert!(width < 64 || made != flat, "{kind:?} at {level}");
                }
            }
        }
    }

    #[test]
    fn plans_are_even_and_stay_in_their_folds() {
        let folds = vec![vec![4, 9, 2], vec![7, 1], vec![5]];
        let jobs = plan(&folds, 18);
        for (number, fold) in folds.iter().enumerate() {
            let own: Vec<&Job> = jobs.iter().filter(|j| j.fold == number).collect();
            assert_eq!(own.len(), 6.min(5 * fold.len()));
            assert!(own.iter().all(|j| fold.contains(&j.picture) && fold.contains(&j.donor)));
            let mut made: Vec<(usize, String)> = own.iter().map(|j| (j.picture, format!("{:?}", j.kind))).collect();
            made.sort();
            made.dedup();
            assert_eq!(made.len(), own.len());
        }
    }
}
