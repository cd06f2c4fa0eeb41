//! The section `[drift]`: whether normal frames still score as they did at calibration.

use std::time::Duration;

use serde::Deserialize;

use super::decision::Span;

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Drift {
    /// What the latest normal frames are, none if it is zero; see [`crate::watch::frame::drift`] for how long it must be.
    pub window: Span,
    /// Mean p in three windows in a row at which drift is announced; 0.5 is expected of frames like those of the
    /// calibration.
    pub mean_p: f64,
}

impl Default for Drift {
    fn default() -> Self {
        Drift { window: Span::Time(Duration::from_secs(5 * 3600)), mean_p: 0.3 }
    }
}
