# Two daemons at once: outlierd@front on vivid, outlierd@back on what outlierd-camera@back feeds; then a network camera.
feed_scene() { echo "$1" > /run/feed-scene; }
of() { local log=/var/log/outlierd/$1/events.jsonl; shift; "$@"; }
kinds() { sed -n 's/.*"event":"\([a-z-]*\)".*/\1/p' /var/log/outlierd/$1/events.jsonl | tr '\n' ' '; }
# hand_count NAME KIND... : these events, and no others.
hand_count() {
    local name=$1
    shift
    [ "$(kinds "$name")" = "$* " ] || { kinds "$name"; return 1; }
}
count() { [ "$(kinds "$1" | tr ' ' '\n' | grep -cx "$2")" -ge "$3" ]; }
write_instance() {
    local dir=/var/lib/outlierd/$1
    install -d -o outlierd -g outlierd -m 750 "$dir"
    install -o root -g outlierd -m 640 "$3" "$dir/model.outlierd"
    cat > "/etc/outlierd/$1.toml" <<TOML
[camera]
source = "$2"
width = $frame_width
height = $frame_height
interval = "100ms"
lost-after = "3s"

[model]
path = "$dir/model.outlierd"

[decision]
raise-after = 2
clear-after = 2
TOML
}
safe() {
    local level
    level=$(systemd-analyze security --no-pager "$1" | sed -n 's/.*exposure level for .*: \([0-9.]*\).*/\1/p')
    note "systemd-analyze security $1: $level"
    [ -n "$level" ] && [ "${level/./}" -le 20 ]
}
check_all() { runuser -u outlierd -- outlierd check --all; }
collides() {
    local code=0
    check_all > /tmp/check-all 2>&1 || code=$?
    [ $code = 78 ] && grep -q 'camera *WRONG.*front.toml too' /tmp/check-all
}
main_user() { ps -o user= -p "$(systemctl show -P MainPID "$1")"; }
fifo_made() { [ "$(stat -c '%F %a %G' /run/outlierd-camera/back/stream)" = "fifo 640 outlierd-feed" ]; }
own_user() { ! main_user "$1" | grep -qx 'root\|outlierd'; }
shows_both() { outlierd status > /host/out/status-both.txt; grep -q '^front: ' /host/out/status-both.txt && grep -q '^back: ' /host/out/status-both.txt; }
not_seen() { ! grep -qs -- "$1" /proc/[0-9]*/cmdline && ! journalctl --no-pager -o cat | grep -q -- "$1"; }

# A daemon that opens the camera at once again keeps the module from going, so the device goes from the module.
unbind() { echo vivid.0 > /sys/bus/platform/drivers/vivid/unbind && wait_for 5 [ ! -e /dev/video0 ]; }
bind() { echo vivid.0 > /sys/bus/platform/drivers/vivid/bind && wait_for 5 [ -e /dev/video0 ]; }

install -m 755 /host/guest/camera_program.pl /usr/local/bin/rpicam-vid
mkdir -p /usr/local/share/feed
for kind in normal object; do
    number=0
    for picture in $(ls /tmp/$kind/*.jpg | head -n 10); do
        cp "$picture" /usr/local/share/feed/$kind-$((number++)).jpg
    done
done
chmod -R a+rX /usr/local/share/feed
feed_scene normal
write_instance front v4l:/dev/video0 $vivid_model
write_instance back pipe:/run/outlierd-camera/back/stream $model
for unit in outlierd@front outlierd-camera@back outlierd-rtsp@gate outlierd-notify; do
    check "unit $unit: systemd-analyze verify" systemd-analyze verify --man=no $unit.service
    check "unit $unit: systemd-analyze security at 2.0 or better" safe $unit.service
done
check "feed: the unit starts" systemctl enable --now outlierd-camera@back
check "feed: a FIFO for outlierd alone" wait_for 10 fifo_made
check "feed: a user of its own" own_user outlierd-camera@back
check "feed: others cannot read it" runuser -u nobody -- test ! -r /run/outlierd-camera/back/stream
check "check --all: two configs with one camera" collides
mv $config /tmp/outlierd.toml
check "check --all: well" check_all
check "instances: front starts" systemctl start outlierd@front
check "instances: back starts" systemctl start outlierd@back
check "instances: status shows both" wait_for 20 shows_both
check "instances: files of their own" [ -e /var/lib/outlierd/front/front.history -a -e /var/lib/outlierd/back/back.history ]
vivid test_pattern=8
check "front: raised" wait_for 30 count front raise 1
feed_scene object
check "back: raised" wait_for 30 count back raise 1
vivid test_pattern=0
check "front: cleared" wait_for 30 count front clear 1
feed_scene normal
check "back: cleared" wait_for 30 count back clear 1
systemctl kill -s KILL outlierd-camera@back
check "feeder killed: camera-lost" wait_for 20 count back camera-lost 1
check "feeder killed: restarted, camera-found" wait_for 60 count back camera-found 1
systemctl kill -s STOP outlierd-camera@back
check "feeder hangs: camera-lost" wait_for 20 count back camera-lost 2
systemctl kill -s CONT outlierd-camera@back
check "feeder goes on: camera-found" wait_for 60 count back camera-found 2
systemctl stop outlierd-camera@back
check "feeder stopped: camera-lost" wait_for 20 count back camera-lost 3
systemctl start outlierd-camera@back
check "feeder started: camera-found" wait_for 60 count back camera-found 3
check "front: unplugged" unbind
check "front: camera-lost" wait_for 20 count front camera-lost 1
check "front: plugged" bind
check "front: camera-found" wait_for 60 count front camera-found 1
feed_scene object
check "back: raised again" wait_for 30 count back raise 2
feed_scene normal
check "back: cleared again" wait_for 30 count back clear 2
check "restart of one: the other goes on" systemctl restart outlierd@front
check "restart of one: both answer" wait_for 20 shows_both
check "restart of back: the feeder waits for it" systemctl restart outlierd@back
check "restart of back: both answer" wait_for 20 shows_both
check "front: events as counted by hand" hand_count front start raise clear camera-lost camera-found stop start
check "back: events as counted by hand" hand_count back start raise clear camera-lost camera-found camera-lost camera-found camera-lost camera-found raise clear stop start
note "two instances: $(systemctl show -P StatusText outlierd@front); $(systemctl show -P StatusText outlierd@back)"
systemctl stop outlierd@front outlierd@back

ln -sf rpicam-vid /usr/local/bin/ffmpeg
write_instance gate pipe:/run/outlierd-rtsp/gate/stream $model
check "network camera: no address, no start" sh -c '! systemctl start outlierd-rtsp@gate'
(umask 077; echo "rtsp://viewer:se'cr3t@10.0.0.5/1" > /etc/outlierd/gate.rtsp)
check "network camera: starts" systemctl start outlierd-rtsp@gate
check "network camera: a user of its own" own_user outlierd-rtsp@gate
check "network camera: outlierd starts" systemctl start outlierd@gate
feed_scene object
check "network camera: raised" wait_for 30 count gate raise 1
gate_message() { journalctl -u outlierd-rtsp@gate --no-pager -o cat | grep -q 'Impossible to open.*://\*\*\*@10.0.0.5'; }
check "network camera: the message is there" gate_message
check "network camera: the password is not" not_seen "cr[3]t"
feed_scene normal
systemctl stop outlierd@gate outlierd-rtsp@gate
rm -f /var/lib/outlierd/*/model.outlierd
mv /tmp/outlierd.toml $config
