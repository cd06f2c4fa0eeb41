//! `eval`: a model judged on pictures of known class.

use std::path::PathBuf;
use std::process::ExitCode;

use super::{Error, common, exit};
use crate::training::evaluation::Evaluation;
use crate::training::features::{self, Cache};
use crate::training::pictures;

/// Judges a model on labelled pictures: AUROC, precision, recall, confusion.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: outlierd eval --model tiles.outlierd --normal good/ --outliers broken/")]
pub struct Args {
    #[arg(long, value_name = "MODEL")]
    model: PathBuf,
    /// Backbone file, if it is not where it was when the model was fitted
    #[arg(long, value_name = "FILE")]
    backbone: Option<PathBuf>,
    /// Normal pictures: a folder or a list (.txt); may repeat
    #[arg(long, required = true, value_name = "DIR")]
    normal: Vec<PathBuf>,
    /// Outlier pictures: a folder or a list (.txt); may repeat
    #[arg(long, value_name = "DIR")]
    outliers: Vec<PathBuf>,
    /// Threads; 0: all cores
    #[arg(long, default_value_t = 0)]
    threads: usize,
    /// One JSON object
    #[arg(long)]
    json: bool,
}

pub fn run(args: Args) -> Result<ExitCode, Error> {
    let (model, backbone) = common::load_model(&args.model, args.backbone.as_deref(), 1)?;
    common::set_workers(args.threads)?;
    let stop = super::stop_flag()?;
    let mut cache = Cache::open(&Cache::beside(&args.model));
    let mut judged = Vec::new();
    for (what, sources) in [("normal pictures", &args.normal), ("outlier pictures", &args.outliers)] {
        if sources.is_empty() {
            judged.push(Vec::new());
            continue;
        }
        let paths = pictures::find_all(sources).map_err(|e| Error::new(exit::NOINPUT, e))?;
        let bar = common::progress(what, paths.len());
        let found = features::extract(&backbone, &paths, &mut cache, &stop, &|| bar.inc(1));
        bar.finish_and_clear();
        let found = found.map_err(common::features_error)?;
        let verdicts = found.rows.rows().into_iter().map(|row| model.score(&row.to_vec()));
        judged.push(verdicts.collect::<Result<Vec<_>, _>>().map_err(common::model_error)?);
    }
    if let Err(error) = cache.save() {
        log::warn!("{error}");
    }
    let evaluation = Evaluation::of(
        model.detector.name(),
        model.calibration.name(),
        model.threshold,
        &judged[0],
        &judged[1],
    );
    if args.json {
        common::print_json(&evaluation)?;
    } else {
        for line in evaluation.lines() {
            common::print(line)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
