//! Events and state for an MQTT broker, with Home Assistant's discovery messages.
//!
//! Below the base topic: `availability` (online, offline; the broker says offline when the daemon is killed), `state`
//! (JSON, retained), `event` (the log's JSON lines), `snapshot` (a JPEG file, retained).

use std::io;
use std::time::{Duration, Instant};

use serde_json::json;

use super::events::{Event, Kind};
use super::metrics::Metrics;
use super::sinks::Sink;
use crate::config::Mqtt;

mod client;
pub mod packet;

use client::{Account, Client};

const ONLINE: &str = "online";
const OFFLINE: &str = "offline";

/// The broker that the config names.
#[derive(Debug)]
pub struct Broker {
    client: Client,
    base: String,
    interval: Duration,
    snapshot: bool,
    stated: Option<Instant>,
}

impl Broker {
    /// Starts the connection's thread; a broker that cannot be reached is tried again and again.
    pub fn start(config: &Mqtt) -> io::Result<Self> {
        let (base, client) = (config.base(), Client::start(account(config))?);
        for (topic, payload) in discovery(config) {
            client.retain(&topic, payload.to_string().into_bytes());
        }
        client.retain(&format!("{base}/availability"), ONLINE.into());
        Ok(Broker { client, base, interval: config.interval, snapshot: config.snapshot, stated: None })
    }

    fn state(&mut self, metrics: &Metrics) {
        self.stated = Some(Instant::now());
        let finite = |value: f64| value.is_finite().then_some(value);
        let state = json!({
            "outlier": metrics.outlier,
            "p": metrics.p.and_then(finite),
            "threshold": finite(metrics.threshold),
            "frames": metrics.frames,
            "camera": metrics.camera_up,
        });
        self.client.retain(&format!("{}/state", self.base), state.to_string().into_bytes());
    }

    fn send_snapshot(&self, event: &Event) -> Result<(), String> {
        let Some(path) = event.snapshot.as_ref().filter(|_| self.snapshot && event.event == Kind::Raise) else {
            return Ok(());
        };
        let jpeg = std::fs::read(path).map_err(|e| format!("cannot send {} by MQTT: {e}", path.display()))?;
        self.client.retain(&format!("{}/snapshot", self.base), jpeg);
        Ok(())
    }
}

impl Sink for Broker {
    fn event(&mut self, event: &Event, metrics: &Metrics) -> Result<(), String> {
        self.state(metrics);
        let queued = self.client.send(format!("{}/event", self.base), event.to_json().into_bytes());
        self.send_snapshot(event)?;
        queued.map_err(|e| e.to_string())
    }

    fn attend(&mut self, metrics: &Metrics) -> Vec<String> {
        if self.stated.is_none_or(|at| at.elapsed() >= self.interval) {
            self.state(metrics);
        }
        self.client.failures()
    }

    fn finish(&mut self, grace: Duration) -> Vec<String> {
        self.client.retain(&format!("{}/availability", self.base), OFFLINE.into());
        self.client.finish(grace)
    }
}

/// Connects once, for `check`; says whom as whom, or what stands in the way.
pub fn try_connect(config: &Mqtt) -> Result<String, String> {
    let account = account(config);
    let name = format!("{}:{}", account.host, account.port);
    // With a client id of its own: a broker ends the connection of a daemon that runs under the same.
    let probe = Account { client_id: format!("{}-check", account.client_id), ..account };
    match client::try_connect(&probe) {
        Ok(()) => Ok(format!("{name} takes us as {}, topics below {}", config.node(), config.base())),
        Err(e) => Err(format!("MQTT broker {name}: {e}")),
    }
}

fn account(config: &Mqtt) -> Account {
    Account {
        host: config.host.clone(),
        port: config.port,
        client_id: format!("outlierd-{}", config.node()),
        username: config.username.clone(),
        password_file: config.password_file.clone(),
        will: (format!("{}/availability", config.base()), OFFLINE.into()),
    }
}

/// Home Assistant's discovery messages: topic and payload.
fn discovery(config: &Mqtt) -> Vec<(String, serde_json::Value)> {
    let (prefix, node, base) = (&config.discovery_prefix, config.node(), config.base());
    if prefix.is_empty() {
        return Vec::new();
    }
    let entity = |component: &str, name: &str, label: &str, more: serde_json::Value| {
        let mut payload = json!({
            "name": label,
            "unique_id": format!("outlierd_{node}_{name}"),
            "object_id": format!("{node}_{name}"),
            "availability_topic": format!("{base}/availability"),
            "device": {
                "identifiers": [format!("outlierd_{node}")],
                "name": node,
                "manufacturer": "outlierd",
                "model": "Outlier watch",
                "sw_version": env!("CARGO_PKG_VERSION"),
            },
        });
        if let (Some(payload), serde_json::Value::Object(more)) = (payload.as_object_mut(), more) {
            payload.extend(more);
        }
        (format!("{prefix}/{component}/{node}/{name}/config"), payload)
    };
    let state = format!("{base}/state");
    let mut messages = vec![
        entity(
            "binary_sensor",
            "outlier",
            "Outlier",
            json!({
                "device_class": "problem",
                "state_topic": state,
                "value_template": "{{ 'ON' if value_json.outlier else 'OFF' }}",
                "json_attributes_topic": format!("{base}/event"),
            }),
        ),
        entity(
            "sensor",
            "p",
            "p",
            json!({
                "state_topic": state,
                "value_template": "{{ value_json.p }}",
                "state_class": "measurement",
                "suggested_display_precision": 3,
                "icon": "mdi:gauge",
            }),
        ),
        entity(
            "sensor",
            "frames",
            "Frames",
            json!({
                "state_topic": state,
                "value_template": "{{ value_json.frames }}",
                "state_class": "total_increasing",
                "entity_category": "diagnostic",
                "icon": "mdi:counter",
            }),
        ),
    ];
    if config.snapshot {
        let image = json!({ "image_topic": format!("{base}/snapshot"), "content_type": "image/jpeg" });
        messages.push(entity("image", "snapshot", "Snapshot", image));
    }
    messages
}
