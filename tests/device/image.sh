#!/usr/bin/env bash
# Builds the virtual board and prints its folder (vmlinuz, initrd.cpio, root.ext4): Debian trixie arm64 with systemd,
# Debian's 6.12 kernel with vivid, and gpio-sim and v4l2loopback built out of tree, because no Debian kernel has them.
# The folder is named after the hash of these scripts, so that a second call finds it.
# OUTLIERD_DEVICE_CACHE: where (default ~/.cache/outlierd/device).
set -euo pipefail
here=$(realpath "$(dirname "$0")")
. "$here/../../cross/debian.sh"

cache=$(realpath -m "${OUTLIERD_DEVICE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/outlierd/device}")
hash=$(cat "$here/image.sh" "$here"/image/* "$here/../../cross/debian.sh" | sha256sum | cut -c1-16)
image=$cache/$hash
if [ -e "$image/root.ext4" ]; then echo "$image"; exit; fi

why=$(debian_missing)
[ -z "$why" ] || { echo "image: cannot build the board here: $why" >&2; exit 69; }
WORK=$cache/work-$hash
rm -rf "$WORK"
mkdir -p "$WORK"
say() { echo "image: $*" >&2; }
exec 3>&1 1>&2

debian_setup
install_missing mmdebstrap=mmdebstrap mke2fs=e2fsprogs depmod=kmod cpio=cpio xz=xz-utils make=make gcc=gcc \
    aarch64-linux-gnu-gcc=gcc-aarch64-linux-gnu arch-test=arch-test
# Foreign maintainer scripts run through qemu's user emulation.
install_missing qemu-aarch64-static=qemu-user-static
binfmt=/proc/sys/fs/binfmt_misc
[ -e $binfmt/register ] || mount -t binfmt_misc binfmt_misc $binfmt
for arch in aarch64 arm; do
    [ -e $binfmt/qemu-$arch ] || grep -v '^#' /usr/lib/binfmt.d/qemu-$arch.conf > $binfmt/register
done

# The newest 6.12 kernel.
kernel=$(apt_cache pkgnames linux-image-6.12 | grep -E '^linux-image-[0-9.]+\+deb12(\.[0-9]+)?-arm64$' | sort -V | tail -1)
release=${kernel#linux-image-}
base=${release%-arm64}
version=$(apt_cache show "$kernel:arm64" 2>/dev/null | awk '/^Version:/ {print $2; exit}')
say "kernel $release ($version)"
mkdir -p "$WORK/dl" "$WORK/kernel" "$WORK/build"
(cd "$WORK/dl" && apt_get -q download "$kernel:arm64" "linux-headers-$release:arm64" "linux-headers-$base-common:amd64" \
    "linux-kbuild-$base:amd64" "linux-source-6.12=$version" v4l2loopback-dkms/bookworm-backports busybox-static:arm64 \
    libc6-armhf-cross:amd64 libgcc-s1-armhf-cross:amd64 >/dev/null)
dl=$WORK/dl build=$WORK/build
for deb in "$dl"/linux-headers-*.deb "$dl"/linux-kbuild-*.deb "$dl"/v4l2loopback-dkms*.deb; do dpkg -x "$deb" "$build"; done
dpkg-deb --fsys-tarfile "$dl/$(basename "$kernel")"_*.deb | tar -x -C "$WORK/kernel" ./boot ./lib/modules
dpkg-deb --fsys-tarfile "$dl"/linux-source-6.12_*.deb | tar -x -O ./usr/src/linux-source-6.12.tar.xz |
    tar -xJ -C "$build" linux-source-6.12/drivers/gpio/gpio-sim.c linux-source-6.12/kernel/irq/irq_sim.c

# Modules out of tree. irq_sim calls a function that the kernel does not export; its exported sibling does the same here.
headers=$build/usr/src/linux-headers-$release
echo "include $build/usr/src/linux-headers-$base-common/Makefile" > "$headers/Makefile"
rm -f "$headers/vmlinux"
mkdir -p "$build/gpio-sim" "$build/v4l2loopback"
cp "$build/linux-source-6.12/drivers/gpio/gpio-sim.c" "$build/gpio-sim/gpio-sim-main.c"
sed 's/handle_simple_irq(irq_to_desc(irqnum))/generic_handle_irq_safe(irqnum)/' \
    "$build/linux-source-6.12/kernel/irq/irq_sim.c" > "$build/gpio-sim/irq_sim.c"
printf 'obj-m := gpio-sim.o\ngpio-sim-y := gpio-sim-main.o irq_sim.o\n' > "$build/gpio-sim/Makefile"
cp "$build"/usr/src/v4l2loopback-*/*.[ch] "$build/v4l2loopback/"
echo 'obj-m := v4l2loopback.o' > "$build/v4l2loopback/Makefile"
for module in gpio-sim v4l2loopback; do
    make -s -C "$headers" M="$build/$module" ARCH=arm64 CROSS_COMPILE=aarch64-linux-gnu- CC=aarch64-linux-gnu-gcc \
        modules > "$build/$module.log" 2>&1 || { cat "$build/$module.log"; exit 1; }
    aarch64-linux-gnu-strip -g "$build/$module/$module.ko"
done
depmod -b "$WORK/kernel" "$release"

# The root file system.
root=$WORK/root
mmdebstrap --quiet --variant=apt --arch=arm64 --include=systemd,systemd-sysv,udev,dbus,kmod,v4l-utils,gpiod,procps \
    trixie "$root" "deb [signed-by=$keyring] $(mirror bookworm) trixie main"
modules=lib/modules/$release
mkdir -p "$root/usr/$modules/extra"
cp "$WORK/kernel/$modules"/modules.builtin* "$WORK/kernel/$modules/modules.order" "$root/usr/$modules/"
# module_files NAME... : the modules' files and those they depend on, in loading order.
module_files() {
    local name
    for name; do modprobe -d "$WORK/kernel" -S "$release" --show-depends "$name" 2>/dev/null; done |
        awk '$1 == "insmod" && !seen[$2]++ {print $2}'
}
for file in $(module_files vivid uvcvideo 9p 9pnet_virtio virtio_rng configfs autofs4); do
    to=$root/usr/$modules/${file#*"$release"/}
    mkdir -p "$(dirname "$to")"
    xz -dc "$file" > "${to%.xz}"
done
cp "$build/gpio-sim/gpio-sim.ko" "$build/v4l2loopback/v4l2loopback.ko" "$root/usr/$modules/extra/"
depmod -b "$root" "$release"
# The C library of 32-bit programs.
for deb in "$dl"/lib*-armhf-cross_*.deb; do dpkg -x "$deb" "$WORK/armhf"; done
mkdir -p "$root/usr/lib/arm-linux-gnueabihf"
cp -a "$WORK"/armhf/usr/arm-linux-gnueabihf/lib/*.so* "$root/usr/lib/arm-linux-gnueabihf/"
ln -sf arm-linux-gnueabihf/ld-linux-armhf.so.3 "$root/usr/lib/ld-linux-armhf.so.3"
cp "$here/image/device-test.service" "$root/etc/systemd/system/"
mkdir -p "$root/host" "$root/etc/systemd/system/multi-user.target.wants"
ln -sf ../device-test.service "$root/etc/systemd/system/multi-user.target.wants/"
echo 'host /host 9p trans=virtio,version=9p2000.L,msize=262144 0 0' > "$root/etc/fstab"
echo board > "$root/etc/hostname"
: > "$root/etc/machine-id"
for unit in apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer e2scrub_reap.service \
    systemd-timesyncd.service getty@tty1.service serial-getty@.service ldconfig.service systemd-hwdb-update.service \
    systemd-firstboot.service systemd-journal-catalog-update.service systemd-update-done.service sys-kernel-debug.mount \
    sys-kernel-tracing.mount dev-hugepages.mount; do
    ln -sf /dev/null "$root/etc/systemd/system/$unit"
done
rm -rf "$root"/usr/share/{doc,man,locale,info}/* "$root"/var/lib/apt/lists/* "$root"/var/cache/apt/*

# The initrd: busybox and the disk's drivers.
initrd=$WORK/initrd
mkdir -p "$initrd"/{bin,mod,dev,proc,sys,newroot} "$WORK/busybox"
dpkg -x "$dl"/busybox-static_*_arm64.deb "$WORK/busybox"
cp "$(find "$WORK/busybox" -path '*bin/busybox' | head -1)" "$initrd/bin/"
for file in $(module_files virtio_pci virtio_blk crc32c_generic ext4); do
    xz -dc "$file" > "$initrd/mod/$(basename "$file" .xz)"
    basename "$file" .xz >> "$initrd/mod/order"
done
install -m 755 "$here/image/init" "$initrd/init"

mkdir -p "$image"
cp "$WORK"/kernel/boot/vmlinuz-* "$image/vmlinuz"
(cd "$initrd" && find . | cpio -o -H newc --quiet) > "$image/initrd.cpio"
truncate -s 800M "$WORK/root.ext4"
mke2fs -q -t ext4 -O ^metadata_csum -d "$root" "$WORK/root.ext4"
mv "$WORK/root.ext4" "$image/root.ext4"
rm -rf "$WORK"
say "$(du -sh "$image" | cut -f1) in $image"
echo "$image" >&3
