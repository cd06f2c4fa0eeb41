//! The hook: a program run at every event, the event's JSON on its stdin. A thread of its own runs one at a
//! time from a bounded queue, so that a hook that hangs or floods never holds up the watch. What it leaves running is
//! killed when it ends; `setsid` gets a process out of that.

use std::io::{self, PipeReader, Write, pipe};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, Sender, SyncSender, TrySendError, channel, sync_channel};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};

use super::output::{Failure, Output};
use super::printed::Printed;
use crate::config::Config;
use crate::watch::events::{Event, Kind};
use crate::watch::frame::status::Status;

/// A hook that runs longer is killed, with all of its process group.
pub const LIMIT: Duration = Duration::from_secs(10);
/// Events that wait for the hook; more are refused.
pub const QUEUE: usize = 64;
/// How long hooks may go on when the daemon stops.
const GRACE: Duration = Duration::from_secs(2);
const POLL: Duration = Duration::from_millis(10);

/// The hook could not take an event.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("hook {program}: {QUEUE} events wait already, this one is not given to it")]
    Full { program: String },
    #[error("the hook's thread has ended")]
    Gone,
}

#[derive(Debug)]
struct Job {
    argv: Vec<String>,
    kind: Kind,
    json: String,
}

/// The queue to the thread that runs hooks.
#[derive(Debug)]
pub struct Hook {
    argv: Option<Vec<String>>,
    queue: Option<SyncSender<Job>>,
    failures: Receiver<String>,
    stop_by: Arc<OnceLock<Instant>>,
    worker: Option<JoinHandle<()>>,
}

impl Hook {
    /// Starts the thread. `limit` is how long one run may take.
    pub fn start(argv: Option<Vec<String>>, limit: Duration) -> io::Result<Self> {
        let (queue, jobs) = sync_channel(QUEUE);
        let (report, failures) = channel();
        let stop_by = Arc::new(OnceLock::new());
        let worker = Worker { jobs, report, limit, stop_by: stop_by.clone() };
        let worker = std::thread::Builder::new().name("hooks".into()).spawn(move || worker.run())?;
        Ok(Hook { argv, queue: Some(queue), failures, stop_by, worker: Some(worker) })
    }

    /// Queues an event and returns at once.
    pub fn send(&self, event: &Event) -> Result<(), Error> {
        let (Some(argv), Some(queue)) = (&self.argv, &self.queue) else { return Ok(()) };
        let job = Job { argv: argv.clone(), kind: event.event, json: event.to_json() };
        queue.try_send(job).map_err(|e| match e {
            TrySendError::Full(job) => Error::Full { program: program(&job.argv) },
            TrySendError::Disconnected(_) => Error::Gone,
        })
    }

    /// What went wrong with hooks since the last call.
    pub fn failures(&self) -> Vec<String> {
        self.failures.try_iter().collect()
    }

    /// Lets queued events through for at most `grace`, then kills what runs. Returns what went wrong.
    pub fn end(&mut self, grace: Duration) -> Vec<String> {
        self.queue = None;
        // A second call keeps the first deadline.
        let _ = self.stop_by.set(Instant::now() + grace);
        if let Some(worker) = self.worker.take()
            && worker.join().is_err()
        {
            log::error!("the hook's thread panicked");
        }
        self.failures()
    }
}

impl Drop for Hook {
    fn drop(&mut self) {
        self.end(Duration::ZERO);
    }
}

impl Output for Hook {
    /// Another program from the next event on.
    fn reconfigure(&mut self, config: &Config) -> Result<Vec<Failure>, String> {
        self.argv.clone_from(&config.events.hook);
        Ok(Vec::new())
    }

    fn event(&mut self, event: &Event, _: &Status) -> Vec<Failure> {
        self.send(event).err().map(|e| Failure::Hook(e.to_string())).into_iter().collect()
    }

    fn attend(&mut self, _: &Status) -> Vec<Failure> {
        self.failures().into_iter().map(Failure::Hook).collect()
    }

