//! The pictures that raised events, as JPEG files: written whole or not at all, the oldest removed.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use ::image::RgbImage;
use ::image::codecs::jpeg::JpegEncoder;

use super::events::sync_folder;

/// The newest snapshot's link.
pub const LAST: &str = "last.jpg";
const PREFIX: &str = "outlier-";
const SUFFIX: &str = ".jpg";
const QUALITY: u8 = 90;

/// A folder of snapshots.
#[derive(Debug)]
pub struct Snapshots {
    folder: PathBuf,
    keep: usize,
}

impl Snapshots {
    /// The folder is made at the first snapshot. Other files in it are left alone.
    pub fn new(folder: &Path, keep: usize) -> Self {
        Snapshots { folder: folder.to_owned(), keep: keep.max(1) }
    }

    /// Writes the picture of an event, links it as `last.jpg` and removes the oldest beyond what is kept.
    /// Returns the snapshot's path.
    pub fn save(&self, id: &str, picture: &RgbImage) -> io::Result<PathBuf> {
        std::fs::create_dir_all(&self.folder)?;
        let mut jpeg = Vec::new();
        JpegEncoder::new_with_quality(&mut jpeg, QUALITY).encode_image(picture).map_err(io::Error::other)?;
        let name = format!("{PREFIX}{id}{SUFFIX}");
        let path = self.folder.join(&name);
        let partial = self.folder.join(format!(".{name}.part"));
        let written = write_synced(&partial, &jpeg).and_then(|()| std::fs::rename(&partial, &path));
        if let Err(e) = written {
            // The first error is the one that matters; a partial file is overwritten or never seen.
            let _ = std::fs::remove_file(&partial);
            return Err(e);
        }
        sync_folder(&path)?;
        self.link(&name)?;
        self.prune(&path)?;
        Ok(path)
    }

    fn link(&self, name: &str) -> io::Result<()> {
        let partial = self.folder.join(".last.part");
        match std::fs::remove_file(&partial) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        std::os::unix::fs::symlink(name, &partial)?;
        std::fs::rename(&partial, self.folder.join(LAST))
    }

    fn prune(&self, newest: &Path) -> io::Result<()> {
        let mut snapshots = Vec::new();
        for entry in std::fs::read_dir(&self.folder)? {
            let entry = entry?;
            let name = entry.file_name();
            let ours = name.to_str().is_some_and(|name| name.starts_with(PREFIX) && name.ends_with(SUFFIX));
            if ours && entry.path() != newest {
                snapshots.push((entry.metadata()?.modified()?, entry.path()));
            }
        }
        snapshots.sort();
        let surplus = (snapshots.len() + 1).saturating_sub(self.keep);
        for (_, path) in snapshots.iter().take(surplus) {
            match std::fs::remove_file(path) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                _ => {}
            }
        }
        Ok(())
    }
}

fn write_synced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn the_newest_are_kept_and_linked() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("a/b");
        let snapshots = Snapshots::new(&folder, 2);
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("mine.jpg"), "keep").unwrap();
        let mut paths = Vec::new();
        for (at, red) in [10u8, 100, 200].iter().enumerate() {
            let picture = RgbImage::from_pixel(20, 10, ::image::Rgb([*red, 0, 0]));
            paths.push(snapshots.save(&format!("{}", 9 - at), &picture).unwrap());
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        assert_eq!(names(&folder), ["last.jpg", "mine.jpg", "outlier-7.jpg", "outlier-8.jpg"]);
        assert_eq!(std::fs::read_link(folder.join(LAST)).unwrap(), Path::new("outlier-7.jpg"));
        let last = crate::image::read(&folder.join(LAST)).unwrap();
        assert_eq!(last.dimensions(), (20, 10));
        assert!(last.get_pixel(5, 5)[0].abs_diff(200) < 4);
    }

    #[test]
    fn an_unwritable_folder_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        std::fs::write(&file, "").unwrap();
        assert!(Snapshots::new(&file, 1).save("x", &RgbImage::new(4, 4)).is_err());
        assert!(Snapshots::new(&file.join("sub"), 1).save("x", &RgbImage::new(4, 4)).is_err());
    }
}
