#!/usr/bin/env bash
# Tries what is shipped on this machine's Debian, in a copy of it that is thrown away: the package by lintian, twice made and
# compared, from a signed repository by apt (install, upgrade, a forged index, purge), and the tarball's install.sh.
#   tests/packages/run.sh [BINARY]                 (default: target/release/outlierd, stripped)
# Needs root, apt, cargo, gpg, jq and overlay mounts; says SKIPPED where they are missing. One line a check, their number last.
set -euo pipefail
cd "$(dirname "$0")/../.."
binary=${1:-${CARGO_TARGET_DIR:-target}/release/outlierd}
arch=$(dpkg --print-architecture 2>/dev/null || true)
skip_all() { echo "SKIPPED packages: $1"; exit 0; }
[ -n "$arch" ] || skip_all "no dpkg"
[ "$(id -u)" = 0 ] || skip_all "not root"
for tool in apt-get cargo gpg jq strip; do command -v $tool >/dev/null || skip_all "no $tool"; done
[ -x "$binary" ] || { echo "packages: no $binary: cargo build --release" >&2; exit 66; }

if [ -z "${PACKAGES_INSIDE-}" ]; then
    unshare --mount true 2>/dev/null || skip_all "no mount namespaces"
    PACKAGES_INSIDE=$(mktemp -d)
    export PACKAGES_INSIDE
    trap 'rmdir "$PACKAGES_INSIDE"' EXIT
    # What is mounted there goes with the namespace.
    unshare --mount --propagation private "$0" "$@"
    exit
fi

work=$PACKAGES_INSIDE
mount -t tmpfs tmpfs "$work"
mkdir "$work/up" "$work/new" "$work/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$work/up,workdir=$work/new" "$work/root" 2>/dev/null ||
    skip_all "no overlay mounts"
root=$work/root
for kind in proc dev; do mount --rbind /$kind "$root/$kind"; done
mkdir -p "$root/try"
# The packages differ in nothing but what they are told to.
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)
export SOURCE_DATE_EPOCH
export GNUPGHOME=$work/keys DEBIAN_FRONTEND=noninteractive
mkdir -m 700 "$GNUPGHOME"

failed=0 passed=0
check() {
    local name=$1
    shift
    if "$@" > "$work/check.log" 2>&1; then
        passed=$((passed + 1))
        echo "ok $name"
    else
        failed=$((failed + 1))
        echo "FAILED $name: $*"
        tail -n 5 "$work/check.log"
    fi
}
inside() { chroot "$root" "$@"; }
in_root() { for file; do [ -e "$root/$file" ] || { echo "no $file"; return 1; }; done; }
# Every program and script that a unit names, but systemd's and kill.
runs_what_is_there() {
    local program count=0
    for program in $(sed -n 's/^Exec[A-Za-z]*=-\{0,1\}\([^ ]*\).*/\1/p' "$root"/usr/local/lib/systemd/system/outlierd*.service); do
        [ -x "$root$program" ] || { echo "no $program"; return 1; }
        count=$((count + 1))
    done
    [ $count -gt 5 ] && ! grep -l '/usr/bin/outlierd\|/usr/lib/outlierd' "$root"/usr/local/lib/systemd/system/outlierd*
}
gone() { for file; do [ ! -e "$root/$file" ] || { echo "$file is there"; return 1; }; done; }
all_mine() { for file; do grep -qx mine "$root/$file" || return 1; done; }
spool_is_for_two() { [ "$(inside stat -c '%a %U %G' /var/spool/outlierd)" = '2770 outlierd outlierd-spool' ]; }
version() { [ "$(inside dpkg-query -W -f '${Version}' outlierd)" = "$1" ]; }

stripped=$work/outlierd
strip -o "$stripped" "$binary"
deb=$(cross/package.sh "$arch" "$stripped")
cp "$deb" "$work/first.deb"
again() { (umask 077; TZ=Asia/Kathmandu LC_ALL=C.UTF-8 cross/package.sh "$arch" "$stripped") && cmp "$deb" "$work/first.deb"; }
check "package: made twice, the same" again
if command -v lintian >/dev/null; then
    check "package: lintian" lintian --allow-root --fail-on error,warning "$deb"
else
    echo "SKIPPED package: lintian: it is not installed"
