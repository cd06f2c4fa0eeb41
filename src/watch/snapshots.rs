//! The pictures that raised events, as JPEG files: written whole or not at all, the oldest removed.
//!
//! An event's files are `outlier-ID.jpg` and, where there is a heat map, `outlier-ID-heat.jpg`; they go together.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use ::image::RgbImage;
use ::image::codecs::jpeg::JpegEncoder;

use super::events::sync_folder;
use crate::files;

/// The newest snapshot's link.
pub const LAST: &str = "last.jpg";
const PREFIX: &str = "outlier-";
const SUFFIX: &str = ".jpg";
const HEAT: &str = "-heat";
const PARTIAL: &str = ".part";
const QUALITY: u8 = 90;

/// A folder of snapshots.
#[derive(Debug)]
pub struct Snapshots {
    folder: PathBuf,
    keep: usize,
    max_bytes: u64,
    standing: Option<String>,
}

/// Where an event's pictures are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Saved {
    pub snapshot: PathBuf,
    pub heat: Option<PathBuf>,
}

/// The files of one event.
#[derive(Debug)]
struct Kept {
    modified: SystemTime,
    bytes: u64,
    paths: Vec<PathBuf>,
}

impl Snapshots {
    /// At most `keep` events and `max_bytes` in all. The folder is made at the first snapshot. Other files in it are
    /// left alone.
    pub fn new(folder: &Path, keep: usize, max_bytes: u64) -> Self {
        Snapshots { folder: folder.to_owned(), keep: keep.max(1), max_bytes, standing: None }
    }

    /// Another folder and other limits, from the next snapshot on.
    pub fn reconfigure(&mut self, folder: &Path, keep: usize, max_bytes: u64) {
        *self = Snapshots { standing: self.standing.take(), ..Snapshots::new(folder, keep, max_bytes) };
    }

    /// The event that stands: its pictures are not removed. None: no event does.
    pub fn set_standing(&mut self, id: Option<&str>) {
        self.standing = id.map(str::to_owned);
    }

    /// Writes the pictures of an event.
    pub fn save(&self, id: &str, picture: &RgbImage, heat: Option<&RgbImage>) -> io::Result<Saved> {
        std::fs::create_dir_all(&self.folder)?;
        let name = format!("{PREFIX}{id}{SUFFIX}");
        let snapshot = self.write(&name, picture)?;
        let heat = heat.map(|heat| self.write(&format!("{PREFIX}{id}{HEAT}{SUFFIX}"), heat)).transpose()?;
        sync_folder(&snapshot)?;
        Ok(Saved { snapshot, heat })
    }

    fn write(&self, name: &str, picture: &RgbImage) -> io::Result<PathBuf> {
        let mut jpeg = Vec::new();
        JpegEncoder::new_with_quality(&mut jpeg, QUALITY).encode_image(picture).map_err(io::Error::other)?;
        let path = self.folder.join(name);
        let partial = self.folder.join(format!(".{name}{PARTIAL}"));
        let written = write_synced(&partial, &jpeg).and_then(|()| std::fs::rename(&partial, &path));
        if let Err(e) = written {
            // The first error is the one that matters; a partial file is overwritten or removed later.
            let _ = std::fs::remove_file(&partial);
            return Err(e);
        }
        Ok(path)
    }

    /// Links the newest snapshot as `last.jpg` and removes what is beyond the limits.
    pub fn settle(&self, newest: &str) -> io::Result<()> {
        let linked = self.link(&format!("{PREFIX}{newest}{SUFFIX}"));
        linked.and(self.prune(newest))
    }

    fn link(&self, name: &str) -> io::Result<()> {
        let partial = self.folder.join(".last.part");
        remove(&partial)?;
        std::os::unix::fs::symlink(name, &partial)?;
        std::fs::rename(&partial, self.folder.join(LAST)).inspect_err(|_| {
            // The first error is the one that matters.
            let _ = std::fs::remove_file(&partial);
        })
    }

