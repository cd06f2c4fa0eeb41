//! `score`: a verdict for each picture.

use std::path::PathBuf;
use std::process::ExitCode;

use serde::Serialize;

use super::{Error, common, exit};
use crate::image;
use crate::pictures;

/// Scores pictures: verdict, p, score, path, one line each.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: outlierd score --model tiles.outlierd pictures/*.jpg")]
pub struct Args {
    #[arg(long, value_name = "MODEL")]
    model: PathBuf,
    /// Backbone file, if it is not where it was when the model was fitted
    #[arg(long, value_name = "FILE")]
    backbone: Option<PathBuf>,
    /// Threads; 0: all cores
    #[arg(long, default_value_t = 0)]
    threads: usize,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
    /// Pictures, folders of pictures or lists (.txt)
    #[arg(required = true, value_name = "PIC")]
    pictures: Vec<PathBuf>,
}

#[derive(Serialize)]
struct Line<'a> {
    path: &'a str,
    score: f64,
    p: f64,
    outlier: bool,
}

pub fn run(args: Args) -> Result<ExitCode, Error> {
    let (model, backbone) = common::load_model(&args.model, args.backbone.as_deref(), args.threads)?;
    let mut failed = 0;
    for source in &args.pictures {
        let found = match pictures::find(std::slice::from_ref(source)) {
            Ok(found) => found,
            Err(error) => {
                common::complain(&error);
                failed += 1;
                continue;
            }
        };
        for path in found {
            let picture = match image::read(&path) {
                Ok(picture) => picture,
                Err(error) => {
                    common::complain(&error);
                    failed += 1;
                    continue;
                }
            };
            let sample = backbone.prepare(&picture).and_then(|prepared| backbone.sample(&prepared));
            let (feature, cells) = sample.map_err(common::backbone_error)?;
            let verdict = model.score(&feature, cells.as_ref()).map_err(common::model_error)?;
            if args.json {
                let path = &path.to_string_lossy();
                common::print_json(&Line { path, score: verdict.score, p: verdict.p, outlier: verdict.outlier })?;
            } else {
                let word = if verdict.outlier { "outlier" } else { "inlier" };
                common::print(format!(
                    "{word:<8} p={} score={:<12.5} {}",
                    crate::model::p_text(verdict.p),
                    verdict.score,
                    path.display()
                ))?;
            }
        }
    }
    match failed {
        0 => Ok(ExitCode::SUCCESS),
        n => Err(Error::new(exit::DATAERR, format!("{} could not be scored", common::count(n, "picture")))),
    }
}
