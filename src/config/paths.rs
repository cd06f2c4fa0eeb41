//! Where the config's paths lie: relative ones beside the config file; what no shell is there to expand is refused.

use std::path::{Path, PathBuf};

use super::{Config, Error, Mqtt, RUN_FOLDER, Source};
use crate::fs;
use crate::pictures;

impl Config {
    /// The name of the daemon among others on the machine: that of its config file, without the extension.
    pub fn instance(&self) -> String {
        let stem = self.path().file_stem().map(|stem| stem.to_string_lossy().into_owned());
        stem.filter(|stem| !stem.is_empty()).unwrap_or_else(|| super::INSTANCE.into())
    }

    /// The models that may watch: `model.path`, then those of `[[model.when]]`.
    pub fn models(&self) -> impl Iterator<Item = &PathBuf> {
        std::iter::once(&self.model.path).chain(self.model.when.iter().map(|when| &when.path))
    }

    /// What every judged frame scored: `history.path`, else `INSTANCE.history` beside the folder of snapshots,
    /// which is one daemon's alone.
    pub fn history_path(&self) -> PathBuf {
        let beside = || fs::folder_of(&self.events.snapshots).join(format!("{}.history", self.instance()));
        self.history.path.clone().unwrap_or_else(beside)
    }

    /// [`Config::history_path`], for a model of `[[model.when]]` with the name of its file put in: `door.night.history`.
    pub fn history_path_of(&self, model: &Path) -> PathBuf {
        let path = self.history_path();
        if model == self.model.path {
            return path;
        }
        let name = model.file_stem().unwrap_or_default().to_string_lossy();
        let extension =
            path.extension().map_or_else(String::new, |extension| format!(".{}", extension.to_string_lossy()));
        let stem = path.file_stem().unwrap_or_default().to_string_lossy();
        path.with_file_name(format!("{stem}.{name}{extension}"))
    }

    /// The histories of all models.
    pub fn history_paths(&self) -> Vec<PathBuf> {
        self.models().map(|model| self.history_path_of(model)).collect()
    }

    /// Where `outlierd status` asks: `observe.socket`, else `INSTANCE.sock` in [`RUN_FOLDER`].
    pub fn socket_path(&self) -> PathBuf {
        let default = || Path::new(RUN_FOLDER).join(format!("{}.sock", self.instance()));
        self.observe.socket.clone().unwrap_or_else(default)
    }

    /// Where packed weights lie that all daemons share: `model.cache`, else what systemd made for the service
    /// (`CacheDirectory=`). None: each daemon has its own in memory.
    pub fn cache_folder(&self) -> Option<PathBuf> {
        let of_service = || std::env::split_paths(&std::env::var_os("CACHE_DIRECTORY")?).next();
        self.model.cache.clone().or_else(of_service).filter(|folder| !folder.as_os_str().is_empty())
    }

    /// Places the log and the snapshots of one of several daemons in folders of its own, where the file names none.
    pub(super) fn separate(&mut self, instance: &str) {
        if instance == super::INSTANCE {
            return;
        }
        let lines = &self.origin.lines;
        let defaults = [("events.log", &mut self.events.log), ("events.snapshots", &mut self.events.snapshots)];
        for (_, path) in defaults.into_iter().filter(|(key, _)| !lines.contains_key(*key)) {
            if let (Some(folder), Some(name)) = (path.parent(), path.file_name()) {
                *path = folder.join(instance).join(name);
            }
        }
    }

