//! A command whose standard output is a stream: started without a shell, ended with its process group.

use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};

use crate::text::without_passwords;

/// From the polite signal to the other.
const GRACE: Duration = Duration::from_secs(2);
const POLL: Duration = Duration::from_millis(10);
/// Of its standard error, so many lines in so long go to the log.
const LINES: u32 = 20;
const LINES_IN: Duration = Duration::from_secs(60);
/// A longer line is cut.
const MAX_LINE: u64 = 1000;
const STACK: usize = 128 << 10;

/// The running command.
#[derive(Debug)]
pub struct Feeder {
    child: Child,
    name: String,
    last_line: Arc<Mutex<String>>,
    relay: JoinHandle<()>,
    waited: bool,
}

impl Feeder {
    /// Starts the command and gives its standard output.
    pub fn start(argv: &[String]) -> io::Result<(Self, ChildStdout)> {
        let (program, arguments) =
            argv.split_first().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "there is no command"))?;
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()?;
        let (output, errors) = (child.stdout.take(), child.stderr.take());
        let name = name(argv);
        let last_line = Arc::new(Mutex::new(String::new()));
        let (shown_name, last) = (name.clone(), Arc::clone(&last_line));
        // Not joined: what the command leaves running may hold its standard error open.
        let relay = std::thread::Builder::new().name("feeder".into()).stack_size(STACK).spawn(move || {
            if let Some(errors) = errors {
                relay(errors, &shown_name, &last);
            }
        });
        match (relay, output) {
            (Ok(relay), Some(output)) => Ok((Feeder { child, name, last_line, relay, waited: false }, output)),
            (relay, _) => {
                let _ = kill_process_group(Pid::from_child(&child), Signal::KILL);
                child.wait()?;
                Err(relay.err().unwrap_or_else(|| io::Error::other("it has no standard output")))
            }
        }
    }

    /// Why its output ended: how it ended itself, and its last words.
    pub fn ended(&mut self) -> String {
        let by = Instant::now() + GRACE;
        while !self.is_over() && Instant::now() < by {
            std::thread::sleep(POLL);
        }
        let status = match self.is_over() {
            true => self
                .end()
                .map_or_else(|e| format!("cannot be waited for: {e}"), |status| format!("ended with {status}")),
            false => "closed its output".to_owned(),
        };
        while !self.relay.is_finished() && Instant::now() < by {
            std::thread::sleep(POLL);
        }
        let last_line = self.last_line.lock().unwrap_or_else(PoisonError::into_inner);
        let colon = if last_line.is_empty() { "" } else { ": " };
        format!("{} {status}{colon}{last_line}", self.name)
    }

    /// It has ended, but may not be waited for yet: until then the number of its group is its own.
    fn is_over(&self) -> bool {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
        self.waited || !matches!(waitid(WaitId::Pid(Pid::from_child(&self.child)), options), Ok(None))
    }

    /// Kills what is left of its group.
    fn end(&mut self) -> io::Result<ExitStatus> {
        if !self.waited {
            let _ = kill_process_group(Pid::from_child(&self.child), Signal::KILL);
            self.waited = true;
        }
        self.child.wait()
    }
}

impl Drop for Feeder {
    fn drop(&mut self) {
        if !self.is_over() {
            let _ = kill_process_group(Pid::from_child(&self.child), Signal::TERM);
            let by = Instant::now() + GRACE;
            while !self.is_over() && Instant::now() < by {
                std::thread::sleep(POLL);
            }
        }
        if let Err(e) = self.end() {
            log::warn!("{} cannot be waited for: {e}", self.name);
        }
    }
}

/// The program without its folder; its arguments may hold passwords.
pub(super) fn name(argv: &[String]) -> String {
    let program = argv.first().map(String::as_str).unwrap_or_default();
    Path::new(program).file_name().map_or_else(|| program.into(), |name| name.to_string_lossy().into_owned())
}

fn relay(errors: impl Read, name: &str, last_line: &Mutex<String>) {
    let mut errors = BufReader::new(errors);
    let (mut since, mut shown, mut hidden) = (Instant::now(), 0, 0u64);
    let mut line = Vec::new();
    loop {
        line.clear();
        match errors.by_ref().take(MAX_LINE).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        let text = without_passwords(String::from_utf8_lossy(&line).trim_end());
        if text.is_empty() {
            continue;
        }
        if since.elapsed() >= LINES_IN {
            if hidden > 0 {
                log::info!("{name}: {hidden} lines are not shown");
            }
            (since, shown, hidden) = (Instant::now(), 0, 0);
        }
        if shown < LINES {
            shown += 1;
            log::info!("{name}: {text}");
        } else {
            hidden += 1;
        }
        *last_line.lock().unwrap_or_else(PoisonError::into_inner) = text;
    }
}
