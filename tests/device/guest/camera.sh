# The service on vivid: test patterns, a camera that is taken away, comes back, or is busy; growth.
vivid() { v4l2-ctl -d /dev/video0 --set-ctrl "$1"; }
idle() {
    local before after
    before=$(cpu_ticks)
    sleep 5
    after=$(cpu_ticks)
    note "camera lost: $((after - before)) ms of processor time x 10 in 5 s"
    [ $((after - before)) -lt 100 ]
}
unplug() { vivid disconnect=1; wait_for 10 modprobe -r vivid; }
plug() { modprobe vivid n_devs=1 node_types=0x1 vid_cap_nr=0 && wait_for 5 [ -e /dev/video0 ]; }
judged() { property StatusText; }

vivid_model=/var/lib/outlierd/vivid.outlierd
write_config /dev/video0 $vivid_model 100ms 2 2
vivid test_pattern=0
check "vivid: collect" run_timed collect-vivid outlierd collect -c $config -o /tmp/vivid --count 16 --every 100ms
vivid test_pattern=8
check "vivid: collect another pattern" outlierd collect -c $config -o /tmp/vivid-other --count 8 --every 100ms
vivid test_pattern=0
check "vivid: fit" outlierd fit --normal /tmp/vivid --outliers /tmp/vivid-other -o $vivid_model
chgrp outlierd $vivid_model
chmod 640 $vivid_model
mark
check "vivid: service starts" systemctl start outlierd
vivid test_pattern=8
check "vivid: pattern raises" wait_for 30 has_event raise
vivid test_pattern=0
check "vivid: pattern clears" wait_for 30 has_event clear

pid=$(main_pid)
fds=$(descriptors)
mark
check "unplugged: modprobe -r" unplug
check "unplugged: camera-lost" wait_for 20 has_event camera-lost
check "unplugged: no busy loop" idle
check "unplugged: service lives" [ "$(main_pid)" = "$pid" ]
check "plugged: modprobe" plug
check "plugged: camera-found" wait_for 60 has_event camera-found
check "plugged: same process" [ "$(main_pid)" = "$pid" ]
check "plugged: no descriptor lost" [ "$(descriptors)" -le "$fds" ]
mark
vivid test_pattern=8
check "plugged: still raises" wait_for 30 has_event raise
vivid test_pattern=0
check "plugged: still clears" wait_for 30 has_event clear

mark
vivid inject_dqbuf_error=1
sleep 2
check "error injected into dequeue: service lives" [ "$(main_pid)" = "$pid" ]
systemctl stop outlierd
v4l2-ctl -d /dev/video0 --stream-mmap --stream-count=1000 --stream-to=/dev/null >/dev/null 2>&1 &
other=$!
sleep 2
mark
systemctl start --no-block outlierd
check "busy camera: told" wait_for 30 journal_has '[Bb]usy\|in use'
kill $other
wait $other 2>/dev/null
check "busy camera: had when free" wait_for 60 status_told
systemctl stop outlierd
systemctl reset-failed outlierd 2>/dev/null

# A USB camera's driver is loaded when it is plugged in, which may be long after the service's start.
mark
systemctl stop feeder
check "driver not loaded: gone" modprobe -r vivid v4l2loopback videodev
write_config /dev/video0 $vivid_model 100ms 2 2
check "driver not loaded: service starts" systemctl start outlierd
check "driver not loaded: camera-lost" wait_for 20 has_event camera-lost
check "driver loaded: modprobe" plug
check "driver loaded: camera-found" wait_for 60 has_event camera-found
systemctl stop outlierd
modprobe v4l2loopback video_nr=9 card_label=fed
check "driver loaded: the fed camera again" feeder_up
