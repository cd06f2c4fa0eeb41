//! Whether pictures follow each other, and how long a stretch of them must be to be independent of the next.
//!
//! Consecutive frames of a fixed camera are similar. A held-out frame is then scored by a model that has seen its
//! neighbours, and a promise made from such scores is false. Pictures are sorted in the natural order of their names
//! (frame2 before frame10; names of `outlierd collect` contain the time), and the autocorrelation of the first
//! [`COMPONENTS`] principal components is taken over pairs `lag` pictures apart in one series. The component with the
//! largest correlation decides: changing light is one component among many, and the one that matters. Pictures are
//! dependent where neighbours correlate by [`DEPENDENT`] or more, less twice the standard error of independent ones; a
//! stretch ends at the lag where that is below [`INDEPENDENT`].
//!
//! Where the names say nothing, the pictures are sorted by the time of capture in their EXIF data.
//!
//! A series has the same name but for its digits, and the same folder where names occur more than once. Each is taken
//! about its own mean: pictures of a class that were sorted into one folder are similar, but not because they were taken
//! one after the other.

use std::cmp::Ordering;
use std::collections::HashSet;
use std::io::Read;
use std::path::{Path, PathBuf};

use ndarray::{Array2, ArrayView1, ArrayView2, Axis};

use super::features::Features;
use super::fit::Error;
use crate::estimators::feature_transform::FeatureTransform;
use crate::estimators::pca::{NComponents, Pca, PcaParams};
use crate::estimators::standard_scaler::StandardScaler;
use crate::pictures::natural;

const COMPONENTS: usize = 10;
const DEPENDENT: f64 = 0.5;
const INDEPENDENT: f64 = 0.2;
/// Fewer pictures are taken as independent.
const FEWEST: usize = 20;
/// Shorter series are not used.
const SHORTEST: usize = 5;
/// Stretches are never so long that there would be fewer.
const FEWEST_STRETCHES: usize = 8;
/// Bytes at the start of a file in which EXIF data are searched.
const MAX_HEAD: u64 = 1 << 18;
/// The components are fitted on at most this many pictures, evenly spaced.
const MAX_ROWS: usize = 1000;

/// How pictures depend on their neighbours.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Stretches {
    /// Pictures of a stretch; 1: independent.
    pub length: usize,
    /// Longer stretches would be needed than the number of pictures allows.
    pub too_short: bool,
    /// The order is not known: the pictures are taken as independent.
    pub unknown: bool,
}

impl Stretches {
    pub const INDEPENDENT: Stretches = Stretches { length: 1, too_short: false, unknown: false };
    const UNKNOWN: Stretches = Stretches { length: 1, too_short: false, unknown: true };

    /// One sentence for users; None where the pictures were found to be independent.
    pub fn sentence(&self, n: usize) -> Option<String> {
        if self.unknown {
            let sentence = "the names do not tell which pictures follow each other: they are taken as independent; give \
                            --block N if they are frames of a video";
            return Some(sentence.into());
        }
        (self.length > 1).then(|| {
            let few = match self.too_short {
                true => "; they are alike for longer still, so the promise is weak: collect over a longer time",
                false => "",
            };
            format!(
                "neighbouring pictures are alike: {n} pictures are worth about {:.0} independent ones (stretches of {}){few}",
                n as f64 / self.length as f64,
                self.length
            )
        })
    }
}

/// Sorts pictures in the natural order of their names and finds how they depend on their neighbours.
///
/// # Errors
/// Those of the estimators.
pub fn arrange(features: &mut Features) -> Result<Stretches, Error> {
    let mut order: Vec<usize> = (0..features.paths.len()).collect();
    let name = |path: &PathBuf| path.file_name().map(PathBuf::from).unwrap_or_default();
    let names: HashSet<PathBuf> = features.paths.iter().map(name).collect();
    let distinct = names.len() == features.paths.len();
    let key = |at: usize| if distinct { name(&features.paths[at]) } else { features.paths[at].clone() };
    order.sort_by_cached_key(|&at| Natural(key(at)));
    let series: Vec<String> = order.iter().map(|&at| series(&key(at))).collect();
    features.select(&order);
    let found = find(features.rows.view(), &series)?;
    if found.length > 1 {
        return Ok(found);
    }
    let times: Option<Vec<String>> = features.paths.iter().map(|path| captured(path)).collect();
    let Some(times) = times else { return Ok(found) };
    let mut order: Vec<usize> = (0..times.len()).collect();
    order.sort_by(|&a, &b| times[a].cmp(&times[b]));
    let found = find(features.rows.select(Axis(0), &order).view(), &vec![String::new(); order.len()])?;
    if found.length > 1 {
        features.select(&order);
    }
    Ok(found)
}

