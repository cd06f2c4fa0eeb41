//! `run`: the daemon.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use signal_hook::consts::signal::SIGXFSZ;

use super::common;
use super::error::{Error, exit};
use crate::camera::{self, FrameSource};
use crate::config::{self, Config};
use crate::watch::Watch;
use crate::watch::judge::ModelJudge;
use crate::watch::service::{Notifier, lower_priority, signals};

/// Watches the camera, raises and clears events. SIGTERM and SIGINT stop it, SIGHUP reloads config and model.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: outlierd run -c outlierd.toml")]
pub struct Args {
    /// Config file
    #[arg(short, long, value_name = "FILE", default_value = config::DEFAULT_PATH)]
    config: PathBuf,
}

pub fn run(args: Args) -> Result<ExitCode, Error> {
    let commands = signals().map_err(|e| Error::new(exit::SOFTWARE, format!("cannot listen for signals: {e}")))?;
    // So a limit on file sizes (LimitFSIZE=) is an error of the write, not the end of the process.
    if let Err(e) = signal_hook::flag::register(SIGXFSZ, Arc::default()) {
        log::warn!("cannot take signal {SIGXFSZ}: {e}");
    }
    let config = Config::load(&args.config)?;
    if let Err(e) = lower_priority(config.model.nice) {
        log::warn!(
            "cannot take the priority of model.nice = {}: {e}; Nice= in the unit does it too",
            config.model.nice
        );
    }
    let judge = ModelJudge::open(&config)?;
    config.check_snapshots()?;
    log::info!("watching {} with {}", config.camera.source, config.model.path.display());
    let watch: Watch<'_, ModelJudge, Box<dyn FrameSource>> = Watch {
        config,
        judge,
        open_camera: Box::new(camera::open),
        reload: Box::new(|| reload(&args.config)),
        observe: None,
    };
    let summary = watch.run(&commands, &mut Notifier::from_env())?;
    log::info!(
        "{}, {} unchanged, {} dropped, {} raised, {} cleared",
        common::count(summary.frames as usize, "frame"),
        summary.skipped,
        summary.dropped,
        common::count(summary.raised as usize, "event"),
        summary.cleared
    );
    Ok(ExitCode::SUCCESS)
}

fn reload(path: &Path) -> Result<(Config, ModelJudge), String> {
    let config = Config::load(path).map_err(|e| e.to_string())?;
    config.check_snapshots().map_err(|e| e.to_string())?;
    let judge = ModelJudge::open(&config).map_err(|e| e.to_string())?;
    Ok((config, judge))
}
