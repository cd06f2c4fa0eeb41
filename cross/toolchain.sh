#!/usr/bin/env bash
# Makes this x86-64 machine able to build for the boards, and prints the file to source for that:
#   . "$(cross/toolchain.sh aarch64 armv7)" && cargo build --release --target aarch64-unknown-linux-gnu
# rustup brings the standard library where it can; otherwise it is built once from Debian's rust-src of the same version.
# OUTLIERD_CROSS: the work folder (default target/cross). OUTLIERD_BUILD_STD=1: do not ask rustup.
set -euo pipefail
cd "$(dirname "$0")/.."
WORK=$(realpath -m "${OUTLIERD_CROSS:-target/cross}")
mkdir -p "$WORK"
. cross/debian.sh

say() { echo "toolchain: $*" >&2; }

rust_target() {
    case $1 in
    aarch64 | arm64 | aarch64-unknown-linux-gnu) echo aarch64-unknown-linux-gnu ;;
    armv7 | armhf | armv7-unknown-linux-gnueabihf) echo armv7-unknown-linux-gnueabihf ;;
    *) say "unknown target $1: aarch64 or armv7"; exit 64 ;;
    esac
}

system_packages() {
    local packages=() target gcc libc
    for target; do
        case $target in
        aarch64*) gcc=aarch64-linux-gnu libc=libc6-dev-arm64-cross ;;
        armv7*) gcc=arm-linux-gnueabihf libc=libc6-dev-armhf-cross ;;
        esac
        command -v $gcc-gcc >/dev/null || packages+=("gcc-$gcc")
        [ -e /usr/$gcc/include/sys/time.h ] || packages+=($libc)
    done
    # The man page and the completions are written by the built program itself.
    command -v qemu-aarch64-static >/dev/null || packages+=(qemu-user-static)
    [ ${#packages[@]} -eq 0 ] && return
    command -v apt-get >/dev/null || { say "please install: ${packages[*]} (names of Debian's packages)"; exit 69; }
    say "installing: ${packages[*]}"
    local sudo=; [ "$(id -u)" = 0 ] || sudo=sudo
    $sudo apt-get -q update >/dev/null
    $sudo env DEBIAN_FRONTEND=noninteractive apt-get -q install -y --no-install-recommends "${packages[@]}" >/dev/null
}

# Debian's rust-src of exactly this compiler's version, and a copy of the toolchain that will hold the built library.
std_source() {
    local version package
    version=$(rustc -V | awk '{print $2}')
    [ -e "$WORK/tc/lib/rustlib/src/rust" ] && return
    [ -z "$(debian_missing)" ] || { say "rustup cannot add targets, and Debian's rust-src: $(debian_missing)"; exit 69; }
    debian_setup
    package=$(apt_cache madison rust-src | awk -v v="$version" 'index($3, v "+") == 1 {print $3; exit}')
    [ -n "$package" ] || { say "rustup cannot add targets and Debian has no rust-src $version"; exit 69; }
    (cd "$WORK/apt" && apt_get -q download "rust-src=$package" >/dev/null)
    dpkg-deb --fsys-tarfile "$WORK"/apt/rust-src_*.deb | tar -x -C "$WORK" "./usr/src/rustc-$version/library"
    rm -rf "$WORK/tc"
    cp -al "$(rustc --print sysroot)" "$WORK/tc" 2>/dev/null || { rm -rf "$WORK/tc"; cp -a "$(rustc --print sysroot)" "$WORK/tc"; }
    mkdir -p "$WORK/tc/lib/rustlib/src"
    ln -s "$WORK/usr/src/rustc-$version" "$WORK/tc/lib/rustlib/src/rust"
}

build_std() {
    local target=$1 dir="$WORK/std-$1" lib="$WORK/tc/lib/rustlib/$1/lib" file
    [ -e "$lib/built-here" ] && return
    std_source
    say "building the standard library for $target (about 80 s)"
    mkdir -p "$dir/src"
    : > "$dir/src/lib.rs"
    printf '[package]\nname = "p"\nversion = "0.0.0"\nedition = "2024"\n[workspace]\n' > "$dir/Cargo.toml"
    (cd "$dir" && PATH=$WORK/tc/bin:$PATH RUSTC_BOOTSTRAP=1 cargo build -q --release --target "$target" \
        -Z build-std=std,panic_abort,proc_macro,test --target-dir "$dir/target") >&2
    mkdir -p "$lib.part"
    for file in "$dir/target/$target"/release/deps/*.rlib; do
        case $file in */libp-*) ;; *) cp "$file" "$lib.part/" ;; esac
    done
    : > "$lib.part/built-here"
    rm -rf "$lib"
    mv "$lib.part" "$lib"
}

[ $# -gt 0 ] || set -- aarch64 armv7
targets=()
for name; do targets+=("$(rust_target "$name")"); done
command -v rustc >/dev/null || { say "rustc is missing: install Rust 1.91 or newer from https://rustup.rs"; exit 69; }
system_packages "${targets[@]}"
cross/setup.sh >&2

path=
for target in "${targets[@]}"; do
    if [ -z "${OUTLIERD_BUILD_STD:-}" ]; then
        [ ! -e "$(rustc --print sysroot)/lib/rustlib/$target/lib" ] || continue
        ! command -v rustup >/dev/null || ! timeout 300 rustup -q target add "$target" >&2 || continue
    fi
    build_std "$target"
    path="export PATH=$WORK/tc/bin:\$PATH"
done

cat > "$WORK/env.sh" <<ENV
$path
$(cross/setup.sh sh -c 'echo export LIBCLANG_PATH="$LIBCLANG_PATH"')
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
export CARGO_TARGET_ARMV7_UNKNOWN_LINUX_GNUEABIHF_LINKER=arm-linux-gnueabihf-gcc
export BINDGEN_EXTRA_CLANG_ARGS_aarch64_unknown_linux_gnu=-I/usr/aarch64-linux-gnu/include
export BINDGEN_EXTRA_CLANG_ARGS_armv7_unknown_linux_gnueabihf=-I/usr/arm-linux-gnueabihf/include
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER="qemu-aarch64-static -cpu cortex-a76 -L /usr/aarch64-linux-gnu"
export CARGO_TARGET_ARMV7_UNKNOWN_LINUX_GNUEABIHF_RUNNER="qemu-arm-static -cpu max -L /usr/arm-linux-gnueabihf"
ENV
echo "$WORK/env.sh"
