#!/bin/bash
# Counts aarch64 instructions per frame under emulation: outlierd's forward pass and ONNX Runtime's, same model.
#
# Needs an aarch64 cross compiler and these variables:
#   MODEL         the ONNX file, int8 ResNet-50
#   OURS          an aarch64 command that runs the model; "{n}" is replaced by the number of frames, for example
#                 "target/aarch64-unknown-linux-gnu/release/outlierd bench --backbone $MODEL --threads 1 --frames {n}"
#   QEMU_INCLUDE  folder with qemu-plugin.h of that QEMU (its source package has it)
#   ORT_INCLUDE   folder with onnxruntime_c_api.h, not newer than the library (optional: without it only ours)
#   ORT_LIB       libonnxruntime.so for aarch64 (PyPI's wheel for manylinux aarch64 holds it)
#   QEMU          qemu-aarch64 with plugins (default qemu-aarch64; Debian 12's qemu-user 7.2 has them)
#   SYSROOT       the cross compiler's libraries (default /usr/aarch64-linux-gnu)
#   CPUS          emulated processors (default "cortex-a76 cortex-a72": with and without the dot product)
# A count per frame is the difference of two runs with 1 and 3 frames, halved.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
: "${MODEL:?}" "${OURS:?}" "${QEMU_INCLUDE:?}"
sysroot=${SYSROOT:-/usr/aarch64-linux-gnu}
qemu=${QEMU:-qemu-aarch64}
cc=${CC_AARCH64:-aarch64-linux-gnu-gcc}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

gcc -O2 -shared -fPIC -I"$QEMU_INCLUDE" "$here/instructions_plugin.c" -o "$work/libinstructions.so"

# ONNX Runtime reads the processor's features from files, which would be this machine's: QEMU looks below -L first.
root=$work/root
mkdir -p "$root/proc" "$root/sys/devices/system/cpu"
ln -s "$sysroot/lib" "$root/lib"
for list in possible present online kernel_max; do echo 0 > "$root/sys/devices/system/cpu/$list"; done

# processor CPU: describes it as Linux does
processor() {
    local part=0xd08 dotprod=
    [ "$1" = cortex-a76 ] && part=0xd0b dotprod=" asimddp"
    printf '%s\n' "processor : 0" "Features : fp asimd evtstrm aes pmull sha1 sha2 crc32 cpuid$dotprod" \
        "CPU implementer : 0x41" "CPU architecture: 8" "CPU variant : 0x0" "CPU part : $part" "CPU revision : 3" "" \
        > "$root/proc/cpuinfo"
}

# instructions CPU LIBRARY_PATH COMMAND...
instructions() {
    local cpu=$1 libraries=$2 log=$work/log
    shift 2
    "$qemu" -cpu "$cpu" -plugin "$work/libinstructions.so" -L "$root" -E LD_LIBRARY_PATH="$libraries" \
        ${OUTLIERD_ISA:+-E OUTLIERD_ISA="$OUTLIERD_ISA"} "$@" > "$log" 2>&1 || { tail -5 "$log" >&2; return 1; }
    awk '/^instructions/ {n = $2} END {print n}' "$log"
}

# per_frame CPU LIBRARY_PATH COMMAND with {n}
per_frame() {
    local cpu=$1 libraries=$2 command=$3 one three
    # The command is split at blanks on purpose.
    # shellcheck disable=SC2086
    one=$(instructions "$cpu" "$libraries" ${command//\{n\}/1})
    # shellcheck disable=SC2086
    three=$(instructions "$cpu" "$libraries" ${command//\{n\}/3})
    echo $(((three - one) / 2))
}

if [ -n "${ORT_INCLUDE:-}" ]; then
    lib=$(cd "$(dirname "${ORT_LIB:?}")" && pwd)
    ln -s "$lib/$(basename "$ORT_LIB")" "$work/libonnxruntime.so.1"
    "$cc" -O2 -I"$ORT_INCLUDE" "$here/instructions_ort.c" "$lib/$(basename "$ORT_LIB")" -o "$work/ort"
fi
for cpu in ${CPUS:-cortex-a76 cortex-a72}; do
    processor "$cpu"
    ours=$(per_frame "$cpu" "" "$OURS")
    echo "$cpu outlierd $ours"
    if [ -n "${ORT_INCLUDE:-}" ]; then
        theirs=$(per_frame "$cpu" "$work:$lib:$sysroot/lib" "$work/ort $MODEL {n}")
        echo "$cpu onnxruntime $theirs ratio $(awk "BEGIN {printf \"%.3f\", $ours / $theirs}")"
    fi
done
