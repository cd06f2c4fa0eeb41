# Power goes while the log is written as fast as it can be.
write_config /dev/video9 $model 20ms 1 1
systemctl stop feeder
check "cut: feeder" feeder_up 0.05
scene "flap 4"
systemctl enable outlierd
mark
check "cut: service starts" systemctl start outlierd
check "cut: events flow" wait_for 30 has_event clear
cp $log /host/out/events-before-cut.jsonl
journalctl --no-pager -o short-monotonic > /host/out/journal-first.txt
# Known events are on the disk; those of the next seconds may or may not be.
lines=$(wc -l < $log)
sync
echo "$lines" > /host/out/lines-before-cut
echo 7 > /host/out/cut-power
sleep 600
