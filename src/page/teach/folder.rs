//! Where frames are collected to be learnt, and what is made of them.

use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::Deserialize;

use crate::config::{Config, Source};
use crate::fs;
use crate::page::pictures::is_id;
use crate::pictures;
use crate::watch::events::format_time;

/// Frames, and their bytes, at most.
pub const MOST_FRAMES: usize = 2000;
pub const MOST_BYTES: u64 = 1 << 30;
/// Larger results of `fit` are not read.
const MAX_RESULT: u64 = 1 << 20;
const MAX_CROP: u64 = 1024;
/// What the file of the crop says where there is none.
const WHOLE: &str = "all of the frame";

/// `INSTANCE.teach`, beside the folder of snapshots.
#[derive(Debug, Clone)]
pub struct Folder {
    path: PathBuf,
}

/// What `fit --json` said.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Fit {
    pub n_train: usize,
    pub sentences: Vec<String>,
    pub warnings: Vec<String>,
    pub least_like_the_rest: Vec<Least>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Least {
    pub path: PathBuf,
    pub p: f64,
    pub suspect: bool,
}

impl Folder {
    pub fn of(config: &Config) -> Folder {
        let name = format!("{}.teach", config.instance());
        Folder { path: fs::folder_of(&config.events.snapshots).join(name) }
    }

    pub fn normal(&self) -> PathBuf {
        self.path.join("normal")
    }

    /// Pictures to aim by.
    pub fn aim(&self) -> PathBuf {
        self.path.join("aim")
    }

    pub fn model(&self) -> PathBuf {
        self.path.join("model.outlierd")
    }

    pub fn report(&self) -> PathBuf {
        self.path.join("report.html")
    }

    /// Written last by a fit: with it the model and the report are there.
    pub fn result(&self) -> PathBuf {
        self.path.join("fit.json")
    }

    fn crop(&self) -> PathBuf {
        self.path.join("crop")
    }

    /// Makes one of its folders.
    ///
    /// # Errors
    /// A sentence: it cannot be made, or lies where the daemon would watch it.
    pub fn make(&self, config: &Config, folder: &Path) -> Result<(), String> {
        if let Source::Folder(watched) = &config.camera.source
            && watched.is_dir()
            && pictures::reaches(watched, &self.path)
        {
            let (own, watched) = (self.path.display(), watched.display());
            return Err(format!(
                "{own} lies in the watched folder {watched}: set events.snapshots to a folder elsewhere"
            ));
        }
        std::fs::create_dir_all(folder).map_err(|e| format!("cannot make {}: {e}", folder.display()))
    }

    /// Names of the frames, the newest first.
    pub fn frames(&self) -> Vec<String> {
        frames_in(&self.normal())
    }

