//! What reads bytes of others, one function each, called as the program calls it. The fuzz targets beside this file
//! run them on what libFuzzer makes up, `tests/hostile.rs` on seeds and fixed mutations of them.
//!
//! A target returns whatever the bytes are: a panic, an abort, a sanitizer's report or a time-out is a finding.

use std::io::{Read, Write};
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, UNIX_EPOCH};

use image::RgbImage;
use outlierd::internals::backbone::cells::Cells;
use outlierd::internals::backbone::{Backbone, Options, quantize};
use outlierd::internals::camera::pixels;
use outlierd::internals::config::{Config, PixelFormat, Span};
use outlierd::internals::estimators::conformal::Conformal;
use outlierd::internals::model::{Calibration, FeatureSource, Model, file, learn};
use outlierd::internals::page::{Configs, Page, server};
use outlierd::internals::pictures;
use outlierd::internals::training::features::Cache;
use outlierd::internals::training::{import, npz};
use outlierd::internals::watch::budget::ladder::Ladder;
use outlierd::internals::watch::budget::{Budget, Params};
use outlierd::internals::watch::events::{self, Follow, Kind};
use outlierd::internals::watch::history::{Entry, Reader, Writer, time_of};

pub mod seeds;

/// Networks are run when a frame costs no more multiplications.
const MOST_WORK: u64 = 50_000_000;

/// Bytes with a CRC-32 of all before it as the last four: a damaged one ends most files at once.
fn with_crc(bytes: &[u8]) -> Option<Vec<u8>> {
    let (body, _) = bytes.split_last_chunk::<4>()?;
    Some([body, &crc32fast::hash(body).to_le_bytes()].concat())
}

/// One connection to the web page of a daemon with one event. No form gets through: its token is random.
pub fn page(bytes: &[u8]) {
    static PAGE: OnceLock<(tempfile::TempDir, Arc<Page>)> = OnceLock::new();
    let (_, page) = PAGE.get_or_init(|| {
        let dir = tempfile::tempdir().expect("a folder can be made");
        let (config, log) = (dir.path().join("o.toml"), dir.path().join("events.jsonl"));
        let event = events::Event { id: Some("e1".into()), ..events::Event::new(Kind::Raise) };
        std::fs::write(log, event.to_json()).expect("the log can be written");
        let text = "[model]\npath = \"m\"\n[events]\nlog = \"events.jsonl\"\nsnapshots = \"s\"\n[observe]\nsocket = \"o.sock\"\n";
        std::fs::write(&config, text).expect("the config can be written");
        let page = Page::new(Configs::Files(vec![config]), Vec::new(), None, &[]).expect("a page of one config");
        (dir, Arc::new(page))
    });
    let answers = server::answers(page, bytes).expect("there are sockets");
    assert!(answers.is_empty() || answers.starts_with(b"HTTP/1."), "{answers:?}");
}

/// A model file: read, scored with, written again.
pub fn model(bytes: &[u8]) {
    for bytes in [Some(bytes.to_vec()), with_crc(bytes)].into_iter().flatten() {
        let Ok(model) = file::decode(&bytes) else { continue };
        let cells = model.joined.as_ref().map(|joined| {
            let (height, width, channels) = (joined.cells.height, joined.cells.width, joined.cells.components.cols);
            Cells { height, width, channels, scale: 0.1, values: vec![100; height * width * channels].into() }
        });
        for feature in [0.0, 1.0, f32::MAX] {
            let _ = model.score(&vec![feature; model.n_features()], cells.as_ref());
        }
        let written = file::encode(&model).expect("what was read can be written");
        file::decode(&written).expect("what was written can be read");
    }
}

fn options() -> Options {
    Options { threads: 1, ..Options::default() }
}

/// An ONNX file as a backbone: read, planned, and run if that is cheap.
pub fn onnx(bytes: &[u8]) {
    let Ok(backbone) = Backbone::from_bytes("hostile.onnx", bytes.to_vec(), &options()) else { return };
    if backbone.work() <= MOST_WORK {
        let input = backbone.input();
        let _ = backbone.forward(&RgbImage::from_fn(input.width, input.height, drawn));
    }
}

fn drawn(x: u32, y: u32) -> image::Rgb<u8> {
    image::Rgb([x.wrapping_mul(7) as u8, y.wrapping_mul(11) as u8, (x ^ y) as u8])
}