    /// Makes relative paths absolute.
    pub(super) fn resolve_paths(&mut self) -> Result<(), Error> {
        for (key, path) in self.paths() {
            if let Some(message) = unexpanded(path) {
                return Err(self.error_at(key, format!("{key} = {path:?}: {message}")));
            }
        }
        let Ok(file) = std::path::absolute(self.path()) else { return Ok(()) };
        let Some(folder) = file.parent() else { return Ok(()) };
        let resolve = |path: &mut PathBuf| {
            if !path.as_os_str().is_empty() {
                *path = folder.join(&path);
            }
        };
        // A name without a slash is looked for on PATH.
        let resolve_program = |argv: &mut Vec<String>| {
            if let Some(program) = argv.first_mut()
                && program.contains('/')
                && let Ok(whole) = folder.join(&*program).into_os_string().into_string()
            {
                *program = whole;
            }
        };
        match &mut self.camera.source {
            Source::V4l(path) | Source::Folder(path) | Source::Pipe(path) => resolve(path),
            Source::Exec(argv) => resolve_program(argv),
        }
        self.model.when.iter_mut().for_each(|when| resolve(&mut when.path));
        [&mut self.model.path, &mut self.events.log, &mut self.events.snapshots].into_iter().for_each(resolve);
        let optional = [&mut self.model.backbone, &mut self.model.cache, &mut self.events.metrics];
        optional.into_iter().flatten().for_each(resolve);
        [&mut self.history.path, &mut self.observe.socket].into_iter().flatten().for_each(resolve);
        self.gpio.iter_mut().for_each(|gpio| resolve(&mut gpio.chip));
        self.mqtt.iter_mut().flat_map(Mqtt::paths_mut).for_each(resolve);
        self.events.hook.iter_mut().for_each(resolve_program);
        Ok(())
    }

    /// All that is a path, by key.
    fn paths(&self) -> Vec<(&'static str, &Path)> {
        let source = match &self.camera.source {
            Source::V4l(path) | Source::Folder(path) | Source::Pipe(path) => path,
            Source::Exec(argv) => Path::new(argv.first().map(String::as_str).unwrap_or_default()),
        };
        let events = &self.events;
        let mut paths: Vec<(&str, &Path)> = vec![
            ("camera.source", source),
            ("model.path", &self.model.path),
            ("events.log", &events.log),
            ("events.snapshots", &events.snapshots),
        ];
        let hook = events.hook.as_ref().and_then(|hook| hook.first()).map(Path::new);
        let optional = [
            ("model.backbone", self.model.backbone.as_deref()),
            ("model.cache", self.model.cache.as_deref()),
            ("events.hook", hook),
            ("events.metrics", events.metrics.as_deref()),
            ("history.path", self.history.path.as_deref()),
            ("observe.socket", self.observe.socket.as_deref()),
            ("gpio.chip", self.gpio.as_ref().map(|gpio| gpio.chip.as_path())),
        ];
        let mqtt = self.mqtt.iter().flat_map(Mqtt::paths).filter_map(|(key, path)| Some((key, path.as_deref()?)));
        paths.extend(mqtt);
        paths.extend(self.model.when.iter().map(|when| ("model.when", when.path.as_path())));
        paths.extend(optional.into_iter().filter_map(|(key, path)| Some((key, path?))));
        paths
    }

    /// Snapshots must not be watched: each would be the next outlier. Searches the watched folder as it is now.
    pub fn check_snapshots(&self) -> Result<(), Error> {
        let Source::Folder(watched) = &self.camera.source else { return Ok(()) };
        let snapshots = &self.events.snapshots;
        if watched.is_dir() && pictures::reaches(watched, snapshots) {
            let message = format!(
                "events.snapshots {} lies in the folder that camera.source watches, {}: the daemon would watch its own \
                 snapshots; name a folder elsewhere",
                snapshots.display(),
                watched.display()
            );
            return Err(self.error_at("events.snapshots", message));
        }
        Ok(())
    }
}

/// Why a path is no path as it stands.
fn unexpanded(path: &Path) -> Option<&'static str> {
    let text = path.to_str()?;
    let variable = |rest: &str| rest.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_' || c == '{');
    if text.starts_with('~') {
        Some("~ is not expanded here; write the whole path, such as \"/home/pi/...\"")
    } else if text.split('$').skip(1).any(variable) {
        Some("variables are not expanded here; write the whole path")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_taken_as_it_stands() {
        for wrong in ["~", "~/x", "~pi/x", "$HOME/x", "/x/${HOME}", "/x/$_a"] {
            assert!(unexpanded(Path::new(wrong)).is_some(), "{wrong}");
        }
        for right in ["/x/~y", "x~", "/$", "/price-in-$5", "", "/x y"] {
            assert_eq!(unexpanded(Path::new(right)), None, "{right}");
        }
    }
}
