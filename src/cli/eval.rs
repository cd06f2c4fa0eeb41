//! `eval`: a model judged on pictures of known class.

use std::path::PathBuf;
use std::process::ExitCode;

use super::{Error, common, exit};
use crate::backbone::Backbone;
use crate::image;
use crate::model::{Model, file};
use crate::training::evaluation::Evaluation;
use crate::training::features::Cache;
use crate::training::pictures;
use crate::training::report::{self, Case, Exhibit, Report, Thumbnail};

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

/// Pictures shown of each kind of mistake.
const EXHIBITS: usize = 12;

pub fn run(args: Args) -> Result<ExitCode, Error> {
    let (model, backbone) = common::load_model(&args.model, args.backbone.as_deref(), 1)?;
    common::set_workers(args.threads)?;
    let stop = super::stop_flag()?;
    let mut cache = Cache::open(&Cache::beside(&args.model));
    let (mut judged, mut cases) = (Vec::new(), Vec::new());
    for (what, sources) in [("normal pictures", &args.normal), ("outlier pictures", &args.outliers)] {
        if sources.is_empty() {
            judged.push(Vec::new());
            continue;
        }
        let paths = pictures::find_all(sources).map_err(|e| Error::new(exit::NOINPUT, e))?;
        let found = common::extract(&backbone, what, &paths, &mut cache, &stop)?;
        let verdicts = found.rows.rows().into_iter().map(|row| model.score(&row.to_vec()));
        let verdicts = verdicts.collect::<Result<Vec<_>, _>>().map_err(common::model_error)?;
        let outlier = !judged.is_empty();
        cases.extend(found.paths.into_iter().zip(&verdicts).map(|(path, &verdict)| Case { path, outlier, verdict }));
        judged.push(verdicts);
    }
    let evaluation =
        Evaluation::of(model.detector.name(), model.calibration.name(), model.threshold, &judged[0], &judged[1]);
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
        common::print_json(&evaluation)?;
    } else {
        for line in evaluation.lines() {
            common::print(line)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The worst mistakes of one kind, with where the residual is.
fn exhibits(model: &Model, backbone: &Backbone, cases: &[Case], outlier: bool) -> Result<Vec<Exhibit>, Error> {
    let mut shown = Vec::new();
    for case in report::worst(cases, outlier, EXHIBITS) {
        let picture = image::read(&case.path).map_err(|e| Error::new(exit::DATAERR, e))?;
        let prepared = backbone.prepare(&picture).map_err(common::backbone_error)?;
        let views = backbone.forward(&prepared).map_err(common::backbone_error)?;
        let maps = views.first().map_or(&[][..], Vec::as_slice);
        let heat = model.heat(maps, &backbone.pool(&views)).map_err(common::model_error)?;
        let seen = image::seen(picture.width(), picture.height(), backbone.input());
        let heat = heat.map(|heat| heat.at(seen));
        let thumbnail = Thumbnail::of(&picture).map_err(|e| Error::new(exit::SOFTWARE, e))?;
        shown.push(Exhibit { case: case.clone(), thumbnail, heat });
    }
    Ok(shown)
}
