#!/usr/bin/env bash
# Boots the virtual board:  boot.sh IMAGE HOSTDIR [DISK]
# Runs HOSTDIR/guest/main.sh in it under systemd; HOSTDIR is /host there. DISK is kept (made from the image's if missing);
# without it every change is forgotten. The script's exit code is in HOSTDIR/out/exitcode.
# A file HOSTDIR/out/cut-power that the guest makes cuts its power some seconds later: exit code 100.
# CPU (default cortex-a76), SMP (2), LIMIT (600 seconds).
set -euo pipefail
image=$1 host=$(realpath "$2") disk=${3:-}
mkdir -p "$host/out"
rm -f "$host/out/exitcode" "$host/out/cut-power"
if [ -z "$disk" ]; then
    drive="file=$image/root.ext4,format=raw,snapshot=on"
else
    [ -e "$disk" ] || qemu-img create -q -f qcow2 -F raw -b "$image/root.ext4" "$disk"
    drive="file=$disk,format=qcow2"
fi
qemu-system-aarch64 -M virt,gic-version=3 -accel tcg,thread=multi -cpu "${CPU:-cortex-a76}" -smp "${SMP:-2}" -m 1024 \
    -nodefaults -display none -serial stdio -no-reboot -kernel "$image/vmlinuz" -initrd "$image/initrd.cpio" \
    -drive "if=none,id=disk,$drive" -device virtio-blk-pci,drive=disk -device virtio-rng-pci \
    -virtfs "local,path=$host,mount_tag=host,security_model=none" \
    -append "console=ttyAMA0 root=/dev/vda rw quiet systemd.show_status=0 panic=-1" </dev/null &
qemu=$!
trap 'kill -9 $qemu 2>/dev/null || true' EXIT
end=$((SECONDS + ${LIMIT:-600}))
while kill -0 $qemu 2>/dev/null; do
    if [ $SECONDS -ge $end ]; then
        echo "boot: stopped after ${LIMIT:-600} s" >&2
        exit 124
    fi
    if [ -e "$host/out/cut-power" ]; then
        sleep "$(cat "$host/out/cut-power")"
        kill -9 $qemu
        wait $qemu || true
        exit 100
    fi
    sleep 0.2
done
wait $qemu || true
[ -e "$host/out/exitcode" ] || exit 99
exit "$(cat "$host/out/exitcode")"
