//! `compare`: every detector on the same pictures, one table.

use std::path::PathBuf;
use std::process::ExitCode;

use super::common;
use super::error::Error;
use crate::model::FeatureSource;
use crate::pictures;
use crate::training::compare::{self, Pictures, Row};
use crate::training::features::Cache;
use crate::training::fit::Options;
use crate::training::params::DetectorKind;
use crate::training::stretches;

/// Fits every detector on the same pictures and judges them on the same others: the article's comparison.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: outlierd compare --train good/ --normal more-good/ --outliers broken/ --seeds 5")]
pub struct Args {
    /// Normal pictures to fit and calibrate on: a folder or a list (.txt)
    #[arg(long, required = true, value_name = "DIR")]
    train: Vec<PathBuf>,
    /// Normal pictures to judge
    #[arg(long, required = true, value_name = "DIR")]
    normal: Vec<PathBuf>,
    /// Outlier pictures to judge
    #[arg(long, required = true, value_name = "DIR")]
    outliers: Vec<PathBuf>,
    #[command(flatten)]
    backbone: common::BackboneArgs,
    /// Sets an estimator's parameter, as one_class_svm.nu=0.05; may repeat
    #[arg(long = "set", value_name = "NAME=VALUE")]
    set: Vec<String>,
    /// Share of normal frames that may be called outliers
    #[arg(long, default_value_t = 0.01, value_name = "RATE")]
    false_alarms: f64,
    /// Consecutive frames of a video that are worth one picture, in the natural order of their names; 1: pictures are
    /// independent [default: detected]
    #[arg(long, value_name = "FRAMES", value_parser = clap::value_parser!(u32).range(1..))]
    block: Option<u32>,
    /// Splits to average over; the first is the given one, the others divide the normal pictures anew
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=1000))]
    seeds: u64,
    /// File to keep features in between runs
    #[arg(long, value_name = "FILE")]
    cache: Option<PathBuf>,
    /// One JSON array, an object per detector and seed
    #[arg(long)]
    json: bool,
}

pub fn run(args: Args) -> Result<ExitCode, Error> {
    let stop = common::stop_flag()?;
    common::set_workers(args.backbone.threads)?;
    let backbone = common::BackboneArgs { threads: 1, ..args.backbone.clone() }.load(true)?;
    let mut cache = args.cache.as_deref().map_or_else(Cache::in_memory, Cache::open);
    let mut extract = |what: &str, sources: &[PathBuf]| {
        let paths = pictures::find(sources)?;
        common::extract(&backbone, what, &paths, &mut cache, &stop)
    };
    let mut train = extract("training pictures", &args.train)?;
    let normal = extract("normal pictures", &args.normal)?;
    let outliers = extract("outlier pictures", &args.outliers)?;
    common::refuse_shared(&train, &outliers)?;
    common::refuse_shared(&normal, &outliers)?;
    common::drop_copies(&mut train);
    let found = stretches::arrange(&mut train)?;
    let block = args.block.map_or(found.length, |block| block as usize);
    if !args.json && args.block.is_none() {
        found.sentence(train.paths.len()).map_or(Ok(()), common::print)?;
    }
    let pictures = Pictures { train: train.samples(), normal: normal.samples(), outliers: outliers.samples() };
    let source = FeatureSource::of(&backbone);
    let bar = common::progress("fits", DetectorKind::ALL.len() * args.seeds as usize);
    let mut rows = Vec::new();
    for seed in 0..args.seeds {
        let options = Options { false_alarms: args.false_alarms, seed, block, ..Options::default() };
        rows.extend(compare::compare(&pictures, &source, &options, &args.set, &mut || bar.inc(1))?);
    }
    bar.finish_and_clear();
    if args.json {
        common::print_json(&rows)?;
    } else {
        table(&rows)?;
    }
    Ok(ExitCode::SUCCESS)
}

type Figure = fn(&Row) -> f64;

/// One line per detector; mean and spread where there are several seeds.
fn table(rows: &[Row]) -> Result<(), Error> {
    let columns: [(&str, Figure); 11] = [
        ("AUROC", |r| r.evaluation.auroc.unwrap_or(f64::NAN)),
        ("recall", |r| r.recall),
        ("alarms", |r| r.false_alarms),
        ("AP", |r| r.evaluation.average_precision.unwrap_or(f64::NAN)),
        ("accuracy", |r| r.evaluation.accuracy),
        ("in prec", |r| r.evaluation.inlier.precision),
        ("in rec", |r| r.evaluation.inlier.recall),
        ("in F1", |r| r.evaluation.inlier.f1),
        ("out prec", |r| r.evaluation.outlier.map_or(f64::NAN, |o| o.precision)),
        ("out rec", |r| r.evaluation.outlier.map_or(f64::NAN, |o| o.recall)),
        ("out F1", |r| r.evaluation.outlier.map_or(f64::NAN, |o| o.f1)),
    ];
    let several = rows.iter().any(|r| r.seed != 0);
    let width = if several { 16 } else { 9 };
    if let Some(row) = rows.first() {
        common::print(format!(
            "recall: outliers caught at the promised {:.2} % of false alarms; alarms: false alarms counted",
            100.0 * row.promised
        ))?;
    }
    let head: String = columns.iter().map(|(name, _)| format!("{name:>width$}")).collect();
    common::print(format!("{:<17}{head}{:>10}{:>10}{:>10}", "detector", "fit ms", "score ms", "bytes"))?;
    for kind in DetectorKind::ALL {
        let own: Vec<&Row> = rows.iter().filter(|r| r.evaluation.detector == kind.name()).collect();
        let mean_and_spread = |of: Figure| compare::mean_and_spread(&own.iter().map(|r| of(r)).collect::<Vec<_>>());
        let figure = |of: Figure| {
            let (mean, spread) = mean_and_spread(of);
            if several { format!("{mean:.4} ±{spread:.4}") } else { format!("{mean:.4}") }
        };
        let cells: String = columns.iter().map(|(_, of)| format!("{:>width$}", figure(*of))).collect();
        let mean = |of: Figure| mean_and_spread(of).0;
        common::print(format!(
            "{:<17}{cells}{:>10.0}{:>10.3}{:>10.0}",
            kind.name(),
            mean(|r| r.fit_ms),
            mean(|r| r.score_ms),
            mean(|r| r.model_bytes as f64)
        ))?;
    }
    Ok(())
}
