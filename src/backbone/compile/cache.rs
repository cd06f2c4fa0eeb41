//! Packed weights in a file that all processes with the same network map, so that they are in memory once.
//!
//! The file is `KEY.weights` in the cache folder. It is written whole before it has that name, never written again, and
//! removed or replaced at any time: who has mapped it keeps what is mapped. Nothing else may shorten or change it, see
//! [`Mapped`]. All numbers are little-endian:
//!
//! | at | bytes | what |
//! | --- | --- | --- |
//! | 0 | 8 | magic |
//! | 8 | 4 | version |
//! | 12 | 4 | CRC-32 of all from 64 on, then of 16 to 64 |
//! | 16 | 32 | key: SHA-256 of what the weights were packed from, and how |
//! | 48 | 8 | where the addends start |
//! | 56 | 8 | length of the file |
//! | 64 | | the panels of each convolution, each at a multiple of 64 bytes |
//! | | | the addends of each convolution, as postcard has them |

use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use sha2::{Digest, Sha256};

use super::plan::{ConvStep, Plan, Step};
use super::request::{Cache, Request};
use super::weights::Weights;
use crate::backbone::error::Error;
use crate::backbone::kernels::{ALIGNMENT, Addends, ConvShape, Isa, Mapped, Packed};
use crate::backbone::passes::quant::Quant;
use crate::backbone::passes::window::pair;
use crate::fs::{self, PARTIAL};

const MAGIC: &[u8; 8] = b"OUTLIERW";
/// Of the file, and of the order of packed weights as far as [`Isa::layout`] does not say it.
const VERSION: u32 = 1;
const HEADER: usize = 64;
/// Where the checksummed part of the header starts.
const KEY: usize = 16;
const SUFFIX: &str = ".weights";
/// Owner and group read; nobody writes.
const MODE: u32 = 0o440;
/// Bytes of a file, and of all that stay.
const MAX_BYTES: u64 = 256 << 20;
/// Files that stay, those used last.
const MAX_FILES: usize = 4;
/// What is still being written after so long was left behind by a killed process.
const ABANDONED: Duration = Duration::from_secs(3600);

/// A fused convolution as far as packing goes.
struct Layer<'g> {
    step: &'g ConvStep<'g>,
    x: Quant,
    /// Of its input's size nothing is known here.
    shape: ConvShape,
    weights: Weights<'g>,
}

/// The weights of all fused convolutions of `plan`, in its order, mapped from the cache folder; they are packed into it
/// first where they are not in there. Empty without a folder, and, with a warning, where it cannot be used.
pub fn packed(request: &Request, plan: &Plan) -> Vec<Packed> {
    let Some(Cache { folder, sha256 }) = request.cache else { return Vec::new() };
    // What is wrong with the network is said where it is built.
    let Some(layers) = layers(request, plan).ok().filter(|layers| !layers.is_empty()) else { return Vec::new() };
    let key = key(sha256, request.isa, &layers);
    let name: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
    let path = folder.join(name + SUFFIX);
    match open(&path, &key, request.isa, &layers) {
        Ok(packed) => return packed,
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => log::warn!("packed weights {}: {e}; they are packed anew", path.display()),
    }
    let made = fs::remove(&path).and_then(|()| write(&path, &key, request, &layers));
    match made.and_then(|()| open(&path, &key, request.isa, &layers)) {
        Ok(packed) => {
            if let Err(e) = remove_old(folder, &path) {
                log::warn!("cannot remove old packed weights from {}: {e}", folder.display());
            }
            packed
        }
        Err(e) => {
            let folder = folder.display();
            log::warn!("cannot share packed weights in {folder}: {e}; this process keeps its own in memory");
            Vec::new()
        }
    }
}

fn layers<'g>(request: &Request<'g>, plan: &'g Plan<'g>) -> Result<Vec<Layer<'g>>, Error> {
    let Request { model, graph, .. } = *request;
    let mut layers = Vec::new();
    for step in &plan.steps {
        let Step::Conv(step) = step else { continue };
        let x = plan.quants.get(step.x).copied().ok_or_else(|| model.unsupported(format!("{:?}", step.x)))?;
        let weights = Weights::read(model, graph, step.node, x.scale)?;
        let [out_c, in_c, height, width] = weights.dims;
        let dilation = pair(model, step.node, "dilations", 1)?;
        let shape = ConvShape { in_c, out_c, kernel: [height, width], dilation, ..ConvShape::default() };
        layers.push(Layer { step, x, shape, weights });
    }
    Ok(layers)
}

/// What follows from the file alone is in its hash; the plan says which convolutions there are.
fn key(sha256: [u8; 32], isa: Isa, layers: &[Layer]) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(VERSION.to_le_bytes());
    hash.update(sha256);
    hash.update(isa.layout());
    for Layer { step, x, .. } in layers {
        for name in step.node.inputs.iter().chain(&step.node.outputs) {
            hash.update((name.len() as u64).to_le_bytes());
            hash.update(name);
        }
        hash.update(x.scale.to_le_bytes());
        hash.update([x.zero]);
    }
    hash.finalize().into()
}

