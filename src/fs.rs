//! Files that others name or write: opened only where they are plain files, so that no pipe and no device holds the
//! process up, and read up to a limit; replaced whole.

#![allow(clippy::disallowed_methods, reason = "this is the place for them")]

use std::ffi::{OsStr, OsString};
use std::fs::{File, OpenOptions, Permissions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use tempfile::NamedTempFile;

/// Opens a plain file to read.
///
/// # Errors
/// Also where the path names a folder, a pipe or a device.
pub fn open(path: &Path) -> io::Result<File> {
    open_with(path, OFlags::empty())
}

fn open_with(path: &Path, more: OFlags) -> io::Result<File> {
    let flags = OFlags::NONBLOCK | more;
    let file = OpenOptions::new().read(true).custom_flags(flags.bits() as i32).open(path)?;
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a plain file")),
    }
}

/// The bytes of a plain file of a folder that others may have put links into: none is followed.
///
/// # Errors
/// As [`read`], and where the name is a link's.
pub fn read_unlinked(path: &Path, max: u64) -> io::Result<Vec<u8>> {
    read_all(open_with(path, OFlags::NOFOLLOW)?, max)
}

/// The file of a credential that systemd has loaded for this process; None: there is none of that name.
pub fn credential(name: &str) -> Option<PathBuf> {
    let path = Path::new(&std::env::var_os("CREDENTIALS_DIRECTORY")?).join(name);
    path.exists().then_some(path)
}

/// Opens a FIFO, without waiting for a writer, or a plain file; true for a FIFO.
///
/// # Errors
/// Also where the path names something else.
pub fn open_stream(path: &Path) -> io::Result<(File, bool)> {
    let file = OpenOptions::new().read(true).custom_flags(OFlags::NONBLOCK.bits() as i32).open(path)?;
    let kind = file.metadata()?.file_type();
    match kind.is_fifo() || kind.is_file() {
        true => Ok((file, kind.is_fifo())),
        false => Err(io::Error::new(io::ErrorKind::InvalidInput, "it is neither a FIFO nor a plain file")),
    }
}

/// The bytes of a plain file.
///
/// # Errors
/// Also where there are more than `max`.
pub fn read(path: &Path, max: u64) -> io::Result<Vec<u8>> {
    read_all(open(path)?, max)
}

fn read_all(file: File, max: u64) -> io::Result<Vec<u8>> {
    let too_large = || io::Error::new(io::ErrorKind::FileTooLarge, format!("it is larger than {max} bytes"));
    let len = file.metadata()?.len();
    if len > max {
        return Err(too_large());
    }
    let mut bytes = Vec::with_capacity(len as usize);
    // A file may grow while it is read, and those of /proc have no length.
    file.take(max + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > max { Err(too_large()) } else { Ok(bytes) }
}

/// The text of a plain file of at most `max` bytes.
pub fn read_text(path: &Path, max: u64) -> io::Result<String> {
    String::from_utf8(read(path, max)?).map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "it is not UTF-8 text"))
}

/// How a file is replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replacement {
    /// A power cut loses neither the old file nor the new one. Who could read the old one may read the new one.
    Durable,
    /// Nothing is synced: a power cut may lose both. The mode is as given, whatever the umask.
    Volatile { mode: u32 },
}

/// The end of the name that a file has until it is whole: `.NAME.??????.part`. A killed process leaves it behind.
pub const PARTIAL: &str = ".part";

/// Writes a durable file so that a reader sees the old one or the new one whole.
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    replace_as(path, bytes, Replacement::Durable).map(drop)
}

/// Writes a file so that a reader sees the old one or the new one whole; it is locked from the beginning.
pub fn replace_as(path: &Path, bytes: &[u8], how: Replacement) -> io::Result<Locked> {
    let mode = match how {
        Replacement::Durable => 0o666,
        Replacement::Volatile { mode } => mode,
    };
    let mut file = partial(path, mode)?;
    file.write_all(bytes)?;
    match (how, std::fs::metadata(path)) {
        (Replacement::Durable, Ok(old)) => {
            // Only root may give a file away; anyone else wrote the old one, or shares its group.
            let _ = fchown(file.as_file(), Some(old.uid()), Some(old.gid()));
            file.as_file().set_permissions(old.permissions())?;
        }
        (Replacement::Durable, Err(_)) => {}
        (Replacement::Volatile { mode }, _) => file.as_file().set_permissions(Permissions::from_mode(mode))?,
    }
    if how == Replacement::Durable {
        file.as_file().sync_all()?;
    }
    let (file, partial) = file.into_parts();
    let locked = Locked::new(file).ok_or_else(|| io::Error::other("another process holds it locked"))?;
    partial.persist(path).map_err(|e| e.error)?;
    if how == Replacement::Durable {
        sync_folder(path)?;
    }
    Ok(locked)
}

