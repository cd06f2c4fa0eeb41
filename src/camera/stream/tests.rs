use std::io::Write;
use std::time::Duration;

use super::*;

/// Long enough for any machine; no test passes by it.
const PATIENCE: Duration = Duration::from_secs(60);

fn jpeg(level: u8) -> Vec<u8> {
    let mut bytes = Vec::new();
    let picture = RgbImage::from_pixel(16, 8, ::image::Rgb([level; 3]));
    ::image::codecs::jpeg::JpegEncoder::new_with_quality(&mut bytes, 90).encode_image(&picture).unwrap();
    bytes
}

fn plain() -> config::Camera {
    config::Camera::default()
}

fn level(source: &mut Stream) -> u8 {
    source.next(Instant::now() + PATIENCE).unwrap().unwrap().picture.get_pixel(3, 2).0[0]
}

fn shell(script: &str) -> Stream {
    Stream::exec(&["/bin/sh".into(), "-c".into(), script.into()], &plain()).unwrap()
}

fn fifo(dir: &tempfile::TempDir) -> PathBuf {
    let path = dir.path().join("fifo");
    rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    path
}

#[test]
fn every_picture_of_a_file_is_taken_and_then_it_ends() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("stream");
    std::fs::write(&path, (0..20).map(|n| jpeg(n * 10)).collect::<Vec<_>>().concat()).unwrap();
    let mut source =
        Stream::open(&path, &config::Camera { crop: Some(Crop::Pixels([8, 0, 8, 8])), ..plain() }).unwrap();
    for n in 0..20 {
        let frame = source.next(Instant::now() + PATIENCE).unwrap().unwrap();
        assert_eq!((frame.sequence, frame.picture.dimensions()), (n, (8, 8)));
        assert!(frame.picture.get_pixel(0, 0).0[0].abs_diff(n as u8 * 10) < 4);
    }
    assert!(source.next(Instant::now() + PATIENCE).unwrap().is_none());
}

#[test]
fn a_source_can_be_dropped_with_pictures_left() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("stream");
    std::fs::write(&path, jpeg(9).repeat(1000)).unwrap();
    let mut source = Stream::open(&path, &plain()).unwrap();
    level(&mut source);
    drop(source);
    drop(Stream::open(&fifo(&dir), &plain()).unwrap());
}

#[test]
fn a_fifo_outlives_its_writers_and_a_half_picture_of_one_does_not_spoil_the_next() {
    let dir = tempfile::tempdir().unwrap();
    let path = fifo(&dir);
    let mut source = Stream::open(&path, &plain()).unwrap();
    assert!(matches!(source.next(Instant::now() + Duration::from_millis(20)), Err(Error::Timeout { .. })));
    for n in [50u8, 100, 150] {
        let mut writer = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
        // Where the end of the writer before was not seen in time, its half picture costs the first of these.
        writer.write_all(&jpeg(n).repeat(2)).unwrap();
        while level(&mut source).abs_diff(n) >= 4 {}
        writer.write_all(&jpeg(n)[..300]).unwrap();
    }
}

#[test]
fn a_fifo_has_one_reader_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let path = fifo(&dir);
    let mut source = Stream::open(&path, &config::Camera::default()).unwrap();
    let refused = || Stream::open(&path, &config::Camera::default()).unwrap_err().to_string();
    assert!(refused().contains("another process reads it"));
    // Also after the reader opened it anew.
    for n in [50u8, 100] {
        std::fs::OpenOptions::new().write(true).open(&path).unwrap().write_all(&jpeg(n)).unwrap();
        assert!(level(&mut source).abs_diff(n) < 4);
    }
    assert!(refused().contains("another process reads it"));
    // Another FIFO of its name is free.
    std::fs::remove_file(&path).unwrap();
    let second = Stream::open(&fifo(&dir), &config::Camera::default()).unwrap();
    drop((source, second));
    Stream::open(&path, &config::Camera::default()).unwrap();
}

