//! Times rten with an ONNX file: `rten-peer FILE RUNS`, threads by `RTEN_NUM_THREADS`.
//!
//! Prints one line of JSON: `load_ms` and `ms`, one time per run after two that are not counted, or `error`.

use std::hint::black_box;
use std::time::Instant;

use rten::Model;
use rten_tensor::NdTensor;
use rten_tensor::prelude::*;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let usage = "rten-peer FILE RUNS";
    let path = arguments.next().ok_or(usage)?;
    let runs: usize = arguments.next().ok_or(usage)?.parse()?;
    let report = match times(&path, runs) {
        Ok((load, laps)) => serde_json::json!({"load_ms": load, "ms": laps}),
        Err(error) => serde_json::json!({"error": error.to_string()}),
    };
    println!("{report}");
    Ok(())
}

fn times(path: &str, runs: usize) -> Result<(f64, Vec<f64>), Box<dyn std::error::Error>> {
    let start = Instant::now();
    let model = Model::load_file(path)?;
    let load = start.elapsed().as_secs_f64() * 1e3;
    let values: Vec<f32> = (0..3 * 224 * 224).map(|n| (n % 251) as f32 - 125.0).collect();
    let input = NdTensor::from_data([1, 3, 224, 224], values);
    let mut laps = Vec::with_capacity(runs);
    for run in 0..runs + 2 {
        let start = Instant::now();
        black_box(model.run_one(input.view().into(), None)?);
        if run >= 2 {
            laps.push(start.elapsed().as_secs_f64() * 1e3);
        }
    }
    Ok((load, laps))
}
