//! `fit`: learns one class from pictures.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde::Serialize;

use super::error::{Error, exit};
use super::{common, grid};
use crate::backbone::Backbone;
use crate::model::{FeatureSource, Model, Verdict, p_text};
use crate::pictures;
use crate::training::cross::Synthetic;
use crate::training::evaluation::Evaluation;
use crate::training::features::{Cache, Features};
use crate::training::fit::{self as training, Catches, FalseAlarms, Fitted, HeldOut, Options, Plan, Suspects};
use crate::training::grid::Search;
use crate::training::params::{DetectorKind, Params};
use crate::training::report::fit::FitReport;
use crate::training::report::{self, Case, Exhibit};
use crate::training::stretches::{self, Stretches};
use crate::training::synthetic;
use crate::watch::events;

/// The most synthetic outliers that recall is estimated by; never more than there are normals, whose features cost as much.
const MAX_SYNTHETIC: usize = 150;
/// The pictures with the lowest scores that are named or shown.
const LEAST: usize = 20;

/// Learns what is normal from pictures of it and writes a model file.
///
/// Pictures that follow each other, as frames of a fixed camera do, are detected by the natural order of their names and
/// the similarity of neighbours. Whole stretches are then held out together, and the fewer of them there are, the weaker
/// is the promise of false alarms.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: outlierd fit --normal good/ --backbone resnet50-int8.onnx -o tiles.outlierd")]
pub struct Args {
    /// Normal pictures: a folder or a list (.txt); may repeat
    #[arg(long, required = true, value_name = "DIR")]
    normal: Vec<PathBuf>,
    /// Outlier pictures, to calibrate with (never to fit): a folder or a list (.txt); may repeat
    #[arg(long, value_name = "DIR")]
    outliers: Vec<PathBuf>,
    /// Normal pictures to leave out, or a list of them (.txt): those that `fit` named and that do not belong there
    #[arg(long, value_name = "FILE", num_args = 1..)]
    drop: Vec<PathBuf>,
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
    /// (8 or more) half of them choose, the other half calibrate and evaluate. Else synthetic outliers are made of those
    /// same normal pictures: patches of another place or picture, scars, smudges, spots. They are local and visible: if
    /// yours are not, give some with --outliers. The default is kept unless the best is better by more than the error of
    /// the comparison. --set takes a parameter out of the search.
    #[arg(long)]
    grid: bool,
    /// Share of normal frames that may be called outliers, where no outliers are given
    #[arg(long, default_value_t = 0.01, value_name = "RATE")]
    false_alarms: f64,
    /// Share of the normal pictures to calibrate with and not to fit on [default: every picture calibrates a fit
    /// on the others, or 0.2 of 5,000 and more]
    #[arg(long, value_name = "SHARE")]
    held_out: Option<f64>,
    /// Consecutive frames of a video that are worth one picture, in the natural order of their names; 1: pictures are
    /// independent [default: detected]
    #[arg(long, value_name = "FRAMES", value_parser = clap::value_parser!(u32).range(1..))]
    block: Option<u32>,
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Writes a self-contained HTML page: the promise, the scores, the pictures that look least like the rest
    #[arg(long, value_name = "FILE.html")]
    report: Option<PathBuf>,
    /// Model file to write; features are cached beside it
    #[arg(short, long, value_name = "MODEL")]
    output: PathBuf,
    /// One JSON object
    #[arg(long)]
    json: bool,
}

/// A normal picture and its held-out score.
#[derive(Serialize)]
struct Least<'a> {
    #[serde(serialize_with = "lossy")]
    path: &'a Path,
    score: f64,
    p: f64,
    /// May be an outlier.
    suspect: bool,
}

fn lossy<S: serde::Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&path.to_string_lossy())
}

