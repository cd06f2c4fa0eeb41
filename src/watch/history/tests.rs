use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::*;
use crate::watch::events::rotated;

fn time(seconds: f64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs_f64(1_764_000_000.0 + seconds)
}

/// Frame `at` of a steady watch, two a second.
fn push(writer: &mut Writer, at: u32) -> std::io::Result<()> {
    let p = 1.0 / f64::from(2 + at % 997);
    writer.push(time(0.5 * f64::from(at)), -f64::from(at % 50), p, at.is_multiple_of(100), 0.01).map(drop)
}

/// The numbers of the frames of [`push`] that can be read, and how many are told to be missing.
fn frames(path: &Path) -> (Vec<u32>, u64) {
    let mut reader = Reader::open(path, None).unwrap();
    let mut found = Vec::new();
    for entry in &mut reader {
        let Entry::Frame { frame, .. } = entry else { continue };
        let at = (frame.time - hundredths(time(0.0))) as u32 / 50;
        assert!((frame.surprisal.p() * f64::from(2 + at % 997) - 1.0).abs() < 3e-4);
        assert_eq!(frame.raised, at.is_multiple_of(100));
        assert!((frame.score + (at % 50) as f32).abs() <= 0.2, "{at}: {}", frame.score);
        found.push(at);
    }
    (found, reader.skipped())
}

fn written(path: &Path, count: u32) {
    let mut writer = Writer::open(path, 8 << 20, 1).unwrap();
    (0..count).for_each(|at| push(&mut writer, at).unwrap());
}

#[test]
fn what_was_pushed_is_read_through_restarts() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("door.history");
    for run in 0..5 {
        let mut writer = Writer::open(&path, 8 << 20, 1).unwrap();
        (200 * run..200 * run + 200).for_each(|at| push(&mut writer, at).unwrap());
    }
    assert_eq!(frames(&path), ((0..1000).collect(), 0));
    // Without its end, as after a kill: what was gathered is lost, at most 15 seconds.
    let mut writer = Writer::open(&path, 8 << 20, 1).unwrap();
    (1000..1200).for_each(|at| push(&mut writer, at).unwrap());
    std::mem::forget(writer);
    let (found, _) = frames(&path);
    assert!(found.len() > 1200 - 31 && found.iter().copied().eq(0..found.len() as u32), "{}", found.len());
}

#[test]
fn another_model_begins_anew() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("h");
    std::fs::write(rotated(&path, 3), "old").unwrap();
    written(&path, 100);
    drop(Writer::open(&path, 8 << 20, 1).unwrap());
    assert_eq!(frames(&path).0.len(), 100);
    drop(Writer::open(&path, 8 << 20, 2).unwrap());
    assert!(frames(&path).0.is_empty());
    assert!(!rotated(&path, 3).exists());
}

#[test]
fn the_bound_holds_and_the_oldest_go() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("h");
    let mut writer = Writer::open(&path, 80_000, 1).unwrap();
    let size =
        || (0..SEGMENTS + 2).filter_map(|n| std::fs::metadata(rotated(&path, n)).ok()).map(|m| m.len()).sum::<u64>();
    for at in 0..60_000 {
        push(&mut writer, at).unwrap();
        if at % 1000 == 0 {
            assert!(size() <= 80_000, "{}", size());
        }
    }
    drop(writer);
    let (found, skipped) = frames(&path);
    assert!(found.len() > 10_000 && skipped == 0, "{} {skipped}", found.len());
    assert!(found.iter().copied().eq(60_000 - found.len() as u32..60_000));
}

