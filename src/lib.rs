//! Learns one class of pictures and says when something else appears.
//!
//! | module | what it does |
//! | --- | --- |
//! | [`image`] | crop, resize, input recipe: picture -> network input (u8, NHWC) |
//! | [`camera`] | frames in: a folder of pictures, Video4Linux2 |
//! | [`backbone`] | ResNet-50 through tract: picture -> feature vector |
//! | [`estimators`] | scikit-learn's estimators by their names, fit and score |
//! | [`model`] | scaler, PCA, detector and calibration of one backbone, and their file |
//! | [`training`] | what `fit`, `eval` and `compare` do: features, splits, metrics, report |
//! | [`watch`] | the daemon: decision, events, snapshots, hooks, GPIO, service |
//! | [`config`] | the TOML file |
//! | [`files`] | reading what others name or write: plain files only, up to a limit |
//! | [`pictures`] | finding picture files |
//! | [`cli`] | the commands |

#![deny(unsafe_code)]

pub mod backbone;
pub mod camera;
pub mod cli;
pub mod config;
pub mod estimators;
pub mod files;
pub mod image;
pub mod model;
pub mod pictures;
pub mod training;
pub mod watch;