#[derive(Serialize)]
struct Report<'a> {
    model: String,
    model_bytes: u64,
    n_train: u32,
    n_calibration: u32,
    n_outliers: u32,
    n_components: usize,
    /// Pictures of a stretch that were held out together; 1: independent.
    stretch: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    false_alarms: Option<FalseAlarms>,
    #[serde(skip_serializing_if = "Option::is_none")]
    catches: Option<Catches>,
    least_like_the_rest: &'a [Least<'a>],
    /// As without --json.
    sentences: &'a [String],
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
    let normal = pictures::find(&args.normal)?;
    let normal = without(normal, &args.drop)?;
    let outliers = pictures::find(&args.outliers)?;
    if normal.len() < training::MIN_PICTURES {
        return Err(training::Error::TooFew { got: normal.len() }.into());
    }
    if args.report.as_ref() == Some(&args.output) {
        return Err(Error::new(exit::USAGE, "--report and --output name the same file"));
    }
    let stop = common::stop_flag()?;
    common::set_workers(args.backbone.threads)?;
    let backbone = common::BackboneArgs { threads: 1, ..args.backbone.clone() }.load(args.detector.wants_cells())?;
    let mut cache = Cache::open(&Cache::beside(&args.output));
    let mut extract = |what: &str, paths: &[PathBuf]| common::extract(&backbone, what, paths, &mut cache, &stop);
    let mut normal = extract("normal pictures", &normal)?;
    let mut outliers = if outliers.is_empty() { None } else { Some(extract("outlier pictures", &outliers)?) };
    outliers.as_ref().map_or(Ok(()), |outliers| common::refuse_shared(&normal, outliers))?;
    common::drop_copies(&mut normal);
    if normal.paths.len() < training::MIN_PICTURES {
        return Err(training::Error::TooFew { got: normal.paths.len() }.into());
    }
    let found = stretches::arrange(&mut normal)?;
    let found = match args.block {
        Some(block) => Stretches { length: block as usize, ..Stretches::INDEPENDENT },
        None => found,
    };
    let mut options = Options {
        detector: args.detector,
        params,
        false_alarms: args.false_alarms,
        seed: args.seed,
        held_out: args.held_out.map_or(HeldOut::Auto, HeldOut::Share),
        block: found.length,
    };
    options.check()?;
    let mut search = None;
    if args.grid {
        options.held_out = HeldOut::Share(options.held_out.share_beside_a_search());
        let backbone = &backbone;
        let inputs =
            grid::Inputs { backbone, cache: &mut cache, normal: &normal, outliers: outliers.as_ref(), stop: &stop };
        let (found, left) = grid::choose(inputs, &options, &args.set)?;
        options.params = found.params.clone();
        search = Some(found);
        if let (Some(outliers), Some(left)) = (&mut outliers, left) {
            outliers.select(&left);
        }
    }
    let made = match &outliers {
        Some(_) => Synthetic::default(),
        None => {
            let plan = Plan::new(normal.rows.nrows(), &options)?;
            let jobs = synthetic::plan(&plan.parts, MAX_SYNTHETIC.min(normal.rows.nrows()));
            common::make_outliers(&backbone, &normal, &jobs, options.seed, &mut cache, &stop)?
        }
    };
    let source = FeatureSource::of(&backbone);
    let labelled = outliers.as_ref().map(Features::samples);
    let fitted = training::fit(normal.samples(), labelled, &made, source, &options)?;
    fitted.model.save(&args.output)?;
    report(&args, &fitted, search.as_ref(), (&normal, found), &backbone)?;
    Ok(ExitCode::SUCCESS)
}

/// The pictures without those that `drop` names, each of which must be among them.
fn without(pictures: Vec<PathBuf>, drop: &[PathBuf]) -> Result<Vec<PathBuf>, Error> {
    if drop.is_empty() {
        return Ok(pictures);
    }
    let canonical = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let known: HashSet<PathBuf> = pictures.iter().map(|path| canonical(path)).collect();
    let mut dropped = HashSet::new();
    for path in pictures::find(drop)? {
        let path = canonical(&path);
        if !known.contains(&path) {
            let message = format!("--drop: {} is not among the normal pictures", path.display());
            return Err(Error::new(exit::NOINPUT, message));
        }
        dropped.insert(path);
    }
    Ok(pictures.into_iter().filter(|path| !dropped.contains(&canonical(path))).collect())
}

/// The normals with the lowest scores, the lowest first.
fn least<'a>(fitted: &Fitted, paths: &'a [PathBuf]) -> Vec<Least<'a>> {
    let one = |(rank, &(at, score)): (usize, &(usize, f64))| {
        let p = fitted.model.calibration.p(score);
        Least { path: &paths[at], score, p, suspect: rank < fitted.suspects.count }
    };
    fitted.held.iter().take(LEAST.max(fitted.suspects.count)).enumerate().map(one).collect()
}

