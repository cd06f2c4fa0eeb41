//! Finding picture files: one set of rules for `fit`, `eval`, `score` and folder cameras.
//!
//! A source is a folder, searched with its subfolders; a list file (`.txt`: one path per line, relative to the list, without
//! blank lines and lines that start with `#`); or one picture. Pictures of a folder are in the natural order of their paths:
//! frame2 before frame10. Linked folders are followed, each once. Hidden files and those of operating systems
//! ([`is_of_the_system`]) are skipped; unreadable folders and other formats are skipped and reported.

use std::cmp::Ordering;
use std::collections::{BTreeMap, HashSet};
use std::ffi::OsStr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::{fs, image};

/// Larger lists of pictures are refused.
pub const MAX_LIST_BYTES: u64 = 64 << 20;

/// Names, in lower case, of folders and files of operating systems.
const SYSTEM_NAMES: [&str; 9] = [
    "@eadir",
    "#recycle",
    "#snapshot",
    "__macosx",
    "lost+found",
    "$recycle.bin",
    "recycler",
    "system volume information",
    "thumbs.db",
];

/// Extensions of pictures and videos that are not read.
const OTHER_FORMATS: [&str; 24] = [
    "avi", "avif", "cr2", "cr3", "dng", "exr", "gif", "heic", "heif", "jfif", "jp2", "jpe", "jxl", "mkv", "mov", "mp4",
    "nef", "pgm", "pnm", "ppm", "raw", "tga", "tif", "tiff",
];

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot read {path}: {source}")]
    Io { path: PathBuf, source: std::io::Error },
    #[error("no pictures in {}: it needs jpg, jpeg, png, bmp or webp files{}", path.display(), but(left_out))]
    Empty { path: PathBuf, left_out: Vec<String> },
    #[error("{list}, line {line}: {path} does not exist (paths in a list are relative to the list)")]
    Missing { list: PathBuf, line: usize, path: PathBuf },
}

fn but(left_out: &[String]) -> String {
    if left_out.is_empty() { String::new() } else { format!("; left out: {}", left_out.join("; ")) }
}

/// The pictures of a source.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Found {
    pub paths: Vec<PathBuf>,
    /// For users: what was left out and why, except files of operating systems.
    pub left_out: Vec<String>,
}

/// The pictures that `source` names. The files of a list may be missing.
///
/// # Errors
/// Where there is no picture, or the source itself cannot be read.
pub fn list(source: &Path) -> Result<Found, Error> {
    let found = match kind(source)? {
        Kind::Folder => search(source, &mut HashSet::new())?,
        Kind::List => Found { paths: lines(source)?.into_iter().map(|(_, path)| path).collect(), ..Found::default() },
        Kind::Picture => Found { paths: vec![source.to_owned()], ..Found::default() },
    };
    match found.paths.is_empty() {
        true => Err(Error::Empty { path: source.to_owned(), left_out: found.left_out }),
        false => Ok(found),
    }
}

/// The pictures of several sources, in the sources' order; what is left out is logged.
///
/// # Errors
/// As [`list`], and where a file of a list is missing.
pub fn find(sources: &[PathBuf]) -> Result<Vec<PathBuf>, Error> {
    let mut all = Vec::new();
    for source in sources {
        if matches!(kind(source)?, Kind::List)
            && let Some((line, path)) = lines(source)?.into_iter().find(|(_, path)| !path.is_file())
        {
            return Err(Error::Missing { list: source.clone(), line, path });
        }
        let found = list(source)?;
        for what in found.left_out {
            log::warn!("{}: left out: {what}", source.display());
        }
        all.extend(found.paths);
    }
    Ok(all)
}

/// Whether a search of the folder `root` visits `folder`, through links too; or would if `folder` existed.
pub fn reaches(root: &Path, folder: &Path) -> bool {
    let Some(there) = folder.ancestors().find(|folder| folder.exists()) else { return false };
    let (Ok(identity), Ok(rest)) = (std::fs::metadata(there), folder.strip_prefix(there)) else { return false };
    let mut visited = HashSet::new();
    // A root that cannot be searched is reported by the search itself.
    search(root, &mut visited).is_ok()
        && visited.contains(&(identity.dev(), identity.ino()))
        && !rest.iter().any(is_of_the_system)
}

/// Whether a folder or file of that name is hidden or an operating system's: `.git`, `@eaDir`, `lost+found`.
pub fn is_of_the_system(name: &OsStr) -> bool {
    let name = name.to_string_lossy();
    name.starts_with('.') || SYSTEM_NAMES.iter().any(|known| name.eq_ignore_ascii_case(known))
}

enum Kind {
    Folder,
    List,
    Picture,
}

fn kind(source: &Path) -> Result<Kind, Error> {
    let is_folder = std::fs::metadata(source).map_err(|e| Error::Io { path: source.to_owned(), source: e })?.is_dir();
    let is_list = source.extension().is_some_and(|e| e.eq_ignore_ascii_case("txt"));
    Ok(match (is_folder, is_list) {
        (true, _) => Kind::Folder,
        (false, true) => Kind::List,
        (false, false) => Kind::Picture,
    })
}