/// A float ONNX file that is to be quantized, and the int8 network that comes of it if the float one is cheap.
pub fn quantize(bytes: &[u8]) {
    let Ok(network) = quantize::Network::from_bytes("hostile.onnx", bytes.to_vec(), None, None) else { return };
    let (width, height) = (network.input().width, network.input().height);
    let float = Backbone::from_bytes("hostile.onnx", bytes.to_vec(), &options());
    if !float.is_ok_and(|float| float.work() <= MOST_WORK / 10) {
        return;
    }
    let stop = std::sync::atomic::AtomicBool::new(false);
    let watch = quantize::Watch { stop: &stop, begin: &|_, _| {}, done: &|| {} };
    let options = quantize::Options { equalize: true, ..quantize::Options::default() };
    if let Ok(int8) = network.quantize(&[RgbImage::from_fn(width, height, drawn)], &options, &watch) {
        onnx(&int8.to_bytes());
    }
}

/// A config file: parsed and tried for sense.
pub fn config(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(config) = Config::parse(Path::new("hostile.toml"), text) else { return };
    if config.check().is_err() {
        return;
    }
    // What is accepted can be reckoned with.
    let now = std::time::Instant::now();
    let gpio = config.gpio.as_ref().map(|gpio| gpio.pulse);
    for time in
        [config.camera.interval, config.camera.lost_after, config.camera.judge_at_least_every].into_iter().chain(gpio)
    {
        let _ = now + time;
    }
    let _ = outlierd::internals::watch::frame::drift::Drift::new(&config.drift, &[0.5; 100], 100.0);
}

fn write(path: &Path, bytes: &[u8]) {
    std::fs::write(path, bytes).expect("the temporary folder can be written");
}

/// An event log: read whole, and followed while it grows (half at a time) and is rotated.
pub fn events(bytes: &[u8]) {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let path = folder.path().join("events.jsonl");
    let mut follow = Follow::new(&path);
    let (first, second) = bytes.split_at(bytes.len() / 2);
    write(&path, first);
    let mut followed = follow.poll().expect("it is there").len();
    let mut log = std::fs::OpenOptions::new().append(true).open(&path).expect("it is there");
    log.write_all(second).expect("it can be written");
    followed += follow.poll().expect("it is there").len();
    let all = events::read(&path).expect("it is there");
    for event in &all {
        let line = event.to_json();
        assert!(!line.contains('\n'), "one event, one line");
        let _ = events::format_time(event.time);
    }
    assert!(followed <= all.len() && all.len() <= followed + 1, "{followed} followed, {} read", all.len());
    std::fs::rename(&path, folder.path().join("events.jsonl.1")).expect("it is there");
    write(&path, first);
    let _ = follow.poll();
}

/// Sixty scores and their tail.
fn conformal() -> Conformal {
    let scores: Vec<f64> = (0..60).map(|i| f64::from(i) / 7.0 - 9.0).collect();
    Conformal::fit(&scores, 20.0).expect("they are finite")
}

/// A small model with conformal calibration.
pub fn small_model() -> Model {
    use outlierd::internals::estimators::feature_transform::FeatureTransform;
    use outlierd::internals::model::projection::{Components, QuantizedMatrix};
    use outlierd::internals::model::{Detector, Records, Training};
    let components = QuantizedMatrix::from_rows(3, [[0.6, 0.8, 0.0].as_slice(), &[0.0, 0.0, 1.0]].into_iter());
    Model {
        crate_version: "0".into(),
        made_at: 0,
        source: FeatureSource::unknown(),
        transform: FeatureTransform::Identity,
        mean: vec![0.0, 0.5, 1.0],
        scale: vec![1.0; 3],
        components: Components::I8(components),
        variance: vec![1.0, 0.25],
        whiten: true,
        detector: Detector::PcaResidual,
        joined: None,
        calibration: Calibration::Conformal(conformal()),
        threshold: 0.05,
        training: Training { n_train: 60, n_calibration: 60, ..Training::default() },
        records: Records::default(),
    }
}

