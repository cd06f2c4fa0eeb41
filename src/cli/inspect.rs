//! `inspect`: shows the contents of a model file.

use std::path::PathBuf;
use std::process::ExitCode;

use serde::Serialize;

use super::common;
use super::error::Error;
use crate::model::{Model, hex};
use crate::training::fit::FalseAlarms;

/// Shows the contents of a model file.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: outlierd inspect /var/lib/outlierd/model.outlierd")]
pub struct Args {
    #[arg(value_name = "MODEL")]
    model: PathBuf,
    /// One JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report {
    crate_version: String,
    made_at: String,
    file_bytes: u64,
    backbone: String,
    backbone_sha256: String,
    tap: String,
    pooling: String,
    input: Input,
    n_features: usize,
    transform: &'static str,
    n_components: usize,
    precision: &'static str,
    whiten: bool,
    /// Height, width and components of the grid of cells.
    #[serde(skip_serializing_if = "Option::is_none")]
    cells: Option<[usize; 3]>,
    detector: &'static str,
    parameters: Vec<(String, String)>,
    calibration: &'static str,
    threshold: f64,
    n_train: u32,
    n_calibration: u32,
    n_outliers: u32,
    n_learnt: usize,
    stretch: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    false_alarms: Option<FalseAlarms>,
    seed: u64,
    auroc: Option<f64>,
    false_alarm_rate: f64,
}

#[derive(Serialize)]
struct Input {
    recipe: &'static str,
    width: u32,
    height: u32,
    order: String,
    mean: [f32; 3],
    std: [f32; 3],
    geometry: String,
}

pub fn run(args: Args) -> Result<ExitCode, Error> {
    let model = Model::load(&args.model)?;
    let report = Report {
        file_bytes: std::fs::metadata(&args.model).map_or(0, |m| m.len()),
        made_at: common::rfc3339(model.made_at),
        crate_version: model.crate_version.clone(),
        backbone: model.source.name(),
        backbone_sha256: hex(&model.source.sha256),
        tap: model.source.tap.to_string(),
        pooling: model.source.pooling.to_string(),
        input: Input {
            recipe: model.source.input.name(),
            width: model.source.input.width,
            height: model.source.input.height,
            order: format!("{:?}", model.source.input.order).to_lowercase(),
            mean: model.source.input.mean,
            std: model.source.input.std,
            geometry: format!("{:?}", model.source.input.geometry).to_lowercase(),
        },
        n_features: model.n_features(),
        transform: model.transform.name(),
        n_components: model.components.rows(),
        precision: model.components.precision(),
        whiten: model.whiten,
        cells: model
            .joined
            .as_ref()
            .map(|joined| [joined.cells.height, joined.cells.width, joined.cells.components.rows]),
        detector: model.detector_name(),
        parameters: model.detector.parameters(),
        calibration: model.calibration.name(),
        threshold: model.threshold,
        n_train: model.training.n_train,
        n_calibration: model.training.n_calibration,
        n_outliers: model.training.n_outliers,
        n_learnt: model.records.learnt.len(),
        stretch: model.training.stretch.max(1),
        false_alarms: FalseAlarms::of(&model),
        seed: model.training.seed,
        auroc: model.training.auroc,
        false_alarm_rate: model.training.false_alarm_rate,
    };
    if args.json {
        common::print_json(&report)?;
        return Ok(ExitCode::SUCCESS);
    }
    let r = &report;
    common::print(format!("model         {} ({} bytes)", args.model.display(), r.file_bytes))?;
    common::print(format!("made          {} by outlierd {}", r.made_at, r.crate_version))?;
    common::print(format!("backbone      {}, SHA-256 {}", r.backbone, r.backbone_sha256))?;
    common::print(format!("feature       {} ({} pooling), {} values", r.tap, r.pooling, r.n_features))?;
    let i = &r.input;
    common::print(format!("input         {} {}x{}, {}, {}", i.recipe, i.width, i.height, i.order, i.geometry))?;
    let whitened = if r.whiten { ", whitened" } else { "" };
    common::print(format!(
        "components    {}{whitened}, kept as {}, of the features' {} transform",
        r.n_components, r.precision, r.transform
    ))?;
    let parameters: Vec<String> = r.parameters.iter().map(|(k, v)| format!("{k}={v}")).collect();
    common::print(format!("detector      {} ({})", r.detector, parameters.join(", ")))?;
    if let Some([height, width, components]) = r.cells {
        common::print(format!("cells         {height} x {width} of {components} components, a Gaussian for each"))?;
    }
    common::print(format!("calibration   {}, outlier when p < {}", r.calibration, r.threshold))?;
    common::print(format!("training      {}", model.training.sentence()))?;
    if r.n_learnt > 0 {
        common::print(format!("learnt        {} into the calibration", common::count(r.n_learnt, "false alarm")))?;
    }
    if let Some(auroc) = r.auroc {
        common::print(format!("AUROC         {auroc:.4} on pictures it was not fitted on"))?;
    }
    match r.false_alarms {
        Some(FalseAlarms { promised, interval: (low, high), stretches, .. }) => common::print(format!(
            "false alarms  {:.2} % of normal frames promised (95 % interval {:.2} to {:.2} %), by {stretches:.0} \
             independent pictures",
            100.0 * promised,
            100.0 * low,
            100.0 * high
        ))?,
        None if r.false_alarm_rate.is_finite() => {
            common::print(format!("false alarms  {:.2} % of normal frames expected", 100.0 * r.false_alarm_rate))?;
        }
        None => {}
    }
    Ok(ExitCode::SUCCESS)
}
