//! Features of many pictures, computed once: a cache file keyed by picture and backbone.

use std::collections::HashMap;
use std::collections::hash_map;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use ::image::RgbImage;
use ndarray::{Array2, Axis};
use rayon::prelude::*;
use sha2::{Digest, Sha256};

use super::fit::Samples;
use crate::backbone::cells::{CHANNELS, Cells, MAX_SIDE};
use crate::backbone::{self, Backbone};
use crate::{fs, image};

const MAGIC: &[u8; 8] = b"OUTLFEAT";
const VERSION: u16 = 3;
/// Larger cache files are discarded.
const MAX_CACHE_BYTES: u64 = 1 << 30;

type Key = [u8; 32];
/// SHA-256 of a file's bytes.
pub type Content = [u8; 32];

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{unreadable} of {all} pictures cannot be used, the first: {first}")]
    TooManyUnreadable { unreadable: usize, all: usize, first: String },
    #[error(transparent)]
    Backbone(#[from] backbone::Error),
    #[error("cannot write the feature cache {path}: {source}")]
    Write { path: PathBuf, source: std::io::Error },
    #[error("the backbone gave features of different lengths")]
    Width,
    #[error("interrupted")]
    Interrupted,
}

/// Pictures that could be read and their features, row by row.
#[derive(Debug)]
pub struct Features {
    pub paths: Vec<PathBuf>,
    /// SHA-256 of each file.
    pub contents: Vec<Content>,
    pub rows: Array2<f32>,
    /// Of each picture, where the backbone gives them.
    pub cells: Vec<Cells>,
}

impl Features {
    pub fn samples(&self) -> Samples<'_> {
        Samples { rows: self.rows.view(), cells: &self.cells }
    }

    /// Keeps the first of files with the same content. Returns the first copy that was left out and its original.
    pub fn without_copies(&mut self) -> Option<(PathBuf, PathBuf)> {
        let mut seen: HashMap<Content, usize> = HashMap::new();
        let (mut kept, mut first) = (Vec::new(), None);
        for (at, content) in self.contents.iter().enumerate() {
            match seen.entry(*content) {
                hash_map::Entry::Vacant(entry) => {
                    entry.insert(at);
                    kept.push(at);
                }
                hash_map::Entry::Occupied(entry) => {
                    first.get_or_insert_with(|| (self.paths[at].clone(), self.paths[*entry.get()].clone()));
                }
            }
        }
        if first.is_some() {
            self.select(&kept);
        }
        first
    }

    /// The paths of a file that both contain, by its content.
    pub fn shared<'a>(&'a self, other: &'a Features) -> Option<(&'a Path, &'a Path)> {
        let own: HashMap<&Content, &PathBuf> = self.contents.iter().zip(&self.paths).collect();
        let mut others = other.contents.iter().zip(&other.paths);
        others.find_map(|(content, path)| own.get(content).map(|own| (own.as_path(), path.as_path())))
    }

    /// Keeps these pictures, in this order.
    pub fn select(&mut self, order: &[usize]) {
        self.rows = self.rows.select(Axis(0), order);
        self.paths = order.iter().map(|&at| self.paths[at].clone()).collect();
        self.contents = order.iter().map(|&at| self.contents[at]).collect();
        if !self.cells.is_empty() {
            self.cells = order.iter().map(|&at| self.cells[at].clone()).collect();
        }
    }
}

/// Feature and cells of one picture.
type Entry = (Vec<f32>, Option<Cells>);

/// A file of features, keyed by the hash of picture, backbone, tap, pooling and input recipe.
#[derive(Debug, Default)]
pub struct Cache {
    path: Option<PathBuf>,
    entries: HashMap<Key, Entry>,
    changed: bool,
}

impl Cache {
    /// A cache that is never written.
    pub fn in_memory() -> Self {
        Cache::default()
    }

    /// The cache beside a model file: `NAME.features`.
    pub fn beside(model: &Path) -> PathBuf {
        model.with_added_extension("features")
    }

