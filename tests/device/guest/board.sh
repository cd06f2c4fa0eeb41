# Nothing of outlierd: the board itself has what the other stages need.
whole_frames() { [ "$(stat -c %s /tmp/frames)" = $((3 * frame_width * frame_height * 2)) ]; }

check "board: cameras and GPIO chip" devices_up
check "board: the fed camera takes frames" feeder_up
check "board: the fed camera gives frames" timeout 60 v4l2-ctl -d /dev/video9 --stream-mmap --stream-count=3 --stream-to=/tmp/frames
check "board: whole frames" whole_frames
check "board: vivid gives frames" v4l2-ctl -d /dev/video0 --stream-mmap --stream-count=3 --stream-to=/dev/null
check "board: vivid has test patterns" v4l2-ctl -d /dev/video0 --set-ctrl test_pattern=8
check "board: vivid unplugs" v4l2-ctl -d /dev/video0 --set-ctrl disconnect=1
check "board: vivid goes" modprobe -r vivid
check "board: vivid is gone" [ ! -e /dev/video0 ]
check "board: vivid comes back" modprobe vivid n_devs=1 node_types=0x1 vid_cap_nr=0
check "board: vivid is back" wait_for 5 [ -e /dev/video0 ]
gpioset --chip "$gpio_chip" GPIO17=1 &
gpioset=$!
check "board: a line rises" wait_for 5 gpio_is 17 1
kill $gpioset 2>/dev/null
wait $gpioset 2>/dev/null
gpioset --chip "$gpio_chip" GPIO17=1 &
gpioset=$!
wait_for 5 gpio_is 17 1
kill -9 $gpioset
check "board: a killed owner's line falls" wait_for 5 gpio_is 17 0
systemctl stop feeder
