//! A headless Chromium that is told what to do through a pipe.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::daemon::PATIENCE;

/// Where a browser is; None, and a line that names the test, where there is none.
pub fn find(test: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let names = ["chromium", "chromium-browser", "google-chrome"];
    let found = std::env::split_paths(&path).flat_map(|dir| names.map(|n| dir.join(n))).find(|p| p.is_file());
    if found.is_none() {
        println!("SKIPPED {test}: no Chromium is installed");
    }
    found
}

/// What every start of a browser is given.
pub const OPTIONS: [&str; 8] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
];

/// One tab of a browser of its own.
pub struct Browser {
    child: Child,
    commands: std::fs::File,
    answers: BufReader<std::fs::File>,
    session: String,
    next: u64,
    /// What scripts complained of, and what the page's policy kept out.
    pub complaints: Vec<String>,
    _dir: tempfile::TempDir,
}

impl Browser {
    pub fn start(program: &Path) -> Browser {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        for name in ["commands", "answers"] {
            assert!(Command::new("mkfifo").arg(at(name)).status().unwrap().success());
        }
        // The shell's files 3 and 4 are the browser's.
        let child = Command::new("/bin/sh")
            .args(["-c", "commands=$1 answers=$2; shift 2; exec \"$0\" \"$@\" 3<\"$commands\" 4>\"$answers\""])
            .arg(program)
            .args([at("commands"), at("answers")])
            .args(OPTIONS)
            .arg("--remote-debugging-pipe")
            .arg(format!("--user-data-dir={}", at("profile").display()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let commands = std::fs::File::options().write(true).open(at("commands")).unwrap();
        let answers = BufReader::new(std::fs::File::open(at("answers")).unwrap());
        let (session, complaints) = (String::new(), Vec::new());
        let mut browser = Browser { child, commands, answers, session, next: 0, complaints, _dir: dir };
        let target = browser.tell("Target.createTarget", json!({"url": "about:blank"}))["targetId"].clone();
        let attached = browser.tell("Target.attachToTarget", json!({"targetId": target, "flatten": true}));
        browser.session = attached["sessionId"].as_str().unwrap().to_owned();
        for domain in ["Page", "Runtime", "Log"] {
            browser.tell(&format!("{domain}.enable"), json!({}));
        }
        browser
    }

    /// A command of the DevTools protocol, and its result.
    pub fn tell(&mut self, method: &str, parameters: Value) -> Value {
        self.ask(method, parameters).unwrap_or_else(|e| panic!("{method}: {e}"))
    }

    fn ask(&mut self, method: &str, parameters: Value) -> Result<Value, Value> {
        self.next += 1;
        let mut command = json!({"id": self.next, "method": method, "params": parameters});
        if !self.session.is_empty() {
            command["sessionId"] = self.session.clone().into();
        }
        self.commands.write_all(format!("{command}\0").as_bytes()).unwrap();
        loop {
            let message = self.message();
            if message["id"] == self.next {
                let error = message["error"].clone();
                return if error.is_null() { Ok(message["result"].clone()) } else { Err(error) };
            }
        }
    }

    fn message(&mut self) -> Value {
        let mut bytes = Vec::new();
        self.answers.read_until(0, &mut bytes).unwrap();
        assert_eq!(bytes.pop(), Some(0), "the browser has ended");
        let message: Value = serde_json::from_slice(&bytes).unwrap();
        match message["method"].as_str() {
            Some("Runtime.exceptionThrown") => self.complaints.push(message["params"].to_string()),
            Some("Log.entryAdded") if message["params"]["entry"]["level"] == "error" => {
                self.complaints.push(message["params"]["entry"].to_string());
            }
            _ => {}
        }
        message
    }

    /// Loads a page and waits until all of it is there.
    pub fn open(&mut self, url: &str) {
        let opened = self.tell("Page.navigate", json!({"url": url}));
        assert!(opened["errorText"].is_null(), "{opened}");
        self.wait_for("document.readyState === 'complete' && location.href !== 'about:blank'");
    }

    /// The value of a script; a promise is waited for.
    pub fn value(&mut self, script: &str) -> Value {
        let told = self.evaluate(script).unwrap_or_else(|e| panic!("{script}: {e}"));
        assert!(told["exceptionDetails"].is_null(), "{script}: {told}");
        told["result"]["value"].clone()
    }

    /// An error where the page is just left.
    fn evaluate(&mut self, script: &str) -> Result<Value, Value> {
        self.ask("Runtime.evaluate", json!({"expression": script, "awaitPromise": true, "returnByValue": true}))
    }

    /// Waits until a script's value is true.
    pub fn wait_for(&mut self, script: &str) {
        let started = Instant::now();
        let whole = format!("(() => {{ try {{ return !!({script}); }} catch {{ return false; }} }})()");
        while !self.evaluate(&whole).is_ok_and(|told| told["result"]["value"] == true) {
            if started.elapsed() > PATIENCE {
                let text = self.value("document.documentElement.outerHTML");
                panic!("never: {script}\n{}", text.as_str().unwrap_or_default());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Waits for an element and clicks on it.
    pub fn click(&mut self, selector: &str) {
        self.wait_for(&format!("document.querySelector({selector:?})"));
        let _ = self.evaluate(&format!("document.querySelector({selector:?}).click()"));
    }

    pub fn size(&mut self, width: u32, dark: bool) {
        let metrics = json!({"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600});
        self.tell("Emulation.setDeviceMetricsOverride", metrics);
        let scheme = if dark { "dark" } else { "light" };
        let features = json!([{"name": "prefers-color-scheme", "value": scheme}]);
        self.tell("Emulation.setEmulatedMedia", json!({"features": features}));
    }

    /// The whole page as PNG, into the folder that `OUTLIERD_SCREENSHOTS` names; nothing where it names none.
    pub fn screenshot(&mut self, name: &str) {
        let Some(folder) = std::env::var_os("OUTLIERD_SCREENSHOTS") else { return };
        let shot = self.tell("Page.captureScreenshot", json!({"captureBeyondViewport": true}));
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(Path::new(&folder).join(name), decoded(shot["data"].as_str().unwrap())).unwrap();
    }

    /// At both widths, light and dark; nothing may be wider than the page.
    pub fn look(&mut self, name: &str) {
        for (width, dark) in [(1280, false), (1280, true), (390, false), (390, true)] {
            self.size(width, dark);
            let wide = self.value("document.documentElement.scrollWidth").as_u64().unwrap();
            assert!(wide <= u64::from(width), "{name} is {wide} wide at {width}");
            let scheme = if dark { "dark" } else { "light" };
            self.screenshot(&format!("{name}-{width}-{scheme}.png"));
        }
        self.size(1280, false);
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Base64.
fn decoded(text: &str) -> Vec<u8> {
    let digit = |c: u8| match c {
        b'A'..=b'Z' => c - b'A',
        b'a'..=b'z' => c - b'a' + 26,
        b'0'..=b'9' => c - b'0' + 52,
        b'+' => 62,
        _ => 63,
    };
    let digits: Vec<u32> = text.bytes().filter(|c| *c != b'=').map(|c| u32::from(digit(c))).collect();
    let mut bytes = Vec::new();
    for four in digits.chunks(4) {
        let all = four.iter().fold(0, |all, digit| (all << 6) | digit) << (6 * (4 - four.len()));
        bytes.extend(&all.to_be_bytes()[1..four.len()]);
    }
    bytes
}
