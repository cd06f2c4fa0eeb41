# Sourced by the guest's scripts. Results go to /host/out/results: "ok NAME", "FAILED NAME: why", "SKIPPED NAME: why".
results=/host/out/results
config=/etc/outlierd/outlierd.toml
log=/var/log/outlierd/events.jsonl

say() { echo "[$(cut -d' ' -f1 /proc/uptime)] $*"; }

result() {
    say "$*"
    echo "$*" >> $results
}

# check NAME COMMAND... : the command's success is the result.
check() {
    local name=$1
    shift
    if "$@" > /tmp/check.log 2>&1; then
        result "ok $name"
    else
        result "FAILED $name: $* ($(tail -n 3 /tmp/check.log | tr '\n' ' '))"
        return 1
    fi
}

skip() { result "SKIPPED $1: $2"; }

note() {
    say "note: $*" >&2
    echo "$*" >> /host/out/notes
}

# A board that is emulated on a loaded machine is slow: waits are for what should take a fraction of them.
patience=3

# wait_for SECONDS COMMAND... : until the command succeeds.
wait_for() {
    local end=$((${EPOCHREALTIME/./} + $1 * patience * 1000000))
    shift
    until "$@" >/dev/null 2>&1; do
        [ "${EPOCHREALTIME/./}" -lt $end ] || return 1
        sleep 0.2
    done
}

# run_timed NAME COMMAND... : runs it, its output in /tmp/NAME.log, its time in the notes.
run_timed() {
    local name=$1 start=${EPOCHREALTIME/./} rc=0
    shift
    "$@" > "/tmp/$name.log" 2>&1 || rc=$?
    note "$name: $(((${EPOCHREALTIME/./} - start) / 1000)) ms"
    [ $rc = 0 ] || { tail -n 5 "/tmp/$name.log"; return $rc; }
}

# from_repository FOLDER ARGUMENT... : apt-get, with the signed repository in the folder as its only source.
from_repository() {
    local folder=$1
    shift
    echo "deb [signed-by=$folder/outlierd-archive-keyring.asc] file:$folder stable main" > /etc/apt/sources.list.d/outlierd.list
    local options=(-o Dir::Etc::sourcelist=/etc/apt/sources.list.d/outlierd.list -o Dir::Etc::sourceparts=-
        -o APT::Sandbox::User=root)
    apt-get -q "${options[@]}" --error-on=any update && DEBIAN_FRONTEND=noninteractive apt-get -q -y "${options[@]}" "$@"
}

gpio_value() { cat "$gpio_sysfs/sim_gpio$1/value"; }
gpio_is() { [ "$(gpio_value "$1")" = "$2" ]; }
active() { systemctl is-active --quiet outlierd; }
main_pid() { systemctl show -P MainPID outlierd; }
property() { systemctl show -P "$1" outlierd; }
scene() { echo "$1" > /run/scene; }

# Events since the last mark, and their number by kind.
mark() { marked=$(wc -l < $log 2>/dev/null || echo 0); }
new_events() { tail -n +$((marked + 1)) $log; }
has_event() { new_events | grep -q "\"event\":\"$1\""; }
event_id() { new_events | grep "\"event\":\"$1\"" | tail -n 1 | sed -n 's/.*"id":"\([^"]*\)".*/\1/p'; }
journal() { journalctl -u outlierd --no-pager -o cat "$@"; }
journal_has() { journal | grep -q -- "$1"; }

# Memory and descriptors of the service, in kB and numbers.
rss() { awk '/^VmRSS:/ {print $2}' "/proc/$(main_pid)/status"; }
peak_rss() { awk '/^VmHWM:/ {print $2}' "/proc/$(main_pid)/status"; }
descriptors() { ls "/proc/$(main_pid)/fd" | wc -l; }
cpu_ticks() { awk '{print $14 + $15}' "/proc/$(main_pid)/stat"; }

devices_up() {
    modprobe vivid n_devs=1 node_types=0x1 vid_cap_nr=0
    modprobe v4l2loopback video_nr=9 card_label=fed
    modprobe gpio-sim
    local sim=/sys/kernel/config/gpio-sim/board
    mkdir -p $sim/bank0/line17
    echo 28 > $sim/bank0/num_lines
    echo GPIO17 > $sim/bank0/line17/name
    echo 1 > $sim/live
    gpio_chip=/dev/$(cat $sim/bank0/chip_name)
    gpio_sysfs=/sys/devices/platform/$(cat $sim/dev_name)/$(cat $sim/bank0/chip_name)
    udevadm settle
    [ -e /dev/video0 ] && [ -e /dev/video9 ] && [ -e "$gpio_chip" ]
}

feeder_up() {
    scene normal
    systemd-run -q --collect --unit feeder perl /host/guest/feed.pl /dev/video9 $frame_width $frame_height /host/frames \
        /run/scene "${1:-0.1}"
    wait_for 30 sh -c 'v4l2-ctl -d /dev/video9 --get-fmt-video | grep -q YUYV'
}

# write_config SOURCE MODEL [INTERVAL [RAISE [CLEAR]]]
write_config() {
    cat > $config <<TOML
[camera]
source = "v4l:$1"
width = $frame_width
height = $frame_height
format = "auto"
interval = "${3:-100ms}"
lost-after = "2s"

[model]
path = "$2"

[decision]
raise-after = ${4:-3}
clear-after = ${5:-3}

[events]
log = "$log"
snapshots = "/var/lib/outlierd/snapshots"

[gpio]
chip = "$gpio_chip"
line = "GPIO17"
heartbeat = 18
TOML
}
