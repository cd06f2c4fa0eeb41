//! `eval`: a model judged on pictures of known class.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde::Serialize;

use super::common;
use super::error::{Error, exit};
use crate::backbone::Backbone;
use crate::image;
use crate::model::Model;
use crate::model::cells::Joined;
use crate::pictures;
use crate::training::evaluation::{Evaluation, Promise};
use crate::training::features::{Cache, Features};
use crate::training::fit;
use crate::training::masks::{Figures, Pixels};
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
    /// Folder of masks of the outlier pictures, white where the outlier is, as NAME.png or in folders named as those of the
    /// pictures: measures how well the cells find the place
    #[arg(long, value_name = "DIR", requires = "outliers")]
    masks: Option<PathBuf>,
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
    #[serde(skip_serializing_if = "Option::is_none")]
    pixels: Option<Figures>,
}

/// Pictures shown of each kind of mistake.
const EXHIBITS: usize = 12;

pub fn run(args: Args) -> Result<ExitCode, Error> {
    let (model, backbone) = common::load_model(&args.model, args.backbone.as_deref(), 1)?;
    common::set_workers(args.threads)?;
    let stop = common::stop_flag()?;
    let mut cache = Cache::open(&Cache::beside(&args.model));
    let joined = match (&args.masks, &model.joined) {
        (Some(_), None) => {
            let message = format!(
                "--masks: {} has no detector over cells, so there is no place to measure",
                args.model.display()
            );
            return Err(Error::new(exit::USAGE, message));
        }
        (masks, joined) => masks.as_deref().zip(joined.as_deref()),
    };
    let mut pixels = Pixels::default();
    let (mut judged, mut cases, mut worth) = (Vec::new(), Vec::new(), 0.0);
    let mut extract = |what: &str, sources: &[PathBuf]| -> Result<Option<Features>, Error> {
        if sources.is_empty() {
            return Ok(None);
        }
        let paths = pictures::find(sources)?;
        common::extract(&backbone, what, &paths, &mut cache, &stop).map(Some)
    };
    let normal = extract("normal pictures", &args.normal)?;
    let outliers = extract("outlier pictures", &args.outliers)?;
    if let (Some(normal), Some(outliers)) = (&normal, &outliers) {
        common::refuse_shared(normal, outliers)?;
    }
    for found in [normal, outliers] {
        let Some(mut found) = found else {
            judged.push(Vec::new());
            continue;
        };
        if judged.is_empty() {
            let length = stretches::arrange(&mut found)?.length;
            worth = found.paths.len() as f64 / length as f64;
        }
        let scores = fit::scores(&model, found.samples())?;
        let verdicts: Vec<_> = scores.into_iter().map(|score| model.verdict(score)).collect();
        let outlier = !judged.is_empty();
        if let Some((masks, joined)) = joined {
            measure(&mut pixels, &found, joined, &backbone, outlier.then_some(masks))?;
        }
        cases.extend(found.paths.into_iter().zip(&verdicts).map(|(path, &verdict)| Case { path, outlier, verdict }));
        judged.push(verdicts);
    }
    let evaluation = Evaluation::of(&model, &judged[0], &judged[1]);
    let promise = Promise::of(&model, &evaluation, worth);
    let pixels = match &args.masks {
        None => None,
        Some(masks) => Some(pixels.figures().ok_or_else(|| {
            let message =
                format!("--masks: {} has no mask of the outlier pictures that marks anything", masks.display());
            Error::new(exit::NOINPUT, message)
        })?),
    };
    if let Some(path) = &args.report {
        let page = report::html(&Report {
            title: format!("{}: {} pictures", args.model.display(), cases.len()),
            model: &model,
            evaluation: &evaluation,
            cases: &cases,
            false_alarms: exhibits(&model, &backbone, &cases, false)?,
            misses: exhibits(&model, &backbone, &cases, true)?,
        });
        common::write(path, page.as_bytes())?;
    }
    if args.json {
        common::print_json(&Judged { evaluation, false_alarms: promise, pixels })?;
    } else {
        for line in evaluation.lines() {
            common::print(line)?;
        }
        if let Some(promise) = promise {
            common::print(promise.sentence())?;
        }
        if let Some(Figures { auroc, pro, masks, regions }) = pixels {
            common::print(format!(
                "places: pixel AUROC {auroc:.4}, PRO {pro:.4}, over {} with {}",
                common::count(masks, "mask"),
                common::count(regions, "region")
            ))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Adds the anomaly maps of pictures; outliers without a mask in the folder `masks` are left out.
fn measure(
    pixels: &mut Pixels,
    found: &Features,
    joined: &Joined,
    backbone: &Backbone,
    masks: Option<&Path>,
) -> Result<(), Error> {
    let mut without = 0;
    for (path, cells) in found.paths.iter().zip(&found.cells) {
        let read = |path: &Path| image::read(path).map_err(|e| Error::new(exit::DATAERR, e));
        let mask = match masks.map(|masks| mask_of(masks, path)) {
            Some(None) => {
                without += 1;
                continue;
            }
            Some(Some(mask)) => Some(read(&mask)?),
            None => None,
        };
        let (width, height) = read(path)?.dimensions();
        let distances = joined.cells.distances(cells)?;
        let seen = image::seen(width, height, backbone.input());
        pixels.add(&joined.map(distances).at(seen), (width, height), mask.as_ref());
    }
    if without > 0 {
        log::warn!("--masks: {} have no mask and are not measured", common::count(without, "outlier picture"));
    }
    Ok(())
}

/// `NAME.png` in the folder of masks, or in its folder of the same name as the picture's.
fn mask_of(masks: &Path, picture: &Path) -> Option<PathBuf> {
    let mut name = picture.file_stem()?.to_owned();
    name.push(".png");
    let folder = picture.parent().and_then(Path::file_name);
    let nested = folder.map(|folder| masks.join(folder).join(&name));
    nested.into_iter().chain([masks.join(&name)]).find(|mask| mask.is_file())
}

/// The worst mistakes of one kind.
fn exhibits(model: &Model, backbone: &Backbone, cases: &[Case], outlier: bool) -> Result<Vec<Exhibit>, Error> {
    report::worst(cases, outlier, EXHIBITS).into_iter().map(|case| exhibit(model, backbone, case)).collect()
}

/// A picture for the page, with its anomaly map.
pub fn exhibit(model: &Model, backbone: &Backbone, case: &Case) -> Result<Exhibit, Error> {
    let picture = image::read(&case.path).map_err(|e| Error::new(exit::DATAERR, e))?;
    let prepared = backbone.prepare(&picture)?;
    let views = backbone.forward(&prepared)?;
    let seen = image::seen(picture.width(), picture.height(), backbone.input());
    let map = model.anomaly_map(backbone, &views, None)?.map(|map| map.at(seen));
    let thumbnail = Thumbnail::of(&backbone.mask().hatch(&picture)).map_err(|e| Error::new(exit::SOFTWARE, e))?;
    Ok(Exhibit { case: case.clone(), thumbnail, map })
}
