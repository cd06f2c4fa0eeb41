//! The model file: magic `OUTLIERD`, format version, postcard body, CRC-32 of all before it.
//!
//! The body's structs are frozen per format version: another shape is another version. A version contains the one
//! before. Version 2 adds [`Records`]; the scores that were learnt are among those of its calibration. Version 3 keeps
//! them apart, and adds the tail of the calibration and the number of independent scores it is worth. Version 4 adds the
//! detector over cells, version 5 masks and tiles. A model is written in the lowest version that holds it, so that older
//! readers know it.

use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use self::body::BodyV1;
use self::cells::JoinedV4;
use self::values::check;
use super::error::Error;
use super::fitted::Model;
use super::records::{Learnt, MAX_NORMAL_SCORES, Records};
use super::verdict::Calibration;
use crate::backbone::multi_crop::MAX_TILES;
use crate::fs;
use crate::image::mask::Mask;

mod body;
mod calibration;
mod cells;
mod detector;
mod values;

pub const MAGIC: &[u8; 8] = b"OUTLIERD";
pub const VERSION: u16 = 5;
const WITHOUT_MASK: u16 = 4;
const WITHOUT_CELLS: u16 = 3;
const WITHOUT_TAIL: u16 = 2;
const WITHOUT_RECORDS: u16 = 1;
/// Larger files are refused before they are read.
pub const MAX_BYTES: u64 = 64 << 20;

/// Where the model stays that another one replaces: `MODEL.bak`.
pub fn backup_path(model: &Path) -> PathBuf {
    model.with_added_extension("bak")
}

#[derive(Serialize, Deserialize)]
struct BodyV2 {
    body: BodyV1,
    normal_scores: Vec<f64>,
    /// Event and score.
    #[serde(deserialize_with = "detector::at_most::<MAX_LEARNT, _, _>")]
    learnt: Vec<(String, f64)>,
}

#[derive(Serialize, Deserialize)]
struct BodyV3 {
    body: BodyV2,
    /// The number of independent scores that the conformal ones are worth.
    worth: f64,
    /// Score, p, low and high of the tail's knots, by rising score; empty without a tail.
    tail: Vec<[f64; 4]>,
    /// Consecutive frames that were held out together; 1: independent pictures.
    stretch: u32,
}

#[derive(Serialize, Deserialize)]
struct BodyV4 {
    body: BodyV3,
    joined: JoinedV4,
}

#[derive(Serialize, Deserialize)]
struct BodyV5 {
    body: BodyV3,
    joined: Option<JoinedV4>,
    mask: Vec<Vec<[f64; 2]>>,
    tiles: u32,
}

/// The most false alarms that a file may hold.
const MAX_LEARNT: usize = 100_000;

impl Model {
    /// Reads and checks a model file.
    pub fn load(path: &Path) -> Result<Self, Error> {
        let bytes = fs::read(path, MAX_BYTES).map_err(|source| Error::Read { path: path.to_owned(), source })?;
        decode(&bytes).map_err(|reason| Error::Format { path: path.to_owned(), reason })
    }

    /// Writes a model file atomically.
    pub fn save(&self, path: &Path) -> Result<(), Error> {
        fs::replace(path, &encode(self)?).map_err(|source| Error::Write { path: path.to_owned(), source })
    }
}

/// The model as its file keeps it: rounded the same way.
pub fn rounded(model: &Model) -> Result<Model, Error> {
    decode(&encode(model)?).map_err(|reason| Error::Format { path: PathBuf::from("the fitted model"), reason })
}

/// The bytes of a model file.
pub fn encode(model: &Model) -> Result<Vec<u8>, Error> {
    let conformal = match &model.calibration {
        Calibration::Conformal(conformal) => Some(conformal),
        Calibration::Isotonic(_) => None,
    };
    let tail = conformal.and_then(|conformal| conformal.tail.as_ref());
    let whole = model.source.mask.is_empty() && model.source.tiles <= 1;
    let plain = model.records.is_empty() && tail.is_none() && model.training.stretch <= 1;
    let plain = plain && whole && model.joined.is_none();
    let (version, body) = if plain {
        (WITHOUT_RECORDS, postcard::to_stdvec(&body::body(model)))
    } else {
        let learnt = model.records.learnt.iter().map(|known| (known.event.clone(), known.score)).collect();
        let normal_scores = model.records.normal_scores.clone();
        let body = BodyV3 {
            body: BodyV2 { body: body::body(model), normal_scores, learnt },
            worth: conformal.map_or(0.0, |conformal| conformal.worth),
            tail: calibration::knots(tail),
            stretch: model.training.stretch,
        };
        let joined = model.joined.as_deref().map(cells::body);
        match joined {
            joined if !whole => {
                let mask = model.source.mask.polygons().to_vec();
                (VERSION, postcard::to_stdvec(&BodyV5 { body, joined, mask, tiles: model.source.tiles }))
            }
            None => (WITHOUT_CELLS, postcard::to_stdvec(&body)),
            Some(joined) => (WITHOUT_MASK, postcard::to_stdvec(&BodyV4 { body, joined })),
        }
    };
    let body = body.map_err(|e| Error::Format { path: PathBuf::from("the fitted model"), reason: e.to_string() })?;
    let mut bytes = Vec::with_capacity(body.len() + 14);
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&version.to_le_bytes());
    bytes.extend_from_slice(&body);
    bytes.extend_from_slice(&crc32fast::hash(&bytes).to_le_bytes());
    Ok(bytes)
}