fn report(
    args: &Args,
    fitted: &Fitted,
    search: Option<&Search>,
    (normal, found): (&Features, Stretches),
    backbone: &Backbone,
) -> Result<(), Error> {
    let Fitted { model, evaluation, warnings, catches, .. } = fitted;
    for warning in warnings {
        log::warn!("{warning}");
    }
    let least = least(fitted, &normal.paths);
    let (sentences, named) = sentences(args, fitted, (normal.paths.len(), found), &least);
    if let Some(path) = &args.report {
        page(path, args, fitted, &sentences, &least, backbone)?;
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
            stretch: found.length,
            false_alarms: FalseAlarms::of(model),
            catches: *catches,
            least_like_the_rest: &least,
            sentences: &sentences,
            grid: search,
            warnings,
            evaluation,
        });
    }
    if let Some(search) = search {
        grid::table(search)?;
    }
    for line in sentences.into_iter().chain(named) {
        common::print(line)?;
    }
    if let Some(path) = &args.report {
        common::print(format!("wrote {}", path.display()))?;
    }
    common::print(format!("wrote {} ({bytes} bytes)", args.output.display()))
}

/// The sentences of `fit`, and the suspects that the last one announces.
fn sentences(
    args: &Args,
    fitted: &Fitted,
    (n, found): (usize, Stretches),
    least: &[Least],
) -> (Vec<String>, Vec<String>) {
    let Fitted { model, evaluation, catches, .. } = fitted;
    let mut lines = vec![format!("{}; {} components", model.training.sentence(), model.components.rows())];
    lines.extend(found.sentence(n).filter(|_| args.block.is_none()));
    if args.detector.wants_cells() {
        lines.push(match &model.joined {
            Some(joined) => format!(
                "places are alike from picture to picture: {} x {} cells are judged too",
                joined.cells.height, joined.cells.width
            ),
            None => "places differ from picture to picture: the picture is judged as a whole, not cell by cell".into(),
        });
    }
    if model.training.n_outliers > 0 {
        lines.extend(evaluation.lines());
    }
    lines.extend(training::meaning(model, crate::config::decision::RAISE_AFTER));
    if let Some(Catches { recall, interval: (low, high), made }) = catches {
        lines.push(format!(
            "it catches about {:.0} % of small visible things (estimate: of {made} drawn into held-out pictures; 95 % \
             interval {:.0} to {:.0} %)",
            100.0 * recall,
            100.0 * low,
            100.0 * high
        ));
    }
    let Suspects { count, expected } = fitted.suspects;
    if count > 0 {
        lines.push(format!(
            "{} farther from the rest than chance puts them ({expected:.1} expected there); leave out with --drop what \
             does not belong:",
            if count == 1 { "1 picture lies".into() } else { format!("{count} pictures lie") }
        ));
    }
    let name = |one: &Least| events::printable(&format!("  {}  p {}", one.path.display(), p_text(one.p)));
    let mut named: Vec<String> = least.iter().take(count.min(LEAST)).map(name).collect();
    if count > LEAST {
        named.push(format!("  and {} more: --json names all", count - LEAST));
    }
    (lines, named)
}

/// Writes the page of `--report`.
fn page(
    path: &Path,
    args: &Args,
    fitted: &Fitted,
    sentences: &[String],
    least: &[Least],
    backbone: &Backbone,
) -> Result<(), Error> {
    let (suspects, next): (Vec<&Least>, Vec<&Least>) = least.iter().partition(|one| one.suspect);
    let shown = |all: Vec<&Least>| {
        all.into_iter().map(|one| exhibit(&fitted.model, backbone, one)).collect::<Result<Vec<_>, _>>()
    };
    let scores: Vec<f64> = fitted.held.iter().map(|(_, score)| *score).collect();
    let page = report::fit::html(&FitReport {
        title: format!("{}: fitted on {} pictures", args.output.display(), fitted.model.training.n_train),
        model: &fitted.model,
        sentences,
        scores: &scores,
        suspects: shown(suspects)?,
        next: shown(next)?,
    });
    common::write(path, page.as_bytes())
}

fn exhibit(model: &Model, backbone: &Backbone, one: &Least) -> Result<Exhibit, Error> {
    let verdict = Verdict::of(one.score, one.p, model.threshold);
    super::eval::exhibit(model, backbone, &Case { path: one.path.to_owned(), outlier: false, verdict })
}
