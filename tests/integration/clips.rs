//! The frames before and after a raise: which are kept, as what, and that programs open them.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use image::{Rgb, RgbImage};
use outlierd::internals::camera;
use outlierd::internals::config::Config;
use outlierd::internals::image::jpeg;
use outlierd::internals::model::Verdict;
use outlierd::internals::watch::events::{self, Event, Kind};
use outlierd::internals::watch::service::Notifier;
use outlierd::internals::watch::{Judge, JudgeError, Watch};

use crate::common::daemon::{PATIENCE, Place, outlierd, text, world};

/// Whatever comes, however slow the machine is.
const ALL: &str = "[clips]\nbefore = \"5m\"\nafter = \"5m\"\nmax-rate = 120.0\n";

/// Dark pictures are inliers.
struct Brightness;

impl Judge for Brightness {
    fn judge(&mut self, picture: &RgbImage, threshold: f64) -> Result<Verdict, JudgeError> {
        let p = 1.0 - f64::from(picture.get_pixel(0, 0).0[0]) / 255.0;
        Ok(Verdict::of(p * 10.0, p, threshold))
    }

    fn threshold(&self) -> f64 {
        0.5
    }

    fn model_name(&self) -> &str {
        "brightness"
    }
}

/// `.` inlier, `o` outlier: 32 x 24 pixels that no other picture has.
fn picture(number: usize, kind: char) -> RgbImage {
    let level = if kind == 'o' { 240 } else { 20 };
    RgbImage::from_fn(32, 24, |x, y| match y {
        0..12 => Rgb([level, 0, 0]),
        _ => Rgb([(number * 11) as u8, x as u8 * 8, 0]),
    })
}

/// Watches a folder of pictures; returns its files in order, and the log.
fn watch(dir: &Path, frames: &str, extension: &str, camera: &str, more: &str) -> (Vec<PathBuf>, Vec<Event>) {
    let folder = dir.join("frames");
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir(&folder).unwrap();
    let mut files = Vec::new();
    for (number, kind) in frames.chars().enumerate() {
        files.push(folder.join(format!("{number:05}.{extension}")));
        picture(number, kind).save(&files[number]).unwrap();
    }
    let text = format!(
        "[camera]\nsource = \"folder:{0}/frames\"\ninterval = \"20ms\"\n{camera}\n[model]\npath = \"m\"\n\
         [events]\nlog = \"{0}/events.jsonl\"\nsnapshots = \"{0}/snapshots\"\n{more}",
        dir.display()
    );
    let config = Config::parse(&dir.join("o.toml"), &text).unwrap();
    config.check().unwrap();
    let (_keep, commands) = channel();
    let watch = Watch {
        config,
        judge: Brightness,
        open_camera: Box::new(camera::open),
        reload: Box::new(|| Err("not in this test".into())),
        observe: None,
    };
    watch.run(&commands, &mut Notifier::from_env()).unwrap();
    let events = events::read(&dir.join("events.jsonl")).unwrap();
    // A slow disk may hold the thread that writes up for longer than a daemon waits for it.
    let started = Instant::now();
    while events.iter().filter_map(|event| event.clip.as_ref()).any(|clip| !clip.exists()) {
        assert!(started.elapsed() < PATIENCE, "no clip");
        std::thread::sleep(Duration::from_millis(20));
    }
    (files, events)
}

fn of(events: &[Event], kind: Kind) -> Vec<&Event> {
    events.iter().filter(|event| event.event == kind).collect()
}

/// The frames of a clip; there is nothing else in it but the movie and the page.
fn frames(clip: &Path) -> Vec<Vec<u8>> {
    let mut names: Vec<PathBuf> = std::fs::read_dir(clip).unwrap().map(|entry| entry.unwrap().path()).collect();
    names.sort();
    let (frames, others): (Vec<_>, Vec<_>) = names.into_iter().partition(|path| path.extension().unwrap() == "jpg");
    let others: Vec<_> = others.iter().map(|path| path.file_name().unwrap().to_str().unwrap()).collect();
    assert_eq!(others, ["clip.avi", "index.html"]);
    let expected: Vec<PathBuf> = (1..=frames.len()).map(|number| clip.join(format!("{number:05}.jpg"))).collect();
    assert_eq!(frames, expected);
    frames.iter().map(|path| std::fs::read(path).unwrap()).collect()
}

