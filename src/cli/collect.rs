//! `collect`: normal frames from the camera, for `fit --normal`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};

use super::error::{Error, exit};
use super::{camera, common};
use crate::config;
use crate::watch::events::format_time;

/// Saves pictures of what is normal: as the daemon would see them, one by one.
///
/// Names are a number and the time. Numbers continue where an earlier run into the same folder ended, so that the natural
/// order of names is that of the frames even if the clock was set between runs.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: outlierd collect -o normal --count 500 --every 2s")]
pub struct Args {
    #[command(flatten)]
    from: camera::From,
    /// Folder for the pictures; made if it is not there
    #[arg(short, long, value_name = "DIR")]
    output: PathBuf,
    /// How many pictures; without it, until SIGINT
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// Time from picture to picture [default: the config's interval]
    #[arg(long, value_name = "DUR", value_parser = config::parse_duration)]
    every: Option<Duration>,
}

pub fn run(args: Args) -> Result<ExitCode, Error> {
    let stop = common::stop_flag()?;
    let config = args.from.camera()?;
    common::make_folder(&args.output)?;
    let mut source = camera::open(&config)?;
    common::print(format!("{} into {}", source.describe(), args.output.display()))?;
    let every = args.every.unwrap_or(config.interval);
    let bar = common::progress("pictures", args.count.unwrap_or(0) as usize);
    let first = next_number(&args.output)?;
    let mut saved = 0;
    let mut tick = Instant::now();
    while args.count.is_none_or(|count| saved < count) && !stop.load(Ordering::Relaxed) {
        let left = tick.saturating_duration_since(Instant::now());
        if !left.is_zero() {
            std::thread::sleep(left.min(Duration::from_millis(100)));
            continue;
        }
        let Some(frame) = camera::next_or_end(&mut source)? else { break };
        let time: String = format_time(SystemTime::now()).chars().filter(char::is_ascii_alphanumeric).collect();
        camera::save(&frame.picture, &args.output.join(format!("{:06}-{time}.jpg", first + saved)))?;
        saved += 1;
        bar.inc(1);
        tick = (tick + every).max(Instant::now());
    }
    bar.finish_and_clear();
    let pictures = common::count(saved as usize, "picture");
    let output = args.output.display();
    if saved == 0 {
        return Err(Error::new(exit::NOINPUT, format!("no picture came into {output}")));
    }
    let masks = match config.mask.is_empty() {
        true => String::new(),
        false => format!(" --config {}", args.from.config.display()),
    };
    common::print(format!("{pictures} in {output}; next: outlierd fit --normal {output}{masks} -o model.outlierd"))?;
    Ok(ExitCode::SUCCESS)
}

/// Higher numbers are not from this command.
const MOST: u64 = 1_000_000_000_000;

/// One more than the highest number at the start of a name in the folder.
fn next_number(folder: &Path) -> Result<u64, Error> {
    let cannot = |e| Error::new(exit::NOINPUT, format!("cannot read {}: {e}", folder.display()));
    let mut next = 0;
    for entry in std::fs::read_dir(folder).map_err(cannot)? {
        let name = entry.map_err(cannot)?.file_name();
        let number = name.to_str().and_then(|name| name.split_once('-')).and_then(|(number, _)| number.parse().ok());
        next = next.max(number.filter(|number| *number < MOST).map_or(0, |number: u64| number + 1));
    }
    Ok(next)
}
