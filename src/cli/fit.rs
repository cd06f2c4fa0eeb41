//! `fit`: learns one class from pictures.

use std::path::PathBuf;
use std::process::ExitCode;

use serde::Serialize;

use super::{Error, common, exit, grid};
use crate::model::{FeatureSource, file};
use crate::training::evaluation::Evaluation;
use crate::training::features::{Cache, Features};
use crate::training::fit::{self as training, Fitted, HeldOut, Options};
use crate::training::grid::Search;
use crate::training::params::{DetectorKind, Params};
use crate::training::pictures;

/// Learns what is normal from pictures of it and writes a model file.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: outlierd fit --normal good/ --backbone resnet50-int8.onnx -o tiles.outlierd")]
pub struct Args {
    /// Normal pictures: a folder or a list (.txt); may repeat
    #[arg(long, required = true, value_name = "DIR")]
    normal: Vec<PathBuf>,
    /// Outlier pictures, to calibrate with (never to fit): a folder or a list (.txt); may repeat
    #[arg(long, value_name = "DIR")]
    outliers: Vec<PathBuf>,
    #[command(flatten)]
    backbone: common::BackboneArgs,
    #[arg(long, value_enum, default_value_t, value_name = "NAME")]
    detector: DetectorKind,
    /// Sets an estimator's parameter, as pca.n_components=0.99; may repeat
    #[arg(long = "set", value_name = "NAME=VALUE")]
    set: Vec<String>,
    /// Choose the detector's parameters by cross-validation on the training share
    ///
    /// Every candidate is judged by AUROC: normal pictures it was not fitted on against outliers. With --outliers
    /// (8 or more) half of them choose, the other half calibrate and judge. Else outliers are made from those same
    /// normal pictures: patches of another place or picture, scars, smudges, spots. To rank a picture above the same
    /// picture with something in it is the detector's job, and a looser or tighter threshold cannot win it. Made
    /// outliers are local and visible: if yours are not, give some with --outliers. The default stays unless the
    /// best is better by more than the error of the comparison. --set takes a parameter out of the search.
    #[arg(long)]
    grid: bool,
    /// Share of normal frames that may be called outliers, where no outliers are given
    #[arg(long, default_value_t = 0.01, value_name = "RATE")]
    false_alarms: f64,
    /// Share of the normal pictures to calibrate with and not to fit on [default: every picture calibrates a fit
    /// on the others, or 0.2 of very many]
    #[arg(long, value_name = "SHARE")]
    held_out: Option<f64>,
    /// Frames of a video: so many neighbours, in the order of their names, count as one
    #[arg(long, default_value_t = 1, value_name = "FRAMES", value_parser = clap::value_parser!(u32).range(1..))]
    block: u32,
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Model file to write; features are cached beside it
    #[arg(short, long, value_name = "MODEL")]
    output: PathBuf,
    /// One JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report<'a> {
    model: String,
    model_bytes: u64,
    n_train: u32,
    n_calibration: u32,
    n_outliers: u32,
    n_components: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    grid: Option<&'a Search>,
    warnings: &'a [String],
    evaluation: &'a Evaluation,
}

pub fn run(args: Args) -> Result<ExitCode, Error> {
    let mut params = Params::of(args.detector);
    for assignment in &args.set {
        params.set(assignment).map_err(|e| Error::new(exit::USAGE, e))?;
    }
    let normal = pictures::find_all(&args.normal).map_err(|e| Error::new(exit::NOINPUT, e))?;
    let outliers = pictures::find_all(&args.outliers).map_err(|e| Error::new(exit::NOINPUT, e))?;
    if normal.len() < training::MIN_PICTURES {
        return Err(fit_error(training::Error::TooFew { got: normal.len() }));
    }
    let stop = super::stop_flag()?;
    common::set_workers(args.backbone.threads)?;
    let mut backbone_args = args.backbone.clone();
    backbone_args.threads = 1;
    let backbone = backbone_args.load()?;
    let mut cache = Cache::open(&Cache::beside(&args.output));
    let mut extract = |what: &str, paths: &[PathBuf]| -> Result<Features, Error> {
        common::extract(&backbone, what, paths, &mut cache, &stop)
    };
    let normal = extract("normal pictures", &normal)?;
    let outliers = if outliers.is_empty() { None } else { Some(extract("outlier pictures", &outliers)?) };
    let mut options = Options {
        detector: args.detector,
        params,
        false_alarms: args.false_alarms,
        seed: args.seed,
        held_out: args.held_out.map_or(HeldOut::Auto, HeldOut::Share),
        block: args.block as usize,
    };
    options.check().map_err(fit_error)?;
    let (search, outliers) = if args.grid {
        options.held_out = HeldOut::Share(options.held_out.share_beside_a_search());
        let (backbone, outliers) = (&backbone, outliers.as_ref());
        let inputs = grid::Inputs { backbone, cache: &mut cache, normal: &normal, outliers, stop: &stop };
        let (search, outliers) = grid::choose(inputs, &options, &args.set)?;
        options.params = search.params.clone();
        (Some(search), outliers)
    } else {
        (None, outliers.map(|o| o.rows))
    };
    let source = FeatureSource::of(&backbone);
    let fitted =
        training::fit(normal.rows.view(), outliers.as_ref().map(|o| o.view()), source, &options).map_err(fit_error)?;
    file::save(&fitted.model, &args.output).map_err(common::model_error)?;
    report(&args, &fitted, search.as_ref())?;
    Ok(ExitCode::SUCCESS)
}

fn report(args: &Args, fitted: &Fitted, search: Option<&Search>) -> Result<(), Error> {
    let Fitted { model, evaluation, warnings } = fitted;
    for warning in warnings {
        log::warn!("{warning}");
    }
    let bytes = std::fs::metadata(&args.output).map_or(0, |m| m.len());
    if args.json {
        return common::print_json(&Report {
            model: args.output.display().to_string(),
            model_bytes: bytes,
            n_train: model.training.n_train,
            n_calibration: model.training.n_calibration,
            n_outliers: model.training.n_outliers,
            n_components: model.components.rows(),
            grid: search,
            warnings,
            evaluation,
        });
    }
    if let Some(search) = search {
        grid::table(search)?;
    }
    common::print(format!("{}; {} components", model.training.sentence(), model.components.rows()))?;
    for line in evaluation.lines() {
        common::print(line)?;
    }
    for line in training::meaning(model, crate::config::Decision::default().raise_after) {
        common::print(line)?;
    }
    common::print(format!("wrote {} ({bytes} bytes)", args.output.display()))
}

pub fn fit_error(error: training::Error) -> Error {
    let code = match &error {
        training::Error::TooFew { .. } | training::Error::Estimator(_) | training::Error::Width { .. } => exit::DATAERR,
        training::Error::Parameter(_) => exit::USAGE,
        training::Error::Model(inner) => inner.exit_code(),
    };
    Error::new(code, error)
}
