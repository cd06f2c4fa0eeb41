//! `score`: a verdict for each picture.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use ::image::RgbImage;
use serde::Serialize;

use super::common;
use super::error::{Error, exit};
use crate::image::{self, jpeg};
use crate::model::Verdict;
use crate::pictures;
use crate::watch::overlay::HeatMap;

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
    /// Writes each picture, tinted where it departs from what the model knows, as NAME-map.jpg into a folder
    #[arg(long, value_name = "DIR")]
    map: Option<PathBuf>,
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
    /// The hot region: left, top, width, height as shares of the picture; with `--map`.
    #[serde(skip_serializing_if = "Option::is_none")]
    region: Option<[f64; 4]>,
}

pub fn run(args: Args) -> Result<ExitCode, Error> {
    let (model, backbone) = common::load_model(&args.model, args.backbone.as_deref(), args.threads)?;
    let mut maps = args.map.as_deref().map(Maps::new).transpose()?;
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
            let views = backbone.forward(&backbone.prepare(&picture)?)?;
            let verdict = model.score(&backbone.pool(&views), backbone.cells(&views).as_ref())?;
            let mut region = None;
            if let Some(maps) = &mut maps {
                let map = model.anomaly_map(&backbone, &views, None)?;
                let seen = image::seen(picture.width(), picture.height(), backbone.input());
                if let Some(map) = map.and_then(|map| HeatMap::new(map.at(seen))) {
                    region = Some(map.region(picture.width(), picture.height()));
                    maps.write(&path, &map.draw(&model.source.mask.hatch(&picture)))?;
                }
            }
            if args.json {
                let path = &path.to_string_lossy();
                let Verdict { score, p, outlier } = verdict;
                common::print_json(&Line { path, score, p, outlier, region })?;
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

/// A folder for maps; pictures of the same name get numbers.
struct Maps<'a> {
    folder: &'a Path,
    names: HashSet<String>,
}

impl<'a> Maps<'a> {
    const QUALITY: u8 = 90;

    fn new(folder: &'a Path) -> Result<Self, Error> {
        common::make_folder(folder)?;
        Ok(Maps { folder, names: HashSet::new() })
    }

    fn write(&mut self, of: &Path, map: &RgbImage) -> Result<(), Error> {
        let stem = of.file_stem().unwrap_or_default().to_string_lossy();
        let mut name = format!("{stem}-map.jpg");
        for number in 2.. {
            if self.names.insert(name.clone()) {
                break;
            }
            name = format!("{stem}-{number}-map.jpg");
        }
        let path = self.folder.join(name);
        let jpeg = jpeg::encode(map, Self::QUALITY).map_err(|e| common::cannot_write(&path, e))?;
        common::write(&path, &jpeg)
    }
}