    /// Removes the oldest events' pictures beyond what is kept, and what a killed run left half written; never those
    /// of `newest` and of the event that stands, however large. A file that cannot be removed does not save others.
    /// Pictures of a time to come, which a clock that was wrong has left, count as the oldest.
    fn prune(&self, newest: &str) -> io::Result<()> {
        let mut events: BTreeMap<String, Kept> = BTreeMap::new();
        let mut failure = Ok(());
        let now = SystemTime::now();
        for entry in std::fs::read_dir(&self.folder)? {
            let entry = entry?;
            let name = entry.file_name();
            let Some(name) = name.to_str() else { continue };
            // Links and folders are others', whatever their name; what is gone by now needs no removal.
            let Ok(metadata) = entry.metadata() else { continue };
            if !metadata.is_file() {
                continue;
            }
            if name.strip_prefix('.').is_some_and(|rest| rest.starts_with(PREFIX) && rest.ends_with(PARTIAL)) {
                failure = failure.and(remove(&entry.path()));
                continue;
            }
            let Some(id) = name.strip_prefix(PREFIX).and_then(|rest| rest.strip_suffix(SUFFIX)) else { continue };
            let id = id.strip_suffix(HEAT).unwrap_or(id);
            let modified = Some(metadata.modified()?).filter(|at| *at <= now).unwrap_or(SystemTime::UNIX_EPOCH);
            let kept = events.entry(id.to_owned()).or_insert(Kept { modified, bytes: 0, paths: Vec::new() });
            kept.modified = kept.modified.max(modified);
            kept.bytes += metadata.len();
            kept.paths.push(entry.path());
        }
        let (mut count, mut bytes) = (events.len(), events.values().map(|kept| kept.bytes).sum::<u64>());
        let mut removable: Vec<(String, Kept)> =
            events.into_iter().filter(|(id, _)| id != newest && self.standing.as_deref() != Some(id)).collect();
        removable.sort_by(|(a_id, a), (b_id, b)| (a.modified, a_id).cmp(&(b.modified, b_id)));
        for (_, kept) in removable {
            if count <= self.keep && bytes <= self.max_bytes {
                break;
            }
            let removed = kept.paths.iter().map(|path| remove(path)).fold(Ok(()), Result::and);
            if removed.is_ok() {
                count -= 1;
                bytes -= kept.bytes;
            }
            failure = failure.and(removed);
        }
        failure
    }
}