/// A model from the bytes of a file, or the reason why they are not one.
pub fn decode(bytes: &[u8]) -> Result<Model, String> {
    if bytes.len() as u64 > MAX_BYTES {
        return Err(format!("it is larger than {MAX_BYTES} bytes"));
    }
    let rest = bytes.strip_prefix(MAGIC.as_slice()).ok_or("it does not start as a model file does")?;
    let (version, rest) = rest.split_first_chunk::<2>().ok_or("it is cut short")?;
    let version = u16::from_le_bytes(*version);
    if !(WITHOUT_RECORDS..=VERSION).contains(&version) {
        return Err(format!(
            "it has format version {version}, this outlierd reads versions {WITHOUT_RECORDS} to {VERSION}: \
             use the outlierd that wrote it, or fit again"
        ));
    }
    let (body, crc) = rest.split_last_chunk::<4>().ok_or("it is cut short")?;
    if crc32fast::hash(&bytes[..bytes.len() - 4]) != u32::from_le_bytes(*crc) {
        return Err("its checksum is wrong: it is cut short or damaged; copy it again or fit again".into());
    }
    match version {
        WITHOUT_RECORDS => body::model(read(body)?),
        WITHOUT_TAIL => model_v2(read(body)?),
        WITHOUT_CELLS => model_v3(read(body)?),
        WITHOUT_MASK => {
            let BodyV4 { body, joined } = read(body)?;
            Ok(Model { joined: Some(Box::new(cells::joined(joined)?)), ..model_v3(body)? })
        }
        _ => {
            let BodyV5 { body, joined, mask, tiles } = read(body)?;
            let joined = joined.map(cells::joined).transpose()?.map(Box::new);
            let mut model = Model { joined, ..model_v3(body)? };
            check((1..=MAX_TILES).contains(&tiles), "the number of tiles")?;
            model.source.mask = Mask::new(mask).map_err(|reason| format!("its masks are wrong: {reason}"))?;
            model.source.tiles = tiles;
            Ok(model)
        }
    }
}

fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, String> {
    let (body, left) = postcard::take_from_bytes(body).map_err(|e| format!("its body is damaged: {e}"))?;
    if left.is_empty() { Ok(body) } else { Err(format!("{} bytes follow its body", left.len())) }
}

/// Takes the learnt scores out of those of the calibration.
fn model_v2(body: BodyV2) -> Result<Model, String> {
    let mut model = with_records(body)?;
    if let Calibration::Conformal(conformal) = &mut model.calibration {
        for score in &conformal.learnt {
            let at = conformal.scores.binary_search_by(|known| known.total_cmp(score));
            conformal.scores.remove(at.map_err(|_| "a learnt score is not in its calibration")?);
        }
        check(!conformal.scores.is_empty(), "the calibration's length")?;
        conformal.worth = conformal.scores.len() as f64;
    }
    Ok(model)
}

fn model_v3(BodyV3 { body, worth, tail, stretch }: BodyV3) -> Result<Model, String> {
    let mut model = with_records(body)?;
    model.training.stretch = stretch;
    if let Calibration::Conformal(conformal) = &mut model.calibration {
        check((1.0..=conformal.scores.len() as f64).contains(&worth), "what the calibration is worth")?;
        conformal.worth = worth;
        conformal.tail = calibration::tail(tail, &conformal.scores)?;
    }
    Ok(model)
}

/// The model of the first version with its records, the learnt scores in its calibration.
fn with_records(BodyV2 { body, normal_scores, learnt }: BodyV2) -> Result<Model, String> {
    check(normal_scores.len() <= MAX_NORMAL_SCORES, "the number of scores of normals")?;
    check(normal_scores.iter().all(|v| v.is_finite()) && normal_scores.is_sorted(), "the scores of normals")?;
    check(learnt.iter().all(|(_, score)| score.is_finite()), "a learnt score")?;
    let mut model = body::model(body)?;
    if let Calibration::Conformal(conformal) = &mut model.calibration {
        conformal.learnt = learnt.iter().map(|(_, score)| *score).collect();
        conformal.learnt.sort_by(f64::total_cmp);
    }
    let learnt = learnt.into_iter().map(|(event, score)| Learnt { event, score }).collect();
    model.records = Records { normal_scores, learnt };
    Ok(model)
}
