//! The MQTT sink against a real broker: each test starts a mosquitto of its own on a free port. Needs a build with
//! `--features mqtt`, mosquitto and its clients.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::common::daemon::{PATIENCE, Place, text};
use outlierd::internals::watch::events::{self, Event, Kind};
use rustix::process::{Pid, Signal, kill_process};

/// The broker's program; None, and a line that names the test, where it cannot be tested.
fn mosquitto(test: &str) -> Option<PathBuf> {
    if !cfg!(feature = "mqtt") {
        println!("SKIPPED {test}: built without --features mqtt");
        return None;
    }
    let folders = std::env::var_os("PATH").unwrap_or_default();
    let folders: Vec<PathBuf> = std::env::split_paths(&folders).chain(["/usr/sbin".into()]).collect();
    let find = |name: &str| folders.iter().map(|folder| folder.join(name)).find(|path| path.is_file());
    let found = find("mosquitto").filter(|_| find("mosquitto_sub").is_some());
    if found.is_none() {
        println!("SKIPPED {test}: no mosquitto or no mosquitto_sub");
    }
    found
}

/// Ended when dropped.
struct Process(Child);

impl Process {
    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.0), signal).unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

struct Broker {
    program: PathBuf,
    dir: tempfile::TempDir,
    port: u16,
    process: Option<Process>,
}