/// What ffmpeg finds in a movie: codec, size, frames; None, and a line that names the test, where there is no ffmpeg.
fn probed(test: &str, clip: &Path) -> Option<String> {
    let movie = clip.join("clip.avi");
    let probe = ["-v", "error", "-count_frames", "-of", "csv=p=0", "-show_entries"];
    let shown = "stream=codec_name,width,height,nb_read_frames";
    let output = match Command::new("ffprobe").args(probe).arg(shown).arg(&movie).output() {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            println!("SKIPPED {test}: no ffprobe");
            return None;
        }
        output => output.unwrap(),
    };
    assert_eq!(text(&output.stderr), "");
    // It decodes all of it, too, and finds nothing to complain of.
    let decoded = Command::new("ffmpeg").args(["-v", "warning", "-i"]).arg(&movie).args(["-f", "null", "-"]).output();
    assert_eq!(text(&decoded.unwrap().stderr), "");
    Some(text(&output.stdout).trim().to_owned())
}

#[test]
fn a_clip_has_the_camera_s_own_jpegs_in_their_order_and_players_open_it() {
    let dir = tempfile::tempdir().unwrap();
    let (files, events) = watch(dir.path(), "......ooooo......", "jpg", "", ALL);
    let (raise, clear) = (of(&events, Kind::Raise)[0], of(&events, Kind::Clear)[0]);
    let clip = raise.clip.clone().unwrap();
    assert_eq!(clip, dir.path().join(format!("snapshots/clip-{}", raise.id.as_ref().unwrap())));
    assert_eq!(clear.clip.as_ref(), Some(&clip));
    assert_eq!(of(&events, Kind::Error).len(), 0, "{events:?}");
    let files: Vec<Vec<u8>> = files.iter().map(|path| std::fs::read(path).unwrap()).collect();
    let kept: Vec<usize> = frames(&clip)
        .iter()
        .map(|frame| files.iter().position(|file| file == frame).expect("not of the camera"))
        .collect();
    assert!(kept.is_sorted(), "{kept:?}");
    // A frame that comes too soon after another may be missing; the one that raised may not.
    assert!(kept.contains(&8) && kept[0] == 0, "{kept:?}");
    let test = "a_clip_has_the_camera_s_own_jpegs_in_their_order_and_players_open_it";
    if let Some(found) = probed(test, &clip) {
        assert_eq!(found, format!("mjpeg,32,24,{}", kept.len()));
    }
}

#[test]
fn without_the_section_the_log_has_no_such_key() {
    let dir = tempfile::tempdir().unwrap();
    watch(dir.path(), "...ooo.....", "jpg", "", "");
    assert!(!std::fs::read_to_string(dir.path().join("events.jsonl")).unwrap().contains("clip"));
    let names = std::fs::read_dir(dir.path().join("snapshots")).unwrap();
    assert!(names.map(|entry| entry.unwrap().file_name()).all(|name| !name.to_str().unwrap().contains("clip")));
}

#[test]
fn what_is_no_jpeg_is_encoded() {
    let dir = tempfile::tempdir().unwrap();
    let (files, events) = watch(dir.path(), "..ooo.", "png", "", ALL);
    let clip = of(&events, Kind::Raise)[0].clip.clone().unwrap();
    let encoded = |path: &PathBuf| jpeg::encode(&outlierd::internals::image::read(path).unwrap(), 80).unwrap();
    let files: Vec<Vec<u8>> = files.iter().map(encoded).collect();
    assert!(frames(&clip).iter().all(|frame| files.contains(frame)));
}

/// As in snapshots, what lies outside of the crop is not to be seen, and what lies under a mask is.
#[test]
fn a_crop_holds_for_clips_and_a_mask_hides_nothing_from_them() {
    let dir = tempfile::tempdir().unwrap();
    let (_, events) = watch(dir.path(), "..ooo.", "jpg", "crop = [0, 0, 20, 12]", ALL);
    let clip = of(&events, Kind::Raise)[0].clip.clone().unwrap();
    for frame in frames(&clip) {
        assert_eq!(jpeg::decode(&frame, |_, _| true).unwrap().dimensions(), (20, 12));
    }
    let mask = "[[camera.mask]]\npolygon = [[0.0, 0.6], [1.0, 0.6], [1.0, 1.0], [0.0, 1.0]]\n";
    let (files, events) = watch(dir.path(), "..ooo.", "jpg", mask, ALL);
    let raise = *of(&events, Kind::Raise).last().unwrap();
    let files: Vec<Vec<u8>> = files.iter().map(|path| std::fs::read(path).unwrap()).collect();
    assert!(frames(raise.clip.as_ref().unwrap()).iter().all(|frame| files.contains(frame)));
    let snapshot = outlierd::internals::image::read(raise.snapshot.as_ref().unwrap()).unwrap();
    let stripes: Vec<u8> = (0..32).map(|x| snapshot.get_pixel(x, 20).0[1]).collect();
    assert!(stripes.windows(2).any(|pair| pair[0] > pair[1]) && stripes.windows(2).any(|pair| pair[0] < pair[1]));
}