/// Removes a file that may be gone already.
fn remove(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

fn write_synced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = files::create_new(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    const PLENTY: u64 = 1 << 30;

    /// A picture whose file is about as large as any other's of the same size.
    fn picture(red: u8) -> RgbImage {
        RgbImage::from_pixel(20, 10, ::image::Rgb([red, 0, 0]))
    }

    /// Saves and prunes as the daemon does, with a time of its own so that the order does not hang on the clock.
    fn take(snapshots: &Snapshots, id: &str, heat: bool, second: u64) -> Saved {
        let picture = picture(second as u8 * 20);
        let saved = snapshots.save(id, &picture, heat.then_some(&picture)).unwrap();
        let time = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(second);
        for path in [Some(&saved.snapshot), saved.heat.as_ref()].into_iter().flatten() {
            File::options().write(true).open(path).unwrap().set_modified(time).unwrap();
        }
        snapshots.settle(id).unwrap();
        saved
    }

    #[test]
    fn the_newest_are_kept_and_linked() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("a/b");
        let snapshots = Snapshots::new(&folder, 2, PLENTY);
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("mine.jpg"), "keep").unwrap();
        take(&snapshots, "9", true, 1);
        take(&snapshots, "8", false, 2);
        let saved = take(&snapshots, "7", true, 10);
        assert_eq!(saved.heat, Some(folder.join("outlier-7-heat.jpg")));
        let expected = ["last.jpg", "mine.jpg", "outlier-7-heat.jpg", "outlier-7.jpg", "outlier-8.jpg"];
        assert_eq!(names(&folder), expected);
        assert_eq!(std::fs::read_link(folder.join(LAST)).unwrap(), Path::new("outlier-7.jpg"));
        let last = crate::image::read(&folder.join(LAST)).unwrap();
        assert_eq!(last.dimensions(), (20, 10));
        assert!(last.get_pixel(5, 5)[0].abs_diff(200) < 4);
    }

    #[test]
    fn bytes_are_a_limit_too_and_count_the_heat_map() {
        let dir = tempfile::tempdir().unwrap();
        let wide = Snapshots::new(dir.path(), 100, PLENTY);
        let one = std::fs::metadata(take(&wide, "0", false, 1).snapshot).unwrap().len();
        take(&wide, "1", true, 2);
        take(&wide, "2", false, 3);
        let limited = Snapshots::new(dir.path(), 100, 3 * one + one / 2);
        take(&limited, "3", false, 4);
        assert_eq!(names(dir.path()), ["last.jpg", "outlier-2.jpg", "outlier-3.jpg"]);
        take(&limited, "4", false, 5);
        assert_eq!(names(dir.path()), ["last.jpg", "outlier-2.jpg", "outlier-3.jpg", "outlier-4.jpg"]);
        take(&Snapshots::new(dir.path(), 100, 1), "5", true, 6);
        assert_eq!(names(dir.path()), ["last.jpg", "outlier-5-heat.jpg", "outlier-5.jpg"]);
    }

    #[test]
    fn a_standing_event_keeps_its_pictures() {
        let dir = tempfile::tempdir().unwrap();
        let mut snapshots = Snapshots::new(dir.path(), 1, PLENTY);
        take(&snapshots, "first", true, 1);
        snapshots.set_standing(Some("first"));
        snapshots.reconfigure(dir.path(), 1, 1);
        take(&snapshots, "second", false, 2);
        take(&snapshots, "third", false, 3);
        assert_eq!(names(dir.path()), ["last.jpg", "outlier-first-heat.jpg", "outlier-first.jpg", "outlier-third.jpg"]);
        snapshots.set_standing(None);
        take(&snapshots, "fourth", false, 4);
        assert_eq!(names(dir.path()), ["last.jpg", "outlier-fourth.jpg"]);
    }

    #[test]
    fn what_others_put_there_stays() {
        use std::os::unix::ffi::OsStrExt;
        let dir = tempfile::tempdir().unwrap();
        let foreign = |name: &str| dir.path().join(name);
        std::fs::create_dir(foreign("outlier-folder.jpg")).unwrap();
        std::fs::write(foreign("outlier-folder.jpg/inside"), "x").unwrap();
        std::os::unix::fs::symlink("/nonexistent", foreign("outlier-link.jpg")).unwrap();
        std::fs::write(foreign("outlier-.txt"), "x").unwrap();
        std::fs::write(foreign(".outlier-cut.jpg.part"), "half").unwrap();
        std::fs::write(dir.path().join(std::ffi::OsStr::from_bytes(b"outlier-\xff.jpg")), "x").unwrap();
        let snapshots = Snapshots::new(dir.path(), 1, 1);
        take(&snapshots, "1", false, 1);
        take(&snapshots, "2", false, 2);
        let left = std::fs::read_dir(dir.path()).unwrap().count();
        assert_eq!(left, 6, "{:?}", std::fs::read_dir(dir.path()).unwrap().collect::<Vec<_>>());
        assert!(foreign("outlier-folder.jpg/inside").exists() && foreign("outlier-2.jpg").exists());
        assert!(!foreign(".outlier-cut.jpg.part").exists() && !foreign("outlier-1.jpg").exists());
    }

    #[test]
    fn a_folder_in_the_link_s_place_is_an_error_and_the_old_are_removed_all_the_same() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join(LAST)).unwrap();
        let snapshots = Snapshots::new(dir.path(), 1, PLENTY);
        for id in ["1", "2"] {
            assert_eq!(snapshots.save(id, &picture(0), None).unwrap().heat, None);
            assert!(snapshots.settle(id).is_err());
        }
        assert_eq!(names(dir.path()), [LAST, "outlier-2.jpg"]);
    }

    #[test]
    fn an_unwritable_folder_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        std::fs::write(&file, "").unwrap();
        assert!(Snapshots::new(&file, 1, 1).save("x", &RgbImage::new(4, 4), None).is_err());
        assert!(Snapshots::new(&file.join("sub"), 1, 1).save("x", &RgbImage::new(4, 4), None).is_err());
    }
}
