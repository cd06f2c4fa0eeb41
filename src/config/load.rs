//! What keeps the load of a small board down: the keys `change-threshold`, `judge-at-least-every`, `nice`, `duty`.

use super::{Config, Error};

/// At a smaller share of the time nothing would be watched.
const MIN_DUTY: f64 = 0.01;

impl Config {
    pub(super) fn check_load(&self) -> Result<(), Error> {
        let fail = |key: &str, message: String| Err(self.error_at(key, message));
        let (camera, model) = (&self.camera, &self.model);
        if !(0.0..=255.0).contains(&camera.change_threshold) {
            let message = format!(
                "camera.change-threshold = {}: must be 0 (judge every frame) to 255 levels, such as 4.0",
                camera.change_threshold
            );
            return fail("camera.change-threshold", message);
        }
        if camera.judge_at_least_every.is_zero() {
            let message = "camera.judge-at-least-every must be longer than 0, such as \"30s\"; \
                           change-threshold = 0.0 judges every frame";
            return fail("camera.judge-at-least-every", message.into());
        }
        if !(0..=19).contains(&model.nice) {
            let message = format!("model.nice = {}: must be 0 (leave it) to 19 (last in line)", model.nice);
            return fail("model.nice", message);
        }
        if !(MIN_DUTY..=1.0).contains(&model.duty) {
            let message = format!("model.duty = {}: must be {MIN_DUTY} to 1.0, the share of the time", model.duty);
            return fail("model.duty", message);
        }
        Ok(())
    }
}
