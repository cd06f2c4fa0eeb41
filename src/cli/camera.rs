//! `camera list` and `camera snap`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use ::image::RgbImage;

use super::common;
use super::error::{Error, exit};
use crate::camera::csi::{self, Connected};
use crate::camera::v4l::{self, Listed};
use crate::camera::{self, Frame, FrameSource};
use crate::config::{self, Config, Source};
use crate::image::jpeg;

/// How long a camera may take for a picture.
const PATIENCE: Duration = Duration::from_secs(10);

/// Lists cameras, or takes one picture.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: outlierd camera list")]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    List(ListArgs),
    Snap(SnapArgs),
}

/// Lists devices with formats, sizes, rates and controls, and the cameras at the board's camera connectors.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: outlierd camera list --json")]
struct ListArgs {
    /// One JSON object a device
    #[arg(long)]
    json: bool,
}

/// Takes one picture as the daemon would see it: format, crop and controls of the config. Masked parts are hatched.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: outlierd camera snap --device /dev/video0 -o picture.jpg")]
struct SnapArgs {
    #[command(flatten)]
    from: From,
    /// Where the picture goes: .jpg, .png, .bmp or .webp
    #[arg(short, long, value_name = "PIC")]
    output: PathBuf,
}

/// Which camera: the config's, or a device by its path.
#[derive(Debug, Clone, clap::Args)]
pub struct From {
    /// Config file
    #[arg(short, long, value_name = "FILE", default_value = config::DEFAULT_PATH)]
    pub(super) config: PathBuf,
    /// A device (/dev/video0) or source (folder:/path) instead of the config's; without a config file the
    /// defaults of [camera] hold
    #[arg(short, long, value_name = "SOURCE")]
    device: Option<String>,
}

impl From {
    /// The [camera] section. The rest of the config may be incomplete: pictures are collected before there is a model.
    pub fn camera(&self) -> Result<config::Camera, Error> {
        let mut camera = match Config::read(&self.config) {
            Err(config::Error::Io { source, .. })
                if source.kind() == std::io::ErrorKind::NotFound && self.device.is_some() =>
            {
                config::Camera::default()
            }
            Err(config::Error::Io { path, source }) => {
                let path = path.display();
                let message =
                    format!("cannot read {path}: {source}; name a config with -c FILE or a camera with --device");
                return Err(Error::new(exit::CONFIG, message));
            }
            config => {
                let config = config?;
                config.check_camera()?;
                config.camera
            }
        };
        if let Some(device) = &self.device {
            camera.source = match device.contains(':') && !device.starts_with('/') {
                true => device.parse().map_err(|e| Error::new(exit::USAGE, e))?,
                false => Source::V4l(device.into()),
            };
        }
        Ok(camera)
    }
}

pub fn run(args: Args) -> Result<ExitCode, Error> {
    match args.action {
        Action::List(args) => list(&args),
        Action::Snap(args) => snap(&args),
    }
}

fn list(args: &ListArgs) -> Result<ExitCode, Error> {
    let (mut found, mut connector) = (0, false);
    for listed in v4l::list() {
        match listed {
            Ok(listed) => {
                connector |= csi::is_connector(&listed.driver);
                if args.json { common::print_json(&listed)? } else { print_device(&listed)? }
            }
            Err(error) => {
                common::complain(&error);
                continue;
            }
        }
        found += 1;
    }
    match csi::list() {
        Some(Ok(cameras)) => {
            for camera in &cameras {
                if args.json { common::print_json(camera)? } else { print_connected(camera)? }
            }
            found += cameras.len();
        }
        Some(Err(error)) => common::complain(&error),
        None if connector => {
            common::complain(
                &"this board has a camera connector: `sudo apt install rpicam-apps`, and the list names its cameras",
            );
        }
        None => {}
    }
    if found == 0 {
        let message = "no camera found: is it plugged in (lsusb, v4l2-ctl --list-devices), and its driver loaded?";
        return Err(Error::new(exit::NOINPUT, message));
    }
    Ok(ExitCode::SUCCESS)
}

fn print_device(listed: &Listed) -> Result<(), Error> {
    common::print(format!("{}  {} ({})", listed.path, listed.card, listed.driver))?;
    for format in &listed.formats {
        let note = if format.readable { "" } else { "  (not read by outlierd)" };
        common::print(format!("  {}{note}", format.format))?;
        for size in &format.sizes {
            let rates: Vec<String> = size.rates.iter().map(f64::to_string).collect();
            let rates = if rates.is_empty() { String::new() } else { format!("  {} frames/s", rates.join(", ")) };
            common::print(format!("    {:<12}{rates}", size.size))?;
        }
    }
    for control in &listed.controls {
        let (low, high, default) = (control.minimum, control.maximum, control.default);
        common::print(format!("  {} = {low}..{high}, default {default}", control.name))?;
    }
    Ok(())
}

fn print_connected(camera: &Connected) -> Result<(), Error> {
    let Connected { camera: number, model, sensor, id, service, source } = camera;
    common::print(format!("camera connector {number}  {model} ({sensor}, {id})"))?;
    if *number > 0 {
        let name = service.trim_start_matches("outlierd-camera@").trim_end_matches(".service");
        common::print(format!("  echo CAMERA={number} | sudo tee {}/{name}.camera", config::FOLDER))?;
    }
    common::print(format!("  sudo systemctl enable --now {service}\n  and in the config: source = {source:?}"))
}

fn snap(args: &SnapArgs) -> Result<ExitCode, Error> {
    let config = args.from.camera()?;
    let mut source = open(&config)?;
    let frame = next(&mut source)?;
    save(&config.mask.hatch(&frame.picture), &args.output)?;
    let (width, height) = frame.picture.dimensions();
    common::print(format!("{}: {width}x{height} from {}", args.output.display(), source.describe()))?;
    Ok(ExitCode::SUCCESS)
}

pub(super) fn open(config: &config::Camera) -> Result<Box<dyn FrameSource>, Error> {
    camera::open(config).map_err(|e| Error::new(exit::NOINPUT, e))
}

/// The next usable frame.
pub(super) fn next(source: &mut impl FrameSource) -> Result<Frame, Error> {
    match next_or_end(source)? {
        Some(frame) => Ok(frame),
        None => Err(Error::new(exit::NOINPUT, format!("{}: no picture is left", source.describe()))),
    }
}

/// The next usable frame, or the end of a folder.
pub(super) fn next_or_end(source: &mut impl FrameSource) -> Result<Option<Frame>, Error> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match source.next(deadline) {
            Ok(frame) => return Ok(frame),
            Err(e @ camera::Error::Dropped { .. }) if Instant::now() < deadline => log::warn!("{e}"),
            Err(e) => return Err(Error::new(exit::NOINPUT, e)),
        }
    }
}

pub(super) fn save(picture: &RgbImage, path: &Path) -> Result<(), Error> {
    let format = ::image::ImageFormat::from_path(path)
        .map_err(|_| common::cannot_write(path, "end its name in .jpg, .png, .bmp or .webp"))?;
    let encoded = match format {
        ::image::ImageFormat::Jpeg => jpeg::encode(picture, 95),
        format => {
            let mut bytes = std::io::Cursor::new(Vec::new());
            picture.write_to(&mut bytes, format).map(|()| bytes.into_inner())
        }
    };
    common::write(path, &encoded.map_err(|e| common::cannot_write(path, e))?)
}
