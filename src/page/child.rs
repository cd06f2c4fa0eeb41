//! Other commands of this program, as a person would run them: what takes memory or may fail is not the page's own.

use std::io::{Read, Seek};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// The program itself, also where the file was replaced.
const PROGRAM: &str = "/proc/self/exe";
/// Bytes of what it says that are taken.
const MAX_OUTPUT: u64 = 64 << 10;
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// What a command said.
#[derive(Debug)]
pub struct Said {
    pub ok: bool,
    pub out: String,
    pub err: String,
}

/// Runs a command and waits for it; it is killed after `limit`.
///
/// # Errors
/// A sentence for people.
pub fn run(arguments: &[&str], limit: Duration) -> Result<Said, String> {
    let name = arguments.first().copied().unwrap_or_default();
    let cannot = |e: std::io::Error| format!("cannot run `outlierd {name}`: {e}");
    let (mut out, mut err) = (tempfile::tempfile().map_err(cannot)?, tempfile::tempfile().map_err(cannot)?);
    let mut child = Command::new(PROGRAM)
        .args(arguments)
        .env_remove("JOURNAL_STREAM")
        .stdin(Stdio::null())
        .stdout(out.try_clone().map_err(cannot)?)
        .stderr(err.try_clone().map_err(cannot)?)
        .spawn()
        .map_err(cannot)?;
    let started = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().map_err(cannot)? {
            break status;
        }
        if started.elapsed() > limit {
            let _ = child.kill();
            let _ = child.wait();
            return Err(format!("`outlierd {name}` was stopped after {} s", limit.as_secs()));
        }
        std::thread::sleep(LOOK_EVERY);
    };
    let read = |file: &mut std::fs::File| {
        let mut bytes = Vec::new();
        file.rewind().and_then(|()| file.take(MAX_OUTPUT).read_to_end(&mut bytes)).map_err(cannot)?;
        Ok::<_, String>(String::from_utf8_lossy(&bytes).into_owned())
    };
    Ok(Said { ok: status.success(), out: read(&mut out)?, err: read(&mut err)? })
}
