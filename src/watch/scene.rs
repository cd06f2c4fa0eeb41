//! What the scene scored under the model that watches it: the history of judged frames, and the alarm budget that is
//! reckoned from it.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::budget::{self, Budget, BudgetStatus, Step};
use super::events::{self, Kind};
use super::frame::threshold::{Origin, Threshold};
use super::history::{Entry, Reader, Writer, hundredths};
use super::judging::Judge;
use super::service::remedy;
use crate::config::{Config, FalseAlarms};
use crate::model::Model;

/// History and budget of one config and one model.
#[derive(Debug)]
pub struct Scene {
    /// None: none is kept.
    history: Option<Writer>,
    path: PathBuf,
    /// Why frames are not kept, while it lasts.
    failure: Option<String>,
    budget: Option<(FalseAlarms, Budget)>,
    configured: Option<f64>,
    model: f64,
    /// The threshold that the log has.
    logged: f64,
}

impl Scene {
    /// Goes on with the history of the model at `model`, which the judge has selected, and with the budget that follows
    /// from it. Also says what is wrong.
    pub fn open(config: &Config, model: &Path, judge: &impl Judge) -> (Self, Option<String>) {
        let mut scene = Scene {
            history: None,
            path: config.history_path_of(model),
            failure: None,
            budget: budget(config, judge.threshold(), judge.lowest_p()),
            configured: config.decision.threshold,
            model: judge.threshold(),
            logged: 1.0,
        };
        if config.history.max_size == 0 {
            return (scene, None);
        }
        let opened = Writer::open(&scene.path, config.history.max_size, judge.identity());
        let problem = match opened {
            Ok(writer) => {
                scene.history = Some(writer);
                scene.go_on(config, judge)
            }
            Err(e) => Some(e),
        };
        let problem = problem.and_then(|e| scene.problem(Err(e)));
        (scene, problem)
    }

    /// Replays the history into the budget, and takes back what was learnt since.
    fn go_on(&mut self, config: &Config, judge: &impl Judge) -> Option<io::Error> {
        let (_, budget) = self.budget.as_mut()?;
        let known = match replay(budget, &self.path, judge.identity()) {
            Ok(known) => known,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return None,
            Err(e) => return Some(e),
        };
        for (from, to) in times(config, &judge.taken_back()) {
            if known.contains(&(hundredths(from), hundredths(to))) {
                continue;
            }
            budget.take_back(from, to);
            if let Some(Err(e)) = self.history.as_mut().map(|history| history.take_back(from, to)) {
                return Some(e);
            }
        }
        None
    }

    /// What the next frame is judged by. The one place that chooses it.
    pub fn threshold(&self) -> Threshold {
        let (value, origin) = match (&self.budget, self.configured) {
            (Some((_, budget)), _) => {
                (budget.threshold(), if budget.settling().is_some() { Origin::Settling } else { Origin::Budget })
            }
            (None, Some(value)) => (value, Origin::Config),
            (None, None) => (self.model, Origin::Model),
        };
        Threshold { value, origin, model: self.model }
    }

    pub fn budget(&self) -> Option<(FalseAlarms, BudgetStatus)> {
        self.budget.as_ref().map(|(rate, budget)| (*rate, budget.status(rate.per.duration())))
    }

    /// Takes a frame that was judged by `threshold`; `p` is without feedback, and `raised`: with it, an event stands.
    /// Gives the move of the budget's threshold that follows, and what is wrong with the history.
    pub fn judged(
        &mut self,
        time: SystemTime,
        (score, p): (f64, f64),
        threshold: f64,
        raised: bool,
    ) -> (Option<Step>, Option<String>) {
        let step = self.budget.as_mut().and_then(|(_, budget)| budget.push(time, p, raised));
        let written = self.history.as_mut().map(|history| history.push(time, score, p, raised, threshold));
        if let Some(step) = &step {
            self.log(step);
        }
        let problem = match written {
            None | Some(Ok(false)) => None,
            Some(Ok(true)) => self.problem(Ok(())),
            Some(Err(e)) => self.problem(Err(e)),
        };
        (step, problem)
    }

