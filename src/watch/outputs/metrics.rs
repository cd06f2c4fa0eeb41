//! Figures of the running daemon, and the text file that a Prometheus node exporter reads them from
//! (`--collector.textfile.directory`). There is no HTTP server.
//!
//! Format: Prometheus' text exposition format 0.0.4. Units are seconds, bytes, degrees Celsius. Every name begins with
//! `outlierd_` and every sample has the label `instance`: an exporter takes files that share a sample for none.

use std::fmt::Write as _;
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use super::output::{Failure, Output};
use crate::config::Config;
use crate::fs::{self, Locked, Replacement};
use crate::watch::events::Kind;
use crate::watch::frame::status::Status;
use crate::watch::service::remedy;

/// The file is written this often at most.
const EVERY: Duration = Duration::from_secs(1);
/// Upper bounds of the latency's buckets, in seconds.
const BUCKETS: [f64; 13] = [0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1.0, 2.5, 5.0];
const THERMAL: &str = "/sys/class/thermal";

/// The metrics file and what it counts. A new figure is a line in [`Metrics::render`].
#[derive(Debug)]
pub struct Metrics {
    /// None: there is no file.
    path: Option<PathBuf>,
    tried: Option<Instant>,
    failed: bool,
    /// What was written last, locked for as long as it is open.
    written: Option<Locked>,
    events: [u64; Kind::ALL.len()],
    hook_failures: u64,
    frame_seconds: Histogram,
    started: SystemTime,
    instance: String,
}

impl Metrics {
    pub fn new(path: Option<&Path>, instance: &str, started: SystemTime) -> Self {
        Metrics {
            path: path.map(Path::to_owned),
            tried: None,
            failed: false,
            written: None,
            events: [0; Kind::ALL.len()],
            hook_failures: 0,
            frame_seconds: Histogram::default(),
            started,
            instance: instance.to_owned(),
        }
    }

    /// Counts an event of the log.
    pub fn count_event(&mut self, kind: Kind) {
        for (known, count) in Kind::ALL.iter().zip(&mut self.events) {
            *count += u64::from(*known == kind);
        }
    }

    /// Counts a run of the hook that failed, or an event that it was not given.
    pub fn count_hook_failure(&mut self) {
        self.hook_failures += 1;
    }

    /// Counts how long a frame took to be judged.
    pub fn observe_frame(&mut self, took: Duration) {
        self.frame_seconds.observe(took.as_secs_f64());
    }

    /// Replaces the file, if there is one. A failure is reported once, until it has worked again.
    fn write(&mut self, status: &Status, now: Instant) -> Option<Failure> {
        let path = self.path.clone()?;
        self.tried = Some(now);
        let written = self.replace(&path, self.render(status).as_bytes());
        match (&written, std::mem::replace(&mut self.failed, written.is_err())) {
            (Err(e), false) => {
                let path = path.display();
                Some(Failure::Announced(format!("cannot write the metrics file {path}: {e}{}", remedy(e))))
            }
            (Ok(()), true) => {
                log::info!("the metrics file {} can be written again", path.display());
                None
            }
            _ => None,
        }
    }

    /// Not synced: after a power cut figures of the second before are worth nothing, and a sync each second would wear
    /// out a memory card. The mode is set because an exporter is another user, whatever the umask.
    fn replace(&mut self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        if self.is_another_s(path) {
            let reason = "another outlierd that is running writes it; give each config its own events.metrics";
            return Err(io::Error::new(io::ErrorKind::ResourceBusy, reason));
        }
        self.written = Some(fs::replace_as(path, bytes, Replacement::Volatile { mode: 0o644 })?);
        Ok(())
    }

    fn is_another_s(&self, path: &Path) -> bool {
        let identity = |file: &File| file.metadata().ok().map(|metadata| (metadata.dev(), metadata.ino()));
        let Ok(there) = fs::open(path) else { return false };
        let own = self.written.as_ref().is_some_and(|written| identity(written.file()) == identity(&there));
        !own && Locked::new(there).is_none()
    }

