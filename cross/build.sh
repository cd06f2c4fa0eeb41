#!/usr/bin/env bash
# Builds stripped binaries and Debian packages for the boards:
#   cross/build.sh [aarch64] [armv7] [amd64]     (default: aarch64 armv7)
# Prints the packages' paths; they lie in target/packages.
# PROFILE: dist (default: smallest and fastest, minutes of linking), release, or quick (for tests alone: slow).
set -euo pipefail
cd "$(dirname "$0")/.."
[ $# -gt 0 ] || set -- aarch64 armv7
profile=${PROFILE:-dist}

foreign=()
for name; do
    case $name in
    aarch64 | armv7) foreign+=("$name") ;;
    amd64) ;;
    *) echo "build: unknown target $name: aarch64, armv7 or amd64" >&2; exit 64 ;;
    esac
done
if [ ${#foreign[@]} -gt 0 ]; then
    env_file=$(cross/toolchain.sh "${foreign[@]}")
    . "$env_file"
fi

for name; do
    case $name in
    aarch64) arch=arm64 target=aarch64-unknown-linux-gnu tools=aarch64-linux-gnu- runner=$CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER ;;
    armv7) arch=armhf target=armv7-unknown-linux-gnueabihf tools=arm-linux-gnueabihf- runner=$CARGO_TARGET_ARMV7_UNKNOWN_LINUX_GNUEABIHF_RUNNER ;;
    amd64) arch=amd64 target=x86_64-unknown-linux-gnu tools='' runner='' ;;
    esac
    cross/setup.sh cargo build --locked --profile "$profile" --target "$target" >&2
    binary=${CARGO_TARGET_DIR:-target}/$target/$profile/outlierd
    stripped=target/packages/outlierd-$arch
    mkdir -p target/packages
    ${tools}strip -o "$stripped" "$binary"
    echo "build: $arch binary $(stat -c %s "$stripped" | numfmt --to=iec)" >&2
    TOOLS=$tools RUNNER=$runner cross/package.sh "$arch" "$stripped"
done