fi
# Every crate has where it is from, under which licence, and its checksum.
materials() {
    cross/sbom.sh "$1" > "$work/sbom.json" && jq -e '(.components | length > 100) and all(.components[];
        .purl and .licenses and (.hashes[0].content | length == 64)) and
        ([.dependencies[].dependsOn[]] - [.components[].purl] == [])' "$work/sbom.json"
}
for target in aarch64 armv7 amd64; do check "bill of materials of $target" materials $target; done
# Those of the bill, each with the expression that the bill has.
licences_of_all() {
    dpkg-deb --fsys-tarfile "$deb" | tar -xO ./usr/share/doc/outlierd/third-party.gz | gzip -dc > "$work/third-party" &&
        cross/sbom.sh "$arch" > "$work/sbom.json" &&
        jq -r '.components[] | "\(.name) \(.version)\n    \(.licenses[0].expression)"' "$work/sbom.json" > "$work/wanted" &&
        sed 's#/# OR #' "$work/third-party" | awk -v wanted="$work/wanted" '
            { if (previous != "") seen[previous "\n" $0] = 1; previous = $0 }
            END { while ((getline crate < wanted) > 0) {
                getline licence < wanted; count++
                if (!((crate "\n" licence) in seen)) { print "no " crate licence; missing++ }
            } exit missing > 0 || count < 100 }'
}
check "package: licences of every crate" licences_of_all
pages_are_well() { (set -e; for page in "$root"/usr/share/man/man?/outlierd*; do [ -z "$(man --warnings -l "$page" 2>&1 >/dev/null)" ]; done); }

old=$(dpkg-deb -f "$deb" Version) new=$(dpkg-deb -f "$deb" Version)+next
# The next version, whose conffiles are others.
dpkg-deb -R "$deb" "$work/next"
sed -i "s/^Version: .*/Version: $new/" "$work/next/DEBIAN/control"
for file in outlierd.toml notify.conf; do echo '# next' >> "$work/next/etc/outlierd/$file"; done
dpkg-deb --root-owner-group -Znone --build "$work/next" "$work/next.deb" >/dev/null
repository=$root/try/repository
check "repository: no key, no repository" sh -c "! cross/repository.sh --key nobody $repository $deb"
gpg --batch --quiet --passphrase '' --quick-generate-key 'Try <try@localhost>' ed25519 sign never 2>/dev/null
check "repository: made" cross/repository.sh --key try@localhost "$repository" "$deb"
mkdir -p "$root/etc/apt/keyrings"
cp "$repository/outlierd-archive-keyring.asc" "$root/etc/apt/keyrings/"
source="deb [signed-by=/etc/apt/keyrings/outlierd-archive-keyring.asc] file:/try/repository stable main"
echo "$source" > "$root/etc/apt/sources.list.d/outlierd.list"
update() { inside apt-get -q -o "Dir::Etc::sourcelist=/etc/apt/sources.list.d/outlierd.list" -o Dir::Etc::sourceparts=- \
    -o APT::Get::List-Cleanup=0 -o APT::Sandbox::User=root --error-on=any update; }
check "apt: update" update
check "apt: install" inside apt-get -q -y --no-install-recommends install outlierd
check "install: the version" version "$old"
check "install: the program runs" inside outlierd --version
check "install: the daemon's user" inside id outlierd
check "install: the spool is for two" spool_is_for_two
check "install: manual pages" in_root usr/share/man/man8/outlierd.8.gz usr/share/man/man5/outlierd.toml.5.gz \
    usr/share/man/man5/outlierd-events.5.gz usr/share/man/man1/outlierd-fit.1.gz
if command -v man >/dev/null; then check "install: manual pages without warnings" pages_are_well; fi
echo '# mine' >> "$root/etc/outlierd/outlierd.toml"
mkdir -p "$root"/var/lib/outlierd/{snapshots,outlierd.teach,door} "$root"/var/{log,cache}/outlierd/door
kept="etc/outlierd/door.toml etc/outlierd/gate.rtsp etc/outlierd/page-token var/lib/outlierd/outlierd.history
    var/lib/outlierd/snapshots/outlier-1.jpg var/lib/outlierd/outlierd.teach/00001.jpg var/lib/outlierd/door/door.history
    var/log/outlierd/events.jsonl var/log/outlierd/door/events.jsonl var/cache/outlierd/door/weights"
