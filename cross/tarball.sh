#!/usr/bin/env bash
# Makes a tarball with install.sh of a Debian package, for other systems with systemd, and prints its path:
#   cross/tarball.sh PACKAGE.deb
set -euo pipefail
umask 022
export LC_ALL=C TZ=UTC
deb=$(realpath "$1")
cd "$(dirname "$0")/.."
name=outlierd-$(dpkg-deb -f "$deb" Version)-$(dpkg-deb -f "$deb" Architecture)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/$name"
dpkg-deb --fsys-tarfile "$deb" | tar -x -C "$work/$name"
rm -rf "$work/$name/usr/share/lintian"
install -m 755 cross/package/install.sh cross/package/postinst cross/package/prerm cross/package/postrm "$work/$name/"
install -m 644 README.md LICENSE-MIT LICENSE-APACHE "$work/$name/"
mkdir -p target/packages
out=$PWD/target/packages/$name.tar.xz
time=$(dpkg-deb --fsys-tarfile "$deb" | tar -tv --full-time | awk 'NR == 1 {print $4 "T" $5 "Z"}')
tar -c -C "$work" --sort=name --owner=0 --group=0 --numeric-owner --mtime="$time" "$name" | xz -6 > "$out"
echo "$out"
