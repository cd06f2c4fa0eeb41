#!/usr/bin/env bash
# Prints what the program is made of, as CycloneDX 1.5: every crate that is linked for a target, with its licence, its place
# in the registry and the checksum of Cargo.lock. Procedural macros and what build scripts need are not in the program.
#   cross/sbom.sh aarch64|armv7|amd64 [--features FEATURE,...]
set -euo pipefail
cd "$(dirname "$0")/.."
case ${1-} in
aarch64) target=aarch64-unknown-linux-gnu ;;
armv7) target=armv7-unknown-linux-gnueabihf ;;
amd64) target=x86_64-unknown-linux-gnu ;;
*) sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0" >&2; exit 64 ;;
esac
shift
command -v jq >/dev/null || { echo "sbom: jq is missing: apt install jq" >&2; exit 69; }
time=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || echo 0)}
linked=$(cargo tree --locked --edges normal,no-proc-macro --target "$target" --prefix none --format '{p}' "$@" |
    awk '{sub(/^v/, "", $2); print $1, $2}' | sort -u)
cargo metadata --format-version 1 --locked --filter-platform "$target" "$@" |
    jq --rawfile lock Cargo.lock --arg linked "$linked" --arg target "$target" --arg timestamp "$(date -u -d "@$time" +%Y-%m-%dT%H:%M:%SZ)" -f cross/sbom.jq
