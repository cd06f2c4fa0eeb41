//! Learns one class of pictures and says when something else appears.
//!
//! The program `outlierd` does all of it; the library lets another program score pictures by a model that `outlierd fit`
//! wrote:
//!
//! ```no_run
//! use std::path::Path;
//!
//! let model = outlierd::Model::load(Path::new("door.outlierd"))?;
//! let backbone = model.load_backbone(None, 1)?;
//! let picture = outlierd::read_picture(Path::new("door.jpg"))?;
//! let (feature, cells) = backbone.sample(&backbone.prepare(&picture)?)?;
//! let verdict = model.score(&feature, cells.as_ref())?;
//! println!("p = {}{}", verdict.p, if verdict.outlier { ", an outlier" } else { "" });
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! | module | what it does |
//! | --- | --- |
//! | `fs` | files: plain ones only, up to a limit; replaced whole |
//! | `text` | text as it may be shown |
//! | `pictures` | finding picture files |
//! | `image` | crop, masks, resize, input recipe: picture -> network input (u8, NHWC) |
//! | `config` | the TOML file |
//! | `camera` | frames in: a folder of pictures, Video4Linux2, streams |
//! | `backbone` | ResNet through tract: picture -> feature maps -> feature vector |
//! | `estimators` | scikit-learn's estimators by their names, fit and score |
//! | `model` | scaler, PCA, detector and calibration of one backbone, and their file |
//! | `training` | what `fit`, `eval` and `compare` do: features, splits, metrics, report |
//! | `watch` | the daemon: decision, events, snapshots, hooks, GPIO, service |
//! | `page` | the web page: reads what the daemons see and have seen |
//! | `cli` | the commands |
//!
//! A module knows those above it only (`tests/integration/structure.rs`). The feature `internals` shows them all, for tests
//! and fuzz targets; nothing in there is promised to stay.

#![deny(unsafe_code)]
#![cfg_attr(test, allow(clippy::disallowed_methods))]

mod backbone;
mod camera;
mod cli;
mod config;
mod estimators;
mod fs;
mod image;
#[cfg(feature = "internals")]
pub mod internals;
mod model;
mod page;
mod pictures;
mod text;
mod training;
mod watch;

pub use backbone::cells::Cells;
pub use backbone::{Backbone, Error as BackboneError, FeatureMap, Options as BackboneOptions, Pooling, Stage, Tap};
#[doc(hidden)]
pub use cli::main;
pub use image::mask::Mask;
pub use image::{Error as PictureError, InputRecipe, Resize, read as read_picture};
pub use model::{Error as ModelError, Model, Verdict};
