//! The section `[mqtt]`. It is read by every build; one without the feature `mqtt` refuses it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use super::values::duration;
use crate::fs;

/// A host name is shorter.
const MAX_NAME: u64 = 4096;

/// The keys of the section.
pub const KEYS: &[&str] =
    &["host", "port", "username", "password-file", "base-topic", "discovery-prefix", "node-id", "interval", "snapshot"];

/// A broker that is told of events and state. Plain TCP: TLS is not offered.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Mqtt {
    pub host: String,
    pub port: u16,
    pub username: Option<String>,
    /// Its first line is the password; read at every connection.
    pub password_file: Option<PathBuf>,
    /// None: `outlierd/NODE`.
    pub base_topic: Option<String>,
    /// Where Home Assistant looks for discovery messages; empty: none are sent.
    pub discovery_prefix: String,
    /// None: the host's name, and the instance's where it is not the packaged config's.
    pub node_id: Option<String>,
    /// How often p and the count of frames are sent at most; raise and clear are sent at once.
    #[serde(deserialize_with = "duration")]
    pub interval: Duration,
    /// Send the picture of every raise.
    pub snapshot: bool,
}

impl Default for Mqtt {
    fn default() -> Self {
        Mqtt {
            host: "localhost".into(),
            port: 1883,
            username: None,
            password_file: None,
            base_topic: None,
            discovery_prefix: "homeassistant".into(),
            node_id: None,
            interval: Duration::from_secs(10),
            snapshot: false,
        }
    }
}

impl Mqtt {
    /// The name of this machine; empty where it has none.
    pub fn host_name() -> String {
        fs::read_text(Path::new("/proc/sys/kernel/hostname"), MAX_NAME).unwrap_or_default().trim().to_owned()
    }

    /// The node's name in topics and client id: letters, digits, `-` and `_`.
    pub fn node(&self) -> String {
        let name = self.node_id.clone().unwrap_or_else(Mqtt::host_name);
        let name: String = name.trim().chars().map(|c| if is_node_char(c) { c } else { '-' }).collect();
        if name.is_empty() { "outlierd".into() } else { name }
    }

    pub fn base(&self) -> String {
        self.base_topic.clone().unwrap_or_else(|| format!("outlierd/{}", self.node()))
    }
}

pub(super) fn is_node_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '-' || c == '_'
}

/// Whether messages may be published to it: no wildcards, no empty levels.
pub(super) fn is_topic(topic: &str) -> bool {
    topic.len() <= 1000
        && topic.split('/').all(|level| !level.is_empty() && !level.contains(['+', '#']))
        && !topic.contains(char::is_control)
        && !topic.starts_with('$')
}