for file in $kept; do echo mine > "$root/$file"; done
# Of the oldest format.
cp tests/fixtures/models/v1.outlierd "$root/var/lib/outlierd/model.outlierd"
check "repository: a second version" cross/repository.sh --key try@localhost "$repository" "$work/next.deb"
check "repository: both versions" sh -c "[ \$(ls $repository/pool/main/o/outlierd | wc -l) = 2 ]"
update > "$work/check.log" 2>&1 || true
check "apt: upgrade" inside apt-get -q -y -o Dpkg::Options::=--force-confold install --only-upgrade outlierd
check "upgrade: the version" version "$new"
check "upgrade: the config that was changed is kept" grep -qx '# mine' "$root/etc/outlierd/outlierd.toml"
check "upgrade: the new one lies beside it" grep -qx '# next' "$root/etc/outlierd/outlierd.toml.dpkg-dist"
check "upgrade: what was not changed is replaced" grep -qx '# next' "$root/etc/outlierd/notify.conf"
check "upgrade: configs, histories, events, snapshots and caches are kept" all_mine $kept
check "upgrade: the model is kept" cmp tests/fixtures/models/v1.outlierd "$root/var/lib/outlierd/model.outlierd"
check "upgrade: the model is read" inside outlierd inspect /var/lib/outlierd/model.outlierd
echo 'Date: Thu, 01 Jan 2099 00:00:00 +0000' >> "$repository/dists/stable/InRelease"
sed -i 's/^Label: .*/Label: forged/' "$repository/dists/stable/InRelease" "$repository/dists/stable/Release"
check "apt: a forged index is refused" sh -c "! chroot $root apt-get -q -o Dir::Etc::sourcelist=/etc/apt/sources.list.d/outlierd.list \
    -o Dir::Etc::sourceparts=- -o APT::Get::List-Cleanup=0 -o APT::Sandbox::User=root --error-on=any update"
check "apt: purge" inside apt-get -q -y purge outlierd
left() { [ -z "$(find "$root"/etc "$root"/usr "$root"/var/{lib,log,cache,spool} "$root"/run -xdev -name '*outlierd*' \
    -not -path '*/var/lib/apt/lists/*' -not -path '*/var/cache/apt/*' -not -path '*/keyrings/*' \
    -not -path '*/sources.list.d/*' | tee "$work/left")" ] || { cat "$work/left"; return 1; }; }
check "purge: nothing left" left

tarball=$(cross/tarball.sh "$deb")
tar -x -C "$root/try" -f "$tarball"
installer=/try/$(basename "$tarball" .tar.xz)/install.sh
check "tarball: installs" inside "$installer"
check "tarball: the program runs" inside /usr/local/bin/outlierd --version
check "tarball: a second time, the same" inside "$installer"
check "tarball: units start the program that is there" runs_what_is_there
check "tarball: the daemon's user" inside id outlierd
check "tarball: the manual, the licences of others" in_root usr/local/share/man/man8/outlierd.8.gz \
    usr/local/share/doc/outlierd/third-party.gz usr/local/share/doc/outlierd/default-backbone.md
echo '# mine' >> "$root/etc/outlierd/outlierd.toml"
echo mine > "$root/var/lib/outlierd/model.outlierd"
touch "$root/usr/local/lib/outlierd/of-an-older-version"
echo /usr/local/lib/outlierd/of-an-older-version >> "$root/usr/local/lib/outlierd/installed"
check "tarball: installs over what is there" inside "$installer"
check "tarball: the config is kept" grep -qx '# mine' "$root/etc/outlierd/outlierd.toml"
check "tarball: what is no longer shipped goes" gone usr/local/lib/outlierd/of-an-older-version
check "tarball: uninstalls" inside "$installer" --uninstall
check "uninstall: config and model are kept" in_root etc/outlierd/outlierd.toml var/lib/outlierd/model.outlierd
check "uninstall: nothing else is left" gone usr/local/bin/outlierd usr/local/lib/outlierd usr/local/lib/systemd/system/outlierd.service
check "tarball: elsewhere" inside env PREFIX=/opt/outlierd "$installer"
check "tarball: elsewhere: units start the program there" runs_what_is_there
echo "packages: $passed passed, $failed failed"
[ "$failed" = 0 ]
