#!/usr/bin/env bash
# Prints what the program is made of, as CycloneDX 1.5: every crate that is linked for a target, with its licence, its place
# in the registry and the checksum of Cargo.lock.
#   cross/sbom.sh aarch64|armv7|amd64
set -euo pipefail
cd "$(dirname "$0")/.."
. cross/crate.sh
target=$(triple "${1-}") || { sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0" >&2; exit 64; }
command -v jq >/dev/null || { echo "sbom: jq is missing: apt install jq" >&2; exit 69; }
time=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || echo 0)}
linked=$(linked "$target")
cargo metadata --format-version 1 --locked --filter-platform "$target" |
    jq --rawfile lock Cargo.lock --arg linked "$linked" --arg target "$target" --arg timestamp "$(date -u -d "@$time" +%Y-%m-%dT%H:%M:%SZ)" -f cross/sbom.jq
