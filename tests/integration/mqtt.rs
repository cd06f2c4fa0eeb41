//! The MQTT sink against a real broker: each test starts a mosquitto of its own on a free port. Needs mosquitto and its
//! clients.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::common::daemon::{Place, outlierd, text};
use crate::mqtt_broker::{ANONYMOUS, Broker, Received, mosquitto};
use outlierd::internals::watch::events::{self, Event, Kind};
use outlierd::internals::watch::outputs::mqtt::account::Account;
use outlierd::internals::watch::outputs::mqtt::client::Client;
use rustix::process::Signal;

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
    let received = late.wait("what is retained", |all| all.iter().filter(|r| r.retained).count() >= 5);
    let json = |topic: &str| -> serde_json::Value {
        let found = received.iter().find(|r| r.topic == topic && r.retained).unwrap_or_else(|| panic!("no {topic}"));
        serde_json::from_str(&found.payload).unwrap()
    };
    let discovery = json("homeassistant/device/outlierd_door/config");
    assert_eq!(discovery["state_topic"], "home/door/state");
    assert_eq!(discovery["components"]["snapshot"]["image_topic"], "home/door/snapshot");
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
    // Without a file it is systemd's credential.
    place.configure("interval = \"20ms\"", &broker.section("username = \"door\""));
    let check = place.run(&["check"]);
    let missing = "(CONNACK 5), and there is no password: see mqtt.username";
    assert!(text(&check.stdout).contains(missing), "{}", text(&check.stdout));
    std::fs::write(dir.path().join("mqtt-password"), "open sesame\n").unwrap();
    let mut command = outlierd();
    command.args(["check", "--config"]).arg(place.path("o.toml")).env("CREDENTIALS_DIRECTORY", dir.path());
    let check = command.output().unwrap();
    assert!(told(&check.stdout, "mqtt      ok    127.0.0.1"), "{}", text(&check.stdout));
}

/// A broker acknowledges what its access list makes it drop, by MQTT 3.1.1: the daemon cannot tell, `check` can.
#[test]
fn what_an_access_list_drops_is_told_by_check_alone() {
    let Some(program) = mosquitto("what_an_access_list_drops_is_told_by_check_alone") else { return };
    let dir = tempfile::tempdir().unwrap();
    let list = dir.path().join("acl");
    std::fs::write(&list, "topic read #\ntopic write ready\ntopic write home/door/availability\n").unwrap();
    let broker = Broker::start(program, &format!("{ANONYMOUS}\nacl_file {}", list.display()));
    let subscriber = broker.subscribe(&["home/#"]);
    let place = broker.place("interval = \"20ms\"", "");
    let check = text(&place.run(&["check"]).stdout);
    assert!(check.contains("mqtt      ok    127.0.0.1"), "{check}");
    assert!(check.contains("; warning: what is sent there does not come back: the broker's access list"), "{check}");
    assert!(place.run(&["run"]).status.success());
    // The daemon's last message, after all events.
    subscriber.has("home/door/availability", "offline");
    assert!(announced(&subscriber.received()).is_empty());
    let log = log(&place);
    assert!(log.iter().all(|event| event.event != Kind::Error), "{log:#?}");
}

#[test]
fn a_birth_message_of_home_assistant_is_answered_with_the_announcement() {
    let Some(program) = mosquitto("a_birth_message_of_home_assistant_is_answered_with_the_announcement") else {
        return;
    };
    let broker = Broker::start(program, ANONYMOUS);
    broker.publish(&["-r", "-t", "homeassistant/status", "-m", "online"]);
    let subscriber = broker.subscribe(&["homeassistant/device/#", "home/door/#"]);
    let place = broker.place("interval = \"1h\"", "interval = \"1h\"");
    let daemon = place.spawn();
    let times = |all: &[Received], topic: &str| all.iter().filter(|r| r.topic == topic).count();
    let (config, state) = ("homeassistant/device/outlierd_door/config", "home/door/state");
    subscriber.wait("the first announcement", |all| times(all, "home/door/event") >= 1 && times(all, state) >= 1);
    let before = subscriber.received();
    assert_eq!(times(&before, config), 1, "what is retained says nothing of now");
    // One that is too long is skipped, others say nothing.
    let long = broker.dir.path().join("long");
    std::fs::write(&long, vec![b'x'; 100_000]).unwrap();
    broker.publish(&["-t", "homeassistant/status", "-f", long.to_str().unwrap()]);
    broker.publish(&["-t", "homeassistant/status", "-m", "offline"]);
    broker.publish(&["-t", "homeassistant/status", "-m", "online"]);
    let again = subscriber.wait("the second", |all| {
        let more = |topic: &str| times(all, topic) > times(&before, topic);
        [config, state, "home/door/availability"].iter().all(|topic| more(topic))
    });
    assert_eq!((times(&again, config), times(&again, "home/door/event")), (2, times(&before, "home/door/event")));
    assert_eq!(daemon.stop(Signal::TERM), 0);
    assert!(log(&place).iter().all(|event| event.event != Kind::Error));
}

#[test]
fn ten_thousand_events_wait_for_the_broker_and_arrive_in_order() {
    let Some(program) = mosquitto("ten_thousand_events_wait_for_the_broker_and_arrive_in_order") else { return };
    let mut broker = Broker::start(program, &format!("{ANONYMOUS}\nmax_queued_messages 0"));
    let subscriber = broker.subscribe(&["many"]);
    broker.down();
    let mut client = Client::start(account(&broker)).unwrap();
    let event = |number: usize| format!("{number:<400}").into_bytes();
    for number in 0..10_000 {
        client.send("many".into(), event(number)).unwrap();
    }
    let full = client.send("many".into(), event(10_000)).unwrap_err().to_string();
    assert!(full.starts_with("more events wait for MQTT broker 127.0.0.1"), "{full}");
    broker.up();
    let received = subscriber.wait("all", |all| all.iter().any(|r| r.payload.starts_with("9999 ")));
    let (left, _) = client.end(Duration::from_secs(60));
    assert!(left.is_empty(), "{} left", left.len());
    let numbers = received.iter().filter(|r| r.topic == "many").map(|r| r.payload.trim().parse::<usize>().unwrap());
    assert!(numbers.eq(0..10_000));
}

fn account(broker: &Broker) -> Account {
    Account {
        host: "127.0.0.1".into(),
        port: broker.port,
        tls: None,
        client_id: "test".into(),
        username: None,
        password_file: None,
        will: ("gone".into(), "gone".into()),
        birth: None,
    }
}

#[test]
fn a_picture_that_the_broker_does_not_take_holds_up_no_event() {
    let Some(program) = mosquitto("a_picture_that_the_broker_does_not_take_holds_up_no_event") else { return };
    let broker = Broker::start(program, &format!("{ANONYMOUS}\nmax_packet_size 4000"));
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
    assert!(size > 4000, "{size}");
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
    subscriber.has("homeassistant/device/outlierd_door/config", "");
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
    subscriber.has("homeassistant/device/outlierd_gate/config", "");
    subscriber.wait("the new name", |all| {
        all.iter().any(|r| r.topic == "homeassistant/device/outlierd_porch/config" && !r.payload.is_empty())
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
        // What `check` sends is not retained.
        let of_client = |r: &&Received| r.topic.contains("/client/") && !r.topic.ends_with("-check");
        let clients: BTreeSet<&str> = all.iter().filter(of_client).map(|r| r.topic.as_str()).collect();
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
