//! The pictures that raised events, as JPEG files: written whole or not at all. One process at a time writes into a
//! folder.

use std::fs::File;
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use ::image::RgbImage;
use rustix::fs::OFlags;
use rustix::io::Errno;

use super::retention::{BLOCKS, HEAT, LAST, PREFIX, Retention, SUFFIX, is_full};
use crate::fs::{self, Locked, PARTIAL, remove};
use crate::image::jpeg;

const QUALITY: u8 = 90;

/// A folder of snapshots.
#[derive(Debug)]
pub struct Snapshots {
    folder: PathBuf,
    retention: Retention,
    /// The folder, open and locked.
    claimed: Option<Locked>,
    symlink: fn(&Path, &Path) -> io::Result<()>,
    linkless: bool,
}

impl Snapshots {
    /// At most `keep` events and `max_bytes` in all. Other files in the folder are left alone.
    pub fn new(folder: &Path, keep: usize, max_bytes: u64) -> Self {
        Snapshots {
            folder: folder.to_owned(),
            retention: Retention::pictures(keep, max_bytes),
            claimed: None,
            symlink: |to, path| std::os::unix::fs::symlink(to, path),
            linkless: false,
        }
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Other limits, or another folder, which must be claimed already; what is known of events is kept.
    pub fn reconfigure(&mut self, keep: usize, max_bytes: u64, other: Option<Snapshots>) {
        if let Some(Snapshots { folder, claimed, .. }) = other {
            (self.folder, self.claimed, self.linkless) = (folder, claimed, false);
        }
        self.retention.set_limits(keep, max_bytes);
    }

    /// Makes the folder and locks it for this process, for as long as the path names it. A file system without locks
    /// is taken as it is.
    ///
    /// # Errors
    /// Of the kind [`io::ErrorKind::ResourceBusy`] where another process has it.
    pub fn claim(&mut self) -> io::Result<()> {
        std::fs::create_dir_all(&self.folder)?;
        let folder = match open_folder(&self.folder) {
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => return Ok(()),
            folder => folder?,
        };
        if let Some(claimed) = &self.claimed
            && identity(claimed.file())? == identity(&folder)?
        {
            return Ok(());
        }
        self.claimed = Some(Locked::new(folder).ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::ResourceBusy,
                "another outlierd that is running writes its snapshots there; give each config its own events.snapshots",
            )
        })?);
        Ok(())
    }

    /// Takes note of events in the order of the log.
    pub fn remember(&mut self, ids: impl IntoIterator<Item = String>) {
        self.retention.remember(ids);
    }

    /// The event that stands: its pictures are not removed. None: no event does.
    pub fn set_standing(&mut self, id: Option<&str>) {
        self.retention.set_standing(id);
    }

    /// Where an event's picture is, or will be.
    pub fn picture_path(&self, id: &str) -> PathBuf {
        self.folder.join(format!("{PREFIX}{id}{SUFFIX}"))
    }

    /// Where the same picture with a heat map is, or will be.
    pub fn heat_path(&self, id: &str) -> PathBuf {
        self.folder.join(format!("{PREFIX}{id}{HEAT}{SUFFIX}"))
    }

    /// Writes the picture of an event.
    pub fn save(&mut self, id: &str, picture: &RgbImage) -> io::Result<PathBuf> {
        self.claim()?;
        self.remember([id.to_owned()]);
        let path = self.picture_path(id);
        self.write(id, &path, picture)?;
        Ok(path)
    }

    /// Writes the heat map beside the picture of an event.
    pub fn save_heat(&mut self, id: &str, heat: &RgbImage) -> io::Result<PathBuf> {
        self.claim()?;
        let path = self.heat_path(id);
        self.write(id, &path, heat)?;
        Ok(path)
    }

    /// Where there is no space, the oldest pictures make room, and where these do not suffice, the oldest clips.
    fn write(&mut self, id: &str, path: &Path, picture: &RgbImage) -> io::Result<()> {
        let jpeg = jpeg::encode(picture, QUALITY).map_err(io::Error::other)?;
        match fs::replace(path, &jpeg) {
            Err(e) if is_full(&e) => {
                // What cannot be removed makes no room: the next try says so.
                let room = jpeg.len() as u64 + BLOCKS;
                let _ = self.retention.remove_oldest(&self.folder, Some(id), room);
                match fs::replace(path, &jpeg) {
                    Err(e) if is_full(&e) => {
                        let _ = Retention::clips(usize::MAX, u64::MAX).remove_oldest(&self.folder, Some(id), room);
                        fs::replace(path, &jpeg)
                    }
                    written => written,
                }
            }
            written => written,
        }
    }

    /// Links the newest snapshot as `last.jpg`, or copies it where there are no links.
    pub fn link(&mut self, newest: &str) -> io::Result<()> {
        let (name, last) = (format!("{PREFIX}{newest}{SUFFIX}"), self.folder.join(LAST));
        let partial = self.folder.join(format!(".last{PARTIAL}"));
        remove(&partial)?;
        match (self.symlink)(Path::new(&name), &partial) {
            Err(e) if is_linkless(&e) => {
                if !std::mem::replace(&mut self.linkless, true) {
                    let folder = self.folder.display();
                    log::info!("{folder} is on a file system without links ({e}): {LAST} is a copy there");
                }
                return fs::replace(&last, &fs::read(&self.folder.join(&name), crate::image::MAX_BYTES)?);
            }
            linked => linked?,
        }
        std::fs::rename(&partial, last).inspect_err(|_| {
            // The first error is the one that matters.
            let _ = remove(&partial);
        })
    }

    /// Removes the oldest events' pictures beyond what is kept, and what a killed run left half written; never those
    /// of `newest` and of the event that stands, however large. A folder that is not there holds none.
    pub fn prune(&mut self, newest: Option<&str>) -> io::Result<()> {
        match self.retention.remove_oldest(&self.folder, newest, 0) {
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(()),
            removed => removed,
        }
    }
}

