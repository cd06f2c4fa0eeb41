#!/usr/bin/env bash
# Makes a Debian package of a built program with dpkg-deb, and prints its path:
#   cross/package.sh arm64|armhf|amd64 BINARY
# RUNNER: how to run BINARY here, for its man page and completions; TOOLS: prefix of the binutils. The result depends on
# nothing but the sources and BINARY (SOURCE_DATE_EPOCH: the commit's). Version, maintainer, licence, description, homepage
# and repository are Cargo.toml's. cargo and jq tell the licences.
set -euo pipefail
umask 022
export LC_ALL=C TZ=UTC
arch=$1 binary=$(realpath "$2")
cd "$(dirname "$0")/.."
. cross/crate.sh
version=$(field version)
maintainer=$(field authors)
[ -n "$maintainer" ] || { echo "package: Cargo.toml names no authors = [\"NAME <ADDRESS>\"]" >&2; exit 78; }
export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || echo 0)}
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
chmod 755 "$root"
program() { ${RUNNER:-} "$binary" "$@"; }

install -D -m 755 "$binary" "$root/usr/bin/outlierd"
for unit in outlierd.service outlierd.path outlierd@.service outlierd-camera@.service outlierd-rtsp@.service \
    outlierd-page.service outlierd-page.socket outlierd-notify.path outlierd-notify.service; do
    install -D -m 644 "systemd/$unit" "$root/usr/lib/systemd/system/$unit"
done
for script in feed spool send; do install -D -m 755 "systemd/$script.sh" "$root/usr/lib/outlierd/$script"; done
install -D -m 644 systemd/outlierd.sysusers "$root/usr/lib/sysusers.d/outlierd.conf"
install -D -m 644 systemd/outlierd.tmpfiles "$root/usr/lib/tmpfiles.d/outlierd.conf"
install -D -m 644 systemd/99-outlierd-gpio.rules "$root/usr/lib/udev/rules.d/99-outlierd-gpio.rules"
install -D -m 644 -t "$root/etc/outlierd" systemd/outlierd.toml systemd/notify.conf

mkdir -p "$root"/usr/share/{man/man1,bash-completion/completions,zsh/vendor-completions,fish/vendor_completions.d}
program man > "$root/usr/share/man/man1/outlierd.1"
for command in $(program completions bash | sed -n 's/^ *outlierd,\([a-z-]*\))$/\1/p' | grep -vx -e help -e man); do
    program man "$command" > "$root/usr/share/man/man1/outlierd-$command.1"
done
cross/manual.sh "$root/usr/share/man"
find "$root/usr/share/man" -type f -exec gzip -9n {} +
program completions bash > "$root/usr/share/bash-completion/completions/outlierd"
program completions zsh > "$root/usr/share/zsh/vendor-completions/_outlierd"
program completions fish > "$root/usr/share/fish/vendor_completions.d/outlierd.fish"

doc=$root/usr/share/doc/outlierd
mkdir -p "$doc"
install -m 644 README.md "$doc/"
install -m 644 cross/README.md "$doc/boards.md"
install -m 644 models/default.md "$doc/default-backbone.md"
cross/licences.sh "$arch" | gzip -9n > "$doc/third-party.gz"
install -m 644 systemd/outlierd.toml "$doc/outlierd.toml.example"
install -m 644 systemd/outlierd.service.d/mqtt.conf.example "$doc/"
mkdir "$doc/outlierd-page.service.d"
install -m 644 systemd/outlierd-page.service.d/*.example "$doc/outlierd-page.service.d/"
{
    printf 'Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n'
    printf 'Upstream-Name: outlierd\nUpstream-Contact: %s\nComment:\n' "$maintainer"
    printf ' The program contains crates of others: third-party.gz in this folder has their\n'
    printf ' authors and licence texts. What its neural network learnt from is told in\n default-backbone.md.\n\n'
    printf 'Files: *\n%s\nLicense: %s\n\nLicense: MIT\n' "$(sed -n 's/^Copyright (c)/Copyright:/p' LICENSE-MIT)" \
        "$(field license | sed 's/OR/or/')"
    sed -n '/^Permission/,$s/^$/./;/^Permission/,$s/^/ /p' LICENSE-MIT
    printf '\nLicense: Apache-2.0\n On Debian systems its text is in /usr/share/common-licenses/Apache-2.0.\n'
} > "$doc/copyright"
awk -v version="$version" -v maintainer="$maintainer" -v unreleased="$SOURCE_DATE_EPOCH" \
    -f cross/package/changelog.awk CHANGELOG.md | gzip -9n > "$doc/changelog.gz"
# While Cargo.toml has no address that mail reaches.
overrides=$root/usr/share/lintian/overrides/outlierd
install -D -m 644 cross/package/lintian-overrides "$overrides"
case $maintainer in *@localhost\>) ;; *) sed -i '/bogus-mail-host/d' "$overrides" ;; esac

# The C library: the newest symbol version that the program asks for.
glibc=$("${TOOLS:-}objdump" -T "$binary" | grep -o 'GLIBC_[0-9.]*' | sort -uV | tail -1)
mkdir "$root/DEBIAN"
# As dpkg-gencontrol counts, whatever the file system.
installed_size() { find "$root" -mindepth 1 -not -path '*/DEBIAN*' -printf '%y %s\n' |
    awk '{kib += $1 == "f" ? int(($2 + 1023) / 1024) : 1} END {print kib}'; }
homepage() {
    local home repository
    home=$(field homepage)
    repository=$(field repository)
    [ -z "${home:-$repository}" ] || echo "Homepage: ${home:-$repository}"
    [ -z "$repository" ] || printf 'Vcs-Browser: %s\nVcs-Git: %s\n' "$repository" "$repository"
}
sed '/^$/d' > "$root/DEBIAN/control" <<CONTROL
Package: outlierd
Version: $version
Architecture: $arch
Maintainer: $maintainer
Installed-Size: $(installed_size)
Depends: libc6 (>= ${glibc#GLIBC_}), libgcc-s1, systemd, udev
Suggests: ca-certificates, curl, ffmpeg, gpiod, rpicam-apps, v4l-utils
Section: science
Priority: optional
$(homepage)
Description: $(field description | sed 's/./\l&/')
 Learns one class from pictures of what is normal, by the features of a
 ResNet-50, and then raises an event (log, snapshot, program, GPIO line) when
 the camera shows something else.
CONTROL
(cd "$root" && find etc -type f -printf '/%p\n' | sort) > "$root/DEBIAN/conffiles"
install -m 755 cross/package/postinst cross/package/prerm cross/package/postrm "$root/DEBIAN/"
(cd "$root" && find . -type f -not -path './DEBIAN/*' -printf '%P\0' | sort -z | xargs -0 md5sum) > "$root/DEBIAN/md5sums"

mkdir -p target/packages
deb=$PWD/target/packages/outlierd_${version}_$arch.deb
dpkg-deb --root-owner-group -Zxz --build "$root" "$deb" >/dev/null
echo "$arch package $(stat -c %s "$deb" | numfmt --to=iec)" >&2
echo "$deb"
