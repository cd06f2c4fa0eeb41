//! `eval`: a model judged on pictures of known class.

use std::path::PathBuf;
use std::process::ExitCode;

use serde::Serialize;

use super::{Error, common, exit};
use crate::backbone::Backbone;
use crate::image;
use crate::model::{Model, file};
use crate::pictures;
use crate::training::evaluation::{Evaluation, Promise};
use crate::training::features::Cache;
use crate::training::fit;
use crate::training::report::{self, Case, Exhibit, Report, Thumbnail};
use crate::training::stretches;

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
    /// Writes a self-contained HTML page with curves, histograms and the worst mistakes
    #[arg(long, value_name = "FILE.html")]
    report: Option<PathBuf>,
    /// One JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Judged {
    #[serde(flatten)]
    evaluation: Evaluation,
    #[serde(skip_serializing_if = "Option::is_none")]
    false_alarms: Option<Promise>,
}

/// Pictures shown of each kind of mistake.
const EXHIBITS: usize = 12;

pub fn run(args: Args) -> Result<ExitCode, Error> {
    let (model, backbone) = common::load_model(&args.model, args.backbone.as_deref(), 1)?;
    common::set_workers(args.threads)?;
    let stop = super::stop_flag()?;
    let mut cache = Cache::open(&Cache::beside(&args.model));
    let (mut judged, mut cases, mut worth) = (Vec::new(), Vec::new(), 0.0);
    for (what, sources) in [("normal pictures", &args.normal), ("outlier pictures", &args.outliers)] {
        if sources.is_empty() {
            judged.push(Vec::new());
            continue;
        }
        let paths = pictures::find(sources).map_err(|e| Error::new(exit::NOINPUT, e))?;
        let mut found = common::extract(&backbone, what, &paths, &mut cache, &stop)?;
        if judged.is_empty() {
            let length = stretches::arrange(&mut found).map_err(super::fit::fit_error)?.length;
            worth = found.paths.len() as f64 / length as f64;
        }
        let scores = fit::scores(&model, found.samples()).map_err(common::model_error)?;
        let verdicts: Vec<_> = scores.into_iter().map(|score| model.verdict(score)).collect();
        let outlier = !judged.is_empty();
        cases.extend(found.paths.into_iter().zip(&verdicts).map(|(path, &verdict)| Case { path, outlier, verdict }));
        judged.push(verdicts);
    }
    let evaluation =
        Evaluation::of(model.detector_name(), model.calibration.name(), model.threshold, &judged[0], &judged[1]);
    let promise = Promise::of(&model, &evaluation, worth);
    if let Some(path) = &args.report {
        let page = report::html(&Report {
            title: format!("{}: {} pictures", args.model.display(), cases.len()),
            model: &model,
            evaluation: &evaluation,
            cases: &cases,
            false_alarms: exhibits(&model, &backbone, &cases, false)?,
            misses: exhibits(&model, &backbone, &cases, true)?,
        });
        file::write_atomically(path, page.as_bytes())
            .map_err(|e| Error::new(exit::CANTCREAT, format!("cannot write {}: {e}", path.display())))?;
    }
    if args.json {
        common::print_json(&Judged { evaluation, false_alarms: promise })?;
    } else {
        for line in evaluation.lines() {
            common::print(line)?;
        }
        if let Some(promise) = promise {
            common::print(promise.sentence())?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The worst mistakes of one kind.
fn exhibits(model: &Model, backbone: &Backbone, cases: &[Case], outlier: bool) -> Result<Vec<Exhibit>, Error> {
    report::worst(cases, outlier, EXHIBITS).into_iter().map(|case| exhibit(model, backbone, case)).collect()
}

/// A picture for the page, with where the residual is.
pub fn exhibit(model: &Model, backbone: &Backbone, case: &Case) -> Result<Exhibit, Error> {
    let picture = image::read(&case.path).map_err(|e| Error::new(exit::DATAERR, e))?;
    let prepared = backbone.prepare(&picture).map_err(common::backbone_error)?;
    let views = backbone.forward(&prepared).map_err(common::backbone_error)?;
    let heat = model.map(backbone, &views, None).map_err(common::model_error)?;
    let seen = image::seen(picture.width(), picture.height(), backbone.input());
    let heat = heat.map(|heat| heat.at(seen));
    let thumbnail = Thumbnail::of(&picture).map_err(|e| Error::new(exit::SOFTWARE, e))?;
    Ok(Exhibit { case: case.clone(), thumbnail, heat })
}
