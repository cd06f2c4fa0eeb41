//! The web page as a process, and a client that speaks its mind.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::daemon::{PATIENCE, Place, outlierd};

pub struct Page {
    pub child: Child,
    pub address: SocketAddr,
}

impl Page {
    /// Of the place's daemon, on a free port.
    pub fn of(place: &Place) -> Page {
        Page::start(place, |_| {})
    }

    pub fn start(place: &Place, adapt: impl FnOnce(&mut Command)) -> Page {
        let mut command = outlierd();
        command.args(["page", "--listen", "127.0.0.1:0", "--config"]).arg(place.path("o.toml"));
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        adapt(&mut command);
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.strip_prefix("http://").and_then(|rest| rest.split('/').next()).unwrap_or_default();
        Page { child, address: address.parse().unwrap_or_else(|e| panic!("{line:?}: {e}")) }
    }

    /// Sends bytes as they are, and reads until the server closes.
    pub fn raw(&self, bytes: &[u8]) -> Answer {
        let mut stream = self.connect();
        // A server that has had enough closes before it has read all.
        let _ = stream.write_all(bytes);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        Answer::parse(answer)
    }

    pub fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    pub fn request(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let mut head = format!("{method} {path} HTTP/1.1\r\nConnection: close\r\n");
        if headers.iter().all(|(name, _)| *name != "Host") {
            head.push_str(&format!("Host: {}\r\n", self.address));
        }
        headers.iter().for_each(|(name, value)| head.push_str(&format!("{name}: {value}\r\n")));
        if !body.is_empty() {
            head.push_str("Content-Type: application/x-www-form-urlencoded\r\n");
            head.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        self.raw(format!("{head}\r\n{body}").as_bytes())
    }

    pub fn get(&self, path: &str) -> Answer {
        self.request("GET", path, &[], "")
    }

    /// Sends a form as the page itself would, with the form token that is in `of`.
    pub fn post(&self, path: &str, of: &Answer, fields: &str) -> Answer {
        let body = format!("form={}&{fields}", of.form_token());
        self.request("POST", path, &[("Origin", &format!("http://{}", self.address))], &body)
    }

    /// Asks until the answer is as wanted.
    pub fn wait_for(&self, path: &str, what: &str, wanted: impl Fn(&Answer) -> bool) -> Answer {
        let started = Instant::now();
        loop {
            let answer = self.get(path);
            if wanted(&answer) {
                return answer;
            }
            assert!(started.elapsed() < PATIENCE, "no {what} at {path} but {} {}", answer.status, answer.text());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Resident KiB, the largest that was.
    pub fn peak_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().trim_end_matches(" kB").trim().parse().unwrap()
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[derive(Debug, Default)]
pub struct Answer {
    /// 0: the server closed without one.
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Answer {
    fn parse(bytes: Vec<u8>) -> Answer {
        let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else { return Answer::default() };
        let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
        Answer { status, head, body: bytes[end + 4..].to_vec() }
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        let of = |line: &'_ str| line.split_once(": ").is_some_and(|(known, _)| known.eq_ignore_ascii_case(name));
        self.head.lines().find(|line| of(line)).and_then(|line| line.split_once(": ")).map(|(_, value)| value)
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.text()))
    }

    pub fn form_token(&self) -> String {
        let text = self.text();
        let after = text.split_once("name=\"form\" value=\"").unwrap_or_else(|| panic!("no form in {text}")).1;
        after.split('"').next().unwrap().to_owned()
    }
}