/// A picture of the world that is an inlier beyond doubt and one that is an outlier, as JPEGs.
fn extremes(folder: &Path) -> [Vec<u8>; 2] {
    let mut score = outlierd();
    score.args(["score", "--json", "--model"]).arg(world().join("model.outlierd"));
    for entry in std::fs::read_dir(world().join("frames")).unwrap() {
        let path = entry.unwrap().path();
        let jpeg = jpeg::encode(&outlierd::internals::image::read(&path).unwrap(), 98).unwrap();
        let written = folder.join(path.with_extension("jpg").file_name().unwrap());
        std::fs::write(&written, jpeg).unwrap();
        score.arg(written);
    }
    let scored = text(&score.output().unwrap().stdout);
    let rows = scored.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let mut rows: Vec<(f64, PathBuf)> =
        rows.map(|row| (row["p"].as_f64().unwrap(), row["path"].as_str().unwrap().into())).collect();
    rows.sort_by(|a, b| b.0.total_cmp(&a.0));
    [&rows[0].1, &rows[rows.len() - 1].1].map(|path| std::fs::read(path).unwrap())
}

#[test]
fn the_daemon_keeps_the_frames_of_a_stream_around_a_raise() {
    let place = Place::unconfigured();
    let fifo = place.path("fifo");
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    let text = format!(
        "[camera]\nsource = \"pipe:{}\"\ninterval = \"20ms\"\n[model]\npath = {:?}\nthreads = 1\n\
         [events]\nlog = {:?}\nsnapshots = {:?}\n[clips]\nbefore = \"5m\"\nafter = \"100ms\"\nmax-rate = 120.0\n",
        fifo.display(),
        place.model,
        place.log,
        place.snapshots
    );
    std::fs::write(place.path("o.toml"), text).unwrap();
    let jpegs = extremes(place.dir.path());
    let (shown, fed) = (Arc::new(AtomicUsize::new(0)), jpegs.clone());
    let which = Arc::clone(&shown);
    // It ends with the daemon, which it writes to.
    std::thread::spawn(move || {
        let mut writer = std::fs::OpenOptions::new().write(true).open(&fifo).unwrap();
        while writer.write_all(&fed[which.load(Ordering::Relaxed)]).is_ok() {
            std::thread::sleep(Duration::from_millis(5));
        }
    });
    let daemon = place.spawn();
    daemon.notified_of("normal frames", |notice| notice.contains("STATUS=normal"));
    shown.store(1, Ordering::Relaxed);
    daemon.wait_for("raise", |events| events.iter().any(|event| event.event == Kind::Raise));
    let raise = events::read(&place.log).unwrap().into_iter().find(|event| event.event == Kind::Raise).unwrap();
    let clip = raise.clip.unwrap();
    daemon.notified_of("the clip", |_| clip.exists());
    assert_eq!(daemon.stop(rustix::process::Signal::TERM), 0);
    let (kept, [normal, outlier]) = (frames(&clip), jpegs);
    assert!(kept.is_sorted_by_key(|frame| *frame == outlier), "{}", kept.len());
    assert!(kept.first() == Some(&normal) && kept.last() == Some(&outlier));
    if let Some(found) = probed("the_daemon_keeps_the_frames_of_a_stream_around_a_raise", &clip) {
        assert!(found.starts_with("mjpeg,") && found.ends_with(&format!(",{}", kept.len())), "{found}");
    }
}

#[test]
fn check_says_what_is_kept() {
    let place = Place::new("", "[clips]\nbefore = \"3s\"\n");
    let checked = place.run(&["check"]);
    let said = text(&checked.stdout);
    assert!(said.contains("clips     ok    3s before and 5s after a raise, at most 5 frames a second, 8 MB"), "{said}");
    let place = Place::new("", "");
    assert!(!text(&place.run(&["check"]).stdout).contains("clips"));
}
