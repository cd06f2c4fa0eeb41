//! What p is compared with, and where that comes from.

use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Threshold {
    /// p below is an outlier.
    pub value: f64,
    pub origin: Origin,
    /// The model's own.
    pub model: f64,
}

/// Where a threshold comes from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    #[default]
    Model,
    Config,
    /// The alarm budget.
    Budget,
    /// The alarm budget, while it learns the scene.
    Settling,
}