/// Whether a running daemon writes into the folder; false where that is unknown.
pub fn is_claimed(folder: &Path) -> bool {
    open_folder(folder).is_ok_and(|folder| Locked::new(folder).is_none())
}

/// A pipe or a device of that name is not opened.
fn open_folder(path: &Path) -> io::Result<File> {
    File::options().read(true).custom_flags(OFlags::DIRECTORY.bits() as i32).open(path)
}

fn identity(file: &File) -> io::Result<(u64, u64)> {
    let metadata = file.metadata()?;
    Ok((metadata.dev(), metadata.ino()))
}

/// What making a link fails with on exFAT and vfat, on SMB shares, and on others that know none.
fn is_linkless(error: &io::Error) -> bool {
    let codes = [Errno::PERM, Errno::OPNOTSUPP, Errno::NOSYS].map(Errno::raw_os_error);
    error.raw_os_error().is_some_and(|code| codes.contains(&code))
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

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

    fn set_second(path: &Path, second: u64) {
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(second);
        File::options().write(true).open(path).unwrap().set_modified(time).unwrap();
    }

    /// Saves, links and prunes as the daemon does, with a time of its own so that the order does not hang on the clock.
    fn take(snapshots: &mut Snapshots, id: &str, heat: bool, second: u64) -> PathBuf {
        let picture = picture(second as u8 * 20);
        let saved = snapshots.save(id, &picture).unwrap();
        set_second(&saved, second);
        if heat {
            set_second(&snapshots.save_heat(id, &picture).unwrap(), second);
        }
        snapshots.link(id).unwrap();
        snapshots.prune(Some(id)).unwrap();
        saved
    }

    #[test]
    fn the_newest_are_kept_and_linked() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("a/b");
        let mut snapshots = Snapshots::new(&folder, 2, PLENTY);
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("mine.jpg"), "keep").unwrap();
        take(&mut snapshots, "9", true, 1);
        take(&mut snapshots, "8", false, 2);
        assert_eq!(take(&mut snapshots, "7", true, 10), folder.join("outlier-7.jpg"));
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
        let mut snapshots = Snapshots::new(dir.path(), 100, PLENTY);
        let one = std::fs::metadata(take(&mut snapshots, "0", false, 1)).unwrap().len();
        take(&mut snapshots, "1", true, 2);
        take(&mut snapshots, "2", false, 3);
        snapshots.reconfigure(100, 3 * one + one / 2, None);
        take(&mut snapshots, "3", false, 4);
        assert_eq!(names(dir.path()), ["last.jpg", "outlier-2.jpg", "outlier-3.jpg"]);
        take(&mut snapshots, "4", false, 5);
        assert_eq!(names(dir.path()), ["last.jpg", "outlier-2.jpg", "outlier-3.jpg", "outlier-4.jpg"]);
        snapshots.reconfigure(100, 1, None);
        take(&mut snapshots, "5", true, 6);
        assert_eq!(names(dir.path()), ["last.jpg", "outlier-5-heat.jpg", "outlier-5.jpg"]);
    }

    #[test]
    fn a_standing_event_keeps_its_pictures() {
        let dir = tempfile::tempdir().unwrap();
        let mut snapshots = Snapshots::new(dir.path(), 1, PLENTY);
        take(&mut snapshots, "first", true, 1);
        snapshots.set_standing(Some("first"));
        snapshots.reconfigure(1, 1, None);
        take(&mut snapshots, "second", false, 2);
        take(&mut snapshots, "third", false, 3);
        assert_eq!(names(dir.path()), ["last.jpg", "outlier-first-heat.jpg", "outlier-first.jpg", "outlier-third.jpg"]);
        snapshots.set_standing(None);
        take(&mut snapshots, "fourth", false, 4);
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
        let mut snapshots = Snapshots::new(dir.path(), 1, 1);
        take(&mut snapshots, "1", false, 1);
        take(&mut snapshots, "2", false, 2);
        let left = std::fs::read_dir(dir.path()).unwrap().count();
        assert_eq!(left, 6, "{:?}", std::fs::read_dir(dir.path()).unwrap().collect::<Vec<_>>());
        assert!(foreign("outlier-folder.jpg/inside").exists() && foreign("outlier-2.jpg").exists());
        assert!(!foreign(".outlier-cut.jpg.part").exists() && !foreign("outlier-1.jpg").exists());
    }

    #[test]
    fn a_folder_in_the_link_s_place_is_an_error_and_the_old_are_removed_all_the_same() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join(LAST)).unwrap();
        let mut snapshots = Snapshots::new(dir.path(), 1, PLENTY);
        for id in ["1", "2"] {
            snapshots.save(id, &picture(0)).unwrap();
            assert!(snapshots.link(id).is_err());
            snapshots.prune(Some(id)).unwrap();
        }
        assert_eq!(names(dir.path()), [LAST, "outlier-2.jpg"]);
    }

    #[test]
    fn an_unwritable_folder_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        std::fs::write(&file, "").unwrap();
        assert!(Snapshots::new(&file, 1, 1).save("x", &RgbImage::new(4, 4)).is_err());
        assert!(Snapshots::new(&file.join("sub"), 1, 1).save("x", &RgbImage::new(4, 4)).is_err());
    }

    /// After a power cut the clock may lie behind: the newest evidence has the oldest times.
    #[test]
    fn the_oldest_by_the_log_go_first_whatever_the_clock_said() {
        let dir = tempfile::tempdir().unwrap();
        let mut before = Snapshots::new(dir.path(), 100, PLENTY);
        for (id, second) in [("not-in-the-log", 500), ("a", 1000), ("b", 2000), ("c", 3)] {
            take(&mut before, id, true, second);
        }
        drop(before);
        let mut snapshots = Snapshots::new(dir.path(), 3, PLENTY);
        snapshots.remember(["gone", "a", "b", "c"].map(str::to_owned));
        take(&mut snapshots, "d", false, 5);
        let expected = ["last.jpg", "outlier-b-heat.jpg", "outlier-b.jpg", "outlier-c-heat.jpg", "outlier-c.jpg"];
        assert_eq!(names(dir.path())[..5], expected);
        snapshots.reconfigure(1, PLENTY, None);
        snapshots.prune(None).unwrap();
        assert_eq!(names(dir.path()), ["last.jpg", "outlier-d.jpg"]);
    }

    #[test]
    fn the_oldest_make_room_and_no_more_than_needed() {
        let dir = tempfile::tempdir().unwrap();
        let mut snapshots = Snapshots::new(dir.path(), 100, PLENTY);
        let one = ["1", "2", "3", "4"].map(|id| take(&mut snapshots, id, false, 1))[0].metadata().unwrap().len();
        snapshots.retention.remove_oldest(dir.path(), Some("5"), one + one / 2).unwrap();
        assert_eq!(names(dir.path()), ["last.jpg", "outlier-3.jpg", "outlier-4.jpg"]);
    }

    #[test]
    fn without_links_the_last_is_a_copy() {
        let dir = tempfile::tempdir().unwrap();
        let mut snapshots = Snapshots::new(dir.path(), 100, PLENTY);
        for code in [Errno::PERM, Errno::OPNOTSUPP] {
            assert!(is_linkless(&code.into()));
        }
        snapshots.symlink = |_, _| Err(Errno::PERM.into());
        for id in ["1", "2"] {
            let saved = take(&mut snapshots, id, false, 1);
            let last = dir.path().join(LAST);
            assert!(last.symlink_metadata().unwrap().is_file());
            assert_eq!(std::fs::read(last).unwrap(), std::fs::read(saved).unwrap());
        }
        snapshots.symlink = |_, _| Err(Errno::ACCESS.into());
        assert!(snapshots.link("2").is_err());
    }

    #[test]
    fn a_folder_has_one_writer_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("s");
        let (mut first, mut second) = (Snapshots::new(&folder, 1, PLENTY), Snapshots::new(&folder, 1, PLENTY));
        assert!(!is_claimed(&folder));
        first.claim().unwrap();
        first.claim().unwrap();
        assert!(is_claimed(&folder));
        assert_eq!(second.claim().unwrap_err().kind(), io::ErrorKind::ResourceBusy);
        assert!(second.save("1", &picture(0)).is_err());
        // Deleted and made anew it is another folder.
        std::fs::remove_dir(&folder).unwrap();
        second.claim().unwrap();
        assert_eq!(first.claim().unwrap_err().kind(), io::ErrorKind::ResourceBusy);
        drop(second);
        first.claim().unwrap();
    }
}