    /// Opens a cache file. One that is absent, damaged, of another version or too large gives an empty cache: all of it
    /// can be computed again.
    pub fn open(path: &Path) -> Self {
        let mut cache = Cache { path: Some(path.to_owned()), ..Cache::default() };
        if !path.exists() {
            return cache;
        }
        match fs::read(path, MAX_CACHE_BYTES).map_err(|e| e.to_string()).and_then(|bytes| parse(&bytes)) {
            Ok(entries) => cache.entries = entries,
            Err(reason) => log::warn!("feature cache {} is not usable ({reason}): a new one is begun", path.display()),
        }
        cache
    }

    /// Writes the file, if anything was added, in one atomic replacement.
    pub fn save(&mut self) -> Result<(), Error> {
        let (Some(path), true) = (&self.path, self.changed) else { return Ok(()) };
        let mut bytes = Vec::new();
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        let mut keys: Vec<&Key> = self.entries.keys().collect();
        keys.sort_unstable();
        for key in keys {
            let (row, cells) = &self.entries[key];
            bytes.extend_from_slice(key);
            bytes.extend_from_slice(&(row.len() as u32).to_le_bytes());
            bytes.extend(row.iter().flat_map(|v| v.to_le_bytes()));
            write_cells(cells.as_ref(), &mut bytes);
        }
        bytes.extend_from_slice(&crc32fast::hash(&bytes).to_le_bytes());
        fs::replace(path, &bytes).map_err(|source| Error::Write { path: path.clone(), source })?;
        self.changed = false;
        Ok(())
    }
}

/// Height, width and channels, all 0 without cells; then scale and values.
fn write_cells(cells: Option<&Cells>, bytes: &mut Vec<u8>) {
    let sides = cells.map_or([0; 3], |cells| [cells.height, cells.width, cells.channels]);
    bytes.extend(sides.iter().flat_map(|side| (*side as u16).to_le_bytes()));
    if let Some(cells) = cells {
        bytes.extend_from_slice(&cells.scale.to_le_bytes());
        bytes.extend(cells.values.iter().map(|v| *v as u8));
    }
}

/// The cells that [`write_cells`] wrote, and the bytes after them.
fn read_cells(bytes: &[u8]) -> Option<(Option<Cells>, &[u8])> {
    let (sides, rest) = bytes.split_first_chunk::<6>()?;
    let [height, width, channels] = [0, 2, 4].map(|at| usize::from(u16::from_le_bytes([sides[at], sides[at + 1]])));
    if [height, width, channels] == [0; 3] {
        return Some((None, rest));
    }
    if height > MAX_SIDE || width > MAX_SIDE || channels > CHANNELS {
        return None;
    }
    let (scale, rest) = rest.split_first_chunk::<4>()?;
    let (values, rest) = rest.split_at_checked(height * width * channels)?;
    let (scale, values) = (f32::from_le_bytes(*scale), values.iter().map(|v| *v as i8).collect());
    Some((Some(Cells { height, width, channels, scale, values }), rest))
}

fn parse(bytes: &[u8]) -> Result<HashMap<Key, Entry>, String> {
    let (body, crc) = bytes.split_last_chunk::<4>().ok_or("it is too short")?;
    if crc32fast::hash(body) != u32::from_le_bytes(*crc) {
        return Err("its checksum is wrong".into());
    }
    let rest = body.strip_prefix(MAGIC.as_slice()).ok_or("it is no feature cache")?;
    let (version, mut rest) = rest.split_first_chunk::<2>().ok_or("it is too short")?;
    if u16::from_le_bytes(*version) != VERSION {
        return Err("it is of another version".into());
    }
    let mut entries = HashMap::new();
    while !rest.is_empty() {
        let (key, after) = rest.split_first_chunk::<32>().ok_or("an entry is cut")?;
        let (len, after) = after.split_first_chunk::<4>().ok_or("an entry is cut")?;
        let len = (u32::from_le_bytes(*len) as usize).checked_mul(4).ok_or("an entry is too long")?;
        let (values, after) = after.split_at_checked(len).ok_or("an entry is cut")?;
        let row = values.as_chunks::<4>().0.iter().map(|v| f32::from_le_bytes(*v)).collect();
        let (cells, after) = read_cells(after).ok_or("an entry is cut")?;
        entries.insert(*key, (row, cells));
        rest = after;
    }
    Ok(entries)
}

