//! Work that takes longer than a request: one job at a time for each daemon, and what came of the last.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Deserialize;

const STACK: usize = 256 << 10;

/// By daemon.
#[derive(Debug, Default)]
pub struct Jobs(HashMap<String, Job>);

#[derive(Debug, Clone)]
pub struct Job {
    /// "Collecting".
    pub name: &'static str,
    control: Arc<Control>,
}

/// A line of `outlierd check --json`.
#[derive(Debug, Clone, Deserialize)]
pub struct Check {
    pub check: String,
    pub ok: bool,
    pub message: String,
}

/// What came of a job: a sentence, and the lines of a check.
#[derive(Debug, Clone)]
pub struct Outcome {
    pub said: Result<String, String>,
    pub checks: Vec<Check>,
}

impl From<Result<String, String>> for Outcome {
    fn from(said: Result<String, String>) -> Outcome {
        Outcome { said, checks: Vec::new() }
    }
}

/// What a job and the page have to say to each other.
#[derive(Debug, Default)]
pub struct Control {
    stop: AtomicBool,
    progress: Mutex<String>,
    outcome: Mutex<Option<Outcome>>,
}

impl Control {
    /// How far it is.
    pub fn tell(&self, progress: impl Into<String>) {
        *lock(&self.progress) = progress.into();
    }

    /// Why it is to end now, if it is.
    pub fn cancelled(&self) -> Option<String> {
        self.stop.load(Ordering::Relaxed).then(|| "it was cancelled".into())
    }
}

impl Job {
    pub fn progress(&self) -> String {
        lock(&self.control.progress).clone()
    }

    /// None: it goes on.
    pub fn outcome(&self) -> Option<Outcome> {
        lock(&self.control.outcome).clone()
    }

    pub fn cancel(&self) {
        self.control.stop.store(true, Ordering::Relaxed);
    }
}

impl Jobs {
    pub fn of(&self, daemon: &str) -> Option<Job> {
        self.0.get(daemon).cloned()
    }

    /// Begins one; what came of the one before is forgotten.
    ///
    /// # Errors
    /// A sentence: another one goes on, or no thread is to be had.
    pub fn start<O: Into<Outcome>>(
        &mut self,
        daemon: &str,
        name: &'static str,
        work: impl FnOnce(&Control) -> O + Send + 'static,
    ) -> Result<(), String> {
        if let Some(job) = self.0.get(daemon).filter(|job| job.outcome().is_none()) {
            return Err(format!("{} goes on: wait for it, or cancel it.", job.name));
        }
        let control = Arc::new(Control::default());
        let job = Job { name, control: Arc::clone(&control) };
        let run = move || {
            let outcome = catch_unwind(AssertUnwindSafe(|| work(&control).into()));
            let failed = |_| Outcome::from(Err("It has failed; the page's log has the reason.".into()));
            *lock(&control.outcome) = Some(outcome.unwrap_or_else(failed));
        };
        let thread = std::thread::Builder::new().name("job".into()).stack_size(STACK);
        thread.spawn(run).map_err(|e| format!("cannot begin: {e}"))?;
        self.0.insert(daemon.to_owned(), job);
        Ok(())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    fn ended(jobs: &Jobs, daemon: &str) -> Outcome {
        loop {
            if let Some(outcome) = jobs.of(daemon).unwrap().outcome() {
                return outcome;
            }
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_daemon_has_one_job_at_a_time() {
        let mut jobs = Jobs::default();
        let (go, wait) = channel::<()>();
        let (told, has_told) = channel();
        let work = move |control: &Control| {
            control.tell("1 of 2");
            told.send(()).unwrap();
            wait.recv().map_err(|e| e.to_string())?;
            Ok::<_, String>("done".to_owned())
        };
        jobs.start("door", "Collecting", work).unwrap();
        has_told.recv().unwrap();
        assert_eq!(jobs.of("door").unwrap().progress(), "1 of 2");
        assert!(jobs.start("door", "Fitting", |_| Ok::<_, String>(String::new())).unwrap_err().contains("Collecting"));
        jobs.start("hive", "Fitting", |_| Err::<String, _>("no".to_owned())).unwrap();
        assert_eq!(ended(&jobs, "hive").said, Err("no".into()));
        go.send(()).unwrap();
        assert_eq!(ended(&jobs, "door").said, Ok("done".into()));
        jobs.start("door", "Fitting", |_| -> Result<String, String> { panic!("a panic that is caught") }).unwrap();
        assert!(ended(&jobs, "door").said.is_err());
    }

    #[test]
    fn a_job_is_told_to_end() {
        let mut jobs = Jobs::default();
        let work = |control: &Control| {
            while control.cancelled().is_none() {
                std::thread::yield_now();
            }
            Err::<String, _>(control.cancelled().unwrap_or_default())
        };
        jobs.start("door", "Fitting", work).unwrap();
        jobs.of("door").unwrap().cancel();
        assert_eq!(ended(&jobs, "door").said, Err("it was cancelled".into()));
    }
}
