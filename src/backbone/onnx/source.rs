//! Where the bytes of a model are: a file, memory, and the files of external data beside it.

use std::borrow::Cow;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Component, Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::backbone::error::Error;
use crate::fs;

/// What is read at once for a hash.
const CHUNK: usize = 128 * 1024;
/// Larger files are refused; protobuf's own limit is twice that.
const MAX_BYTES: u64 = 1 << 30;

/// Where the bytes of an ONNX model are.
#[derive(Debug)]
pub enum Source {
    File { file: File, len: u64 },
    Bytes(Cow<'static, [u8]>),
}

impl Source {
    pub fn open(path: &Path) -> io::Result<Source> {
        let file = fs::open(path)?;
        let len = file.metadata()?.len();
        if len > MAX_BYTES {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, "it is larger than 1 GiB, the most that is read"));
        }
        Ok(Source::File { file, len })
    }

    pub fn len(&self) -> u64 {
        match self {
            Source::File { len, .. } => *len,
            Source::Bytes(bytes) => bytes.len() as u64,
        }
    }

    #[cfg(any(test, feature = "internals"))]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Fills `buf` from `offset`; the end of the data before `buf` is full is an error.
    pub fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        match self {
            Source::File { file, .. } => file.read_exact_at(buf, offset),
            Source::Bytes(bytes) => {
                let range = usize::try_from(offset).ok().and_then(|at| Some(at..at.checked_add(buf.len())?));
                let found = range.and_then(|r| bytes.get(r)).ok_or(io::ErrorKind::UnexpectedEof)?;
                buf.copy_from_slice(found);
                Ok(())
            }
        }
    }

    /// SHA-256 of the whole, read in pieces.
    pub fn sha256(&self) -> io::Result<[u8; 32]> {
        let mut hash = Sha256::new();
        if let Source::Bytes(bytes) = self {
            hash.update(bytes);
            return Ok(hash.finalize().into());
        }
        let mut buf = vec![0; CHUNK];
        let mut at = 0;
        while at < self.len() {
            let n = (self.len() - at).min(buf.len() as u64) as usize;
            self.read_at(&mut buf[..n], at)?;
            hash.update(&buf[..n]);
            at += n as u64;
        }
        Ok(hash.finalize().into())
    }
}

/// Opens a file of external data that lies in `folder`, beside the model `path`.
pub fn external(path: &Path, folder: Option<&Path>, file: &str) -> Result<Source, Error> {
    let wrong = |what: String| Error::NotOnnx {
        path: path.into(),
        reason: format!("the data of its tensors lies in another file ({file:?}){what}, or save the model as one file"),
    };
    let Some(folder) = folder else { return Err(wrong(", which is not at hand: open it by its path".into())) };
    let plain = Path::new(file).components().all(|part| matches!(part, Component::Normal(_)));
    if file.is_empty() || !plain {
        return Err(wrong(" outside of its folder: put it beside the model".into()));
    }
    let at: PathBuf = folder.join(file);
    Source::open(&at).map_err(|source| match source.kind() {
        std::io::ErrorKind::NotFound => wrong(", which is not beside it: copy both".into()),
        _ => Error::Io { path: at, source },
    })
}
