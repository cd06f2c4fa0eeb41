//! A model of one class: how it scores, how it learns from feedback, and its file.

pub mod anomaly_map;
pub mod cells;
pub mod detector;
mod error;
pub mod file;
mod fitted;
pub mod learn;
mod map;
pub mod projection;
pub mod records;
mod source;
mod verdict;

pub use detector::Detector;
pub use error::Error;
pub use fitted::{Model, Training, hex};
pub use records::Records;
pub use source::FeatureSource;
pub use verdict::{Calibration, Verdict, p_text};