    /// The text of the whole file.
    fn render(&self, status: &Status) -> String {
        let mut text = Text { text: String::new(), instance: &self.instance };
        text.counter("outlierd_frames_total", "Frames judged.", status.summary.frames);
        text.counter(
            "outlierd_frames_dropped_total",
            "Frames that could not be read or judged.",
            status.summary.dropped,
        );
        let help = "Frames that looked like the last judged one and were not judged again.";
        text.counter("outlierd_frames_skipped_total", help, status.summary.skipped);
        text.family("outlierd_events_total", "counter", "Events by kind.");
        for (kind, count) in Kind::ALL.iter().zip(self.events) {
            text.sample("outlierd_events_total", &[("event", kind.name())], count as f64);
        }
        let help = "Hook runs that failed, and events that the hook was not given.";
        text.counter("outlierd_hook_failures_total", help, self.hook_failures);
        text.gauge("outlierd_p", "p of the latest judged frame; an outlier has p < threshold.", status.p());
        let flag = |set: bool| f64::from(u8::from(set));
        text.gauge("outlierd_outlier", "1 while an event stands.", Some(flag(status.raised)));
        text.gauge("outlierd_threshold", "The threshold that p is compared with.", Some(status.threshold.value));
        text.gauge("outlierd_camera_up", "1 while the camera gives frames.", Some(flag(status.camera_up)));
        let help = "1 while a drift event stands; absent where drift is not watched for.";
        text.gauge("outlierd_drift", help, status.drift.map(flag));
        let help = "Share of calibration's normals that normal frames score above, mean of the latest whole window \
                    of drift; 0.5 is no drift, drift.mean-p the limit.";
        text.gauge("outlierd_drift_mean_rank", help, status.drift_finding.map(|finding| finding.rank));
        let help = "Mean p of the normal frames in the latest whole window of drift.";
        text.gauge("outlierd_drift_mean_p", help, status.drift_finding.map(|finding| finding.p));
        text.histogram("outlierd_frame_seconds", "Time to judge a frame.", &self.frame_seconds);
        text.temperatures(Path::new(THERMAL));
        text.gauge("outlierd_resident_memory_bytes", "Resident memory.", memory_bytes("VmRSS").map(|b| b as f64));
        text.gauge("outlierd_open_fds", "Open file descriptors.", open_fds());
        let started = self.started.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        text.gauge("outlierd_start_time_seconds", "When the daemon started, since 1970.", Some(started));
        text.family("outlierd_build_info", "gauge", "Always 1; the labels say what runs.");
        let labels = [("version", env!("CARGO_PKG_VERSION")), ("arch", std::env::consts::ARCH)];
        text.sample("outlierd_build_info", &labels, 1.0);
        text.text
    }
}

impl Output for Metrics {
    fn reconfigure(&mut self, config: &Config) -> Result<Vec<Failure>, String> {
        if config.events.metrics != self.path {
            self.path.clone_from(&config.events.metrics);
            (self.tried, self.failed, self.written) = (None, false, None);
        }
        Ok(Vec::new())
    }

    /// Writes the file when it is due.
    fn attend(&mut self, status: &Status) -> Vec<Failure> {
        let now = Instant::now();
        let failure = if self.due().is_none_or(|due| now >= due) { self.write(status, now) } else { None };
        failure.into_iter().collect()
    }

    fn due(&self) -> Option<Instant> {
        self.path.as_ref().and(self.tried).map(|at| at + EVERY)
    }

    fn finish(&mut self, status: &Status) -> Vec<Failure> {
        self.write(status, Instant::now()).into_iter().collect()
    }
}

/// Counts of values at most a bucket's bound, their sum, and their number.
#[derive(Debug, Clone, Default)]
struct Histogram {
    counts: [u64; BUCKETS.len()],
    sum: f64,
    count: u64,
}

impl Histogram {
    fn observe(&mut self, value: f64) {
        if let Some(at) = BUCKETS.iter().position(|bound| value <= *bound) {
            self.counts[at] += 1;
        }
        self.sum += value;
        self.count += 1;
    }
}

/// The exposition format under construction.
#[derive(Debug)]
struct Text<'a> {
    text: String,
    instance: &'a str,
}

