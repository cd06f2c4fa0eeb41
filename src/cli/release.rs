//! `release`: resets the GPIO lines after the daemon was killed.

use std::path::PathBuf;
use std::process::ExitCode;

use super::common;
use super::error::{Error, exit};
use crate::config::{self, Config};
use crate::watch::outputs::gpio::Lines;

/// Drives the GPIO lines of the config inactive. The service does so whenever the daemon has ended: some kernels keep a
/// line's value when the process that drove it is killed.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: outlierd release -c outlierd.toml")]
pub struct Args {
    /// Config file
    #[arg(short, long, value_name = "FILE", default_value = config::DEFAULT_PATH)]
    config: PathBuf,
}

pub fn run(args: Args) -> Result<ExitCode, Error> {
    let config = Config::load(&args.config)?;
    let Some(gpio) = &config.gpio else {
        common::print("no [gpio] in the config: no line is driven")?;
        return Ok(ExitCode::SUCCESS);
    };
    let mut lines = Lines::open(gpio).map_err(|e| Error::new(exit::UNAVAILABLE, e))?;
    lines.release().map_err(|e| Error::new(exit::UNAVAILABLE, e))?;
    common::print(format!("{}: line {} is inactive", gpio.chip.display(), gpio.line))?;
    Ok(ExitCode::SUCCESS)
}
