#!/bin/sh
# Installs the programs that some tests use (ffmpeg, GStreamer with an RTSP server, an MQTT broker, and those that check
# what is shipped); where they are not, those tests say SKIPPED. Debian and its like only; it does nothing where all of them
# are there.
set -eu
packages='ffmpeg gstreamer1.0-tools gstreamer1.0-plugins-base gstreamer1.0-plugins-good gstreamer1.0-plugins-ugly
    gir1.2-gst-rtsp-server-1.0 python3-gi curl gpg jq lintian man-db mandoc mosquitto mosquitto-clients openssl'

missing=
for package in $packages; do
    dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed || missing="$missing $package"
done
[ -n "$missing" ] || exit 0
sudo=
[ "$(id -u)" = 0 ] || sudo=sudo
echo "tests: installing:$missing" >&2
$sudo apt-get -q update >/dev/null
# shellcheck disable=SC2086
$sudo env DEBIAN_FRONTEND=noninteractive apt-get -q install -y --no-install-recommends $missing >/dev/null
