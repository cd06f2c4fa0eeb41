//! Events and state for an MQTT broker, with Home Assistant's discovery message.
//!
//! The client is our own: those of rumqttc and rumqttc-next queue every state in place of the latest and send what breaks
//! the connection again without end, and bring a dozen crates.
//!
//! Below the base topic: `availability` (online, offline; the broker says offline when the daemon is killed), `state`
//! (JSON, retained), `event` (the log's JSON lines), `snapshot` (a JPEG file, retained), `client/ID` (the host's name,
//! retained while the daemon runs: two under one name are found by it).

use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::json;
use sha2::{Digest, Sha256};

use self::account::Account;
use self::client::Client;
use self::discovery::{OFFLINE, ONLINE};
use self::probe::Probe;
use self::queue::Turn;
use self::tls::Tls;
use super::output::{Failure, Output};
use crate::config::{self, Config};
use crate::model::hex;
use crate::watch::events::{Event, Kind};
use crate::watch::frame::status::Status;
use crate::{fs, image};

pub mod account;
pub mod client;
mod discovery;
pub mod packet;
mod probe;
mod queue;
mod session;
mod stream;
pub mod tls;

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

    fn due(&self) -> Option<Instant> {
        let broker = self.0.as_ref()?;
        broker.stated?.checked_add(broker.config.interval)
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
        if let Some((topic, payload)) = discovery::message(config) {
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
            let kept = if next.address() == self.config.address() { topics(next) } else { Vec::new() };
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
    let broker = config.address();
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
    discovery::message(config).into_iter().map(|(topic, _)| topic).chain(own).collect()
}

/// Connects once, for `check`; says whom as whom, or what stands in the way: also another daemon under the same name.
pub fn try_connect(config: &config::Mqtt, log: &Path) -> Result<String, String> {
    let (id, base) = (identity(log), config.base());
    let account = account(config, &id);
    let name = config.address();
    let has_password = account.password_file.is_some();
    // With a client id of its own: a broker ends the connection of a daemon that runs under the same.
    let probe = Account { client_id: format!("{}-check", account.client_id), ..account };
    let found = probe::probe(&probe, &format!("{base}/client"), &format!("{id}-check"))
        .map_err(|e| format!("MQTT broker {name}: {e}"))?;
    if let Some((topic, host)) =
        found.retained.iter().find(|(topic, host)| !host.is_empty() && !topic.ends_with(&format!("/{id}")))
    {
        return Err(format!(
            "MQTT broker {name}: another outlierd, on host {}, sends below {base}; give one of the two another \
             mqtt.node-id and mqtt.base-topic, or, if that one is gone for good: mosquitto_pub -h {} -r -n -t {topic}",
            String::from_utf8_lossy(host),
            config.host
        ));
    }
    let warnings = warnings(&found, has_password);
    Ok(format!("{name} takes us as {}, topics below {base}{warnings}", config.node()))
}

fn warnings(found: &Probe, has_password: bool) -> String {
    let mut warnings = String::new();
    if !found.echoed {
        warnings += "; warning: what is sent there does not come back: the broker's access list does not let this user \
                     write (it acknowledges such messages and drops them) or read";
    }
    if found.is_exposed && has_password {
        warnings += "; warning: the password goes over the network unencrypted: see mqtt.tls";
    }
    warnings
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
        port: config.port(),
        tls: config.tls.then(|| Tls {
            ca: config.ca_file.clone(),
            client: config.client_cert_file.clone().zip(config.client_key_file.clone()),
        }),
        client_id: format!("outlierd-{}-{id}", config.node()),
        username: config.username.clone(),
        password_file: config.password_file(),
        will: (format!("{}/availability", config.base()), OFFLINE.into()),
        birth: discovery::birth(config),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_in_clear_text_and_a_silent_refusal_are_warned_about() {
        let probe = |echoed, is_exposed| Probe { retained: Vec::new(), echoed, is_exposed };
        assert_eq!(warnings(&probe(true, false), true), "");
        assert_eq!(warnings(&probe(true, true), false), "");
        assert!(warnings(&probe(true, true), true).starts_with("; warning: the password goes over the network"));
        assert!(warnings(&probe(false, false), true).starts_with("; warning: what is sent there does not come back"));
    }
}