    /// The light moves the threshold many times a day: only factors of two are for people.
    fn log(&mut self, step: &Step) {
        if (step.to / self.logged).ln().abs() < std::f64::consts::LN_2 {
            return log::debug!("{step}");
        }
        self.logged = step.to;
        log::info!("{step}");
    }

    /// Writes what was gathered.
    pub fn flush(&mut self) {
        if let Some(Err(e)) = self.history.as_mut().map(Writer::flush) {
            log::warn!("the last frames were not written to the history {}: {e}", self.path.display());
        }
    }

    /// What to say of a write: a failure once, until it works again.
    fn problem(&mut self, written: io::Result<()>) -> Option<String> {
        let failure = written.err().map(|e| {
            let path = self.path.display();
            format!("cannot keep the history {path}: {e}{}; name another place with history.path", remedy(&e))
        });
        let new = failure.clone().filter(|failure| self.failure.as_ref() != Some(failure));
        self.failure = failure;
        new
    }
}

fn budget(config: &Config, threshold: f64, lowest: f64) -> Option<(FalseAlarms, Budget)> {
    let decision = &config.decision;
    let rate = decision.false_alarms?;
    let params = budget::Params {
        per_day: rate.per_day(),
        raise_after: decision.raise_after,
        clear_after: decision.clear_after,
        settle: decision.settle(),
        threshold,
        lowest,
    };
    Some((rate, Budget::new(params)))
}

/// The budget of a config and one of its models, which lies at `path`, as its history has it; None: the config has none.
///
/// # Errors
/// The history cannot be read.
pub fn look(config: &Config, path: &Path, model: &Model) -> io::Result<Option<(FalseAlarms, Budget)>> {
    let Some((rate, mut budget)) = budget(config, model.threshold, model.lowest_p()) else { return Ok(None) };
    match replay(&mut budget, &config.history_path_of(path), model.identity()) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(Some((rate, budget))),
    }
}

/// What a daemon of that config compares p with.
///
/// # Errors
/// The history cannot be read.
pub fn threshold(config: &Config, path: &Path, model: &Model) -> io::Result<f64> {
    let configured = config.decision.threshold.unwrap_or(model.threshold);
    Ok(look(config, path, model)?.map_or(configured, |(_, budget)| budget.threshold()))
}

/// Returns what was taken back, in hundredths of a second.
fn replay(budget: &mut Budget, path: &Path, identity: u64) -> io::Result<Vec<(i64, i64)>> {
    let mut known = Vec::new();
    for entry in Reader::open(path, Some(identity))? {
        budget.replay(&entry);
        if let Entry::TakenBack { from, to } = entry {
            known.push((from, to));
        }
    }
    Ok(known)
}

/// When the events of these ids stood, as far as the log has their raise; one that was not cleared stands till now.
fn times(config: &Config, ids: &[&str]) -> Vec<(SystemTime, SystemTime)> {
    let mut times: HashMap<String, (SystemTime, SystemTime)> = HashMap::new();
    if ids.is_empty() {
        return Vec::new();
    }
    let now = SystemTime::now();
    let read = events::for_each(&config.events.log, |event| {
        let Some(id) = event.id.as_ref().filter(|id| ids.contains(&id.as_str())) else { return };
        match event.event {
            Kind::Raise => drop(times.insert(id.clone(), (event.time, now))),
            Kind::Clear => drop(times.get_mut(id).map(|(_, to)| *to = event.time)),
            _ => {}
        }
    });
    if let Err(e) = read {
        log::warn!("cannot read in {} which events were taken back: {e}", config.events.log.display());
    }
    let mut times: Vec<_> = times.into_values().collect();
    times.sort();
    times
}
