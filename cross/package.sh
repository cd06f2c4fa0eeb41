#!/usr/bin/env bash
# Makes a Debian package of a built program with dpkg-deb alone, and prints its path:
#   cross/package.sh arm64|armhf|amd64 BINARY
# RUNNER: how to run BINARY here, for its man page and completions; TOOLS: prefix of the binutils;
# DEB_VERSION: instead of the crate's version. The result depends on nothing but the sources (SOURCE_DATE_EPOCH: the commit's).
set -euo pipefail
arch=$1 binary=$(realpath "$2")
cd "$(dirname "$0")/.."
version=${DEB_VERSION:-$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1)}
export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || echo 0)}
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
chmod 755 "$root"
program() { ${RUNNER:-} "$binary" "$@"; }

install -D -m 755 "$binary" "$root/usr/bin/outlierd"
for unit in outlierd.service outlierd.path outlierd@.service outlierd-camera@.service outlierd-rtsp@.service \
    outlierd-page.service outlierd-page.socket; do
    install -D -m 644 "systemd/$unit" "$root/usr/lib/systemd/system/$unit"
done
install -D -m 755 systemd/feed.sh "$root/usr/lib/outlierd/feed"
install -D -m 644 systemd/outlierd.sysusers "$root/usr/lib/sysusers.d/outlierd.conf"
install -D -m 644 systemd/outlierd.tmpfiles "$root/usr/lib/tmpfiles.d/outlierd.conf"
install -D -m 644 systemd/99-outlierd-gpio.rules "$root/usr/lib/udev/rules.d/99-outlierd-gpio.rules"
install -D -m 644 systemd/outlierd.toml "$root/etc/outlierd/outlierd.toml"

mkdir -p "$root"/usr/share/{man/man1,bash-completion/completions,zsh/vendor-completions,fish/vendor_completions.d}
program man | gzip -9n > "$root/usr/share/man/man1/outlierd.1.gz"
for command in $(program completions bash | sed -n 's/^ *outlierd,\([a-z]*\))$/\1/p' | grep -vx -e help -e man); do
    program man "$command" | gzip -9n > "$root/usr/share/man/man1/outlierd-$command.1.gz"
done
program completions bash > "$root/usr/share/bash-completion/completions/outlierd"
program completions zsh > "$root/usr/share/zsh/vendor-completions/_outlierd"
program completions fish > "$root/usr/share/fish/vendor_completions.d/outlierd.fish"

doc=$root/usr/share/doc/outlierd
mkdir -p "$doc"
install -m 644 README.md "$doc/"
install -m 644 cross/README.md "$doc/boards.md"
install -m 644 systemd/outlierd.toml "$doc/outlierd.toml.example"
install -m 644 systemd/outlierd.service.d/mqtt.conf.example "$doc/"
mkdir "$doc/outlierd-page.service.d"
install -m 644 systemd/outlierd-page.service.d/*.example "$doc/outlierd-page.service.d/"
{
    printf 'outlierd is licensed under the MIT licence or the Apache licence 2.0, at your choice.\n\n'
    cat LICENSE-MIT
    printf '\n'
    cat LICENSE-APACHE
} > "$doc/copyright"
{
    printf 'outlierd (%s) unstable; urgency=medium\n\n  * See the commits of the project.\n\n' "$version"
    printf ' -- The outlierd authors <outlierd@localhost>  %s\n' "$(LC_ALL=C date -u -R -d "@$SOURCE_DATE_EPOCH")"
} | gzip -9n > "$doc/changelog.gz"

# The C library: the newest symbol version that the program asks for.
glibc=$("${TOOLS:-}objdump" -T "$binary" | grep -o 'GLIBC_[0-9.]*' | sort -uV | tail -1)
mkdir "$root/DEBIAN"
cat > "$root/DEBIAN/control" <<CONTROL
Package: outlierd
Version: $version
Architecture: $arch
Maintainer: The outlierd authors <outlierd@localhost>
Installed-Size: $(du -sk --apparent-size --exclude=DEBIAN "$root" | cut -f1)
Depends: libc6 (>= ${glibc#GLIBC_}), libgcc-s1, systemd, udev
Suggests: ffmpeg, gpiod, rpicam-apps, v4l-utils
Section: science
Priority: optional
Description: watches a camera and says when something is not what it was taught
 Learns one class from pictures of what is normal, by the features of a ResNet-50, and then
 raises an event (log, snapshot, program, GPIO line) when the camera shows something else.
CONTROL
echo /etc/outlierd/outlierd.toml > "$root/DEBIAN/conffiles"
install -m 755 cross/package/postinst cross/package/prerm cross/package/postrm "$root/DEBIAN/"
(cd "$root" && find . -type f -not -path './DEBIAN/*' -printf '%P\0' | sort -z | xargs -0 md5sum) > "$root/DEBIAN/md5sums"

mkdir -p target/packages
deb=$PWD/target/packages/outlierd_${version}_$arch.deb
dpkg-deb --root-owner-group -Zxz --build "$root" "$deb" >/dev/null
echo "$arch package $(stat -c %s "$deb" | numfmt --to=iec)" >&2
echo "$deb"