#[test]
fn the_newest_of_a_fifo_is_taken() {
    let dir = tempfile::tempdir().unwrap();
    let path = fifo(&dir);
    let mut source = Stream::open(&path, &plain()).unwrap();
    let mut writer = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    for n in 0..200u8 {
        writer.write_all(&jpeg(n)).unwrap();
    }
    // The reader has them all once it has the last.
    while source.shared.lock().sequence < 200 {
        std::thread::yield_now();
    }
    assert!(level(&mut source).abs_diff(199) < 4);
}

#[test]
fn a_command_feeds_and_its_end_is_told_with_its_last_words() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("picture");
    std::fs::write(&path, jpeg(80)).unwrap();
    let mut source = shell(&format!("cat {}; echo rtsp://u:secret@h: no route >&2; exit 7", path.display()));
    assert!(level(&mut source).abs_diff(80) < 4);
    let error = source.next(Instant::now() + PATIENCE).unwrap_err();
    assert!(matches!(error, Error::Lost { .. }));
    // Its standard error is read by a thread of its own.
    let (error, begin) = (error.to_string(), "lost sh: sh ended with exit status: 7");
    assert!(error.starts_with(begin) && !error.contains("secret"), "{error}");
}

#[test]
fn a_command_ends_with_its_process_group() {
    let dir = tempfile::tempdir().unwrap();
    let pid = dir.path().join("pid");
    let script = format!("trap '' TERM; sleep 1000 & echo $! > {0}.new; mv {0}.new {0}; wait", pid.display());
    let source = shell(&script);
    while !pid.exists() {
        std::thread::yield_now();
    }
    drop(source);
    let number = std::fs::read_to_string(&pid).unwrap();
    let gone = || {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", number.trim())).unwrap_or_default();
        stat.is_empty() || stat.contains(") Z")
    };
    while !gone() {
        std::thread::yield_now();
    }
}

#[test]
fn what_cannot_be_read_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let error = |result: Result<Stream, Error>| result.err().unwrap().to_string();
    assert!(error(Stream::open(&dir.path().join("no"), &plain())).contains("mkfifo"));
    assert!(error(Stream::open(Path::new("/dev/null"), &plain())).contains("neither a FIFO nor a plain file"));
    assert!(error(Stream::exec(&["/nonexistent/vid".into()], &plain())).contains("cannot open vid: no such program"));
    let path = dir.path().join("h264");
    std::fs::write(&path, [0, 0, 0, 1, 0x67, 0, 0, 0, 0, 0]).unwrap();
    let error = Stream::open(&path, &plain()).unwrap().next(Instant::now() + PATIENCE).unwrap_err().to_string();
    assert!(error.contains("H.264"), "{error}");
}

#[test]
fn planes_are_read_too() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("y4m");
    std::fs::write(&path, [b"YUV4MPEG2 W5 H3 F2:1 Cmono XCOLORRANGE=FULL\nFRAME\n".as_slice(), &[77; 15]].concat())
        .unwrap();
    let mut source = Stream::open(&path, &plain()).unwrap();
    assert_eq!(level(&mut source), 77);
    assert!(source.describe().ends_with("5x3 YUV4MPEG2"));
}

#[test]
fn a_jpeg_is_kept_as_it_came_where_it_is_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("stream");
    let next = |bytes: &[u8], keep_jpeg: bool| {
        std::fs::write(&path, bytes).unwrap();
        let mut source = Stream::open(&path, &config::Camera { keep_jpeg, ..plain() }).unwrap();
        source.next(Instant::now() + PATIENCE).unwrap().unwrap().jpeg
    };
    assert_eq!(next(&jpeg(9), true), Some(jpeg(9).into_boxed_slice()));
    assert_eq!(next(&jpeg(9), false), None);
    assert_eq!(next(b"YUV4MPEG2 W1 H1 Cmono\nFRAME\nxFRAME\nx", true), None);
}