/// The time of capture by EXIF, as a text that sorts by time.
fn captured(path: &Path) -> Option<String> {
    let mut head = Vec::new();
    crate::fs::open(path).ok()?.take(MAX_HEAD).read_to_end(&mut head).ok()?;
    let exif = crate::image::exif(&head)?;
    let text = |tag: exif::Tag| match &exif.get_field(tag, exif::In::PRIMARY)?.value {
        exif::Value::Ascii(texts) => texts.first().map(|text| String::from_utf8_lossy(text).into_owned()),
        _ => None,
    };
    let time = text(exif::Tag::DateTimeOriginal)?;
    Some(format!("{time}.{}", text(exif::Tag::SubSecTimeOriginal).unwrap_or_default()))
}

/// How rows in the order of time depend on their neighbours; only consecutive rows of the same series are neighbours.
///
/// # Errors
/// Those of the estimators.
pub fn find(rows: ArrayView2<f32>, series: &[String]) -> Result<Stretches, Error> {
    let n = rows.nrows();
    if n < FEWEST {
        return Ok(Stretches::INDEPENDENT);
    }
    let runs: Vec<std::ops::Range<usize>> = series
        .chunk_by(|a, b| a == b)
        .scan(0, |start, run| {
            *start += run.len();
            Some(*start - run.len()..*start)
        })
        .collect();
    if runs.iter().map(|run| run.len()).filter(|len| *len >= SHORTEST).sum::<usize>() < FEWEST {
        return Ok(Stretches::UNKNOWN);
    }
    let y = components(rows)?;
    let longest = (n / FEWEST_STRETCHES).max(1);
    let alike = |lag: usize| y.columns().into_iter().map(|column| alike(column, &runs, lag)).fold(-1.0, f64::max);
    if alike(1) < DEPENDENT {
        return Ok(Stretches::INDEPENDENT);
    }
    let length = (2..=longest).find(|&lag| alike(lag) < INDEPENDENT);
    Ok(Stretches { length: length.unwrap_or(longest), too_short: length.is_none(), unknown: false })
}

/// The autocorrelation at `lag` of values about the mean of their run, less twice its standard error for independent ones.
fn alike(values: ArrayView1<f64>, runs: &[std::ops::Range<usize>], lag: usize) -> f64 {
    let (mut product, mut square, mut pairs, mut count) = (0.0, 0.0, 0.0_f64, 0.0);
    for run in runs {
        let run = values.slice(ndarray::s![run.clone()]);
        let mean = run.sum() / run.len() as f64;
        square += run.iter().map(|v| (v - mean).powi(2)).sum::<f64>();
        count += run.len() as f64;
        for at in lag..run.len() {
            product += (run[at] - mean) * (run[at - lag] - mean);
            pairs += 1.0;
        }
    }
    if pairs == 0.0 || square == 0.0 { 0.0 } else { product / pairs / (square / count) - 2.0 / pairs.sqrt() }
}

/// The first principal components of the scaled roots of the features.
fn components(rows: ArrayView2<f32>) -> Result<Array2<f64>, Error> {
    let x = FeatureTransform::Sqrt.of(rows);
    let n = x.nrows();
    let some: Vec<usize> = match n {
        0..=MAX_ROWS => (0..n).collect(),
        _ => (0..MAX_ROWS).map(|at| at * n / MAX_ROWS).collect(),
    };
    let scaler = StandardScaler::fit(x.view())?;
    let z = scaler.transform(x.view())?;
    let count = COMPONENTS.min(some.len() - 1).min(z.ncols());
    let params = PcaParams { n_components: NComponents::Count(count), whiten: false, ..PcaParams::default() };
    let pca = Pca::fit(z.select(Axis(0), &some).view(), &params)?;
    Ok(pca.transform(z.view())?)
}

/// A path that sorts in natural order.
#[derive(PartialEq, Eq)]
struct Natural(PathBuf);

impl Ord for Natural {
    fn cmp(&self, other: &Self) -> Ordering {
        natural(&self.0, &other.0)
    }
}

