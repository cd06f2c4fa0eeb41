# Learning from the fed camera, with the embedded backbone.
pictures() { [ "$(find "$1" -type f | wc -l)" -ge "$2" ]; }
collect() { run_timed "collect-$1" outlierd collect -c $config -o "/tmp/$1" --count "$2" --every 100ms; }
checks_out() { outlierd check -c $config; }

model=/var/lib/outlierd/model.outlierd
write_config /dev/video9 $model
check "camera list names the fed camera" sh -c 'outlierd camera list | grep -q /dev/video9'
check "camera list as JSON" sh -c 'outlierd camera list --json | grep -q YUYV'
check "camera snap" outlierd camera snap -c $config -o /tmp/snap.png
check "camera snap: a picture" test -s /tmp/snap.png
check "collect normal frames" collect normal 40
check "collect: all of them" pictures /tmp/normal 40
scene object
sleep 1
check "collect outliers" collect object 12
scene normal
check "fit" run_timed fit outlierd fit --normal /tmp/normal --outliers /tmp/object -o $model
chgrp outlierd $model
chmod 640 $model
check "check: all well" checks_out
