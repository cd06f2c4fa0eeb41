//! The cameras at the board's camera connectors, as libcamera's programs list them.

use std::io::{self, Read};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::stream::Feeder;

/// The one program under its names, old and new.
const PROGRAMS: [&str; 2] = ["rpicam-hello", "libcamera-hello"];
/// A program that lists cameras for longer hangs.
const PATIENCE: Duration = Duration::from_secs(20);
const MAX_BYTES: usize = 1 << 20;
/// V4L2's drivers of camera connectors: what these give, only libcamera makes pictures of.
const DRIVERS: [&str; 3] = ["unicam", "bcm2835-unicam", "rp1-cfe"];

/// A camera, and the service that makes a stream of it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Connected {
    /// Its number among libcamera's cameras.
    pub camera: u32,
    pub model: String,
    /// Pixels and bits, as far as it is known.
    pub sensor: String,
    pub id: String,
    pub service: String,
    /// What reads that service's stream.
    pub source: String,
}

/// The cameras; None where no program is installed that lists them.
///
/// # Errors
/// In the program's words.
pub fn list() -> Option<Result<Vec<Connected>, String>> {
    PROGRAMS.into_iter().find_map(|program| match Feeder::start(&[program.into(), "--list-cameras".into()]) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => None,
        Err(e) => Some(Err(format!("{program}: {e}"))),
        Ok((mut feeder, mut output)) => Some(match read(&mut output) {
            Ok(text) if text.contains("No cameras available") => Ok(Vec::new()),
            Ok(text) => match parse(&text) {
                cameras if cameras.is_empty() => Err(format!("no camera is listed: {}", feeder.ended())),
                cameras => Ok(cameras),
            },
            Err(e) => Err(format!("{program} --list-cameras: {e}")),
        }),
    })
}

/// Whether a V4L2 device of this driver is a camera connector.
pub fn is_connector(driver: &str) -> bool {
    DRIVERS.contains(&driver)
}

/// The text until its end.
fn read(output: &mut std::process::ChildStdout) -> io::Result<String> {
    let deadline = Instant::now() + PATIENCE;
    let (mut bytes, mut chunk) = (Vec::new(), [0; 4096]);
    while bytes.len() < MAX_BYTES {
        let left = deadline.saturating_duration_since(Instant::now());
        let left = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
        if poll(&mut [PollFd::new(output, PollFlags::IN)], Some(&left))? == 0 {
            return Err(io::Error::new(io::ErrorKind::TimedOut, format!("no end after {} s", PATIENCE.as_secs())));
        }
        match output.read(&mut chunk)? {
            0 => break,
            count => bytes.extend(&chunk[..count]),
        }
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The lines `0 : imx219 [3280x2464 10-bit RGGB] (/base/soc/i2c0mux/i2c@1/imx219@10)`, but for USB cameras, which V4L2
/// lists too.
fn parse(text: &str) -> Vec<Connected> {
    let camera = |line: &str| {
        let (number, rest) = line.split_once(" : ")?;
        let (model, rest) = rest.split_once(" [")?;
        let (sensor, id) = rest.split_once("] (")?;
        let (camera, id) = (number.trim().parse().ok()?, id.trim_end().strip_suffix(')')?);
        Some(Connected {
            camera,
            model: model.into(),
            sensor: sensor.into(),
            id: id.into(),
            service: format!("outlierd-camera@csi{camera}.service"),
            source: format!("pipe:/run/outlierd-camera/csi{camera}/stream"),
        })
    };
    text.lines().filter_map(camera).filter(|camera: &Connected| !camera.id.contains("/usb@")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of several versions of the program, from its issues: with and without bits, colours, rates, and a webcam.
    #[test]
    fn the_programs_lists_are_read() {
        let text = "Available cameras\n-----------------\n\
            0 : imx477 [4056x3040] (/base/soc/i2c0mux/i2c@1/imx477@1a)\n    \
                Modes: 'SRGGB10_CSI2P' : 1332x990 \n           'SRGGB12_CSI2P' : 2028x1080 2028x1520 4056x3040\n\n\
            1 : imx585 [3840x2160 16-bit RGGB] (/base/axi/pcie@120000/rp1/i2c@80000/imx585@1A)\n    \
                Modes: 'SRGGB12_CSI2P' : 1928x1090 [87.60 fps - (0, 0)/3840x2160 crop]\n    \
                                         3856x2180 [43.80 fps - (0, 0)/3840x2160 crop]\n\n\
            2 : HD Pro Webcam C920 [640x480] (/base/axi/pcie@120000/rp1/usb@300000-1:1.0-046d:082d)\n    \
                Modes: 'MJPEG' : 640x480 [30.00 fps - (0, 0)/0x0 crop]\n";
        let cameras = parse(text);
        let found: Vec<_> = cameras.iter().map(|c| (c.camera, &*c.model, &*c.sensor, &*c.id)).collect();
        assert_eq!(
            found,
            [
                (0, "imx477", "4056x3040", "/base/soc/i2c0mux/i2c@1/imx477@1a"),
                (1, "imx585", "3840x2160 16-bit RGGB", "/base/axi/pcie@120000/rp1/i2c@80000/imx585@1A"),
            ]
        );
        assert_eq!(cameras[1].source, "pipe:/run/outlierd-camera/csi1/stream");
        assert_eq!(parse("No cameras available!\n"), []);
    }
}