/// The entries of a list, with their line numbers from 1. A byte order mark and carriage returns are dropped.
fn lines(list: &Path) -> Result<Vec<(usize, PathBuf)>, Error> {
    let text = fs::read_text(list, MAX_LIST_BYTES).map_err(|e| Error::Io { path: list.to_owned(), source: e })?;
    let base = list.parent().unwrap_or(Path::new(""));
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let lines = text.lines().map(str::trim).enumerate();
    let entries = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    Ok(entries.map(|(at, line)| (at + 1, base.join(line))).collect())
}

/// `visited` collects the device and inode of every folder that was searched.
fn search(root: &Path, visited: &mut HashSet<(u64, u64)>) -> Result<Found, Error> {
    let mut found = Found::default();
    let mut formats: BTreeMap<String, usize> = BTreeMap::new();
    // Links are followed last, so that a folder that is reached both ways keeps its own path.
    let (mut folders, mut links) = (vec![root.to_owned()], Vec::new());
    while let Some(folder) = folders.pop().or_else(|| links.pop()) {
        let entries = match entries(&folder, visited) {
            Ok(entries) => entries,
            Err(e) if folder == root => return Err(Error::Io { path: folder, source: e }),
            Err(e) => {
                found.left_out.push(format!("{} cannot be read: {e}", folder.display()));
                continue;
            }
        };
        for path in entries {
            if path.is_dir() {
                if path.is_symlink() { links.push(path) } else { folders.push(path) }
            } else if image::is_picture(&path) {
                found.paths.push(path);
            } else if let Some(format) = other_format(&path) {
                *formats.entry(format).or_default() += 1;
            }
        }
    }
    found.paths.sort_by(|a, b| natural(a, b));
    if !formats.is_empty() {
        let counts: Vec<String> = formats.iter().map(|(format, count)| format!("{count} {format}")).collect();
        found.left_out.push(format!("{} (no format that is read)", counts.join(", ")));
    }
    Ok(found)
}

/// The entries of a folder by name, without those of operating systems; none if it was visited before.
fn entries(folder: &Path, visited: &mut HashSet<(u64, u64)>) -> std::io::Result<Vec<PathBuf>> {
    let identity = std::fs::metadata(folder)?;
    if !visited.insert((identity.dev(), identity.ino())) {
        return Ok(Vec::new());
    }
    let mut entries = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if !is_of_the_system(&entry.file_name()) {
            entries.push(entry.path());
        }
    }
    entries.sort();
    Ok(entries)
}

fn other_format(path: &Path) -> Option<String> {
    let extension = path.extension()?.to_str()?.to_ascii_lowercase();
    OTHER_FORMATS.contains(&extension.as_str()).then_some(extension)
}

