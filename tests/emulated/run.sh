#!/usr/bin/env bash
# Tests the aarch64 and armv7 kernels against the scalar reference under QEMU's user emulation: with dot product
# (cortex-a76), without (cortex-a72), and on armv7. What is missing is installed where that is possible; where it is
# not, the tests are skipped by name.
set -euo pipefail
cd "$(dirname "$0")"

skip() { echo "SKIPPED emulated kernels: $*"; exit 0; }

have() { for tool in "$@"; do command -v "$tool" >/dev/null || return 1; done; }

tools=(aarch64-linux-gnu-gcc arm-linux-gnueabihf-gcc qemu-aarch64-static qemu-arm-static)
if ! have "${tools[@]}"; then
    if [ "$(id -u)" != 0 ] || ! have apt-get; then skip "needs ${tools[*]}"; fi
    { apt-get -q update && DEBIAN_FRONTEND=noninteractive apt-get -q install -y --no-install-recommends \
        gcc-aarch64-linux-gnu libc6-dev-arm64-cross gcc-arm-linux-gnueabihf libc6-dev-armhf-cross qemu-user-static
    } >/dev/null 2>&1 || skip "cannot install ${tools[*]}"
fi
targets=(aarch64-unknown-linux-gnu armv7-unknown-linux-gnueabihf)
for target in "${targets[@]}"; do
    [ -d "$(rustc --print sysroot)/lib/rustlib/$target/lib" ] || rustup target add "$target" >/dev/null 2>&1 ||
        skip "no Rust library for $target"
done

export CARGO_TARGET_DIR=../../target/emulated
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
export CARGO_TARGET_ARMV7_UNKNOWN_LINUX_GNUEABIHF_LINKER=arm-linux-gnueabihf-gcc
emulated() { # TARGET RUNNER
    local runner
    runner=CARGO_TARGET_$(tr 'a-z-' 'A-Z_' <<<"$1")_RUNNER
    echo "kernels for $1 under $2"
    env "$runner=$2" cargo test --release --locked --lib --target "$1"
}
emulated aarch64-unknown-linux-gnu "qemu-aarch64-static -cpu cortex-a76 -L /usr/aarch64-linux-gnu"
emulated aarch64-unknown-linux-gnu "qemu-aarch64-static -cpu cortex-a72 -L /usr/aarch64-linux-gnu"
emulated armv7-unknown-linux-gnueabihf "qemu-arm-static -cpu max -L /usr/arm-linux-gnueabihf"
