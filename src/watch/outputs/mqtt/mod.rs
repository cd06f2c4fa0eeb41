//! Events and state for an MQTT broker, with Home Assistant's discovery messages.
//!
//! Below the base topic: `availability` (online, offline; the broker says offline when the daemon is killed), `state`
//! (JSON, retained), `event` (the log's JSON lines), `snapshot` (a JPEG file, retained), `client/ID` (the host's name,
//! retained while the daemon runs: two under one name are found by it).

use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::json;
use sha2::{Digest, Sha256};

use super::output::{Failure, Output};
use crate::config::{self, Config};
use crate::model::hex;
use crate::watch::events::{Event, Kind};
use crate::watch::frame::status::Status;
use crate::{fs, image};

mod account;
mod client;
pub mod packet;
mod queue;
mod session;

use account::Account;
use client::Client;
use queue::Turn;

const ONLINE: &str = "online";
const OFFLINE: &str = "offline";

/// How long events may go on when the daemon stops.
const GRACE: Duration = Duration::from_secs(3);
/// The same when a reload takes their broker away.
const RELOAD_GRACE: Duration = Duration::from_secs(2);

/// The broker of the config, if it names one.
#[derive(Debug)]
pub struct Mqtt(Option<Broker>);

impl Mqtt {
    /// # Errors
    /// A thread cannot be started.
    pub fn start(config: &Config) -> io::Result<Self> {
        let broker = config.mqtt.as_ref().map(|mqtt| Broker::start(mqtt, &config.events.log));
        Ok(Mqtt(broker.transpose()?))
    }
}

impl Output for Mqtt {
    /// What waits for the old broker goes to the new one. The old one ends first: a broker that saw both would say last that
    /// the old one is gone.
    fn reconfigure(&mut self, config: &Config) -> Result<Vec<Failure>, String> {
        if self.0.as_ref().map(|broker| &broker.config) == config.mqtt.as_ref() {
            return Ok(Vec::new());
        }
        let (waiting, mut failures) = self.0.take().map(|mut broker| broker.end(config)).unwrap_or_default();
        *self = Mqtt::start(config).map_err(|e| format!("cannot start a thread: {e}"))?;
        let lost = self.0.as_ref().map_or(waiting.len(), |broker| {
            waiting.iter().filter(|event| broker.send_event((*event).clone()).is_err()).count()
        });
        if lost > 0 {
            failures.push(format!("{lost} events that waited for a broker were not delivered before the new config"));
        }
        Ok(failures.into_iter().map(Failure::Logged).collect())
    }

    fn event(&mut self, event: &Event, status: &Status) -> Vec<Failure> {
        let Some(broker) = &mut self.0 else { return Vec::new() };
        broker.state(status);
        let queued = broker.send_event(event.to_json().into_bytes());
        let sent = broker.send_snapshot(event).and(queued);
        sent.err().map(Failure::Logged).into_iter().collect()
    }

    fn attend(&mut self, status: &Status) -> Vec<Failure> {
        let Some(broker) = &mut self.0 else { return Vec::new() };
        if broker.stated.is_none_or(|at| at.elapsed() >= broker.config.interval) {
            broker.state(status);
        }
        broker.client.failures().into_iter().map(Failure::Announced).collect()
    }

    fn finish(&mut self, _: &Status) -> Vec<Failure> {
        let Some(mut broker) = self.0.take() else { return Vec::new() };
        broker.farewell();
        broker.client.finish(GRACE).into_iter().map(Failure::Logged).collect()
    }
}

/// A broker and what is sent to it.
#[derive(Debug)]
struct Broker {
    client: Client,
    config: config::Mqtt,
    base: String,
    /// `client/ID`.
    presence: String,
    stated: Option<Instant>,
}

impl Broker {
    /// Starts the connection's thread; a broker that cannot be reached is tried again and again. `log` is unique to a daemon
    /// of the host.
    fn start(config: &config::Mqtt, log: &Path) -> io::Result<Self> {
        let (base, id) = (config.base(), identity(log));
        let client = Client::start(account(config, &id))?;
        empty_former(&client, config, log);
        for (topic, payload) in discovery(config) {
            client.retain(&topic, payload.to_string().into_bytes(), Turn::BeforeEvents);
        }
        let presence = format!("{base}/client/{id}");
        client.retain(&presence, config::Mqtt::host_name().into_bytes(), Turn::BeforeEvents);
        client.retain(&format!("{base}/availability"), ONLINE.into(), Turn::BeforeEvents);
        Ok(Broker { client, config: config.clone(), base, presence, stated: None })
    }

    fn state(&mut self, status: &Status) {
        self.stated = Some(Instant::now());
        let finite = |value: f64| value.is_finite().then_some(value);
        let state = json!({
            "outlier": status.raised,
            "p": status.p().and_then(finite),
            "threshold": finite(status.threshold.value),
            "frames": status.summary.frames,
            "camera": status.camera_up,
            "drift": status.drift,
        });
        self.client.retain(&format!("{}/state", self.base), state.to_string().into_bytes(), Turn::BeforeEvents);
    }

    fn farewell(&self) {
        self.client.retain(&self.presence, Vec::new(), Turn::BeforeEvents);
        self.client.retain(&format!("{}/availability", self.base), OFFLINE.into(), Turn::BeforeEvents);
    }

    fn send_snapshot(&self, event: &Event) -> Result<(), String> {
        let Some(path) = event.snapshot.as_ref().filter(|_| self.config.snapshot && event.event == Kind::Raise) else {
            return Ok(());
        };
        let jpeg =
            fs::read(path, image::MAX_BYTES).map_err(|e| format!("cannot send {} by MQTT: {e}", path.display()))?;
        self.client.retain(&format!("{}/snapshot", self.base), jpeg, Turn::AfterEvents);
        Ok(())
    }

