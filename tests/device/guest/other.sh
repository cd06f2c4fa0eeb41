# Growth at full speed, the 32-bit program, and the full int8 network.
grows_not() {
    local seconds=$1 rss_before fds_before rss_after fds_after
    sleep 5
    rss_before=$(rss) fds_before=$(descriptors)
    sleep "$seconds"
    rss_after=$(rss) fds_after=$(descriptors)
    note "at full speed for $seconds s: $(property StatusText); RSS $rss_before -> $rss_after kB, peak $(peak_rss) kB, descriptors $fds_before -> $fds_after"
    [ "$rss_after" -le $((rss_before + 1024)) ] && [ "$fds_after" -le "$fds_before" ]
}
score_p() { "$@" | sed -n 's/.*"p":\([^,}]*\).*/\1/p'; }
same_p() {
    local one two
    one=$(score_p outlierd score --json --model $model /tmp/snap.png)
    two=$(score_p /host/outlierd-armhf score --json --model $model /tmp/snap.png)
    note "p of one picture: arm64 $one, armhf $two"
    # The two C libraries' ln and exp may differ in the last digit.
    [ -n "$one" ] && [ -n "$two" ] && awk -v a="$one" -v b="$two" 'BEGIN { d = a - b; exit !(d * d < 1e-18) }'
}
armhf_watches() {
    mark
    timeout 400 /host/outlierd-armhf run -c $config > /tmp/armhf.log 2>&1 &
    local pid=$! ok=0
    scene object
    wait_for 40 has_event raise && wait_for 5 gpio_is 17 1 || ok=1
    scene normal
    [ $ok = 0 ] && { wait_for 15 has_event clear || ok=1; }
    kill -TERM $pid
    wait $pid || ok=1
    [ $ok = 0 ] || tail -n 3 /tmp/armhf.log
    return $ok
}

write_config /dev/video9 $model 1ms 3 3
check "full speed: service starts" systemctl start outlierd
check "full speed: memory and descriptors do not grow" grows_not "$(cat /host/soak)"
systemctl stop outlierd

write_config /dev/video9 $model
check "armv7: the program runs" /host/outlierd-armhf --version
check "armv7: the same verdict" same_p
check "armv7: watches, raises, clears" armhf_watches

if [ -e /host/full.onnx ]; then
    mkdir -p /tmp/few /usr/share/outlierd
    cp $(ls /tmp/normal/* | head -n 16) /tmp/few/
    cp /host/full.onnx /usr/share/outlierd/backbone.onnx
    full_model=/var/lib/outlierd/full.outlierd
    check "full int8 network: fit on 16 pictures" run_timed fit-full outlierd fit --normal /tmp/few --backbone /usr/share/outlierd/backbone.onnx --input caffe -o $full_model
    chgrp outlierd $full_model
    chmod 640 $full_model
    check "full int8 network: score" run_timed score-full outlierd score --json --model $full_model /tmp/snap.png
    note "full int8 network: $(cat /tmp/score-full.log)"
    write_config /dev/video9 $full_model 1s
    check "full int8 network: service starts" run_timed start-full systemctl start outlierd
    check "full int8 network: first verdict" run_timed verdict-full wait_for 60 status_told
    note "full int8 network: $(property StatusText), peak $(peak_rss) kB"
    systemctl stop outlierd
else
    skip "full int8 network" "no models/resnet50-full-qop.onnx in OUTLIERD_SHARED"
fi
