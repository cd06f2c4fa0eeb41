//! The daemons that the page is of, by their configs.

use std::collections::BTreeMap;
use std::path::PathBuf;

use rustix::fs::{Access, access};

use super::error::Error;
use super::request::encode;
use crate::config::{self, Config};
use crate::fs;

/// First parts of the page's own paths.
const RESERVED: [&str; 7] = ["api", "metrics", "snapshot.jpg", "style.css", "app.js", "login", "logout"];

/// Where configs are.
#[derive(Debug, Clone)]
pub enum Configs {
    /// All `*.toml` in it, whenever they come.
    Folder(PathBuf),
    Files(Vec<PathBuf>),
}

/// A daemon, whether it runs or not.
#[derive(Debug, Clone)]
pub struct Instance {
    /// That of its config file, without the extension.
    pub name: String,
    pub path: PathBuf,
}

impl Instance {
    pub fn config(&self) -> Result<Config, config::Error> {
        Config::read(&self.path)
    }

    /// Whether the page may change the config.
    pub fn is_writable(&self) -> bool {
        self.path.canonicalize().is_ok_and(|file| access(fs::folder_of(&file), Access::WRITE_OK).is_ok())
    }

    /// The path of one of its pages.
    pub fn url(&self, page: &str) -> String {
        format!("/{}/{page}", encode(&self.name))
    }
}

impl Configs {
    /// By name.
    pub fn instances(&self) -> Vec<Instance> {
        let paths = match self {
            Configs::Files(paths) => paths.clone(),
            Configs::Folder(folder) => {
                let entries = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
                entries.filter(|path| path.extension().is_some_and(|end| end == "toml")).collect()
            }
        };
        let named = paths.into_iter().map(|path| {
            let name = path.file_stem().map_or_else(String::new, |stem| stem.to_string_lossy().into_owned());
            (name, path)
        });
        named.collect::<BTreeMap<_, _>>().into_iter().map(|(name, path)| Instance { name, path }).collect()
    }

    /// # Errors
    /// The page could not tell them apart.
    pub fn check(&self) -> Result<(), Error> {
        let instances = self.instances();
        if let Configs::Files(paths) = self
            && instances.len() < paths.len()
        {
            let doubled = paths.iter().find(|path| instances.iter().all(|instance| instance.path != **path));
            let name = doubled.and_then(|path| path.file_stem()).unwrap_or_default();
            return Err(Error::SameName(name.to_string_lossy().into_owned()));
        }
        match instances.into_iter().find(|instance| RESERVED.contains(&instance.name.as_str())) {
            Some(Instance { path, .. }) => Err(Error::Reserved { path }),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn daemons_are_told_apart_by_the_names_of_their_configs() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        for name in ["door.toml", "a b.toml", "notes.txt"] {
            std::fs::write(at(name), "").unwrap();
        }
        let folder = Configs::Folder(dir.path().to_owned());
        folder.check().unwrap();
        let names: Vec<String> = folder.instances().iter().map(|instance| instance.url("live")).collect();
        assert_eq!(names, ["/a%20b/live", "/door/live"]);
        let files = |names: [&str; 2]| Configs::Files(names.map(at).to_vec()).check();
        files(["door.toml", "hive.toml"]).unwrap();
        assert!(matches!(files(["door.toml", "x/door.toml"]), Err(Error::SameName(name)) if name == "door"));
        assert!(matches!(files(["door.toml", "api.toml"]), Err(Error::Reserved { .. })));
        assert!(Configs::Folder(at("nothing")).instances().is_empty());
    }
}