    fn send_event(&self, json: Vec<u8>) -> Result<(), String> {
        self.client.send(format!("{}/event", self.base), json).map_err(|e| e.to_string())
    }

    /// Ends before another config; gives the events that still wait, and what went wrong.
    fn end(&mut self, next: &Config) -> (Vec<Vec<u8>>, Vec<String>) {
        self.farewell();
        if let Some(next) = &next.mqtt {
            let same_broker = (&next.host, next.port) == (&self.config.host, self.config.port);
            let kept = if same_broker { topics(next) } else { Vec::new() };
            for topic in topics(&self.config).iter().filter(|topic| !kept.contains(topic)) {
                self.client.retain(topic, Vec::new(), Turn::BeforeEvents);
            }
        }
        self.client.end(RELOAD_GRACE)
    }
}

/// Empties what the broker retains of the names that this daemon had before it was started anew under others. They are kept
/// beside the event log: the broker's address, then a topic a line.
fn empty_former(client: &Client, config: &config::Mqtt, log: &Path) {
    let mut path = log.as_os_str().to_owned();
    path.push(".retained");
    let path = Path::new(&path);
    let broker = format!("{}:{}", config.host, config.port);
    let current = topics(config);
    let former = fs::read_text(path, MAX_RETAINED).unwrap_or_default();
    let mut lines = former.lines();
    if lines.next() == Some(broker.as_str()) {
        for topic in lines.filter(|topic| !current.iter().any(|current| current == topic)) {
            client.retain(topic, Vec::new(), Turn::BeforeEvents);
        }
    }
    let text = format!("{broker}\n{}\n", current.join("\n"));
    if text != former
        && let Err(e) = fs::replace(path, text.as_bytes())
    {
        log::warn!("cannot write {}: {e}; topics of another name would stay on the broker", path.display());
    }
}

/// What the broker retains of a config, but for `client/ID`.
fn topics(config: &config::Mqtt) -> Vec<String> {
    let own = ["availability", "state", "snapshot"].map(|name| format!("{}/{name}", config.base()));
    discovery(config).into_iter().map(|(topic, _)| topic).chain(own).collect()
}

/// Connects once, for `check`; says whom as whom, or what stands in the way: also another daemon under the same name.
pub fn try_connect(config: &config::Mqtt, log: &Path) -> Result<String, String> {
    let (id, base) = (identity(log), config.base());
    let account = account(config, &id);
    let name = format!("{}:{}", account.host, account.port);
    // With a client id of its own: a broker ends the connection of a daemon that runs under the same.
    let probe = Account { client_id: format!("{}-check", account.client_id), ..account };
    let found = account::look(&probe, &format!("{base}/client/+")).map_err(|e| format!("MQTT broker {name}: {e}"))?;
    match found.iter().find(|(topic, host)| !host.is_empty() && !topic.ends_with(&format!("/{id}"))) {
        None => Ok(format!("{name} takes us as {}, topics below {base}", config.node())),
        Some((topic, host)) => Err(format!(
            "MQTT broker {name}: another outlierd, on host {}, sends below {base}; give one of the two another \
             mqtt.node-id and mqtt.base-topic, or, if that one is gone for good: mosquitto_pub -h {} -r -n -t {topic}",
            String::from_utf8_lossy(host),
            config.host
        )),
    }
}

/// The machine's id is shorter.
const MAX_ID: u64 = 4096;
/// More topics than a config has.
const MAX_RETAINED: u64 = 1 << 20;

/// Tells daemons apart that have one name: those of several hosts, and those of one host by their event logs.
fn identity(log: &Path) -> String {
    let machine =
        fs::read(Path::new("/etc/machine-id"), MAX_ID).unwrap_or_else(|_| config::Mqtt::host_name().into_bytes());
    let hash = Sha256::new().chain_update(machine).chain_update(log.as_os_str().as_encoded_bytes()).finalize();
    hex(&hash[..4])
}

fn account(config: &config::Mqtt, id: &str) -> Account {
    Account {
        host: config.host.clone(),
        port: config.port,
        client_id: format!("outlierd-{}-{id}", config.node()),
        username: config.username.clone(),
        password_file: config.password_file.clone(),
        will: (format!("{}/availability", config.base()), OFFLINE.into()),
    }
}

/// Home Assistant's discovery messages: topic and payload.
fn discovery(config: &config::Mqtt) -> Vec<(String, serde_json::Value)> {
    let (prefix, node, base) = (&config.discovery_prefix, config.node(), config.base());
    if prefix.is_empty() {
        return Vec::new();
    }
    let entity = |component: &str, name: &str, label: &str, more: serde_json::Value| {
        let mut payload = json!({
            "name": label,
            "unique_id": format!("outlierd_{node}_{name}"),
            "default_entity_id": format!("{component}.{node}_{name}"),
            "availability_topic": format!("{base}/availability"),
            "device": {
                "identifiers": [format!("outlierd_{node}")],
                "name": node,
                "manufacturer": "outlierd",
                "model": "Outlier watch",
                "sw_version": env!("CARGO_PKG_VERSION"),
            },
            "origin": { "name": "outlierd", "sw_version": env!("CARGO_PKG_VERSION") },
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
            "binary_sensor",
            "camera",
            "Camera",
            json!({
                "device_class": "connectivity",
                "entity_category": "diagnostic",
                "state_topic": state,
                "value_template": "{{ 'ON' if value_json.camera else 'OFF' }}",
            }),
        ),
        entity(
            "binary_sensor",
            "drift",
            "Drift",
            json!({
                "device_class": "problem",
                "entity_category": "diagnostic",
                "state_topic": state,
                "value_template": "{{ 'ON' if value_json.drift else 'OFF' }}",
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
