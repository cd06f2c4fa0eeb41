#!/usr/bin/env bash
# The device test: builds the virtual board's image (once) and the arm64 package, boots the board, installs the package,
# and runs the real service on a fed camera, vivid and a simulated GPIO chip. One line a check, "N passed, N failed" last.
#   tests/device/run.sh [--board-only] [--keep]
# OUTLIERD_ARM64_DEB, OUTLIERD_ARMHF_DEB: packages built before (default: cross/build.sh with PROFILE, default release and quick).
# OUTLIERD_SHARED: development models, for one frame through the full int8 network (default ../shared).
# SOAK: seconds of the test of growth (default 30). LIMIT: seconds that a boot may take besides (default 1500).
# OUTLIERD_DEVICE_CACHE: see image.sh.
set -euo pipefail
cd "$(dirname "$0")/../.."
here=$PWD/tests/device
board_only='' keep=''
for argument; do
    case $argument in
    --board-only) board_only=1 ;;
    --keep) keep=1 ;;
    *) sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0"; exit 64 ;;
    esac
done
. cross/debian.sh

skip_all() {
    echo "SKIPPED device: $1"
    exit 0
}
[ "$(uname -m)" = x86_64 ] || skip_all "made for x86-64 machines"
why=$(debian_missing)
[ -z "$why" ] || skip_all "the board cannot be built here: $why"
work=$(mktemp -d)
cleanup() { if [ -n "$keep" ]; then echo "kept: $work"; else rm -rf "$work"; fi; }
trap cleanup EXIT
if ! command -v qemu-system-aarch64 >/dev/null || ! command -v gpg >/dev/null; then
    WORK=$work
    debian_setup
    install_missing gpg=gnupg
fi
if ! command -v qemu-system-aarch64 >/dev/null; then
    echo "installing: qemu-system-arm qemu-utils"
    apt_get -q install -y --no-install-recommends -t bookworm-backports qemu-system-arm qemu-utils >/dev/null ||
        skip_all "qemu-system-arm cannot be installed"
fi
started=$SECONDS
image=$("$here/image.sh")
echo "image: $image ($((SECONDS - started)) s)"

host=$work/host
mkdir -p "$host/out" "$host/frames"
cp -r "$here/guest" "$host/"
perl "$here/scene.pl" "$host/frames" 320 240

summary() {
    local passed failed skipped
    cp -r "$host/out/." target/device-test/
    passed=$(grep -c '^ok ' "$host/out/results" || true)
    failed=$(grep -c '^FAILED ' "$host/out/results" || true)
    skipped=$(grep -c '^SKIPPED ' "$host/out/results" || true)
    [ ! -e "$host/out/notes" ] || sed 's/^/note: /' "$host/out/notes"
    grep -E '^(FAILED|SKIPPED) ' "$host/out/results" || true
    echo "device: $passed passed, $failed failed, $skipped skipped, $((SECONDS - started)) s; logs in target/device-test"
    [ "$failed" = 0 ] && [ "$passed" -gt 0 ]
}

# stage NAME EXPECTED-CODE [DISK] : boots the board for one stage.
stage() {
    local name=$1 expected=$2 disk=${3:-} code=0 from=$SECONDS
    echo "$name" > "$host/stage"
    LIMIT=$((${LIMIT:-1500} + ${SOAK:-30})) "$here/boot.sh" "$image" "$host" $disk || code=$?
    if [ $code = "$expected" ]; then
        echo "ok stage $name ended" >> "$host/out/results"
    else
        echo "FAILED stage $name: ended with $code" >> "$host/out/results"
    fi
    echo "$name: $((SECONDS - from)) s with boot" >> "$host/out/notes"
}
rm -rf target/device-test
mkdir -p target/device-test

if [ -n "$board_only" ]; then
    stage board 0
    summary
    exit
fi

deb() {
    local variable=OUTLIERD_${2}_DEB
    if [ -n "${!variable:-}" ]; then realpath "${!variable}"; else PROFILE=${PROFILE:-$3} cross/build.sh "$1"; fi
}
arm64_deb=$(deb aarch64 ARM64 release)
armhf_deb=$(deb armv7 ARMHF quick)
dpkg-deb --raw-extract "$armhf_deb" "$work/armhf"
cp "$work/armhf/usr/bin/outlierd" "$host/outlierd-armhf"
# The same program as a later version, for the upgrade.
dpkg-deb --raw-extract "$arm64_deb" "$work/next"
sed -i 's/^Version: .*/&+next/' "$work/next/DEBIAN/control"
dpkg-deb --root-owner-group -Znone --build "$work/next" "$work/next.deb" >/dev/null
# A signed repository as it is first, and with the later version.
export GNUPGHOME=$work/keys
mkdir -m 700 "$GNUPGHOME"
gpg --batch --quiet --passphrase '' --quick-generate-key 'Board <board@localhost>' ed25519 sign never
cross/repository.sh --key board@localhost "$host/repository" "$arm64_deb"
cp -r "$host/repository" "$host/repository-next"
cross/repository.sh --key board@localhost "$host/repository-next" "$work/next.deb"
gpgconf --kill all
shared=${OUTLIERD_SHARED:-../shared}
[ ! -e "$shared/models/resnet50-full-qop.onnx" ] || cp "$shared/models/resnet50-full-qop.onnx" "$host/full.onnx"
echo "${SOAK:-30}" > "$host/soak"

disk=$work/disk.qcow2
stage first 100 "$disk"
stage second 0 "$disk"
summary
