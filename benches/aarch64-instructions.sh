#!/bin/bash
# Counts aarch64 instructions per frame under emulation: outlierd's forward pass and ONNX Runtime's, same model.
#
# Needs qemu-user with plugins (QEMU 7.2's dynamic build), an aarch64 cross compiler, and these variables:
#   MODEL         the ONNX file, int8 ResNet-50
#   OURS          an aarch64 command that runs the model; "{n}" is replaced by the number of frames, for example
#                 "target/aarch64-unknown-linux-gnu/release/outlierd bench --backbone $MODEL --threads 1 --frames {n}"
#   QEMU_INCLUDE  folder with qemu-plugin.h of that QEMU (its source package has it)
#   ORT_INCLUDE   folder with onnxruntime_c_api.h, not newer than the library (optional: without it only ours)
#   ORT_LIB       libonnxruntime.so for aarch64 (PyPI's wheel for manylinux aarch64 holds it)
#   SYSROOT       the cross compiler's libraries (default /usr/aarch64-linux-gnu)
#   CPUS          emulated processors (default "cortex-a76 cortex-a72": with and without the dot product)
# A count per frame is the difference of two runs with 1 and 3 frames, halved.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
: "${MODEL:?}" "${OURS:?}" "${QEMU_INCLUDE:?}"
sysroot=${SYSROOT:-/usr/aarch64-linux-gnu}
cc=${CC_AARCH64:-aarch64-linux-gnu-gcc}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

gcc -O2 -shared -fPIC -I"$QEMU_INCLUDE" "$here/instructions_plugin.c" -o "$work/libinstructions.so"

# instructions CPU LIBRARY_PATH COMMAND...
instructions() {
    local cpu=$1 libraries=$2
    shift 2
    qemu-aarch64 -cpu "$cpu" -plugin "$work/libinstructions.so" -L "$sysroot" -E LD_LIBRARY_PATH="$libraries" \
        ${OUTLIERD_ISA:+-E OUTLIERD_ISA="$OUTLIERD_ISA"} "$@" 2>&1 >/dev/null | awk '/^instructions/ {n = $2} END {print n}'
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
    ours=$(per_frame "$cpu" "" "$OURS")
    echo "$cpu outlierd $ours"
    if [ -n "${ORT_INCLUDE:-}" ]; then
        theirs=$(per_frame "$cpu" "$work:$lib:$sysroot/lib" "$work/ort $MODEL {n}")
        echo "$cpu onnxruntime $theirs ratio $(awk "BEGIN {printf \"%.3f\", $ours / $theirs}")"
    fi
done
