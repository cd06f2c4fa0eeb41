//! The hook: a program run at every event, the event's JSON on its stdin. A thread of its own runs one at a
//! time from a bounded queue, so that a hook that hangs or floods never holds up the watch.

use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, SyncSender, TrySendError, channel, sync_channel};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

use super::events::{Event, Kind};

/// A hook that runs longer is killed, with all of its process group.
pub const LIMIT: Duration = Duration::from_secs(10);
/// Events that wait for the hook; more are refused.
pub const QUEUE: usize = 64;
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
pub struct Hooks {
    argv: Option<Vec<String>>,
    queue: Option<SyncSender<Job>>,
    failures: Receiver<String>,
    stop_by: Arc<OnceLock<Instant>>,
    worker: Option<JoinHandle<()>>,
}

impl Hooks {
    /// Starts the thread. `limit` is how long one run may take.
    pub fn start(argv: Option<Vec<String>>, limit: Duration) -> io::Result<Self> {
        let (queue, jobs) = sync_channel(QUEUE);
        let (report, failures) = channel();
        let stop_by = Arc::new(OnceLock::new());
        let worker = Worker { jobs, report, limit, stop_by: stop_by.clone() };
        let worker = std::thread::Builder::new().name("hooks".into()).spawn(move || worker.run())?;
        Ok(Hooks { argv, queue: Some(queue), failures, stop_by, worker: Some(worker) })
    }

    /// Another program from the next event on; None: no program.
    pub fn set_argv(&mut self, argv: Option<Vec<String>>) {
        self.argv = argv;
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
    pub fn finish(&mut self, grace: Duration) -> Vec<String> {
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

impl Drop for Hooks {
    fn drop(&mut self) {
        self.finish(Duration::ZERO);
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
        let mut child = Command::new(name)
            .args(arguments)
            .env("OUTLIERD_EVENT", job.kind.name())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .process_group(0)
            .spawn()
            .map_err(|e| format!("cannot be run: {e}"))?;
        let input = child.stdin.take();
        let answer = self.attend(&mut child, input, job.json.as_bytes());
        if answer.is_err() {
            kill(&mut child);
        }
        match answer? {
            status if status.success() => Ok(()),
            status => Err(format!("ended with {status}")),
        }
    }

    /// Feeds the child and waits for it. The pipe does not block: a hook need not read its stdin.
    fn attend(
        &self,
        child: &mut Child,
        mut input: Option<ChildStdin>,
        json: &[u8],
    ) -> Result<std::process::ExitStatus, String> {
        if let Some(pipe) = &input {
            rustix::fs::fcntl_setfl(pipe, rustix::fs::OFlags::NONBLOCK).map_err(|e| format!("its stdin: {e}"))?;
        }
        let started = Instant::now();
        let mut rest = json;
        loop {
            if let Some(pipe) = &mut input {
                match pipe.write(rest) {
                    Ok(written) => rest = &rest[written..],
                    Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
                    Err(_) => rest = &[],
                }
                if rest.is_empty() {
                    input = None;
                }
            }
            if let Some(status) = child.try_wait().map_err(|e| e.to_string())? {
                return Ok(status);
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

fn kill(child: &mut Child) {
    let group = Pid::from_child(child);
    if let Err(e) = kill_process_group(group, Signal::KILL) {
        log::warn!("cannot kill the hook's process group {group:?}: {e}");
    }
    if let Err(e) = child.kill().and_then(|()| child.wait()) {
        log::warn!("cannot end the hook: {e}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Option<Vec<String>> {
        Some(vec!["/bin/sh".into(), "-c".into(), script.into()])
    }

    const PATIENT: Duration = Duration::from_secs(60);

    #[test]
    fn a_hook_gets_json_and_kind() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("out");
        let script = format!("(cat; echo; echo $OUTLIERD_EVENT) >> {}", out.display());
        let mut hooks = Hooks::start(shell(&script), LIMIT).unwrap();
        let events = [Event::new(Kind::Raise), Event::new(Kind::CameraLost)];
        for event in &events {
            hooks.send(event).unwrap();
        }
        assert!(hooks.finish(PATIENT).is_empty());
        let expected = format!("{}\nraise\n{}\ncamera-lost\n", events[0].to_json(), events[1].to_json());
        assert_eq!(std::fs::read_to_string(out).unwrap(), expected);
    }

    #[test]
    fn a_missing_or_failing_hook_is_reported() {
        let mut hooks = Hooks::start(Some(vec!["/nonexistent/hook".into()]), LIMIT).unwrap();
        hooks.send(&Event::new(Kind::Raise)).unwrap();
        let failures = hooks.finish(PATIENT);
        assert!(failures[0].starts_with("hook /nonexistent/hook for raise: cannot be run"), "{failures:?}");
        let mut hooks = Hooks::start(shell("exit 3"), LIMIT).unwrap();
        hooks.send(&Event::new(Kind::Clear)).unwrap();
        assert_eq!(hooks.finish(PATIENT), ["hook /bin/sh for clear: ended with exit status: 3"]);
    }

    #[test]
    fn a_hanging_hook_is_killed_with_its_children() {
        let dir = tempfile::tempdir().unwrap();
        let pid = dir.path().join("pid");
        let script = format!("sleep 1000 & echo $! > {}; wait", pid.display());
        let mut hooks = Hooks::start(shell(&script), Duration::from_millis(300)).unwrap();
        hooks.send(&Event::new(Kind::Raise)).unwrap();
        assert_eq!(hooks.finish(PATIENT), ["hook /bin/sh for raise: killed after 300ms"]);
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
    fn a_hook_that_does_not_read_takes_a_long_event() {
        let mut hooks = Hooks::start(shell("exec <&-; sleep 0.1"), LIMIT).unwrap();
        let mut event = Event::new(Kind::Error);
        event.message = Some("x".repeat(1 << 20));
        hooks.send(&event).unwrap();
        assert!(hooks.finish(PATIENT).is_empty());
    }

    #[test]
    fn the_queue_is_bounded_and_stopping_is_quick() {
        let mut hooks = Hooks::start(shell("sleep 1000"), LIMIT).unwrap();
        let refused = (0..QUEUE + 10).filter(|_| hooks.send(&Event::new(Kind::Raise)).is_err()).count();
        assert!((9..=10).contains(&refused), "{refused}");
        let failures = hooks.finish(Duration::from_millis(50));
        assert_eq!(failures.len(), QUEUE + 10 - refused);
    }

    #[test]
    fn no_hook_is_no_error() {
        let mut hooks = Hooks::start(None, LIMIT).unwrap();
        hooks.send(&Event::new(Kind::Raise)).unwrap();
        assert!(hooks.finish(PATIENT).is_empty());
    }
}