    /// Bytes of the frames.
    pub fn bytes(&self) -> u64 {
        let entries = std::fs::read_dir(self.normal()).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.metadata().ok()).map(|meta| meta.len()).sum()
    }

    /// Why no more may come.
    pub fn full(&self) -> Option<String> {
        let (frames, bytes) = (self.frames().len(), self.bytes());
        if frames >= MOST_FRAMES {
            return Some(format!("there are {frames} frames, as many as are kept; throw some out"));
        }
        (bytes >= MOST_BYTES).then(|| format!("the frames take {} MB; throw some out", bytes >> 20))
    }

    /// Named as by `outlierd collect`.
    pub fn next_frame(&self) -> PathBuf {
        let frames = self.frames();
        let numbers = frames.iter().filter_map(|name| name.split('-').next()?.parse::<u64>().ok());
        let number = numbers.max().map_or(0, |number| number + 1);
        let time: String = format_time(SystemTime::now()).chars().filter(char::is_ascii_alphanumeric).collect();
        self.normal().join(format!("{number:06}-{time}.jpg"))
    }

    pub fn throw_out(&self, name: &str) -> io::Result<()> {
        match is_frame(name) {
            true => fs::remove(&self.normal().join(name)),
            false => Ok(()),
        }
    }

    pub fn throw_all_out(&self) -> io::Result<()> {
        self.frames().iter().try_for_each(|name| self.throw_out(name))?;
        fs::remove(&self.crop())
    }

    /// Notes with which crop frames are collected.
    ///
    /// # Errors
    /// A sentence: those that are there have another one, or it cannot be noted.
    pub fn note_crop(&self, config: &Config) -> Result<(), String> {
        self.check_crop(config)?;
        let path = self.crop();
        fs::replace(&path, crop_of(config).as_bytes()).map_err(|e| format!("cannot write {}: {e}", path.display()))
    }

    /// # Errors
    /// A sentence: the frames have another crop than the config.
    pub fn check_crop(&self, config: &Config) -> Result<(), String> {
        let Ok(noted) = fs::read_text(&self.crop(), MAX_CROP) else { return Ok(()) };
        let (frames, crop) = (self.frames().len(), crop_of(config));
        match noted == crop || frames == 0 {
            true => Ok(()),
            false => Err(format!(
                "the {frames} frames show {noted}, but the config's crop is {crop}: throw all out, and collect anew"
            )),
        }
    }

    /// What the last fit said, if its model is there.
    pub fn fitted(&self) -> Option<Fit> {
        let text = fs::read_text(&self.result(), MAX_RESULT).ok()?;
        serde_json::from_str(&text).ok().filter(|_| self.model().is_file())
    }
}

fn crop_of(config: &Config) -> String {
    config.camera.crop.map_or_else(|| WHOLE.to_owned(), |crop| crop.to_string())
}

/// Names of frames, the newest first.
pub fn frames_in(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.retain(|name| is_frame(name));
    names.sort_by(|a, b| b.cmp(a));
    names
}

/// Whether a name can be a frame's.
pub fn is_frame(name: &str) -> bool {
    name.strip_suffix(".jpg").is_some_and(is_id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_numbered_listed_and_thrown_out() {
        let dir = tempfile::tempdir().unwrap();
        let text = format!("[model]\npath = \"m\"\n[events]\nsnapshots = {:?}\n", dir.path().join("snapshots"));
        let config = Config::parse(&dir.path().join("door.toml"), &text).unwrap();
        let folder = Folder::of(&config);
        assert_eq!(folder.model(), dir.path().join("door.teach/model.outlierd"));
        folder.make(&config, &folder.normal()).unwrap();
        for _ in 0..3 {
            std::fs::write(folder.next_frame(), "x").unwrap();
        }
        std::fs::write(folder.normal().join("..jpg"), "x").unwrap();
        let frames = folder.frames();
        assert!(frames.len() == 3 && frames[0].starts_with("000002-") && frames[2].starts_with("000000-"));
        assert!(folder.full().is_none());
        for wrong in ["../../snapshots", "..jpg", "", "x/y.jpg"] {
            folder.throw_out(wrong).unwrap();
        }
        folder.throw_out(&frames[1]).unwrap();
        assert_eq!(folder.frames(), [frames[0].clone(), frames[2].clone()]);
        folder.note_crop(&config).unwrap();
        let cropped = Config::parse(config.path(), &format!("[camera]\ncrop = [0, 0, 8, 8]\n{text}")).unwrap();
        assert!(folder.check_crop(&cropped).unwrap_err().contains("[0, 0, 8, 8]"));
        folder.throw_all_out().unwrap();
        folder.note_crop(&cropped).unwrap();
        folder.check_crop(&cropped).unwrap();
    }

    #[test]
    fn a_watched_folder_takes_no_frames() {
        let dir = tempfile::tempdir().unwrap();
        let text = format!(
            "[camera]\nsource = \"folder:{0}\"\n[events]\nsnapshots = \"{0}/snapshots\"\n",
            dir.path().display()
        );
        let config = Config::parse(&dir.path().join("door.toml"), &text).unwrap();
        let folder = Folder::of(&config);
        assert!(folder.make(&config, &folder.normal()).unwrap_err().contains("watched folder"));
    }
}