    fn finish(&mut self, _: &Status) -> Vec<Failure> {
        self.end(GRACE).into_iter().map(Failure::Hook).collect()
    }
}

fn program(argv: &[String]) -> String {
    argv.first().cloned().unwrap_or_default()
}

struct Worker {
    jobs: Receiver<Job>,
    report: Sender<String>,
    limit: Duration,
    stop_by: Arc<OnceLock<Instant>>,
}

impl Worker {
    fn run(self) {
        for job in &self.jobs {
            let outcome = if self.must_stop() { Err("not run, the daemon stops".to_owned()) } else { self.one(&job) };
            if let Err(reason) = outcome {
                let message = format!("hook {} for {}: {reason}", program(&job.argv), job.kind.name());
                if self.report.send(message).is_err() {
                    return;
                }
            }
        }
    }

    fn must_stop(&self) -> bool {
        self.stop_by.get().is_some_and(|by| Instant::now() >= *by)
    }

    fn one(&self, job: &Job) -> Result<(), String> {
        let (name, arguments) = job.argv.split_first().ok_or("it has no program")?;
        let mut output = Printed::default();
        let ended = self.attend(name, arguments, job, &mut output);
        output.log(name);
        match ended? {
            status if status.success() => Ok(()),
            status => Err(format!("ended with {status}{}", output.last_line())),
        }
    }

    /// Runs the program, feeds it and waits for it. No pipe blocks: a hook need not read its stdin, and a child that
    /// it leaves behind may hold its output open. All of the process group is killed before its leader is reaped, so
    /// that the group's number cannot be another's.
    fn attend(&self, name: &str, arguments: &[String], job: &Job, output: &mut Printed) -> Result<ExitStatus, String> {
        let (mut reader, writer) = pipe().map_err(|e| format!("cannot be run: {e}"))?;
        let other = writer.try_clone().map_err(|e| format!("cannot be run: {e}"))?;
        let mut child = Command::new(name)
            .args(arguments)
            .env("OUTLIERD_EVENT", job.kind.name())
            .stdin(Stdio::piped())
            .stdout(writer)
            .stderr(other)
            .process_group(0)
            .spawn()
            .map_err(|e| format!("cannot be run: {e}{}", remedy(&e)))?;
        let mut input = child.stdin.take();
        let ended = self.wait(&child, &mut input, job.json.as_bytes(), &mut reader, output);
        let group = Pid::from_child(&child);
        if let Err(e) = kill_process_group(group, Signal::KILL) {
            log::warn!("cannot kill the hook's process group {group:?}: {e}");
        }
        let status = child.wait().map_err(|e| format!("cannot be waited for: {e}"))?;
        output.drain(&mut reader);
        ended.map(|()| status)
    }

    /// Until the child has ended, but is not reaped.
    fn wait(
        &self,
        child: &Child,
        input: &mut Option<ChildStdin>,
        json: &[u8],
        reader: &mut PipeReader,
        output: &mut Printed,
    ) -> Result<(), String> {
        set_nonblocking(&*reader)?;
        if let Some(pipe) = input {
            set_nonblocking(&*pipe)?;
        }
        let started = Instant::now();
        let mut rest = json;
        loop {
            if let Some(pipe) = input {
                match pipe.write(rest) {
                    Ok(written) => rest = &rest[written..],
                    Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
                    Err(_) => rest = &[],
                }
                if rest.is_empty() {
                    *input = None;
                }
            }
            output.drain(reader);
            let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
            match waitid(WaitId::Pid(Pid::from_child(child)), options) {
                Ok(Some(_)) => return Ok(()),
                Ok(None) | Err(Errno::INTR) => {}
                Err(e) => return Err(format!("cannot be waited for: {e}")),
            }
            if started.elapsed() >= self.limit {
                return Err(format!("killed after {:?}", self.limit));
            }
            if self.must_stop() {
                return Err("killed, the daemon stops".into());
            }
            std::thread::sleep(POLL);
        }
    }
}