/// A history of judged frames: read, replayed, and gone on with.
pub fn history(bytes: &[u8]) {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let path = folder.path().join("h");
    for bytes in [Some(bytes.to_vec()), with_crc(bytes)].into_iter().flatten() {
        write(&path, &bytes);
        let mut budget = Budget::new(Params {
            per_day: 1.0,
            raise_after: Span::Frames(2),
            clear_after: Span::Frames(2),
            settle: Duration::ZERO,
            threshold: 0.01,
            lowest: 0.002,
        });
        let mut ladder = Ladder::new(&[0.1, 0.001], Span::Frames(2), Span::Frames(2), (i64::MIN, i64::MAX), 7);
        let mut reader = Reader::open(&path, None).expect("it is there");
        for entry in &mut reader {
            budget.replay(&entry);
            if let Entry::Frame { frame, .. } = entry {
                ladder.push(frame.time, frame.surprisal);
                let _ = time_of(frame.time);
            }
        }
        let _ = (reader.skipped(), ladder.within(1.0));
        for minute in 0..60 {
            budget.push(UNIX_EPOCH + 60 * Duration::from_secs(minute), 0.5, false);
            assert!((0.0..=0.5).contains(&budget.threshold()), "{}", budget.threshold());
        }
        let mut writer = Writer::open(&path, 1 << 20, 1).expect("it is there");
        writer.push(UNIX_EPOCH, -1.5, 0.25, true, 0.5).expect("it can be written");
        drop(writer);
        let last = Reader::open(&path, Some(1)).expect("it is there").last();
        let is_ours =
            |entry: &Entry| matches!(entry, Entry::Frame { frame, .. } if frame.score == -1.5 && frame.raised);
        assert!(last.is_some_and(|entry| is_ours(&entry)), "{last:?}");
    }
}

/// An event log whose raised events are taken back as false alarms.
pub fn learn(bytes: &[u8]) {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let path = folder.path().join("events.jsonl");
    write(&path, bytes);
    let mut model = small_model();
    let raises = events::read(&path).expect("it is there").into_iter().filter(|event| event.event == Kind::Raise);
    let mut alarms = Vec::new();
    for event in raises {
        if let (Some(id), Some(score), Some(p)) = (event.id, event.score, event.p) {
            let _ = learn::is_of(&model, score, p);
            alarms.push((id, score));
        }
    }
    learn::learn(&mut model, &alarms, 0.05).expect("its calibration is conformal");
    for (_, score) in &alarms {
        let _ = learn::is_of(&model, *score, 0.03);
    }
    let written = file::encode(&model).expect("what was learnt can be written");
    file::decode(&written).expect("what was written can be read");
}

/// A number of up to four bytes from the front of `bytes`.
fn number(bytes: &mut &[u8], digits: usize) -> u32 {
    let (front, rest) = bytes.split_at(digits.min(bytes.len()));
    *bytes = rest;
    front.iter().rev().fold(0, |n, b| n << 8 | u32::from(*b))
}

/// A camera's raw frame: the first bytes say how it lies in memory (a driver's answer), the rest is it.
pub fn pixels(mut bytes: &[u8]) {
    let formats = [PixelFormat::Yuyv, PixelFormat::Nv12, PixelFormat::Grey, PixelFormat::Rgb3, PixelFormat::Auto];
    let how = number(&mut bytes, 1) as usize;
    let digits = if how & 0x80 == 0 { 1 } else { 4 };
    let mut next = || number(&mut bytes, digits);
    let format = formats[how % formats.len()];
    let layout = pixels::Layout {
        format,
        width: next(),
        height: next(),
        stride: next() as usize,
        plane_lines: next(),
        matrix: if how & 0x40 == 0 { pixels::Matrix::Bt601 } else { pixels::Matrix::Bt709 },
        full_range: how & 0x20 != 0,
    };
    let region = [next(), next(), next(), next()];
    if let Ok(picture) = pixels::to_rgb(&layout, bytes, region) {
        assert_eq!(picture.dimensions(), (region[2], region[3]));
    }
}

/// A camera's JPEG, with or without Huffman tables, of the size that the first two bytes say.
pub fn mjpg(mut bytes: &[u8]) {
    let (width, height) = (number(&mut bytes, 1), number(&mut bytes, 1));
    let layout = pixels::Layout::packed(PixelFormat::Mjpg, width, height);
    if let Ok(picture) = pixels::to_rgb(&layout, bytes, [0, 0, width, height]) {
        assert_eq!(picture.dimensions(), (width, height));
    }
}

