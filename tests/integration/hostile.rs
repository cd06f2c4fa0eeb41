//! Hostile bytes, for everything that reads bytes of others: seeds, seeds that were cut short, and some hundred fixed
//! mutations of them. The targets are those of the fuzzers, which go on where this ends (`SECURITY.md`).

#[path = "../fuzz/src/lib.rs"]
mod targets;

use std::time::{Duration, Instant};

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use targets::seeds;

/// Runs of each kind a target gets, and how long they may take: a debug build or a slow machine does fewer.
const CUTS: usize = 60;
const MUTATIONS: usize = 400;
const TIME: Duration = Duration::from_secs(6);

/// Numbers at which sizes and signs go wrong.
const EXTREMES: [u64; 10] =
    [0, 1, 0x7f, 0xff, 0x7fff, 0xffff, 0x7fff_ffff, 0xffff_ffff, 0x7fff_ffff_ffff_ffff, 0xffff_ffff_ffff_ffff];

fn mutated(rng: &mut ChaCha8Rng, seed: &[u8], other: &[u8]) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    for _ in 0..rng.random_range(1..=4) {
        if bytes.is_empty() {
            bytes.push(rng.random());
        }
        let at = rng.random_range(0..bytes.len());
        match rng.random_range(0..7) {
            0 => bytes[at] ^= 1 << rng.random_range(0..8),
            1 => bytes[at] = rng.random(),
            2 => _ = bytes.splice(at..at, (0..rng.random_range(1..9)).map(|_| rng.random::<u8>()).collect::<Vec<_>>()),
            3 => _ = bytes.drain(at..(at + rng.random_range(1..64)).min(bytes.len())),
            4 => {
                let n = [1, 2, 4, 8][rng.random_range(0..4)];
                let extreme = EXTREMES[rng.random_range(0..EXTREMES.len())];
                let end = (at + n).min(bytes.len());
                bytes[at..end].copy_from_slice(&extreme.to_le_bytes()[..end - at]);
            }
            5 => {
                let piece = bytes[at..(at + rng.random_range(1..64)).min(bytes.len())].to_vec();
                let to = rng.random_range(0..=bytes.len());
                bytes.splice(to..to, piece);
            }
            _ if !other.is_empty() => {
                let from = rng.random_range(0..other.len());
                bytes.truncate(at);
                bytes.extend_from_slice(&other[from..]);
            }
            _ => {}
        }
    }
    bytes
}

/// Runs a target on its seeds, whole, cut and mutated. The first panic fails the test, with the bytes' origin.
fn withstands(name: &str, target: fn(&[u8])) {
    let seeds = seeds::of(name);
    assert!(!seeds.is_empty(), "{name} has no seeds");
    let tried = |what: String, bytes: &[u8]| {
        if std::panic::catch_unwind(|| target(bytes)).is_err() {
            let path = std::env::temp_dir().join(format!("hostile-{name}"));
            let _ = std::fs::write(&path, bytes);
            panic!("{name} does not withstand {what}; the bytes are in {}", path.display());
        }
    };
    for (seed, bytes) in &seeds {
        tried(format!("the seed {seed}"), bytes);
    }
    let mut rng = ChaCha8Rng::seed_from_u64(8);
    let end = Instant::now() + TIME;
    let mut runs = 0;
    for i in 0..CUTS + MUTATIONS {
        let (seed, bytes) = &seeds[i % seeds.len()];
        let (what, bytes) = if i < CUTS {
            let cut = rng.random_range(0..=bytes.len());
            (format!("{seed} cut at {cut}"), bytes[..cut].to_vec())
        } else {
            let other = &seeds[rng.random_range(0..seeds.len())].1;
            (format!("mutation {i} of {seed}"), mutated(&mut rng, bytes, other))
        };
        tried(what, &bytes);
        runs += 1;
        if Instant::now() > end {
            break;
        }
    }
    println!("{name}: {} seeds, {runs} of {} runs in the time", seeds.len(), CUTS + MUTATIONS);
}

macro_rules! targets {
    ($($test:ident: $target:ident;)*) => {
        $(#[test]
        fn $test() {
            withstands(stringify!($target), targets::$target);
        })*

        const TARGETS: &[&str] = &[$(stringify!($target)),*];
    };
}

targets! {
    a_hostile_model_file_is_refused_or_scores: model;
    a_hostile_onnx_file_is_refused_or_runs: onnx;
    a_hostile_float_network_is_refused_or_quantized: quantize;
    a_hostile_config_is_refused_or_can_be_reckoned_with: config;
    a_hostile_event_log_is_read_and_followed_line_by_line: events;
    false_alarms_of_a_hostile_log_leave_a_model_that_can_be_written: learn;
    a_hostile_history_is_read_and_replayed: history;
    a_hostile_raw_frame_is_refused_or_has_the_size_asked_for: pixels;
    a_hostile_jpeg_frame_is_refused_or_has_the_size_asked_for: mjpg;
    a_hostile_stream_has_the_same_pictures_however_it_arrives: stream;
    a_hostile_picture_file_is_refused_or_decoded_within_the_limits: picture;
    hostile_arrays_are_refused_or_become_a_model: npz;
    a_hostile_list_of_pictures_is_refused_or_read: list;
    a_hostile_feature_cache_is_started_afresh_or_read: cache;
    a_hostile_connection_to_the_page_is_answered_or_closed: page;
    a_hostile_broker_is_understood_or_left: mqtt;
}

/// For the fuzzers: `tests/fuzz/run.sh` calls it.
#[test]
#[ignore = "writes the seeds into OUTLIERD_SEEDS"]
fn write_seeds() {
    let folder = std::path::PathBuf::from(std::env::var_os("OUTLIERD_SEEDS").expect("OUTLIERD_SEEDS names a folder"));
    for target in TARGETS {
        let folder = folder.join(target);
        std::fs::create_dir_all(&folder).unwrap();
        for (name, bytes) in seeds::of(target) {
            std::fs::write(folder.join(name), bytes).unwrap();
        }
    }
}
