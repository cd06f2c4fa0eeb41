//! A folder of pictures, or a list file, as a camera: one picture per call.

use std::path::{Path, PathBuf};
use std::time::Instant;

use ::image::RgbImage;

use super::frame::{Error, Frame, FrameSource, Jpeg};
use crate::config::{self, Crop};
use crate::image::{self, jpeg};
use crate::pictures::{self, Found};

/// Pictures in the order of [`pictures::list`].
#[derive(Debug)]
pub struct Folder {
    root: PathBuf,
    pictures: Vec<PathBuf>,
    at: usize,
    sequence: u64,
    repeat: bool,
    crop: Option<Crop>,
    keep_jpeg: bool,
}

impl Folder {
    /// Lists the pictures now; later files are found in the next round of a source that repeats.
    pub fn open(root: &Path, config: &config::Camera) -> Result<Self, Error> {
        let found = list(root)?;
        for what in found.left_out {
            log::warn!("{}: left out: {what}", root.display());
        }
        let (repeat, crop, keep_jpeg) = (config.repeat, config.crop, config.keep_jpeg);
        Ok(Folder { root: root.to_owned(), pictures: found.paths, at: 0, sequence: 0, repeat, crop, keep_jpeg })
    }

    fn read(&self, path: &Path) -> Result<(RgbImage, Option<Jpeg>), image::Error> {
        let bytes = image::bytes(path)?;
        let picture = image::decode(path, &bytes)?;
        let picture = match self.crop {
            Some(crop) => image::crop(&picture, crop.region(picture.width(), picture.height())?)?,
            None => picture,
        };
        let jpeg = (self.keep_jpeg && jpeg::is_jpeg(&bytes)).then(|| bytes.into_boxed_slice());
        Ok((picture, jpeg))
    }
}

impl FrameSource for Folder {
    fn next(&mut self, _deadline: Instant) -> Result<Option<Frame>, Error> {
        if self.at == self.pictures.len() {
            if !self.repeat {
                return Ok(None);
            }
            self.pictures = list(&self.root)
                .map_err(|e| Error::Lost { origin: self.root.display().to_string(), reason: e.to_string() })?
                .paths;
            self.at = 0;
        }
        let path = self.pictures[self.at].clone();
        let sequence = self.sequence;
        self.at += 1;
        self.sequence += 1;
        let source = path.display().to_string();
        match self.read(&path) {
            Ok((picture, jpeg)) => Ok(Some(Frame { picture, jpeg, sequence, source })),
            Err(e) => Err(Error::Dropped { origin: source, reason: e.to_string() }),
        }
    }

    fn describe(&self) -> String {
        let repeat = if self.repeat { ", again and again" } else { "" };
        format!("{}: {} pictures{repeat}", self.root.display(), self.pictures.len())
    }
}