/// A camera's stream of MJPEG or YUV4MPEG2, which has the same pictures in pieces of the length that the first byte says.
pub fn stream(mut bytes: &[u8]) {
    let piece = number(&mut bytes, 1) as usize;
    let count = outlierd::internals::camera::stream::count;
    assert_eq!(count(bytes, piece), count(bytes, bytes.len()));
}

/// A picture file.
pub fn picture(bytes: &[u8]) {
    let Ok(picture) = outlierd::internals::image::decode(Path::new("hostile.jpg"), bytes) else { return };
    let (width, height) = picture.dimensions();
    assert!(u64::from(width) * u64::from(height) <= outlierd::internals::image::limits::MAX_PIXELS);
    if width.max(height) <= 512 {
        let _ = outlierd::internals::image::prepare(&picture, &outlierd::internals::image::InputRecipe::torch());
    }
}

/// Arrays of scikit-learn: as they are, and with the checksums of the archive's members put right.
pub fn npz(bytes: &[u8]) {
    for bytes in [Some(bytes.to_vec()), with_member_crcs(bytes)].into_iter().flatten() {
        let Ok(arrays) = npz::Npz::parse(&bytes) else { continue };
        if let Ok(model) = import::model(&arrays, FeatureSource::unknown(), 0.05) {
            let _ = model.score(&vec![0.5; model.n_features()], None);
        }
    }
}

/// A ZIP archive whose directory has the size and the CRC-32 of what its members hold.
fn with_member_crcs(archive: &[u8]) -> Option<Vec<u8>> {
    let int =
        |at: usize, n: usize| Some(archive.get(at..at + n)?.iter().rev().fold(0, |v, b| v << 8 | usize::from(*b)));
    let mut mended = archive.to_vec();
    let end = archive.windows(4).rposition(|w| w == b"PK\x05\x06")?;
    let mut at = int(end + 16, 4)?;
    while archive.get(at..)?.starts_with(b"PK\x01\x02") {
        let (method, packed, local) = (int(at + 10, 2)?, int(at + 20, 4)?, int(at + 42, 4)?);
        let start = local + 30 + int(local + 26, 2)? + int(local + 28, 2)?;
        let packed = archive.get(start..)?.get(..packed)?;
        let mut content = Vec::new();
        match method {
            8 => flate2::read::DeflateDecoder::new(packed).take(1 << 20).read_to_end(&mut content).ok()?,
            _ => packed.take(1 << 20).read_to_end(&mut content).ok()?,
        };
        mended[at + 16..at + 20].copy_from_slice(&crc32fast::hash(&content).to_le_bytes());
        mended[at + 24..at + 28].copy_from_slice(&(content.len() as u32).to_le_bytes());
        at += 46 + int(at + 28, 2)? + int(at + 30, 2)? + int(at + 32, 2)?;
    }
    Some(mended)
}

/// A list of pictures.
pub fn list(bytes: &[u8]) {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let path = folder.path().join("list.txt");
    write(&path, bytes);
    let _ = pictures::find(&[path]);
}

/// A file of features that were computed before.
pub fn cache(bytes: &[u8]) {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let path = folder.path().join("model.features");
    for bytes in [Some(bytes.to_vec()), with_crc(bytes)].into_iter().flatten() {
        write(&path, &bytes);
        let _ = Cache::open(&path);
    }
}

/// What a broker sends, in parts of any length: the packets are the same.
pub fn mqtt(bytes: &[u8]) {
    use outlierd::internals::watch::outputs::mqtt::packet::{Incoming, Packet};
    let read = |part: usize| {
        let (mut incoming, mut packets) = (Incoming::default(), Vec::new());
        for part in bytes.chunks(part) {
            incoming.push(part);
            loop {
                match incoming.packet() {
                    Ok(Some(packet)) => packets.push(packet),
                    Ok(None) => break,
                    Err(e) => return (packets, Some(e)),
                }
            }
        }
        (packets, None)
    };
    let whole = read(usize::MAX);
    let long = |packet: &Packet| matches!(packet, Packet::Publish { topic, payload, .. } if topic.len() + payload.len() > 3 * (64 << 10));
    assert!(!whole.0.iter().any(long));
    assert!([1, 2, 7, 1024].map(read).iter().all(|parts| *parts == whole));
}
