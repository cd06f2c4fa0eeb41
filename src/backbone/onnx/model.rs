//! A model that is read: its graph, and where the elements of its tensors are.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;

use sha2::{Digest, Sha256};

use super::reader;
use super::source::{self, Source};
use super::tensor::Tensor;
use super::types::Graph;
use super::wire::WireError;
use crate::backbone::error::Error;

/// Bytes of the model and of the files beside it.
const MAX_BYTES: u64 = 1 << 30;

/// A model with the place of its data.
#[derive(Debug)]
pub struct Model {
    pub path: PathBuf,
    pub source: Source,
    /// Where files of external data lie, and their names and sizes.
    pub folder: Option<PathBuf>,
    pub external: BTreeMap<String, u64>,
    /// Version of the standard operator set.
    pub opset: i64,
    pub metadata: Vec<(String, String)>,
    pub graph: Graph,
    /// Bytes of tensor data that were read.
    pub read: AtomicU64,
}

impl Model {
    /// A model without anything.
    #[cfg(test)]
    pub fn empty() -> Model {
        Model {
            path: PathBuf::new(),
            source: Source::Bytes(Vec::new().into()),
            folder: None,
            external: BTreeMap::new(),
            opset: 13,
            metadata: Vec::new(),
            graph: Graph::default(),
            read: AtomicU64::default(),
        }
    }

    #[cfg(any(test, feature = "internals"))]
    /// Reads everything but tensor data of a model that is one file. `path` names the model in errors.
    pub fn parse(path: &Path, source: Source) -> Result<Model, Error> {
        Model::parse_in(path, source, None)
    }

    /// Reads everything but tensor data, which may lie in files of `folder`.
    pub fn parse_in(path: &Path, source: Source, folder: Option<&Path>) -> Result<Model, Error> {
        let contents = reader::read(&source).map_err(|error| match error {
            WireError::Io(source) => Error::Io { path: path.into(), source },
            error => {
                let reason = other_kind(&source).map_or_else(|| error.to_string(), str::to_string);
                Error::NotOnnx { path: path.into(), reason }
            }
        })?;
        let reader::Contents { opset, metadata, graph } = contents;
        let mut external = BTreeMap::new();
        for file in graph.constants.values().filter_map(Tensor::external) {
            if !external.contains_key(file) {
                external.insert(file.to_string(), source::external(path, folder, file)?.len());
            }
        }
        let (folder, read) = (folder.map(Path::to_path_buf), AtomicU64::new(0));
        let model = Model { path: path.into(), source, folder, external, opset, metadata, graph, read };
        if model.bytes() > MAX_BYTES {
            return Err(
                model.unsupported("with the files of its tensor data it is larger than 1 GiB, the most that is read")
            );
        }
        Ok(model)
    }

    /// What stands in the way of a network that is sound but not supported.
    pub fn unsupported(&self, reason: impl Into<String>) -> Error {
        Error::Unsupported { path: self.path.clone(), reason: reason.into() }
    }

    /// What contradicts itself in the file.
    pub fn invalid(&self, reason: impl Into<String>) -> Error {
        Error::NotOnnx { path: self.path.clone(), reason: reason.into() }
    }

    /// Bytes of the model and of the files beside it.
    pub fn bytes(&self) -> u64 {
        self.external.values().fold(self.source.len(), |sum, len| sum.saturating_add(*len))
    }

    /// SHA-256 of the model, whose own file has the hash `own`; with files beside it that of all hashes, by name.
    pub fn sha256(&self, own: [u8; 32]) -> Result<[u8; 32], Error> {
        if self.external.is_empty() {
            return Ok(own);
        }
        let mut all = Sha256::new();
        all.update(own);
        for file in self.external.keys() {
            let source = source::external(&self.path, self.folder.as_deref(), file)?;
            all.update(source.sha256().map_err(|source| Error::Io { path: self.path.clone(), source })?);
        }
        Ok(all.finalize().into())
    }

    /// The value of a `metadata_props` entry.
    pub fn metadata(&self, key: &str) -> Option<&str> {
        self.metadata.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str())
    }
}

/// What a file is that is not ONNX, by how it begins.
fn other_kind(source: &Source) -> Option<&'static str> {
    let mut head = [0; 64];
    let n = source.len().min(head.len() as u64) as usize;
    source.read_at(&mut head[..n], 0).ok()?;
    let kinds: [(usize, &[u8], &str); 8] = [
        (
            0,
            b"version https://git-lfs",
            "it is a pointer of Git LFS, not the network itself: fetch that with 'git lfs pull' or from where the pointer is",
        ),
        (4, b"ORTM", "it is in ONNX Runtime's own format (.ort); give the ONNX file that it was made from"),
        (4, b"TFL3", "it is a TensorFlow Lite file; export the network as ONNX"),
        (0, b"PK\x03\x04", "it is a zip archive, as PyTorch and Keras write; export the network as ONNX, or unpack it"),
        (0, b"\x89HDF", "it is an HDF5 file, as Keras writes; export the network as ONNX"),
        (0, b"\x1f\x8b", "it is packed with gzip; unpack it first"),
        (0, b"<!DOCTYPE", "it is a web page; download the file itself"),
        (0, b"<html", "it is a web page; download the file itself"),
    ];
    let is = |at: usize, magic: &[u8]| head[at..at + magic.len()].eq_ignore_ascii_case(magic);
    kinds.into_iter().find(|(at, magic, _)| is(*at, magic)).map(|(.., what)| what)
}
