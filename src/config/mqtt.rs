//! The section `[mqtt]`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use super::values::duration;
use crate::fs;

/// A host name is shorter.
const MAX_NAME: u64 = 4096;

/// The keys of the section.
pub const KEYS: &[&str] = &[
    "host",
    "port",
    "tls",
    "ca-file",
    "client-cert-file",
    "client-key-file",
    "username",
    "password-file",
    "base-topic",
    "discovery-prefix",
    "node-id",
    "interval",
    "snapshot",
];

/// The name of systemd's credential.
const CREDENTIAL: &str = "mqtt-password";

/// A broker that is told of events and state.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Mqtt {
    pub host: String,
    /// None: 8883 with TLS, 1883 without.
    pub port: Option<u16>,
    pub tls: bool,
    /// CA certificates (PEM) that the broker's must be of; None: the system's.
    pub ca_file: Option<PathBuf>,
    /// Our certificate and those between it and the CA's (PEM), and its key (PEM); both or none.
    pub client_cert_file: Option<PathBuf>,
    pub client_key_file: Option<PathBuf>,
    pub username: Option<String>,
    /// Its first line is the password; read at every connection, as all of these files are.
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
            port: None,
            tls: false,
            ca_file: None,
            client_cert_file: None,
            client_key_file: None,
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

    pub fn port(&self) -> u16 {
        self.port.unwrap_or(if self.tls { 8883 } else { 1883 })
    }

    /// `HOST:PORT`.
    pub fn address(&self) -> String {
        format!("{}:{}", self.host, self.port())
    }

    /// The file with the password: the config's, else systemd's credential `mqtt-password` where there is one.
    pub fn password_file(&self) -> Option<PathBuf> {
        // A password without a name is no MQTT.
        self.username.as_ref()?;
        self.password_file.clone().or_else(|| fs::credential(CREDENTIAL))
    }

    /// All that are paths, by key.
    pub(super) fn paths(&self) -> [(&'static str, &Option<PathBuf>); 4] {
        [
            ("mqtt.ca-file", &self.ca_file),
            ("mqtt.client-cert-file", &self.client_cert_file),
            ("mqtt.client-key-file", &self.client_key_file),
            ("mqtt.password-file", &self.password_file),
        ]
    }

    pub(super) fn paths_mut(&mut self) -> impl Iterator<Item = &mut PathBuf> {
        [&mut self.ca_file, &mut self.client_cert_file, &mut self.client_key_file, &mut self.password_file]
            .into_iter()
            .flatten()
    }

    /// The key that makes no sense, and why.
    pub(super) fn check(&self) -> Result<(), (&'static str, String)> {
        if self.host.contains("://") {
            let message = format!(
                "mqtt.host = {:?}: the name or address alone, without a scheme; mqtts:// is tls = true",
                self.host
            );
            return Err(("mqtt.host", message));
        }
        if self.host.trim().is_empty() || self.port == Some(0) {
            let message = "mqtt.host and mqtt.port must name a broker, such as \"192.168.1.2\" and 1883";
            return Err(("mqtt.host", message.into()));
        }
        let of_tls = self.paths().into_iter().find(|(key, path)| path.is_some() && *key != "mqtt.password-file");
        if let (false, Some((key, _))) = (self.tls, of_tls) {
            return Err((key, format!("{key} needs mqtt.tls = true")));
        }
        match (&self.client_cert_file, &self.client_key_file) {
            (Some(_), None) => {
                let message = "mqtt.client-cert-file needs mqtt.client-key-file, its key";
                return Err(("mqtt.client-cert-file", message.into()));
            }
            (None, Some(_)) => {
                let message = "mqtt.client-key-file needs mqtt.client-cert-file, its certificate";
                return Err(("mqtt.client-key-file", message.into()));
            }
            _ => {}
        }
        if self.password_file.is_some() && self.username.is_none() {
            return Err(("mqtt.password-file", "mqtt.password-file needs mqtt.username".into()));
        }
        if self.username.as_ref().is_some_and(|name| name.len() > 1000) {
            return Err(("mqtt.username", "mqtt.username is longer than 1000 bytes".into()));
        }
        if !is_topic(&self.base()) {
            let message =
                format!("mqtt.base-topic = {:?}: no wildcards, no empty levels, such as \"home/door\"", self.base());
            return Err(("mqtt.base-topic", message));
        }
        if !self.discovery_prefix.is_empty() && !is_topic(&self.discovery_prefix) {
            let message = format!("mqtt.discovery-prefix = {:?}: no wildcards, no empty levels", self.discovery_prefix);
            return Err(("mqtt.discovery-prefix", message));
        }
        if self.node_id.as_ref().is_some_and(|id| id.is_empty() || id.len() > 100 || !id.chars().all(is_node_char)) {
            return Err(("mqtt.node-id", "mqtt.node-id: at most 100 letters, digits, - and _".into()));
        }
        if self.interval.is_zero() {
            return Err(("mqtt.interval", "mqtt.interval must be longer than 0, such as \"10s\"".into()));
        }
        Ok(())
    }
}

fn is_node_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '-' || c == '_'
}

/// Whether messages may be published to it: no wildcards, no empty levels.
fn is_topic(topic: &str) -> bool {
    topic.len() <= 1000
        && topic.split('/').all(|level| !level.is_empty() && !level.contains(['+', '#']))
        && !topic.contains(char::is_control)
        && !topic.starts_with('$')
}
