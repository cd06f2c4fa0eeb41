# The service on the fed camera: events, GPIO, journal, reload, death.
status_told() { property StatusText | grep -q ', p [0-9]'; }
snapshot_there() {
    local path
    path=$(new_events | sed -n 's/.*"event":"raise".*"snapshot":"\([^"]*\)".*/\1/p' | tail -n 1)
    [ -s "$path" ]
}
same_id() { [ -n "$(event_id raise)" ] && [ "$(event_id raise)" = "$(event_id clear)" ]; }
quiet() { sleep 3; ! has_event raise; }
reloads() {
    mark
    systemctl reload outlierd && wait_for 20 journal_has "reloaded $config" && active && [ "$(main_pid)" = "$pid" ]
}
keeps_old() {
    local ok=0
    sed -i 's/raise-after/rise-after/' $config
    systemctl reload outlierd
    wait_for 20 journal_has 'reload refused.*rise-after' || ok=1
    sed -i 's/rise-after/raise-after/' $config
    active && [ "$(main_pid)" = "$pid" ] && [ $ok = 0 ]
}
restarted() { active && [ "$(main_pid)" != 0 ] && [ "$(main_pid)" != "$pid" ]; }
heartbeat() {
    local values
    values=$(for _ in $(seq 40); do gpio_value 18; sleep 0.05; done | sort -u | wc -l)
    [ "$values" = 2 ]
}

# What systemctl says of a failure does not tell why.
starts() { systemctl start outlierd || { journal -n 3; return 1; }; }

mark
check "service starts" run_timed "service-start" starts
check "service: start event" wait_for 10 has_event start
check "service: the line is low" gpio_is 17 0
check "service: status told to systemd" wait_for 10 status_told
check "service: heartbeat line toggles" heartbeat
check "service: quiet on normal frames" quiet
note "status: $(property StatusText)"
check "status: normal" wait_for 10 outlierd status
outlierd status > /host/out/status.txt
check "status: for the group, not for others" [ "$(stat -c '%a %U %G' /run/outlierd/outlierd.sock)" = "660 outlierd outlierd" ]
check "history: frames are kept" wait_for 30 test -s /var/lib/outlierd/outlierd.history
check "history: tune reads it" outlierd tune
mark
scene object
check "outlier: raised" wait_for 15 has_event raise
check "outlier: the line rises" wait_for 5 gpio_is 17 1
check "outlier: snapshot kept" wait_for 10 snapshot_there
check "status: an outlier" sh -c 'outlierd status >/dev/null; [ $? = 1 ]'
check "outlier: in the journal" journal_has 'raise'
scene normal
check "outlier: cleared" wait_for 15 has_event clear
check "outlier: the line falls" wait_for 5 gpio_is 17 0
check "outlier: same id" same_id
check "events: for people" sh -c 'outlierd events -c $0 | grep -q raise' $config

pid=$(main_pid)
sed -i 's/^raise-after.*/raise-after = 1/' $config
check "reload: accepted, same process" reloads
scene object
check "reload: still raises" wait_for 15 has_event raise
scene normal
check "reload: still clears" wait_for 15 has_event clear
check "reload: a bad config is refused, the old one kept" keeps_old

mark
scene object
wait_for 15 gpio_is 17 1
kill -9 "$pid"
check "kill -9: the line falls" wait_for 2 gpio_is 17 0
check "kill -9: restarted" wait_for 30 restarted
check "kill -9: raises again" wait_for 30 gpio_is 17 1
scene normal
check "kill -9: clears again" wait_for 15 gpio_is 17 0
check "stop: clean" systemctl stop outlierd
check "stop: event" wait_for 2 has_event stop
check "journal: events by their fields" sh -c 'journalctl -u outlierd OUTLIERD_EVENT=raise -o cat --no-pager | grep -q "^raise "'
check "status: not running" sh -c 'outlierd status >/dev/null 2>&1; [ $? = 3 ]'
check "stop: exit code 0" [ "$(property ExecMainStatus)" = 0 ]
