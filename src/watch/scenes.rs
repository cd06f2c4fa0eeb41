//! What the scene is under each of the config's models: a history, a budget and a watch for drift of its own.

use super::frame::drift::Drift;
use super::judging::Judge;
use super::scene::Scene;
use crate::config::Config;

/// A scene for each model; one of them is watched.
pub struct Scenes {
    /// With what is known of drift while another is watched.
    scenes: Vec<(Scene, Option<Drift>)>,
    selected: usize,
}

impl Scenes {
    /// Opens those of all models, and selects one, as the judge does. Also says what is wrong.
    pub fn open(config: &Config, judge: &mut impl Judge, selected: usize) -> (Self, Vec<String>) {
        let mut problems = Vec::new();
        let mut scenes = Vec::new();
        for (number, path) in config.models().enumerate() {
            judge.select(number);
            let (scene, problem) = Scene::open(config, path, judge);
            problems.extend(problem);
            let drift = Drift::new(&config.drift, judge.normal_scores(), judge.effective_sample_size());
            let drift =
                drift.inspect_err(|reason| log::info!("{}: drift is not watched for: {reason}", path.display()));
            scenes.push((scene, drift.ok()));
        }
        judge.select(selected);
        (Scenes { scenes, selected }, problems)
    }

    /// Goes on with what `old` knows of drift in those that are not watched, as far as the comparison is the same.
    pub fn keep_drift(&mut self, old: Scenes) {
        let mut old: Vec<Drift> = old.scenes.into_iter().filter_map(|(_, drift)| drift).collect();
        let others = self.scenes.iter_mut().enumerate().filter(|(at, _)| *at != self.selected);
        for drift in others.filter_map(|(_, (_, drift))| drift.as_mut()) {
            if let Some(at) = old.iter().position(|old| old.is_like(drift)) {
                *drift = old.swap_remove(at);
            }
        }
    }

    /// The one that is watched.
    pub fn current(&mut self) -> &mut Scene {
        &mut self.scenes[self.selected].0
    }

    pub fn get(&self) -> &Scene {
        &self.scenes[self.selected].0
    }

    /// What is known of drift in the one that is watched.
    pub fn take_drift(&mut self) -> Option<Drift> {
        self.scenes[self.selected].1.take()
    }

    /// Watches another; `exchange` takes what is known of drift in that one, and gives what is in the one before.
    pub fn select(&mut self, selected: usize, exchange: impl FnOnce(Option<Drift>) -> Option<Drift>) {
        let old = std::mem::replace(&mut self.selected, selected);
        let drift = exchange(self.scenes[selected].1.take());
        self.scenes[old].1 = drift;
    }

    /// Writes what was gathered.
    pub fn flush(&mut self) {
        self.scenes.iter_mut().for_each(|(scene, _)| scene.flush());
    }
}