/// Natural order: runs of digits by their value, folder by folder.
pub fn natural(a: &Path, b: &Path) -> Ordering {
    let (mut a, mut b) = (a.as_os_str().as_encoded_bytes(), b.as_os_str().as_encoded_bytes());
    let whole = (a, b);
    // The separator sorts before all characters of names, so that the pictures of a folder stay together.
    let rank = |byte: u8| if byte == b'/' { 0 } else { byte };
    while let (Some(x), Some(y)) = (a.first(), b.first()) {
        if x.is_ascii_digit() && y.is_ascii_digit() {
            let digits = |s: &[u8]| s.iter().take_while(|c| c.is_ascii_digit()).count();
            let ((one, rest_a), (two, rest_b)) = (a.split_at(digits(a)), b.split_at(digits(b)));
            let value = |s: &[u8]| s.iter().position(|c| *c != b'0').unwrap_or(s.len());
            let (one, two) = (&one[value(one)..], &two[value(two)..]);
            match one.len().cmp(&two.len()).then_with(|| one.cmp(two)) {
                Ordering::Equal => (a, b) = (rest_a, rest_b),
                unequal => return unequal,
            }
        } else if x == y {
            (a, b) = (&a[1..], &b[1..]);
        } else {
            return rank(*x).cmp(&rank(*y));
        }
    }
    a.len().cmp(&b.len()).then_with(|| whole.0.cmp(whole.1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    struct Tree(tempfile::TempDir);

    impl Tree {
        fn of(names: &[&str]) -> Tree {
            let tree = Tree(tempfile::tempdir().unwrap());
            for name in names {
                let path = tree.at(name);
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(path, "x").unwrap();
            }
            tree
        }

        fn at(&self, name: &str) -> PathBuf {
            self.0.path().join(name)
        }

        fn names(&self, source: &str) -> Vec<String> {
            let found = list(&self.at(source)).unwrap();
            let name = |path: &PathBuf| path.strip_prefix(self.0.path()).unwrap().display().to_string();
            found.paths.iter().map(name).collect()
        }
    }

    #[test]
    fn folders_lists_and_files() {
        let tree = Tree::of(&["b.JPG", "a.png", "note.md", "sub/c.webp"]);
        assert_eq!(tree.names(""), ["a.png", "b.JPG", "sub/c.webp"]);
        assert_eq!(tree.names("b.JPG"), ["b.JPG"]);
        std::fs::write(tree.at("list.txt"), "# comment\n\nsub/c.webp\nb.JPG\n").unwrap();
        assert_eq!(tree.names("list.txt"), ["sub/c.webp", "b.JPG"]);
        assert_eq!(find(&[tree.at("list.txt"), tree.at("a.png")]).unwrap().len(), 3);
        std::fs::write(tree.at("bad.txt"), "b.JPG\ngone.png\n").unwrap();
        let error = find(&[tree.at("bad.txt")]).unwrap_err().to_string();
        assert!(error.contains("line 2") && error.contains("gone.png"), "{error}");
        assert_eq!(tree.names("bad.txt"), ["b.JPG", "gone.png"]);
        std::fs::write(tree.at("empty.txt"), "").unwrap();
        assert!(matches!(list(&tree.at("empty.txt")), Err(Error::Empty { .. })));
        assert!(matches!(list(&tree.at("nowhere")), Err(Error::Io { .. })));
    }

    #[test]
    fn lists_of_other_systems_are_read() {
        let tree = Tree::of(&["a.png", "b.png"]);
        std::fs::write(tree.at("list.txt"), "\u{feff}a.png\r\n\r\nb.png\r\n").unwrap();
        assert_eq!(tree.names("list.txt"), ["a.png", "b.png"]);
        std::fs::write(tree.at("list.txt"), "\u{feff}# of the morning\r\nb.png").unwrap();
        assert_eq!(tree.names("list.txt"), ["b.png"]);
    }

    #[test]
    fn what_systems_leave_behind_is_left_out() {
        let names =
            ["a.jpg", "._a.jpg", ".hidden/b.jpg", "@eaDir/a.jpg", "sub/@eaDir/c.jpg", "__MACOSX/d.jpg", "sub/e.jpg"];
        let more = ["lost+found/f.jpg", "$RECYCLE.BIN/g.jpg", ".Trash-1000/files/h.jpg", "#recycle/i.jpg", "Thumbs.db"];
        let tree = Tree::of(&[&names[..], &more].concat());
        assert_eq!(tree.names(""), ["a.jpg", "sub/e.jpg"]);
        assert_eq!(list(tree.0.path()).unwrap().left_out, [""; 0]);
        // Named by hand, it is meant.
        assert_eq!(tree.names(".hidden"), [".hidden/b.jpg"]);
    }

    #[test]
    fn other_formats_are_counted_and_other_files_are_not() {
        let tree = Tree::of(&["a.jpg", "b.HEIC", "c.heic", "d.tif", "notes.md", "e"]);
        let found = list(tree.0.path()).unwrap();
        assert_eq!((found.paths.len(), found.left_out.len()), (1, 1));
        assert!(found.left_out[0].starts_with("2 heic, 1 tif"), "{:?}", found.left_out);
        std::fs::remove_file(tree.at("a.jpg")).unwrap();
        let error = list(tree.0.path()).unwrap_err().to_string();
        assert!(error.contains("no pictures") && error.contains("2 heic"), "{error}");
    }

    #[test]
    fn linked_folders_are_followed_and_circles_end() {
        let (tree, other) = (Tree::of(&["z/b.jpg", "c.jpg"]), Tree::of(&["x/a.jpg"]));
        symlink(other.0.path(), tree.at("linked")).unwrap();
        symlink(tree.0.path(), tree.at("z/up")).unwrap();
        symlink(tree.at("z"), tree.at("again")).unwrap();
        symlink(other.at("x/a.jpg"), tree.at("file.jpg")).unwrap();
        assert_eq!(tree.names(""), ["c.jpg", "file.jpg", "linked/x/a.jpg", "z/b.jpg"]);
    }

    #[test]
    fn a_picture_that_is_gone_is_for_its_reader_to_tell() {
        let tree = Tree::of(&["a.jpg"]);
        symlink(tree.at("nowhere"), tree.at("gone.jpg")).unwrap();
        symlink(tree.at("nowhere"), tree.at("gone")).unwrap();
        assert_eq!(tree.names(""), ["a.jpg", "gone.jpg"]);
    }

    #[test]
    fn numbers_count_by_value_and_folders_stay_together() {
        let mut names = ["f10.jpg", "f9.jpg", "f009.jpg", "f1.jpg", "g.jpg", "f.jpg"];
        names.sort_by(|a, b| natural(Path::new(a), Path::new(b)));
        assert_eq!(names, ["f.jpg", "f1.jpg", "f009.jpg", "f9.jpg", "f10.jpg", "g.jpg"]);
        let mut names = ["a/2.jpg", "a b/1.jpg", "a/10.jpg"];
        names.sort_by(|a, b| natural(Path::new(a), Path::new(b)));
        assert_eq!(names, ["a/2.jpg", "a/10.jpg", "a b/1.jpg"]);
    }
}
