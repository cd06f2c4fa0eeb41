//! A real MQTT broker and its clients, for the tests of the MQTT sink.

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::common::daemon::{PATIENCE, Place};
use rustix::process::{Pid, Signal, kill_process};

/// The broker's program; None, and a line that names the test, where it cannot be tested.
pub fn mosquitto(test: &str) -> Option<PathBuf> {
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

pub const ANONYMOUS: &str = "allow_anonymous true";

/// A mosquitto that listens on a port in clear text and, where it has a certificate, on another with TLS.
pub struct Broker {
    program: PathBuf,
    pub dir: tempfile::TempDir,
    pub port: u16,
    pub tls_port: Option<u16>,
    process: Option<Process>,
}

impl Broker {
    /// Keeps sessions and retained messages over a restart.
    pub fn start(program: PathBuf, more: &str) -> Self {
        Broker::start_with(program, more, None)
    }

    /// Listens with TLS, too; `tls` is what the listener gets.
    pub fn start_tls(program: PathBuf, tls: &str) -> Self {
        Broker::start_with(program, ANONYMOUS, Some(tls))
    }

    fn start_with(program: PathBuf, more: &str, tls: Option<&str>) -> Self {
        // Both are taken at once, so that they are two.
        let free: Vec<TcpListener> = (0..2).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let [port, other] = [&free[0], &free[1]].map(|listener| listener.local_addr().unwrap().port());
        drop(free);
        let dir = tempfile::tempdir().unwrap();
        let tls_listener = tls.map(|tls| format!("listener {other} 127.0.0.1\n{tls}\n")).unwrap_or_default();
        let config = format!(
            "listener {port} 127.0.0.1\n{tls_listener}persistence true\npersistence_location {}/\nuser root\n{more}\n",
            dir.path().display()
        );
        std::fs::write(dir.path().join("conf"), config).unwrap();
        let mut broker = Broker { program, dir, port, tls_port: tls.map(|_| other), process: None };
        broker.up();
        broker
    }

    pub fn up(&mut self) {
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
    pub fn down(&mut self) {
        let mut process = self.process.take().unwrap();
        process.signal(Signal::TERM);
        process.0.wait().unwrap();
    }

    /// A config that sends to the broker.
    pub fn place(&self, camera: &str, mqtt: &str) -> Place {
        let place = Place::new(camera, "");
        place.configure(camera, &self.section(mqtt));
        place
    }

    pub fn section(&self, more: &str) -> String {
        let port = self.tls_port.unwrap_or(self.port);
        format!("[mqtt]\nhost = \"127.0.0.1\"\nport = {port}\nnode-id = \"door\"\nbase-topic = \"home/door\"\n{more}\n")
    }

    pub fn subscribe(&self, filters: &[&str]) -> Subscriber {
        Subscriber::start(self, filters)
    }

    pub fn publish(&self, arguments: &[&str]) {
        let mut command = Command::new("mosquitto_pub");
        command.args(["-h", "127.0.0.1", "-p", &self.port.to_string(), "-q", "1"]);
        assert!(command.args(arguments).status().unwrap().success());
    }
}

/// `mosquitto_sub` with a session that the broker keeps.
pub struct Subscriber {
    _process: Process,
    out: PathBuf,
}

#[derive(Debug, Clone)]
pub struct Received {
    pub retained: bool,
    pub topic: String,
    pub payload: String,
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
        broker.publish(&["-r", "-t", "ready", "-m", "1"]);
        subscriber.wait("the subscription", |all| all.iter().any(|r| r.topic == "ready"));
        subscriber
    }

    pub fn received(&self) -> Vec<Received> {
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

    pub fn wait(&self, what: &str, found: impl Fn(&[Received]) -> bool) -> Vec<Received> {
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

    pub fn has(&self, topic: &str, payload: &str) {
        self.wait(&format!("{payload} on {topic}"), |all| {
            all.iter().rfind(|r| r.topic == topic).is_some_and(|r| r.payload == payload)
        });
    }
}
