model=/var/lib/outlierd/model.outlierd
bad_lines() { grep -avcE '^\{"time":"[0-9T:.Z-]+","event":"[a-z-]+",.*\}$' $log; }
survived() { [ "$(grep -ac '"event":' $log)" -ge "$(cat /host/out/lines-before-cut)" ]; }
reads() { outlierd events -c $config > /tmp/events && grep -q raise /tmp/events; }
# Whatever the cut left, at most one line is no event.
at_most_one_bad() { local bad; bad=$(bad_lines); note "after the cut: $(wc -l < $log) lines, $bad torn"; [ "$bad" -le 1 ]; }
appends() {
    mark
    systemctl restart outlierd
    wait_for 20 has_event start && [ "$(bad_lines)" -le "$1" ]
}

check "after the cut: the enabled service comes up when its devices are there" wait_for 30 active
systemctl stop outlierd
cp $log /host/out/events-after-cut.jsonl
write_config /dev/video9 $model
check "after the cut: the log has what was synced" survived
check "after the cut: at most one torn line" at_most_one_bad
check "after the cut: events reads the log" reads
check "after the cut: service appends" appends 1
systemctl stop outlierd
bad=$(bad_lines)
truncate -s -20 $log
check "torn line: events reads the log" reads
check "torn line: service appends on a new line" appends $((bad + 1))
