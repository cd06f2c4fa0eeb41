//! The work of `fit`, `eval` and `compare`: feature cache, splits, fitting, grid search, metrics, reports.

pub mod cells;
pub mod compare;
pub mod cross;
pub mod evaluation;
pub mod features;
pub mod fit;
pub mod grid;
pub mod import;
pub mod masks;
pub mod metrics;
pub mod npz;
pub mod params;
pub mod pipeline;
pub mod plan;
pub mod promise;
pub mod report;
pub mod samples;
pub mod split;
pub mod stretches;
pub mod synthetic;