#[test]
fn damage_costs_the_pages_that_it_meets() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("h");
    written(&path, 900);
    let whole = std::fs::read(&path).unwrap();
    for at in (0..whole.len()).step_by(64) {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x55;
        std::fs::write(&path, &damaged).unwrap();
        let (found, skipped) = frames(&path);
        assert_eq!(found.len(), 870, "{at}");
        // What is missing at either end cannot be known.
        let one_run = found.last().is_some_and(|last| last - found[0] == 869);
        assert_eq!(skipped, if one_run { 0 } else { 30 }, "{at}");
        // The writer goes on behind it.
        let mut writer = Writer::open(&path, 8 << 20, 1).unwrap();
        (900..930).for_each(|at| push(&mut writer, at).unwrap());
        drop(writer);
        assert!(frames(&path).0.ends_with(&(900..930).collect::<Vec<_>>()), "{at}");
    }
    for cut in (0..whole.len()).step_by(7) {
        std::fs::write(&path, &whole[cut..]).unwrap();
        assert!(frames(&path).0.iter().copied().eq((900 - frames(&path).0.len() as u32)..900));
        std::fs::write(&path, &whole[..cut]).unwrap();
        assert!(frames(&path).0.iter().copied().eq(0..frames(&path).0.len() as u32));
    }
    let mut all = whole.clone();
    all.iter_mut().step_by(64).for_each(|byte| *byte ^= 0x55);
    std::fs::write(&path, &all).unwrap();
    frames(&path);
}

#[test]
fn clocks_step_and_the_threshold_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("h");
    let times = [0.0, 0.5, 86_400.0, 86_400.5, -3600.0, -3599.5, 0.25];
    let mut writer = Writer::open(&path, 8 << 20, 1).unwrap();
    for (seconds, threshold) in times.into_iter().zip([0.01, 0.01, 0.02, 0.02, 0.02, 0.001, 0.001]) {
        writer.push(time(seconds), 0.0, 0.0, false, threshold).unwrap();
    }
    writer.take_back(time(0.0), time(9.0)).unwrap();
    writer.push(UNIX_EPOCH - Duration::from_secs(9), f64::NAN, f64::NAN, true, 0.0).unwrap();
    drop(writer);
    let entries: Vec<Entry> = Reader::open(&path, Some(1)).unwrap().collect();
    let read = |entry: &Entry| match entry {
        Entry::Frame { frame, threshold } => Some((frame.time, (1000.0 * threshold.p()).round() as u32)),
        Entry::TakenBack { .. } => None,
    };
    let expected = times.iter().map(|seconds| hundredths(time(*seconds))).zip([10, 10, 20, 20, 20, 1, 1]);
    assert_eq!(entries[..7].iter().filter_map(read).collect::<Vec<_>>(), expected.collect::<Vec<_>>());
    assert_eq!(entries[7], Entry::TakenBack { from: hundredths(time(0.0)), to: hundredths(time(9.0)) });
    assert_eq!(read(&entries[8]), Some((-900, 0)));
    assert_eq!(entries.len(), 9);
}

#[test]
fn a_path_that_cannot_be_written_costs_its_frames_only() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("h");
    let mut writer = Writer::open(&path, 8 << 20, 1).unwrap();
    (0..60).for_each(|at| push(&mut writer, at).unwrap());
    writer.flush().unwrap();
    let kept = dir.path().join("kept");
    std::fs::rename(&path, &kept).unwrap();
    // A folder in its place is as final as a full disk.
    std::fs::create_dir(&path).unwrap();
    let lost = (60..200).filter(|at| push(&mut writer, *at).is_err()).count();
    assert_eq!(lost, 4);
    std::fs::remove_dir(&path).unwrap();
    std::fs::rename(&kept, &path).unwrap();
    (200..300).for_each(|at| push(&mut writer, at).unwrap());
    drop(writer);
    let (found, skipped) = frames(&path);
    assert_eq!((found.len() as u64 + skipped, skipped), (300, 120));
}

#[test]
fn a_reader_sees_one_history_while_it_is_rotated() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("h");
    let mut writer = Writer::open(&path, 80_000, 1).unwrap();
    for at in 0..20_000 {
        push(&mut writer, at).unwrap();
        if at % 500 == 499 {
            let (found, skipped) = frames(&path);
            let first = found[0];
            assert!(skipped == 0 && found.iter().copied().eq(first..first + found.len() as u32), "{at}");
        }
    }
    // Files that were opened before a rotation are read to their end.
    let reader = Reader::open(&path, Some(1)).unwrap();
    let count = Reader::open(&path, Some(1)).unwrap().count();
    (20_000..30_000).for_each(|at| push(&mut writer, at).unwrap());
    assert!(reader.count() >= count);
}
