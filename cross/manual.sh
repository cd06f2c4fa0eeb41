#!/bin/sh
# Writes the manual's pages outlierd(8), outlierd.toml(5) and outlierd-events(5) into DIR/man8 and DIR/man5:
#   cross/manual.sh DIR
# Keys and their texts come from systemd/outlierd.toml, kinds and fields of events from the doc comments in
# src/watch/events/event.rs, what `outlierd help TOPIC` prints from src/cli/topics.txt. SOURCE_DATE_EPOCH: the pages' date (default: the commit's).
set -eu
export LC_ALL=C
mkdir -p "$1/man5" "$1/man8"
out=$(cd "$1" && pwd)
cd "$(dirname "$0")/.."
date=$(date -u -d "@${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || echo 0)}" '+%B %-d, %Y')
part=$(mktemp)
trap 'rm -f "$part"' EXIT

# page SECTION NAME : the frame in cross/man, with $part in place of its line @PART@.
page() {
    sed -e "s/@DATE@/$date/" -e "/^@PART@\$/{
r $part
d
}" "cross/man/$2.$1" > "$out/man$1/$2.$1"
}

awk -f cross/man/prose.awk -f cross/man/topics.awk src/cli/topics.txt > "$part"
page 8 outlierd
awk -f cross/man/prose.awk -f cross/man/config.awk systemd/outlierd.toml > "$part"
page 5 outlierd.toml
awk -f cross/man/prose.awk -f cross/man/events.awk src/watch/events/event.rs > "$part"
page 5 outlierd-events
