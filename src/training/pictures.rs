//! Finding pictures: a folder searched for them, a list file, or one picture.

use std::path::{Path, PathBuf};

use crate::camera::folder::MAX_LIST_BYTES;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot read {path}: {source}")]
    Io { path: PathBuf, source: std::io::Error },
    #[error("no pictures (jpg, jpeg, png, bmp, webp) in {0}")]
    Empty(PathBuf),
    #[error("{list}, line {line}: {path} does not exist (paths in a list are relative to the list)")]
    Missing { list: PathBuf, line: usize, path: PathBuf },
}

/// The pictures that `source` names, sorted by path for a folder, in the file's order for a list (`.txt`:
/// one path a line relative to the list, empty lines and lines that start with `#` left out).
pub fn find(source: &Path) -> Result<Vec<PathBuf>, Error> {
    let io = |e| Error::Io { path: source.to_owned(), source: e };
    let kind = std::fs::metadata(source).map_err(io)?;
    let mut found = Vec::new();
    if kind.is_dir() {
        search(source, &mut found)?;
        found.sort();
    } else if source.extension().is_some_and(|e| e.eq_ignore_ascii_case("txt")) {
        let text = crate::files::read_text(source, MAX_LIST_BYTES).map_err(io)?;
        let base = source.parent().unwrap_or(Path::new(""));
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let path = base.join(line);
            if !path.is_file() {
                return Err(Error::Missing { list: source.to_owned(), line: number + 1, path });
            }
            found.push(path);
        }
    } else {
        found.push(source.to_owned());
    }
    if found.is_empty() {
        return Err(Error::Empty(source.to_owned()));
    }
    Ok(found)
}

/// The pictures of several sources, in the sources' order.
pub fn find_all(sources: &[PathBuf]) -> Result<Vec<PathBuf>, Error> {
    let mut all = Vec::new();
    for source in sources {
        all.extend(find(source)?);
    }
    Ok(all)
}

fn search(folder: &Path, found: &mut Vec<PathBuf>) -> Result<(), Error> {
    let io = |e| Error::Io { path: folder.to_owned(), source: e };
    for entry in std::fs::read_dir(folder).map_err(io)? {
        let entry = entry.map_err(io)?;
        let (path, kind) = (entry.path(), entry.file_type().map_err(io)?);
        if kind.is_dir() {
            search(&path, found)?;
        } else if crate::image::is_picture(&path) && path.is_file() {
            found.push(path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_lists_and_files() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::create_dir(at("sub")).unwrap();
        for name in ["b.JPG", "a.png", "note.md", "sub/c.webp"] {
            std::fs::write(at(name), "x").unwrap();
        }
        assert_eq!(find(dir.path()).unwrap(), [at("a.png"), at("b.JPG"), at("sub/c.webp")]);
        std::fs::write(at("list.txt"), "# comment\n\nsub/c.webp\nb.JPG\n").unwrap();
        assert_eq!(find(&at("list.txt")).unwrap(), [at("sub/c.webp"), at("b.JPG")]);
        std::fs::write(at("bad.txt"), "b.JPG\ngone.png\n").unwrap();
        let error = find(&at("bad.txt")).unwrap_err().to_string();
        assert!(error.contains("line 2") && error.contains("gone.png"), "{error}");
        std::fs::write(at("empty.txt"), "").unwrap();
        assert!(matches!(find(&at("empty.txt")), Err(Error::Empty(_))));
        assert!(matches!(find(&at("nowhere")), Err(Error::Io { .. })));
    }
}