impl Broker {
    /// Keeps sessions and retained messages over a restart.
    fn start(program: PathBuf, more: &str) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let dir = tempfile::tempdir().unwrap();
        let config = format!(
            "listener {port} 127.0.0.1\npersistence true\npersistence_location {}/\nuser root\n{more}\n",
            dir.path().display()
        );
        std::fs::write(dir.path().join("conf"), config).unwrap();
        let mut broker = Broker { program, dir, port, process: None };
        broker.up();
        broker
    }

    fn up(&mut self) {
        let err = std::fs::File::create(self.dir.path().join("log")).unwrap();
        let mut command = Command::new(&self.program);
        command.arg("-c").arg(self.dir.path().join("conf")).stdin(Stdio::null()).stdout(Stdio::null()).stderr(err);
        self.process = Some(Process(command.spawn().unwrap()));
        let started = Instant::now();
        while std::net::TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            let log = || std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
            assert!(started.elapsed() < PATIENCE, "no broker: {}", log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// A clean end, at which it saves its sessions.
    fn down(&mut self) {
        let mut process = self.process.take().unwrap();
        process.signal(Signal::TERM);
        process.0.wait().unwrap();
    }

    /// A config that sends to the broker.
    fn place(&self, camera: &str, mqtt: &str) -> Place {
        let place = Place::new(camera, "");
        place.configure(camera, &self.section(mqtt));
        place
    }

    fn section(&self, more: &str) -> String {
        let port = self.port;
        format!("[mqtt]\nhost = \"127.0.0.1\"\nport = {port}\nnode-id = \"door\"\nbase-topic = \"home/door\"\n{more}\n")
    }

    fn subscribe(&self, filters: &[&str]) -> Subscriber {
        Subscriber::start(self, filters)
    }
}

/// `mosquitto_sub` with a session that the broker keeps.
struct Subscriber {
    _process: Process,
    out: PathBuf,
}

#[derive(Debug, Clone)]
struct Received {
    retained: bool,
    topic: String,
    payload: String,
}

impl Subscriber {
    fn start(broker: &Broker, filters: &[&str]) -> Self {
        let out = broker.dir.path().join(format!("received-{}", std::fs::read_dir(broker.dir.path()).unwrap().count()));
        let id = out.file_name().unwrap().to_str().unwrap().to_owned();
        let mut command = Command::new("mosquitto_sub");
        command.args(["-h", "127.0.0.1", "-p", &broker.port.to_string(), "-q", "1", "-c", "-i", &id, "-F", "%r %t %p"]);
        for filter in filters {
            command.args(["-t", filter]);
        }
        command.args(["-t", "ready"]).stdin(Stdio::null()).stderr(Stdio::null());
        let process = Process(command.stdout(std::fs::File::create(&out).unwrap()).spawn().unwrap());
        let subscriber = Subscriber { _process: process, out };
        // A retained message arrives once the subscription stands.
        let port = broker.port.to_string();
        let told = Command::new("mosquitto_pub")
            .args(["-h", "127.0.0.1", "-p", &port, "-q", "1", "-r", "-t", "ready", "-m", "1"])
            .status();
        assert!(told.unwrap().success());
        subscriber.wait("the subscription", |all| all.iter().any(|r| r.topic == "ready"));
        subscriber
    }

    fn received(&self) -> Vec<Received> {
        let text = std::fs::read(&self.out).unwrap();
        let text = String::from_utf8_lossy(&text).into_owned();
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        let received = |line: &str| {
            let mut parts = line.splitn(3, ' ');
            let (retained, topic) = (parts.next()? == "1", parts.next()?.to_owned());
            Some(Received { retained, topic, payload: parts.next()?.to_owned() })
        };
        whole.lines().filter_map(received).collect()
    }

    fn wait(&self, what: &str, found: impl Fn(&[Received]) -> bool) -> Vec<Received> {
        let started = Instant::now();
        loop {
            let received = self.received();
            if found(&received) {
                return received;
            }
            assert!(started.elapsed() < PATIENCE, "no {what} in {received:#?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn has(&self, topic: &str, payload: &str) {
        self.wait(&format!("{payload} on {topic}"), |all| {
            all.iter().rfind(|r| r.topic == topic).is_some_and(|r| r.payload == payload)
        });
    }
}

fn log(place: &Place) -> Vec<Event> {
    events::read(&place.path("events.jsonl")).unwrap()
}

/// What was announced, each once: a message may come twice after a lost connection.
fn announced(received: &[Received]) -> Vec<Event> {
    let mut events: Vec<Event> = Vec::new();
    for message in received.iter().filter(|r| r.topic == "home/door/event") {
        let event: Event = serde_json::from_str(&message.payload).unwrap();
        if !events.contains(&event) {
            events.push(event);
        }
    }
    events
}

const ANONYMOUS: &str = "allow_anonymous true";

#[test]
fn events_state_and_discovery_arrive() {
    let Some(program) = mosquitto("events_state_and_discovery_arrive") else { return };
    let broker = Broker::start(program, ANONYMOUS);
    let live = broker.subscribe(&["home/door/#"]);
    let place = broker.place("interval = \"1ms\"", "snapshot = true");
    let run = place.run(&["run"]);
    assert!(run.status.success(), "{}", text(&run.stderr));
    let log = log(&place);
    let kinds: Vec<Kind> = log.iter().map(|event| event.event).collect();
    assert_eq!(kinds, [Kind::Start, Kind::Raise, Kind::Clear, Kind::Stop]);
    let received = live.wait("stop", |all| announced(all).len() == log.len());
    assert_eq!(announced(&received), log);
    live.has("home/door/availability", "offline");

    let late = broker.subscribe(&["homeassistant/#", "home/door/#"]);
    let received = late.wait("what is retained", |all| all.iter().filter(|r| r.retained).count() >= 9);
    let json = |topic: &str| -> serde_json::Value {
        let found = received.iter().find(|r| r.topic == topic && r.retained).unwrap_or_else(|| panic!("no {topic}"));
        serde_json::from_str(&found.payload).unwrap()
    };
    let outlier = json("homeassistant/binary_sensor/door/outlier/config");
    assert_eq!(outlier["device_class"], "problem");
    assert_eq!(outlier["state_topic"], "home/door/state");
    assert_eq!(outlier["availability_topic"], "home/door/availability");
    assert_eq!(outlier["device"]["identifiers"][0], "outlierd_door");
    assert_eq!(outlier["default_entity_id"], "binary_sensor.door_outlier");
    assert_eq!((outlier.get("object_id"), &outlier["origin"]["name"]), (None, &"outlierd".into()));
    let classes = ["camera", "drift"].map(|name| {
        json(&format!("homeassistant/binary_sensor/door/{name}/config"))["device_class"].as_str().unwrap().to_owned()
    });
    assert_eq!(classes, ["connectivity", "problem"]);
    let ids = ["sensor/door/p", "sensor/door/frames", "image/door/snapshot"]
        .map(|name| json(&format!("homeassistant/{name}/config"))["unique_id"].as_str().unwrap().to_owned());
    assert_eq!(ids, ["outlierd_door_p", "outlierd_door_frames", "outlierd_door_snapshot"]);
    let state = json("home/door/state");
    assert_eq!((&state["outlier"], state["frames"].as_u64()), (&false.into(), log[3].frames));
    assert!(!received.iter().any(|r| r.topic == "home/door/event"));
    assert_eq!(snapshot(&broker), std::fs::read(log[1].snapshot.as_ref().unwrap()).unwrap());
}

/// The bytes of the retained picture.
fn snapshot(broker: &Broker) -> Vec<u8> {
    let port = broker.port.to_string();
    let topic = ["-t", "home/door/snapshot", "-C", "1", "-N", "-W", "60"];
    Command::new("mosquitto_sub").args(["-h", "127.0.0.1", "-p", &port]).args(topic).output().unwrap().stdout
}

#[test]
fn a_killed_daemon_is_offline_and_a_new_one_online() {
    let Some(program) = mosquitto("a_killed_daemon_is_offline_and_a_new_one_online") else { return };
    let broker = Broker::start(program, ANONYMOUS);
    let subscriber = broker.subscribe(&["home/door/availability", "home/door/state"]);
    let place = broker.place("interval = \"1h\"", "");
    let mut daemon = place.spawn();
    subscriber.has("home/door/availability", "online");
    daemon.signal(Signal::KILL);
    daemon.child.wait().unwrap();
    subscriber.has("home/door/availability", "offline");
    drop(daemon);
    std::fs::remove_file(place.path("notify")).unwrap();
    let daemon = place.spawn();
    subscriber.has("home/door/availability", "online");
    assert_eq!(daemon.stop(Signal::TERM), 0);
    subscriber.has("home/door/availability", "offline");
}

#[test]
fn a_broker_s_restart_loses_no_event() {
    let Some(program) = mosquitto("a_broker_s_restart_loses_no_event") else { return };
    let mut broker = Broker::start(program, ANONYMOUS);
    let subscriber = broker.subscribe(&["home/door/#"]);
    let more = format!("{}[decision]\nraise-after = 1\nclear-after = 1\n", broker.section(""));
    let place = Place::new("", "");
    place.configure("interval = \"5ms\"\nloop = true", &more);
    let daemon = place.spawn();
    let raises = |events: &[Event]| events.iter().filter(|event| event.event == Kind::Raise).count();
    daemon.wait_for("raise", |events| raises(events) >= 1);
    subscriber.has("home/door/availability", "online");
    broker.down();
    let before = raises(&log(&place));
    daemon.wait_for("raises while there is no broker", |events| raises(events) >= before + 2);
    broker.up();
    subscriber.has("home/door/availability", "online");
    let before = raises(&log(&place));
    daemon.wait_for("a raise after the restart", |events| raises(events) > before);
    let last = log(&place).into_iter().rfind(|event| event.event == Kind::Raise).unwrap();
    let received = subscriber.wait("the last raise", |all| announced(all).contains(&last));
    assert_eq!(daemon.stop(Signal::TERM), 0);
    let log = log(&place);
    let announced = announced(&received);
    // An error of the connection is not announced to it.
    let told = |event: &&Event| event.message.as_ref().is_none_or(|message| !message.contains("MQTT broker"));
    for event in log.iter().filter(|event| event.event != Kind::Error && event.time <= last.time) {
        assert!(announced.contains(event), "lost {event:?} of {log:#?}");
    }
    let lost: Vec<&Event> = log.iter().filter(|event| !told(event)).collect();
    assert!(!lost.is_empty(), "the lost broker is an error event");
    assert!(lost.iter().all(|event| event.event == Kind::Error), "{lost:?}");
}

#[test]
fn a_wrong_password_is_told() {
    let Some(program) = mosquitto("a_wrong_password_is_told") else { return };
    let dir = tempfile::tempdir().unwrap();
    let users = dir.path().join("users");
    let made = Command::new("mosquitto_passwd").args(["-c", "-b"]).arg(&users).args(["door", "open sesame"]).status();
    assert!(made.unwrap().success());
    let broker = Broker::start(program, &format!("allow_anonymous false\npassword_file {}", users.display()));
    let password = |text: &str| std::fs::write(dir.path().join("password"), text).unwrap();
    let account = format!("username = \"door\"\npassword-file = {:?}\n", dir.path().join("password"));
    let place = broker.place("interval = \"20ms\"", &account);
    password("open barley\n");
    assert!(place.run(&["run"]).status.success());
    let messages: Vec<String> = log(&place).into_iter().filter_map(|event| event.message).collect();
    let refused = |message: &&String| message.contains("refuses the user name or password");
    assert_eq!(messages.iter().filter(refused).count(), 1, "{messages:?}");
    let check = place.run(&["check"]);
    let told = |check: &[u8], start: &str| text(check).lines().any(|line| line.starts_with(start));
    assert!(told(&check.stdout, "mqtt      WRONG MQTT broker 127.0.0.1"), "{}", text(&check.stdout));
    password("open sesame\n");
    let check = place.run(&["check"]);
    assert!(told(&check.stdout, "mqtt      ok    127.0.0.1"), "{}", text(&check.stdout));
}

#[test]
fn a_picture_that_the_broker_does_not_take_holds_up_no_event() {
    let Some(program) = mosquitto("a_picture_that_the_broker_does_not_take_holds_up_no_event") else { return };
    let broker = Broker::start(program, &format!("{ANONYMOUS}\nmax_packet_size 2000"));
    let subscriber = broker.subscribe(&["home/door/event"]);
    let more = format!("{}[decision]\nraise-after = 1\nclear-after = 1\n", broker.section("snapshot = true"));
    let place = Place::new("", "");
    place.configure("interval = \"50ms\"\nloop = true", &more);
    let daemon = place.spawn();
    let given_up =
        |event: &Event| event.message.as_ref().is_some_and(|message| message.contains("gave up a message of"));
    daemon.wait_for("what was given up", |events| events.iter().any(given_up));
    let log = log(&place);
    let raise = log.iter().rfind(|event| event.event == Kind::Raise).unwrap();
    let size = std::fs::metadata(raise.snapshot.as_ref().unwrap()).unwrap().len();
    assert!(size > 2000, "{size}");
    subscriber.wait("the last raise", |all| announced(all).contains(raise));
    assert_eq!(daemon.stop(Signal::TERM), 0);
}

#[test]
fn a_reload_hands_the_queue_over_and_empties_the_old_names() {
    let Some(program) = mosquitto("a_reload_hands_the_queue_over_and_empties_the_old_names") else { return };
    let mut broker = Broker::start(program, ANONYMOUS);
    let subscriber = broker.subscribe(&["home/#", "homeassistant/#"]);
    let place = broker.place("interval = \"1h\"", "");
    let daemon = place.spawn();
    subscriber.has("home/door/availability", "online");
    let rename = |from: &str, to: &str| {
        let config = std::fs::read_to_string(place.path("o.toml")).unwrap();
        std::fs::write(place.path("o.toml"), config.replace(from, to)).unwrap();
        daemon.signal(Signal::HUP);
    };
    rename("\"door\"\nbase-topic = \"home/door\"", "\"gate\"\nbase-topic = \"home/gate\"");
    subscriber.has("home/gate/availability", "online");
    for gone in ["homeassistant/binary_sensor/door/outlier/config", "homeassistant/sensor/door/p/config"] {
        subscriber.has(gone, "");
    }
    subscriber.has("home/door/state", "");
    subscriber.has("home/door/availability", "");

    // What waits while there is no broker goes out under the next name.
    broker.down();
    daemon.wait_for("the lost broker", |events| {
        events.iter().any(|event| event.message.as_ref().is_some_and(|message| message.contains("MQTT broker")))
    });
    std::fs::write(place.path("o.toml.bad"), "").unwrap();
    let config = std::fs::read_to_string(place.path("o.toml")).unwrap();
    std::fs::write(place.path("o.toml"), "no config").unwrap();
    daemon.signal(Signal::HUP);
    let refused = |event: &Event| event.event == Kind::Error && !event.message.as_ref().unwrap().contains("MQTT");
    daemon.wait_for("an error event of the reload", |events| events.iter().any(refused));
    let waiting = log(&place).into_iter().find(refused).unwrap();
    std::fs::write(place.path("o.toml"), config).unwrap();
    rename("home/gate", "home/shed");
    broker.up();
    subscriber.wait("what waited", |all| {
        let told = |r: &&Received| r.topic == "home/shed/event" && r.payload.contains(&waiting.to_json()[..40]);
        all.iter().any(|r| told(&r))
    });
    assert_eq!(daemon.stop(Signal::TERM), 0);

    // A restart under another name empties what the one before left.
    let config = std::fs::read_to_string(place.path("o.toml")).unwrap();
    std::fs::write(place.path("o.toml"), config.replace("\"gate\"", "\"porch\"")).unwrap();
    let daemon = place.spawn();
    subscriber.has("homeassistant/binary_sensor/gate/outlier/config", "");
    subscriber.wait("the new name", |all| {
        all.iter().any(|r| r.topic == "homeassistant/binary_sensor/porch/outlier/config" && !r.payload.is_empty())
    });
    assert_eq!(daemon.stop(Signal::TERM), 0);
}

#[test]
fn check_names_another_daemon_under_the_same_name() {
    let Some(program) = mosquitto("check_names_another_daemon_under_the_same_name") else { return };
    let broker = Broker::start(program, ANONYMOUS);
    let subscriber = broker.subscribe(&["home/door/#"]);
    let (one, two) = (broker.place("interval = \"1h\"", ""), broker.place("interval = \"1h\"", ""));
    let check = |place: &Place| {
        let out = text(&place.run(&["check"]).stdout);
        out.lines().find(|line| line.starts_with("mqtt ")).unwrap().to_owned()
    };
    assert!(check(&two).starts_with("mqtt      ok    127.0.0.1"), "{}", check(&two));
    let daemon = one.spawn();
    subscriber.has("home/door/availability", "online");
    assert!(check(&one).starts_with("mqtt      ok    127.0.0.1"), "{}", check(&one));
    let told = check(&two);
    assert!(told.starts_with("mqtt      WRONG") && told.contains("another outlierd, on host"), "{told}");
    // Both are connected: neither ends the other's connection.
    let other = two.spawn();
    subscriber.wait("both", |all| {
        let mut clients: Vec<&str> = all.iter().map(|r| r.topic.as_str()).filter(|t| t.contains("/client/")).collect();
        clients.dedup();
        clients.len() == 2
    });
    assert!(check(&one).contains("another outlierd"));
    assert_eq!((daemon.stop(Signal::TERM), other.stop(Signal::TERM)), (0, 0));
    assert!(check(&two).starts_with("mqtt      ok    127.0.0.1"), "{}", check(&two));
}

/// What a config may say is what `tests/config.rs` tries; here the packaged drop-in names the keys that systemd needs.
#[test]
fn the_packaged_drop_in_undoes_the_unit_s_network_ban() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd");
    let read = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap();
    let (unit, drop_in) = (read("outlierd.service"), read("outlierd.service.d/mqtt.conf.example"));
    for key in ["PrivateNetwork", "RestrictAddressFamilies", "IPAddressDeny"] {
        let set = |text: &str| text.lines().any(|line| line.starts_with(&format!("{key}=")));
        assert!(set(&unit) && set(&drop_in), "{key}");
    }
}