fn list(root: &Path) -> Result<Found, Error> {
    pictures::list(root).map_err(|e| match e {
        pictures::Error::Empty { .. } => Error::Empty { reason: e.to_string() },
        e => Error::Open { origin: root.display().to_string(), reason: e.to_string() },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(root: &Path, repeat: bool, crop: Option<Crop>) -> Result<Folder, Error> {
        Folder::open(root, &config::Camera { repeat, crop, ..config::Camera::default() })
    }

    fn folder_with(names: &[&str]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (i, name) in names.iter().enumerate() {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            RgbImage::from_pixel(8, 6, ::image::Rgb([i as u8 * 40, 0, 0])).save(path).unwrap();
        }
        dir
    }

    fn names(source: &mut Folder, count: usize) -> Vec<String> {
        let mut names = Vec::new();
        for _ in 0..count {
            let frame = match source.next(Instant::now()) {
                Ok(Some(frame)) => Path::new(&frame.source).file_name().unwrap().to_string_lossy().into_owned(),
                Ok(None) => "end".into(),
                Err(Error::Dropped { .. }) => "dropped".into(),
                Err(e) => panic!("{e}"),
            };
            names.push(frame);
        }
        names
    }

    #[test]
    fn pictures_come_in_name_order_and_end() {
        let dir = folder_with(&["b.png", "a.png", "c.bmp"]);
        std::fs::write(dir.path().join("notes.md"), "x").unwrap();
        let mut source = open(dir.path(), false, None).unwrap();
        assert_eq!(names(&mut source, 5), ["a.png", "b.png", "c.bmp", "end", "end"]);
    }

    #[test]
    fn a_loop_starts_again_and_sees_new_pictures() {
        let dir = folder_with(&["a.png", "b.png"]);
        let mut source = open(dir.path(), true, None).unwrap();
        assert_eq!(names(&mut source, 2), ["a.png", "b.png"]);
        std::fs::copy(dir.path().join("a.png"), dir.path().join("0.png")).unwrap();
        assert_eq!(names(&mut source, 4), ["0.png", "a.png", "b.png", "0.png"]);
        std::fs::remove_dir_all(dir.path()).unwrap();
        assert_eq!(names(&mut source, 2), ["dropped", "dropped"]);
        assert!(matches!(source.next(Instant::now()), Err(Error::Lost { .. })));
    }

    #[test]
    fn bad_pictures_are_dropped_frames() {
        let dir = folder_with(&["a.jpg", "c.jpg"]);
        let whole = std::fs::read(dir.path().join("a.jpg")).unwrap();
        std::fs::write(dir.path().join("b1.jpg"), &whole[..whole.len() / 2]).unwrap();
        std::fs::write(dir.path().join("b2.jpg"), "just text").unwrap();
        std::fs::write(dir.path().join("b3.png"), "").unwrap();
        let mut source = open(dir.path(), false, None).unwrap();
        assert_eq!(names(&mut source, 6), ["a.jpg", "dropped", "dropped", "dropped", "c.jpg", "end"]);
    }

    #[test]
    fn a_list_keeps_its_order_and_a_missing_file_is_a_dropped_frame() {
        let dir = folder_with(&["sub/b.png", "a.png"]);
        let list = dir.path().join("list.txt");
        std::fs::write(&list, "# order matters\nsub/b.png\n\nmissing.png\na.png\r\n").unwrap();
        let mut source = open(&list, false, None).unwrap();
        assert_eq!(names(&mut source, 4), ["b.png", "dropped", "a.png", "end"]);
    }

    #[test]
    fn crop_is_taken_and_must_fit() {
        let dir = folder_with(&["a.png"]);
        let mut source = open(dir.path(), true, Some(Crop::Pixels([2, 1, 4, 3]))).unwrap();
        assert_eq!(source.next(Instant::now()).unwrap().unwrap().picture.dimensions(), (4, 3));
        let mut source = open(dir.path(), true, Some(Crop::Pixels([5, 0, 4, 3]))).unwrap();
        assert!(matches!(source.next(Instant::now()), Err(Error::Dropped { .. })));
    }

    #[test]
    fn empty_and_missing_folders_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(open(dir.path(), false, None), Err(Error::Empty { .. })));
        assert!(matches!(open(&dir.path().join("no"), false, None), Err(Error::Open { .. })));
        let list = dir.path().join("l.txt");
        std::fs::write(&list, "\n").unwrap();
        assert!(matches!(open(&list, false, None), Err(Error::Empty { .. })));
    }

    #[test]
    fn a_jpeg_is_kept_as_it_is_where_it_is_asked_for() {
        let dir = folder_with(&["a.jpg", "b.png"]);
        let next = |keep_jpeg: bool| {
            let config = config::Camera { keep_jpeg, ..config::Camera::default() };
            let mut source = Folder::open(dir.path(), &config).unwrap();
            [0, 1].map(|_| source.next(Instant::now()).unwrap().unwrap().jpeg)
        };
        let file = std::fs::read(dir.path().join("a.jpg")).unwrap();
        assert_eq!(next(true), [Some(file.into_boxed_slice()), None]);
        assert_eq!(next(false), [None, None]);
    }
}