impl Text<'_> {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a string cannot fail.
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: f64) {
        self.text.push_str(name);
        for (at, (label, value)) in labels.iter().chain([&("instance", self.instance)]).enumerate() {
            let escaped = value.replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n");
            let _ = write!(self.text, "{}{label}=\"{escaped}\"", if at == 0 { '{' } else { ',' });
        }
        let _ = writeln!(self.text, "}} {}", number(value));
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) {
        self.family(name, "counter", help);
        self.sample(name, &[], value as f64);
    }

    /// A gauge without a value is left out.
    fn gauge(&mut self, name: &str, help: &str, value: Option<f64>) {
        if let Some(value) = value {
            self.family(name, "gauge", help);
            self.sample(name, &[], value);
        }
    }

    fn histogram(&mut self, name: &str, help: &str, histogram: &Histogram) {
        self.family(name, "histogram", help);
        let bucket = format!("{name}_bucket");
        let mut below = 0;
        for (bound, count) in BUCKETS.iter().zip(histogram.counts) {
            below += count;
            self.sample(&bucket, &[("le", &number(*bound))], below as f64);
        }
        self.sample(&bucket, &[("le", "+Inf")], histogram.count as f64);
        self.sample(&format!("{name}_sum"), &[], histogram.sum);
        self.sample(&format!("{name}_count"), &[], histogram.count as f64);
    }

    /// What the board's sensors say, if it has any.
    fn temperatures(&mut self, folder: &Path) {
        let mut found = Vec::new();
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let read = |name: &str| fs::read_text(&entry.path().join(name), MAX_PROC).ok();
            let (Some(zone), Some(millidegrees)) = (entry.file_name().to_str().map(str::to_owned), read("temp")) else {
                continue;
            };
            if let Ok(millidegrees) = millidegrees.trim().parse::<f64>() {
                let kind = read("type").unwrap_or_default().trim().to_owned();
                found.push((zone, kind, millidegrees / 1000.0));
            }
        }
        if found.is_empty() {
            return;
        }
        found.sort_by(|a, b| a.0.cmp(&b.0));
        self.family("outlierd_temperature_celsius", "gauge", "The board's temperature sensors.");
        for (zone, kind, celsius) in &found {
            self.sample("outlierd_temperature_celsius", &[("zone", zone), ("type", kind)], *celsius);
        }
    }
}

fn number(value: f64) -> String {
    match value {
        f64::INFINITY => "+Inf".into(),
        f64::NEG_INFINITY => "-Inf".into(),
        value => value.to_string(),
    }
}

/// The kernel's files are shorter.
const MAX_PROC: u64 = 64 << 10;