fn set_nonblocking(pipe: impl AsFd) -> Result<(), String> {
    rustix::fs::fcntl_setfl(pipe, rustix::fs::OFlags::NONBLOCK).map_err(|e| format!("its pipe: {e}"))
}

fn remedy(error: &io::Error) -> &'static str {
    match (error.kind(), error.raw_os_error().map(Errno::from_raw_os_error)) {
        (io::ErrorKind::NotFound, _) => ": is its path right, and that of the interpreter in its first line?",
        (io::ErrorKind::PermissionDenied, _) => ": chmod +x it, and let outlierd's user reach it",
        (_, Some(Errno::NOEXEC)) => ": its first line must name the interpreter, such as #!/bin/sh",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Option<Vec<String>> {
        Some(vec!["/bin/sh".into(), "-c".into(), script.into()])
    }

    const PATIENT: Duration = Duration::from_secs(60);

    /// Of the process whose number is in a file.
    fn wait_for_death(pid: &std::path::Path) {
        let child = std::fs::read_to_string(pid).unwrap();
        let stat = || std::fs::read_to_string(format!("/proc/{}/stat", child.trim())).unwrap_or_default();
        let dead = |stat: &str| stat.is_empty() || stat.contains(") Z");
        let started = Instant::now();
        while !dead(&stat()) {
            assert!(started.elapsed() < PATIENT, "the hook's child lives: {}", stat());
            std::thread::sleep(POLL);
        }
    }

    #[test]
    fn a_hook_gets_json_and_kind() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("out");
        let script = format!("(cat; echo; echo $OUTLIERD_EVENT) >> {}", out.display());
        let mut hooks = Hook::start(shell(&script), LIMIT).unwrap();
        let events = [Event::new(Kind::Raise), Event::new(Kind::CameraLost)];
        for event in &events {
            hooks.send(event).unwrap();
        }
        assert!(hooks.end(PATIENT).is_empty());
        let expected = format!("{}\nraise\n{}\ncamera-lost\n", events[0].to_json(), events[1].to_json());
        assert_eq!(std::fs::read_to_string(out).unwrap(), expected);
    }

    #[test]
    fn a_missing_or_failing_hook_is_reported() {
        let mut hooks = Hook::start(Some(vec!["/nonexistent/hook".into()]), LIMIT).unwrap();
        hooks.send(&Event::new(Kind::Raise)).unwrap();
        let failures = hooks.end(PATIENT);
        assert!(failures[0].starts_with("hook /nonexistent/hook for raise: cannot be run"), "{failures:?}");
        let mut hooks = Hook::start(shell("exit 3"), LIMIT).unwrap();
        hooks.send(&Event::new(Kind::Clear)).unwrap();
        assert_eq!(hooks.end(PATIENT), ["hook /bin/sh for clear: ended with exit status: 3"]);
    }

    #[test]
    fn a_hanging_hook_is_killed() {
        let limit = Duration::from_millis(300);
        let mut hooks = Hook::start(shell("sleep 1000 & wait"), limit).unwrap();
        hooks.send(&Event::new(Kind::Raise)).unwrap();
        assert_eq!(hooks.end(PATIENT), ["hook /bin/sh for raise: killed after 300ms"]);
    }

    #[test]
    fn a_hanging_hook_is_killed_with_its_children() {
        let dir = tempfile::tempdir().unwrap();
        let pid = dir.path().join("pid");
        let script = format!("sleep 1000 & echo $! > {}; wait", pid.display());
        let mut hooks = Hook::start(shell(&script), PATIENT).unwrap();
        hooks.send(&Event::new(Kind::Raise)).unwrap();
        let started = Instant::now();
        while !std::fs::read_to_string(&pid).is_ok_and(|pid| pid.ends_with('\n')) {
            assert!(started.elapsed() < PATIENT, "the hook has no child");
            std::thread::sleep(POLL);
        }
        assert_eq!(hooks.end(Duration::ZERO), ["hook /bin/sh for raise: killed, the daemon stops"]);
        wait_for_death(&pid);
    }

    #[test]
    fn what_cannot_be_run_is_reported_with_its_remedy() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("hook");
        for (text, mode, expected) in [
            ("#!/bin/sh\n", 0o644, "Permission denied (os error 13): chmod +x it"),
            ("#!/nonexistent/sh\n", 0o755, "No such file or directory (os error 2): is its path right"),
            ("", 0o755, "Exec format error (os error 8): its first line must name the interpreter"),
        ] {
            // By another process: what another test starts meanwhile would hold the file open for writing.
            let write = ["-c", "printf '%s' \"$1\" > \"$0\"", path.to_str().unwrap(), text];
            assert!(Command::new("/bin/sh").args(write).status().unwrap().success());
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            let mut hooks = Hook::start(Some(vec![path.display().to_string()]), LIMIT).unwrap();
            hooks.send(&Event::new(Kind::Raise)).unwrap();
            let failures = hooks.end(PATIENT);
            assert!(failures.len() == 1 && failures[0].contains(expected), "{failures:?}");
        }
    }

    #[test]
    fn a_crash_is_reported_with_the_last_line() {
        let mut hooks = Hook::start(shell("echo out; printf 'no\\033route\\n' >&2; kill -SEGV $$"), LIMIT).unwrap();
        hooks.send(&Event::new(Kind::Raise)).unwrap();
        let failures = hooks.end(PATIENT);
        assert!(failures[0].contains("ended with signal: 11 (SIGSEGV)"), "{failures:?}");
        assert!(failures[0].ends_with(": no\u{fffd}route"), "{failures:?}");
    }

    #[test]
    fn a_flood_of_output_is_read_and_thrown_away() {
        let script = "head -c 3000000 /dev/zero | tr '\\0' x; echo; echo end >&2; exit 1";
        let mut hooks = Hook::start(shell(script), PATIENT).unwrap();
        hooks.send(&Event::new(Kind::Raise)).unwrap();
        let failures = hooks.end(PATIENT);
        assert!(failures[0].contains("ended with exit status: 1: xxxx") && failures[0].len() < 400, "{failures:?}");
        let mut hooks = Hook::start(shell("yes"), Duration::from_millis(200)).unwrap();
        hooks.send(&Event::new(Kind::Raise)).unwrap();
        assert_eq!(hooks.end(PATIENT), ["hook /bin/sh for raise: killed after 200ms"]);
    }

    #[test]
    fn a_child_left_behind_holds_nothing_up_and_is_killed() {
        let dir = tempfile::tempdir().unwrap();
        let pid = dir.path().join("pid");
        let script = format!("sleep 1000 & echo $! > {}", pid.display());
        let mut hooks = Hook::start(shell(&script), PATIENT).unwrap();
        hooks.send(&Event::new(Kind::Raise)).unwrap();
        assert!(hooks.end(PATIENT).is_empty());
        wait_for_death(&pid);
    }

    #[test]
    fn a_hook_that_does_not_read_takes_a_long_event() {
        let mut hooks = Hook::start(shell("exec <&-; sleep 0.1"), LIMIT).unwrap();
        let mut event = Event::new(Kind::Error);
        event.message = Some("x".repeat(1 << 20));
        hooks.send(&event).unwrap();
        assert!(hooks.end(PATIENT).is_empty());
    }

    #[test]
    fn the_queue_is_bounded_and_stopping_is_quick() {
        let mut hooks = Hook::start(shell("sleep 1000"), LIMIT).unwrap();
        let refused = (0..QUEUE + 10).filter(|_| hooks.send(&Event::new(Kind::Raise)).is_err()).count();
        assert!((9..=10).contains(&refused), "{refused}");
        let failures = hooks.end(Duration::from_millis(50));
        assert_eq!(failures.len(), QUEUE + 10 - refused);
    }

    #[test]
    fn no_hook_is_no_error() {
        let mut hooks = Hook::start(None, LIMIT).unwrap();
        hooks.send(&Event::new(Kind::Raise)).unwrap();
        assert!(hooks.end(PATIENT).is_empty());
    }
}
