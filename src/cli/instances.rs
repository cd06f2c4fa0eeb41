//! The daemons of one machine: their configs, and what no two of them may share.

use std::io;
use std::path::{Path, PathBuf};

use crate::config::{Config, Source};
use crate::fs;
use crate::watch::outputs::gpio;

/// The configs in a folder, by name.
pub fn configs(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let is_config = |path: &PathBuf| path.extension().is_some_and(|end| end == "toml");
    let entries = std::fs::read_dir(folder)?;
    let mut paths: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.path())).filter(is_config).collect();
    paths.sort();
    Ok(paths)
}

/// Something that one daemon alone may have.
struct Claim {
    check: &'static str,
    /// Equal where two configs mean the same thing.
    what: String,
    /// As the config has it.
    shown: String,
}

/// What a config shares with others of the machine but must not: the check that it belongs to, and a message.
pub fn shared(config: &Config, others: &[Config]) -> Vec<(&'static str, String)> {
    let own = claims(config);
    let mut found = Vec::new();
    for other in others.iter().filter(|other| other.path() != config.path()) {
        for claim in claims(other) {
            if let Some(own) = own.iter().find(|own| (own.check, &own.what) == (claim.check, &claim.what)) {
                let other = other.path().display();
                found.push((own.check, format!("{} is in {other} too: each daemon needs its own", own.shown)));
            }
        }
    }
    found
}

fn claims(config: &Config) -> Vec<Claim> {
    let mut claims = Vec::new();
    let mut file = |check: &'static str, path: &Path| {
        claims.push(Claim { check, what: resolved(path).display().to_string(), shown: path.display().to_string() });
    };
    if let Source::V4l(path) | Source::Pipe(path) = &config.camera.source {
        file("camera", path);
    }
    file("log", &config.events.log);
    file("snapshots", &config.events.snapshots);
    config.history_paths().iter().for_each(|path| file("history", path));
    file("socket", &config.socket_path());
    if let Some(path) = &config.events.metrics {
        file("metrics", path);
    }
    if let Some(mqtt) = &config.mqtt {
        let what = format!("{}/{}", mqtt.address(), mqtt.base());
        claims.push(Claim { check: "mqtt", shown: format!("the topic {}", mqtt.base()), what });
    }
    if let Some(gpio) = &config.gpio {
        for line in [Some(&gpio.line), gpio.heartbeat.as_ref()].into_iter().flatten() {
            // A chip that is not there knows no names.
            let offset = gpio::offset(&gpio.chip, line).map_or_else(|_| line.to_string(), |offset| offset.to_string());
            let what = format!("{} {offset}", resolved(&gpio.chip).display());
            claims.push(Claim { check: "gpio", what, shown: format!("line {line} of {}", gpio.chip.display()) });
        }
    }
    claims
}

/// Without links, as far as it is there.
fn resolved(path: &Path) -> PathBuf {
    let beside = || Some(std::fs::canonicalize(fs::folder_of(path)).ok()?.join(path.file_name()?));
    std::fs::canonicalize(path).ok().or_else(beside).unwrap_or_else(|| path.to_owned())
}