/// A size of this process from `/proc/self/status`, in bytes: `VmRSS` is resident, `VmHWM` the largest that was.
pub fn memory_bytes(field: &str) -> Option<u64> {
    let status = fs::read_text(Path::new("/proc/self/status"), MAX_PROC).ok()?;
    let kib = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))?;
    Some(kib.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

/// Less the one that the count itself opens.
fn open_fds() -> Option<f64> {
    Some(std::fs::read_dir("/proc/self/fd").ok()?.count().saturating_sub(1) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Verdict;
    use crate::watch::frame::status::{Latest, Summary};

    fn status(frames: u64) -> Status {
        Status {
            latest: Some(Latest { verdict: Verdict::of(1.0, 0.5, 0.0), at: Instant::now(), period: 0.0 }),
            summary: Summary { frames, ..Summary::default() },
            ..Status::default()
        }
    }

    #[test]
    fn buckets_are_cumulative_and_bounds_inclusive() {
        let mut metrics = Metrics::new(None, "door", SystemTime::UNIX_EPOCH);
        for millis in [10, 11, 60, 400, 60_000] {
            metrics.observe_frame(Duration::from_millis(millis));
        }
        let text = metrics.render(&status(5));
        for line in [
            "outlierd_frame_seconds_bucket{le=\"0.01\",instance=\"door\"} 1\n",
            "outlierd_frame_seconds_bucket{le=\"0.025\",instance=\"door\"} 2\n",
            "outlierd_frame_seconds_bucket{le=\"0.3\",instance=\"door\"} 3\n",
            "outlierd_frame_seconds_bucket{le=\"5\",instance=\"door\"} 4\n",
            "outlierd_frame_seconds_bucket{le=\"+Inf\",instance=\"door\"} 5\n",
            "outlierd_frame_seconds_count{instance=\"door\"} 5\n",
            "outlierd_frames_total{instance=\"door\"} 5\n",
            "outlierd_p{instance=\"door\"} 0.5\n",
            "outlierd_start_time_seconds{instance=\"door\"} 0\n",
        ] {
            assert!(text.contains(line), "{line}{text}");
        }
    }

    #[test]
    fn labels_are_escaped_and_missing_values_left_out() {
        let mut text = Text { text: String::new(), instance: "d\"" };
        text.sample("a", &[("b", "x\\y\"z\nw")], f64::INFINITY);
        assert_eq!(text.text, "a{b=\"x\\\\y\\\"z\\nw\",instance=\"d\\\"\"} +Inf\n");
        assert!(!Metrics::new(None, "door", SystemTime::now()).render(&Status::default()).contains("\noutlierd_p"));
    }

    #[test]
    fn sensors_that_cannot_be_read_are_left_out() {
        let dir = tempfile::tempdir().unwrap();
        for (zone, temp) in [("thermal_zone1", "61234\n"), ("thermal_zone0", "-500\n"), ("cooling_device0", "")] {
            std::fs::create_dir(dir.path().join(zone)).unwrap();
            std::fs::write(dir.path().join(zone).join("type"), "cpu\n").unwrap();
            std::fs::write(dir.path().join(zone).join("temp"), temp).unwrap();
        }
        let mut text = Text { text: String::new(), instance: "door" };
        text.temperatures(dir.path());
        let samples: Vec<&str> = text.text.lines().skip(2).collect();
        assert_eq!(
            samples,
            [
                "outlierd_temperature_celsius{zone=\"thermal_zone0\",type=\"cpu\",instance=\"door\"} -0.5",
                "outlierd_temperature_celsius{zone=\"thermal_zone1\",type=\"cpu\",instance=\"door\"} 61.234"
            ]
        );
    }

    #[test]
    fn a_failure_is_reported_once_until_it_works_again() {
        let dir = tempfile::tempdir().unwrap();
        let mut metrics = Metrics::new(Some(&dir.path().join("sub/m.prom")), "door", SystemTime::now());
        let status = status(1);
        let now = Instant::now();
        assert!(metrics.write(&status, now).is_some());
        assert_eq!(metrics.write(&status, now), None);
        assert_eq!(metrics.due(), Some(now + EVERY));
        std::fs::create_dir(dir.path().join("sub")).unwrap();
        assert_eq!(metrics.write(&status, now), None);
        assert_eq!(std::fs::read_dir(dir.path().join("sub")).unwrap().count(), 1);
        std::fs::remove_dir_all(dir.path().join("sub")).unwrap();
        assert!(metrics.write(&status, now).is_some());
    }

    /// The node exporter has metrics of its own under these names, and drops files that have them too.
    #[test]
    fn every_name_is_our_own() {
        let mut metrics = Metrics::new(None, "door", SystemTime::now());
        metrics.observe_frame(Duration::from_millis(1));
        for line in metrics.render(&status(1)).lines().filter(|line| !line.starts_with('#')) {
            assert!(line.starts_with("outlierd_") && line.contains("instance=\"door\"} "), "{line}");
        }
    }

    #[test]
    fn two_daemons_do_not_replace_each_other_s_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("m.prom");
        let now = Instant::now();
        let [mut first, mut second] =
            ["door", "hive"].map(|instance| Metrics::new(Some(&path), instance, SystemTime::now()));
        let is_of = |instance: &str| std::fs::read_to_string(&path).unwrap().contains(&format!("\"{instance}\""));
        assert_eq!(first.write(&status(1), now), None);
        assert_eq!(first.write(&status(2), now), None);
        let Some(Failure::Announced(reason)) = second.write(&status(1), now) else { panic!("it was written") };
        assert!(reason.contains("another outlierd that is running writes it") && is_of("door"), "{reason}");
        drop(first);
        assert_eq!(second.write(&status(1), now), None);
        assert!(is_of("hive"));
    }
}