/// Writes a durable file where there is none, so that a reader sees it whole. The mode is as given, whatever the umask.
///
/// # Errors
/// Also, as [`io::ErrorKind::AlreadyExists`], where there is one by now.
pub fn create(path: &Path, mode: u32, write: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<()> {
    let mut file = partial(path, mode)?;
    write(file.as_file_mut())?;
    file.as_file().set_permissions(Permissions::from_mode(mode))?;
    file.as_file().sync_all()?;
    file.persist_noclobber(path).map_err(|e| e.error)?;
    sync_folder(path)
}

/// An empty file beside `path` that is removed unless it gets that name.
fn partial(path: &Path, mode: u32) -> io::Result<NamedTempFile> {
    let name = path.file_name().ok_or_else(|| io::Error::other("it names no file"))?;
    tempfile::Builder::new()
        .prefix(&[OsStr::new("."), name, OsStr::new(".")].into_iter().collect::<OsString>())
        .suffix(PARTIAL)
        .permissions(Permissions::from_mode(mode))
        .tempfile_in(folder_of(path))
}

/// Removes a file that may be gone already.
pub fn remove(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

/// A file or folder that is locked against other processes until this is dropped. A file system without locks is taken
/// as it is.
#[derive(Debug)]
pub struct Locked(File);

impl Locked {
    /// None: another process has it.
    pub fn new(file: File) -> Option<Locked> {
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => None,
            Ok(()) | Err(TryLockError::Error(_)) => Some(Locked(file)),
        }
    }

    pub fn file(&self) -> &File {
        &self.0
    }
}

impl Drop for Locked {
    fn drop(&mut self) {
        // A child process has the same lock from its fork until it executes its program, so closing does not release it.
        let _ = self.0.unlock();
    }
}

/// The folder that a path's name stands in.
pub fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Makes a rename or a new name in the path's folder durable, where the file system can and the folder may be read.
pub fn sync_folder(path: &Path) -> io::Result<()> {
    match File::open(folder_of(path)).and_then(|folder| folder.sync_all()) {
        Err(e)
            if matches!(
                e.kind(),
                io::ErrorKind::PermissionDenied | io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported
            ) =>
        {
            Ok(())
        }
        synced => synced,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_up_to_its_limit() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        std::fs::write(&path, "12345").unwrap();
        assert_eq!(read_text(&path, 5).unwrap(), "12345");
        assert_eq!(read(&path, 4).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
        assert_eq!(read(Path::new("/dev/zero"), 1000).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        std::fs::write(&path, [0xff]).unwrap();
        assert_eq!(read_text(&path, 5).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn a_replaced_file_has_its_mode_and_lock_and_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        let mode = || std::fs::metadata(&path).unwrap().mode() & 0o777;
        replace(&path, b"1").unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        replace(&path, b"2").unwrap();
        assert_eq!((mode(), read_text(&path, 9).unwrap().as_str()), (0o640, "2"));
        let locked = replace_as(&path, b"3", Replacement::Volatile { mode: 0o646 }).unwrap();
        assert_eq!((mode(), read_text(&path, 9).unwrap().as_str()), (0o646, "3"));
        assert!(Locked::new(open(&path).unwrap()).is_none());
        drop(locked);
        assert!(Locked::new(open(&path).unwrap()).is_some());
        std::fs::create_dir(dir.path().join("folder")).unwrap();
        assert!(replace(&dir.path().join("folder"), b"4").is_err());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2);
    }

    #[test]
    fn a_lock_is_released_though_a_child_still_has_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let folder = || File::open(dir.path()).unwrap();
        let first = folder();
        // What a child has between fork and exec.
        let inherited = first.try_clone().unwrap();
        let locked = Locked::new(first).unwrap();
        assert!(Locked::new(folder()).is_none());
        drop(locked);
        assert!(Locked::new(folder()).is_some());
        drop(inherited);
    }

    #[test]
    fn a_folder_that_cannot_be_synced_is_no_error() {
        assert!(File::open("/proc").unwrap().sync_all().is_err());
        sync_folder(Path::new("/proc/x")).unwrap();
        assert!(sync_folder(Path::new("/nonexistent/x")).is_err());
    }
}
