//! Other commands of this program, as a person would run them: what takes memory or may fail is not the page's own.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// Has commands write [`PROGRESS`] lines to standard error.
pub const WITH_PROGRESS: &str = "OUTLIERD_PROGRESS";
/// What such a line begins with.
pub const PROGRESS: &str = "progress: ";

/// The program itself, also where the file was replaced.
const PROGRAM: &str = "/proc/self/exe";
/// Bytes of what it says that are taken: the first of standard output, the last of standard error.
const MAX_OUTPUT: u64 = 256 << 10;
/// Bytes that hold the latest line.
const LATEST: u64 = 1024;
/// How often it is looked at: at first, and later.
const LOOK_SOON: Duration = Duration::from_millis(20);
const LOOK_LATER: Duration = Duration::from_millis(500);
/// How long a command that is to end may take for it.
const GRACE: Duration = Duration::from_secs(10);

/// What a command said.
#[derive(Debug)]
pub struct Said {
    pub ok: bool,
    pub out: String,
    pub err: String,
}

/// Runs a command and waits for it; it is ended after `limit`.
///
/// # Errors
/// A sentence for people.
pub fn run(arguments: &[&str], limit: Duration) -> Result<Said, String> {
    let started = Instant::now();
    let late = || format!("it takes longer than {} s", limit.as_secs());
    run_while(arguments, |_| (started.elapsed() > limit).then(late))
}

/// Runs a command and waits for it. `reason` is asked again and again, with the latest progress, why it is to end.
///
/// # Errors
/// A sentence for people, with that reason.
pub fn run_while(arguments: &[&str], mut reason: impl FnMut(&str) -> Option<String>) -> Result<Said, String> {
    let name = arguments.first().copied().unwrap_or_default();
    let cannot = |e: io::Error| format!("cannot run `outlierd {name}`: {e}");
    let (mut out, mut err) = (tempfile::tempfile().map_err(cannot)?, tempfile::tempfile().map_err(cannot)?);
    let mut child = Command::new(PROGRAM)
        .args(arguments)
        .env_remove("JOURNAL_STREAM")
        .env(WITH_PROGRESS, "lines")
        .stdin(Stdio::null())
        .stdout(out.try_clone().map_err(cannot)?)
        .stderr(err.try_clone().map_err(cannot)?)
        .spawn()
        .map_err(cannot)?;
    let mut wait = LOOK_SOON;
    let status = loop {
        if let Some(status) = child.try_wait().map_err(cannot)? {
            break status;
        }
        if let Some(reason) = reason(&latest_progress(&err)) {
            end(&mut child);
            return Err(format!("`outlierd {name}` was stopped: {reason}"));
        }
        std::thread::sleep(wait);
        wait = (wait * 5 / 4).min(LOOK_LATER);
    };
    said(status, &mut out, &mut err).map_err(cannot)
}

fn said(status: ExitStatus, out: &mut File, err: &mut File) -> io::Result<Said> {
    out.rewind()?;
    let long = err.metadata()?.len();
    err.seek(SeekFrom::Start(long.saturating_sub(MAX_OUTPUT)))?;
    let read = |file: &mut File| {
        let mut bytes = Vec::new();
        file.take(MAX_OUTPUT).read_to_end(&mut bytes)?;
        Ok::<_, io::Error>(String::from_utf8_lossy(&bytes).into_owned())
    };
    let err = read(err)?;
    let lines: Vec<&str> = err.lines().filter(|line| !line.starts_with(PROGRESS)).collect();
    Ok(Said { ok: status.success(), out: read(out)?, err: lines.join("\n") })
}

fn latest_progress(err: &File) -> String {
    let mut bytes = [0; LATEST as usize];
    let from = err.metadata().map_or(0, |meta| meta.len().saturating_sub(LATEST));
    let read = err.read_at(&mut bytes, from).unwrap_or(0);
    let text = String::from_utf8_lossy(&bytes[..read]);
    text.lines().rev().find_map(|line| line.strip_prefix(PROGRESS)).unwrap_or_default().to_owned()
}

/// Asks a command to end, and kills it where it does not.
fn end(child: &mut Child) {
    let _ = kill_process(Pid::from_child(child), Signal::INT);
    let asked = Instant::now();
    while asked.elapsed() < GRACE {
        match child.try_wait() {
            Ok(None) => std::thread::sleep(LOOK_SOON),
            _ => return,
        }
    }
    let _ = child.kill();
    let _ = child.wait();
}