/// What a feature depends on besides the picture.
fn context(backbone: &Backbone) -> Vec<u8> {
    let mut context = backbone.sha256().to_vec();
    let _ = write!(context, "|{}|{}|{:?}", backbone.tap(), backbone.pooling(), backbone.input());
    if backbone.tiles() > 1 || !backbone.mask().is_empty() {
        let _ = write!(context, "|{}|{:?}", backbone.tiles(), backbone.mask());
    }
    context
}

/// Computes (or finds in the cache) the features of `paths`; `done` is called once per picture, from several
/// threads. Pictures that cannot be read are left out and named; more than a tenth of them is an error.
pub fn extract(
    backbone: &Backbone,
    paths: &[PathBuf],
    cache: &mut Cache,
    stop: &AtomicBool,
    done: &(dyn Fn() + Sync),
) -> Result<Features, Error> {
    let context = context(backbone);
    let known = &cache.entries;
    let added = Mutex::new(Vec::new());
    let rows: Vec<Result<(Content, Entry), Skip>> = paths
        .par_iter()
        .map(|path| {
            if stop.load(Ordering::Relaxed) {
                return Err(Skip::Fatal(Error::Interrupted));
            }
            let row = one(backbone, path, &context, known).map(|(content, entry, fresh)| {
                if let (Some(key), Ok(mut added)) = (fresh, added.lock()) {
                    added.push((key, entry.clone()));
                }
                (content, entry)
            });
            done();
            row
        })
        .collect();
    let added = added.into_inner().unwrap_or_default();
    cache.changed |= !added.is_empty();
    cache.entries.extend(added);

    let (mut good, mut contents, mut unreadable) = (Vec::new(), Vec::new(), Vec::new());
    let (mut flat, mut all_cells) = (Vec::new(), Vec::new());
    for (path, row) in paths.iter().zip(rows) {
        match row {
            Ok((content, (row, cells))) => {
                flat.extend(row);
                all_cells.extend(cells);
                contents.push(content);
                good.push(path.clone());
            }
            Err(Skip::Picture(reason)) => unreadable.push((path.clone(), reason)),
            Err(Skip::Fatal(error)) => return Err(error),
        }
    }
    if unreadable.len() * 10 > paths.len() || good.is_empty() {
        let first = unreadable.first().map(|(_, reason)| reason.clone()).unwrap_or_default();
        return Err(Error::TooManyUnreadable { unreadable: unreadable.len(), all: paths.len(), first });
    }
    for (_, reason) in &unreadable {
        log::warn!("left out: {reason}");
    }
    let width = flat.len() / good.len();
    let rows = Array2::from_shape_vec((good.len(), width), flat).map_err(|_| Error::Width)?;
    Ok(Features { paths: good, contents, rows, cells: all_cells })
}

/// The features and, where the backbone gives them, cells of `n` pictures that `make` makes at the network's input size,
/// computed or found in the cache; `done` as in [`extract`].
pub fn extract_made(
    backbone: &Backbone,
    n: usize,
    make: &(dyn Fn(usize) -> Result<RgbImage, backbone::Error> + Sync),
    cache: &mut Cache,
    stop: &AtomicBool,
    done: &(dyn Fn() + Sync),
) -> Result<(Array2<f32>, Vec<Cells>), Error> {
    let context = context(backbone);
    let known = &cache.entries;
    let one = |index: usize| -> Result<(Key, Entry, bool), Error> {
        if stop.load(Ordering::Relaxed) {
            return Err(Error::Interrupted);
        }
        let picture = make(index)?;
        let mut hash = Sha256::new();
        hash.update(&context);
        hash.update(b"|made|");
        hash.update(picture.as_raw());
        let key: Key = hash.finalize().into();
        let found = usable(known, &key, backbone);
        let fresh = found.is_none();
        let entry = match found {
            Some(entry) => entry,
            None => backbone.sample(&picture)?,
        };
        done();
        Ok((key, entry, fresh))
    };
    let entries = (0..n).into_par_iter().map(one).collect::<Result<Vec<_>, _>>()?;
    let (mut flat, mut cells) = (Vec::with_capacity(n * backbone.n_features()), Vec::new());
    for (key, entry, fresh) in entries {
        flat.extend_from_slice(&entry.0);
        cells.extend(entry.1.clone());
        if fresh {
            cache.changed = true;
            cache.entries.insert(key, entry);
        }
    }
    let rows = Array2::from_shape_vec((n, backbone.n_features()), flat).map_err(|_| Error::Width)?;
    Ok((rows, cells))
}