fn open(path: &Path, key: &[u8; 32], isa: Isa, layers: &[Layer]) -> io::Result<Vec<Packed>> {
    let file = fs::open(path)?;
    if file.metadata()?.len() > MAX_BYTES {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    let packed = read(&Arc::new(Mapped::new(&file)?), key, isa, layers);
    let packed = packed.map_err(|reason| io::Error::new(io::ErrorKind::InvalidData, reason))?;
    // So it is not among the oldest. What is another user's stays as it is.
    let _ = file.set_modified(SystemTime::now());
    Ok(packed)
}

fn read(mapped: &Arc<Mapped>, key: &[u8; 32], isa: Isa, layers: &[Layer]) -> Result<Vec<Packed>, &'static str> {
    const FOREIGN: &str = "it does not start as such a file does";
    const DAMAGED: &str = "its checksum is wrong";
    let bytes = mapped.bytes();
    let header: &[u8; HEADER] = bytes.first_chunk().ok_or(FOREIGN)?;
    if !header.starts_with(MAGIC) || header[8..12] != VERSION.to_le_bytes() || header[KEY..48] != *key {
        return Err(FOREIGN);
    }
    let number = |at: usize| header[at..].first_chunk().map(|bytes| u64::from_le_bytes(*bytes));
    if number(56) != Some(bytes.len() as u64) {
        return Err("it is cut short");
    }
    let mut crc = crc32fast::Hasher::new();
    crc.update(&bytes[HEADER..]);
    crc.update(&header[KEY..]);
    if header[12..KEY] != crc.finalize().to_le_bytes() {
        return Err(DAMAGED);
    }
    let addends = number(48).and_then(|at| usize::try_from(at).ok());
    let mut addends = addends.and_then(|at| bytes.get(at..)).ok_or(DAMAGED)?;
    let mut at = HEADER;
    let mut packed = Vec::with_capacity(layers.len());
    for Layer { shape, .. } in layers {
        let (own, rest) = postcard::take_from_bytes::<Addends>(addends).map_err(|_| DAMAGED)?;
        addends = rest;
        packed.push(Packed::mapped(isa, shape, mapped, at, own).map_err(|_| DAMAGED)?);
        at += Packed::panels_len(isa, shape).next_multiple_of(ALIGNMENT);
    }
    Ok(packed)
}

/// Packs one convolution after the other into the file. Where another process was faster, its file is as good.
fn write(path: &Path, key: &[u8; 32], request: &Request, layers: &[Layer]) -> io::Result<()> {
    let fill = |file: &mut File| {
        file.seek(SeekFrom::Start(HEADER as u64))?;
        let (mut crc, mut at) = (crc32fast::Hasher::new(), HEADER as u64);
        let mut put = |file: &mut File, bytes: &[u8]| {
            at += bytes.len() as u64;
            if at > MAX_BYTES {
                return Err(io::Error::new(io::ErrorKind::FileTooLarge, "they are larger than 256 MiB"));
            }
            crc.update(bytes);
            file.write_all(bytes).map(|()| at)
        };
        let (mut addends, mut starts) = (Vec::new(), HEADER as u64);
        for Layer { x, shape, weights, .. } in layers {
            let values = weights.values(request.model).map_err(io::Error::other)?;
            let packed = Packed::new(request.isa, shape, &values, &weights.bias, x.zero).map_err(io::Error::other)?;
            let (panels, own) = packed.parts();
            put(file, panels)?;
            starts = put(file, &[0; ALIGNMENT][..panels.len().next_multiple_of(ALIGNMENT) - panels.len()])?;
            addends.extend(postcard::to_stdvec(own).map_err(io::Error::other)?);
        }
        let end = put(file, &addends)?;
        let tail = [key.as_slice(), &starts.to_le_bytes(), &end.to_le_bytes()].concat();
        crc.update(&tail);
        file.seek(SeekFrom::Start(0))?;
        file.write_all(&[MAGIC.as_slice(), &VERSION.to_le_bytes(), &crc.finalize().to_le_bytes(), &tail].concat())
    };
    match fs::create(path, MODE, fill) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => Err(e),
        _ => Ok(()),
    }
}

/// Removes files of packed weights beyond [`MAX_FILES`] and [`MAX_BYTES`], those first that were not used for longest, but
/// not `own`; and what killed processes left half written.
fn remove_old(folder: &Path, own: &Path) -> io::Result<()> {
    let is_key = |name: &str| name.len() == 64 && name.bytes().all(|b| b.is_ascii_hexdigit());
    let now = SystemTime::now();
    let mut files: Vec<(bool, SystemTime, u64, PathBuf)> = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        // What is gone by now needs no removal.
        let Ok(metadata) = entry.metadata() else { continue };
        let (name, path, modified) = (entry.file_name(), entry.path(), metadata.modified()?);
        let Some((hidden, key, end)) = name.to_str().and_then(|name| {
            let visible = name.strip_prefix('.').unwrap_or(name);
            let (key, end) = visible.split_at_checked(64)?;
            Some((visible.len() < name.len(), key, end))
        }) else {
            continue;
        };
        if !metadata.is_file() || !is_key(key) || !end.starts_with(SUFFIX) {
            continue;
        }
        if hidden && end.ends_with(PARTIAL) && now.duration_since(modified).is_ok_and(|age| age > ABANDONED) {
            fs::remove(&path)?;
        } else if !hidden && end == SUFFIX {
            files.push((path == own, modified, metadata.len(), path));
        }
    }
    files.sort_by(|a, b| b.cmp(a));
    let mut bytes = 0;
    for (n, (_, _, len, path)) in files.into_iter().enumerate() {
        bytes += len;
        if n >= MAX_FILES || bytes > MAX_BYTES {
            fs::remove(&path)?;
        }
    }
    Ok(())
}
