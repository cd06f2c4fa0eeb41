//! Files that are read where they lie in memory, once for all processes.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;

use memmap2::Mmap;

/// The bytes of a file, in memory that all processes share which map it.
///
/// The file must keep its length and content as long as it is mapped: a byte beyond its end, or one that the disk no
/// longer gives, is the signal SIGBUS. So only a file is taken that nobody but this user and root may write, and who
/// makes one writes it before it gets its name, and then only removes or replaces it.
#[derive(Debug)]
pub struct Mapped(Mmap);

impl Mapped {
    /// # Errors
    /// Another user owns the file or may write it, or it cannot be mapped.
    pub fn new(file: &File) -> io::Result<Mapped> {
        let metadata = file.metadata()?;
        let owner = metadata.uid();
        if owner != 0 && owner != rustix::process::geteuid().as_raw() || metadata.mode() & 0o022 != 0 {
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, "another user owns it or may write it"));
        }
        // SAFETY: the bytes must not change meanwhile. Nobody else may write the file, as was checked, and this program
        // writes none that has its final name.
        Ok(Mapped(unsafe { Mmap::map(file)? }))
    }

    #[inline]
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}
