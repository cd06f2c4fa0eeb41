//! What was learned of one class, how it scores, and the file that keeps it.

pub mod cells;
pub mod detector;
mod error;
pub mod file;
mod file_cells;
mod file_detector;
mod file_values;
mod fitted;
pub mod heat;
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
