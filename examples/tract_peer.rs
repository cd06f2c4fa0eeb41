//! Times tract's own way with an ONNX file, for `benches/peers.py`: `tract_peer FILE RUNS`.
//!
//! Loads the file as it is, optimizes it, and prints one line of JSON: `load_ms` and `ms`, one time per run after
//! two that are not counted, on one thread (tract's default). A file that tract cannot load or run gives `error` instead.

use std::sync::Arc;
use std::time::Instant;

use tract_onnx::prelude::*;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let usage = "tract_peer FILE RUNS";
    let path = arguments.next().ok_or(usage)?;
    let runs: usize = arguments.next().ok_or(usage)?.parse()?;
    let report = match times(&path, runs) {
        Ok((load, laps)) => serde_json::json!({"load_ms": load, "ms": laps}),
        Err(error) => serde_json::json!({"error": format!("{error:#}")}),
    };
    println!("{report}");
    Ok(())
}

fn times(path: &str, runs: usize) -> TractResult<(f64, Vec<f64>)> {
    let start = Instant::now();
    let model = tract_onnx::onnx()
        .model_for_path(path)?
        .with_input_fact(0, f32::fact([1, 3, 224, 224]).into())?
        .into_optimized()?
        .into_runnable()?;
    let load = start.elapsed().as_secs_f64() * 1e3;
    let values: Vec<f32> = (0..3 * 224 * 224).map(|n| (n % 251) as f32 - 125.0).collect();
    let input = Tensor::from_shape(&[1, 3, 224, 224], &values)?;
    let mut laps = Vec::with_capacity(runs);
    for run in 0..runs + 2 {
        let input = tvec!(input.clone().into());
        let start = Instant::now();
        std::hint::black_box(Arc::clone(&model).run(input)?);
        if run >= 2 {
            laps.push(start.elapsed().as_secs_f64() * 1e3);
        }
    }
    Ok((load, laps))
}
