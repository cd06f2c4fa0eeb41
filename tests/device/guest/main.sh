#!/bin/bash
# Runs one stage of the device test in the guest: /host/stage names it. Each stage is a file of checks beside this one.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
frame_width=320 frame_height=240
. /host/guest/lib.sh
stage=$(cat /host/stage)
say "$(uname -mr), stage $stage"
ulimit -c 0
. "/host/guest/$stage.sh"
[ -z "$(ls /var/log/outlierd 2>/dev/null)" ] || cp /var/log/outlierd/* /host/out/ 2>/dev/null
journalctl --no-pager -o short-monotonic > "/host/out/journal-$stage.txt"
echo 0 > /host/out/exitcode
sync
