#!/usr/bin/env bash
# Licences, bans and sources of all crates by .ci/deny.toml; advisories too where their database can be reached.
# Installs cargo-deny where it is missing, unoptimized: the checks take seconds, compiling takes minutes.
set -euo pipefail
cd "$(dirname "$0")/.."
version=0.20.2
export CARGO_TERM_COLOR=never
[ "$(cargo deny --version 2>/dev/null)" = "cargo-deny $version" ] || cargo install cargo-deny --version "$version" --locked --quiet --debug
for manifest in Cargo.toml tests/fuzz/Cargo.toml tests/emulated/Cargo.toml; do
    echo "deny: $manifest"
    cargo deny --manifest-path "$manifest" --locked --config .ci/deny.toml check --hide-inclusion-graph licenses bans sources
done
if cargo deny --locked --config .ci/deny.toml fetch db >/dev/null 2>&1; then
    cargo deny --locked --config .ci/deny.toml check advisories
else
    echo "SKIPPED deny advisories: the advisory database cannot be reached"
fi
