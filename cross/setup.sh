#!/bin/sh
# Installs what the build needs and this machine lacks (a C compiler and libclang, which the crate v4l generates
# its bindings with), says so, then runs the command given to it, if any:
#   cross/setup.sh cargo build --release
set -eu

say() { echo "setup: $*" >&2; }

find_libclang() {
    for dir in ${LIBCLANG_PATH:-} $(ls -d /usr/lib/llvm-*/lib 2>/dev/null | sort -rV) /usr/lib /usr/lib64 /usr/lib/*-linux-gnu*; do
        if ls "$dir"/libclang.so* "$dir"/libclang-[0-9]*.so* >/dev/null 2>&1; then
            echo "$dir"
            return 0
        fi
    done
    return 1
}

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; elif command -v sudo >/dev/null; then sudo "$@"; else
        say "not root and no sudo; run as root: $*"
        exit 69
    fi
}

install() {
    if command -v apt-get >/dev/null; then
        say "installing: $*"
        as_root apt-get -q update >/dev/null
        as_root env DEBIAN_FRONTEND=noninteractive apt-get -q install -y --no-install-recommends "$@" >/dev/null
    else
        say "please install a C compiler and libclang (Fedora: gcc clang-libs; Arch: gcc clang), then run this again"
        exit 69
    fi
}

command -v cargo >/dev/null || { say "cargo is missing: install Rust 1.91 or newer from https://rustup.rs"; exit 69; }
command -v cc >/dev/null || install gcc libc6-dev
[ -e /usr/include/linux/videodev2.h ] || install linux-libc-dev
if ! LIBCLANG_PATH=$(find_libclang); then
    install libclang-dev
    LIBCLANG_PATH=$(find_libclang) || { say "libclang was installed but not found; set LIBCLANG_PATH"; exit 69; }
fi
export LIBCLANG_PATH
[ $# -eq 0 ] || exec "$@"
