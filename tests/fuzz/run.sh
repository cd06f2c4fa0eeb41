#!/usr/bin/env bash
# Fuzzes a target for some seconds, from the seeds of tests/hostile.rs:
#   tests/fuzz/run.sh onnx 600
# Without a target: builds all and lists them. Needs `cargo install cargo-fuzz` and the address sanitizer's runtime,
# which comes with the toolchain; a stable compiler is told to take its flags.
set -euo pipefail
cd "$(dirname "$0")/../.."
if [ $# -eq 0 ]; then
    RUSTC_BOOTSTRAP=1 cross/setup.sh cargo fuzz build --fuzz-dir tests/fuzz
    exec cargo fuzz list --fuzz-dir tests/fuzz
fi
target=$1 seconds=${2:-600}
# Longer inputs than the seeds need cost runs and find little.
case $target in
    onnx | quantize) longest=32768 ;;
    picture | mjpg | stream | npz | events | learn | history) longest=16384 ;;
    *) longest=4096 ;;
esac
OUTLIERD_SEEDS=tests/fuzz/corpus cross/setup.sh cargo test --release --locked --test integration -- --ignored write_seeds
RUSTC_BOOTSTRAP=1 cross/setup.sh cargo fuzz run --fuzz-dir tests/fuzz "$target" -- -max_total_time="$seconds" -max_len="$longest" \
    -timeout=10 -rss_limit_mb=1024 -malloc_limit_mb=512
