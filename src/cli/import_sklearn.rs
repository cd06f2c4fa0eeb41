//! `import-sklearn`: a model fitted in Python becomes a model file.

use std::path::PathBuf;
use std::process::ExitCode;

use super::common;
use super::error::{self, Error, exit};
use crate::model::FeatureSource;
use crate::training::import;
use crate::training::npz::{self, Npz};

/// Turns a pipeline fitted with scikit-learn into a model file.
///
/// StandardScaler, PCA, then GaussianMixture, OneClassSVM or IsolationForest, calibrated by an IsotonicRegression or by
/// the scores of held-out normals; models/export_sklearn.py writes the FILE. Features are those that this backbone and
/// tap give.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example: outlierd import-sklearn tiles.npz --backbone resnet50-int8.onnx --tap layer3 -o tiles.outlierd"
)]
pub struct Args {
    #[arg(value_name = "FILE.npz")]
    file: PathBuf,
    #[command(flatten)]
    backbone: common::BackboneArgs,
    /// Share of normal frames that may be called outliers, where the file has no IsotonicRegression
    #[arg(long, default_value_t = 0.01, value_name = "RATE")]
    false_alarms: f64,
    /// Model file to write
    #[arg(short, long, value_name = "MODEL")]
    output: PathBuf,
}

pub fn run(args: Args) -> Result<ExitCode, Error> {
    let named = |wrong: import::Error| {
        let code = match &wrong {
            import::Error::Rate(_) => exit::USAGE,
            import::Error::Arrays(npz::Error::Io(_)) => exit::NOINPUT,
            import::Error::Model(inner) => error::of_model(inner),
            _ => exit::DATAERR,
        };
        Error::new(code, format!("{}: {wrong}", args.file.display()))
    };
    let arrays = Npz::read(&args.file).map_err(|e| named(e.into()))?;
    let backbone = args.backbone.load(false)?;
    let model = import::model(&arrays, FeatureSource::of(&backbone), args.false_alarms).map_err(named)?;
    import::check_width(&model, backbone.n_features()).map_err(named)?;
    model.save(&args.output)?;
    let bytes = std::fs::metadata(&args.output).map_or(0, |m| m.len());
    let (detector, calibration) = (model.detector.name(), model.calibration.name());
    common::print(format!(
        "{detector} over {} components of {} values, {calibration} calibration, outlier when p < {}",
        model.components.rows(),
        model.n_features(),
        model.threshold
    ))?;
    common::print(format!("wrote {} ({bytes} bytes)", args.output.display()))?;
    Ok(ExitCode::SUCCESS)
}