impl PartialOrd for Natural {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// The folder and the name without its digits.
fn series(path: &Path) -> String {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let mut series = path.parent().map(|parent| parent.display().to_string()).unwrap_or_default();
    series.push('/');
    for piece in name.as_bytes().chunk_by(|a, b| a.is_ascii_digit() == b.is_ascii_digit()) {
        match piece[0].is_ascii_digit() {
            true => series.push('#'),
            false => series.push_str(&String::from_utf8_lossy(piece)),
        }
    }
    series
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{RngExt, SeedableRng};

    fn noise(rng: &mut rand_chacha::ChaCha8Rng) -> f64 {
        (0..12).map(|_| rng.random_range(-0.5..0.5)).sum()
    }

    /// Features with one direction that has the autocorrelation `rho` per frame, as light has.
    fn scene(n: usize, rho: f64, light: f64, seed: u64) -> Array2<f32> {
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
        let mut state = noise(&mut rng);
        let mut rows = Array2::zeros((n, 40));
        for mut row in rows.rows_mut() {
            state = rho * state + (1.0 - rho * rho).sqrt() * noise(&mut rng);
            for (at, value) in row.iter_mut().enumerate() {
                *value = (20.0 + light * state * f64::from(u8::from(at < 20)) + noise(&mut rng)) as f32;
            }
        }
        rows
    }

    fn one_series(n: usize) -> Vec<String> {
        vec!["frame#.jpg".into(); n]
    }

    #[test]
    fn independent_pictures_are_seen_as_such() {
        for seed in 0..20 {
            for n in [25, 60, 400] {
                let found = find(scene(n, 0.0, 2.0, seed).view(), &one_series(n)).unwrap();
                assert_eq!(found, Stretches::INDEPENDENT, "{n} {seed}");
            }
        }
    }

    #[test]
    fn stretches_are_as_long_as_the_light_lasts() {
        for seed in 0..10 {
            let length = |rho: f64| find(scene(1000, rho, 2.0, seed).view(), &one_series(1000)).unwrap().length;
            let (short, long) = (length(0.8), length(0.97));
            assert!((3..=15).contains(&short), "{seed}: {short}");
            assert!((20..=125).contains(&long) && long > short, "{seed}: {long}");
        }
    }

    #[test]
    fn sorted_classes_are_no_series() {
        let mut rows = scene(300, 0.0, 1.0, 1);
        rows.slice_mut(ndarray::s![150.., ..]).mapv_inplace(|v| v + 30.0);
        let by_folder: Vec<String> = (0..300).map(|at| if at < 150 { "a/#" } else { "b/#" }.into()).collect();
        assert_eq!(find(rows.view(), &by_folder).unwrap(), Stretches::INDEPENDENT);
        let of_its_own: Vec<String> = (0..300).map(|at| at.to_string()).collect();
        assert_eq!(find(scene(300, 0.97, 2.0, 1).view(), &of_its_own).unwrap(), Stretches::UNKNOWN);
    }

    #[test]
    fn names_that_say_nothing_leave_the_order_to_the_time_of_capture() {
        use exif::{Field, In, Tag, Value, experimental::Writer};
        use image::ImageEncoder;
        let dir = tempfile::tempdir().unwrap();
        let rows = scene(200, 0.9, 2.0, 3);
        let mut given: Vec<(std::path::PathBuf, usize)> = (0..200)
            .map(|at| {
                let time = format!("2026:05:01 10:{:02}:{:02}", at / 60, at % 60);
                let value = Value::Ascii(vec![time.into_bytes()]);
                let field = Field { tag: Tag::DateTimeOriginal, ifd_num: In::PRIMARY, value };
                let (mut writer, mut bytes) = (Writer::new(), std::io::Cursor::new(Vec::new()));
                writer.push_field(&field);
                writer.write(&mut bytes, false).unwrap();
                let mut jpeg = Vec::new();
                let mut encoder = image::codecs::jpeg::JpegEncoder::new(&mut jpeg);
                encoder.set_exif_metadata(bytes.into_inner()).unwrap();
                encoder.encode(&[9; 12], 2, 2, image::ExtendedColorType::Rgb8).unwrap();
                let name: String = (0..8)
                    .map(|letter| char::from(b'a' + ((at * 7919 + letter * at * at + letter) % 26) as u8))
                    .collect();
                let path = dir.path().join(format!("{name}.jpg"));
                std::fs::write(&path, jpeg).unwrap();
                (path, at)
            })
            .collect();
        given.sort();
        given.dedup_by(|a, b| a.0 == b.0);
        let paths: Vec<_> = given.iter().map(|(path, _)| path.clone()).collect();
        let of_paths = rows.select(Axis(0), &given.iter().map(|(_, at)| *at).collect::<Vec<_>>());
        let contents = vec![[0; 32]; paths.len()];
        let mut features = Features { paths, contents, rows: of_paths, cells: Vec::new() };
        let found = arrange(&mut features).unwrap();
        assert!(found.length > 1, "{found:?}");
        let times: Vec<_> = features.paths.iter().map(|path| captured(path).unwrap()).collect();
        assert!(times.is_sorted());
    }

    #[test]
    fn a_video_cut_into_folders_is_one() {
        let rows = scene(240, 0.95, 2.0, 2);
        let paths = |name: &dyn Fn(usize) -> String| (0..240).map(|at| name(at).into()).collect::<Vec<PathBuf>>();
        for paths in [
            paths(&|at| format!("day{}/frame{at}.jpg", at / 18)),
            paths(&|at| format!("day{}/frame{}.jpg", at / 60, at % 60)),
        ] {
            let contents = vec![[0; 32]; paths.len()];
            let mut features = Features { paths, contents, rows: rows.clone(), cells: Vec::new() };
            assert!(arrange(&mut features).unwrap().length > 3, "{:?}", features.paths[0]);
            assert_eq!(features.rows, rows);
        }
    }

    #[test]
    fn a_series_is_what_differs_in_its_digits_alone() {
        assert_eq!(series(Path::new("d1/f10-2.jpg")), "d1/f#-#.jpg");
    }
}