/// The entry, if it has exactly what the backbone gives.
fn usable(known: &HashMap<Key, Entry>, key: &Key, backbone: &Backbone) -> Option<Entry> {
    let (row, cells) = known.get(key)?;
    let cells = if backbone.has_cells() { Some(cells.clone()?) } else { None };
    (row.len() == backbone.n_features()).then(|| (row.clone(), cells))
}

enum Skip {
    Picture(String),
    Fatal(Error),
}

fn one(
    backbone: &Backbone,
    path: &Path,
    context: &[u8],
    known: &HashMap<Key, Entry>,
) -> Result<(Content, Entry, Option<Key>), Skip> {
    let bytes = image::bytes(path).map_err(|e| Skip::Picture(e.to_string()))?;
    let mut hash = Sha256::new();
    hash.update(context);
    let content: Content = Sha256::digest(&bytes).into();
    hash.update(content);
    let key: Key = hash.finalize().into();
    if let Some(entry) = usable(known, &key, backbone) {
        return Ok((content, entry, None));
    }
    let picture = image::decode(path, &bytes).map_err(|e| Skip::Picture(e.to_string()))?;
    let sample = backbone.prepare(&picture).and_then(|prepared| backbone.sample(&prepared));
    Ok((content, sample.map_err(|e| Skip::Fatal(e.into()))?, Some(key)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_are_left_out_and_shared_pictures_found() {
        let of = |paths: &[&str], contents: &[u8]| Features {
            paths: paths.iter().map(PathBuf::from).collect(),
            contents: contents.iter().map(|content| [*content; 32]).collect(),
            rows: Array2::from_shape_fn((paths.len(), 2), |(at, _)| at as f32),
            cells: Vec::new(),
        };
        let mut features = of(&["a", "b", "c", "d"], &[1, 2, 1, 3]);
        assert_eq!(features.shared(&of(&["x", "y"], &[9, 3])), Some((Path::new("d"), Path::new("y"))));
        assert_eq!(features.without_copies(), Some(("c".into(), "a".into())));
        assert_eq!(features.paths, ["a", "b", "d"].map(PathBuf::from));
        assert_eq!(features.rows.column(0).to_vec(), [0.0, 1.0, 3.0]);
        assert_eq!(features.without_copies(), None);
    }

    #[test]
    fn cache_survives_and_refuses_damage() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("m.features");
        let mut cache = Cache::open(&path);
        assert!(cache.entries.is_empty());
        let cells = Cells { height: 2, width: 1, channels: 3, scale: 0.5, values: [1, -2, 3, -4, 5, -6].into() };
        cache.entries.insert([7; 32], (vec![1.0, 2.0], Some(cells)));
        cache.entries.insert([9; 32], (vec![], None));
        cache.changed = true;
        cache.save().unwrap();
        let again = Cache::open(&path);
        assert_eq!(again.entries, cache.entries);
        let whole = std::fs::read(&path).unwrap();
        for cut in 0..whole.len() {
            std::fs::write(&path, &whole[..cut]).unwrap();
            assert!(Cache::open(&path).entries.is_empty(), "cut at {cut}");
        }
        for at in 0..whole.len() {
            let mut bad = whole.clone();
            bad[at] ^= 0x10;
            std::fs::write(&path, &bad).unwrap();
            assert!(Cache::open(&path).entries.is_empty(), "flipped at {at}");
        }
    }
}
