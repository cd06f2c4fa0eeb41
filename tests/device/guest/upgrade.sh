# A later version over a running service, then removal and purge.
upgraded() { active && [ "$(main_pid)" != "$pid" ] && [ "$(dpkg-query -W -f '${Version}' outlierd)" != "$version" ]; }
config_kept() { grep -q /dev/video9 $config; }
removed() {
    [ ! -e /usr/bin/outlierd ] && [ -z "$(ls /usr/lib/systemd/system | grep outlierd)" ] && ! pgrep -x outlierd &&
        ! pgrep -x feed && [ -z "$(ls /etc/systemd/system/multi-user.target.wants | grep outlierd)" ]
}
history_kept() { [ "$(stat -c %s /var/lib/outlierd/outlierd.history)" -ge "$history" ]; }
model_kept() { [ "$(sha256sum < $model)" = "$model_sum" ]; }
state_kept() { [ -e $config ] && [ -e $model ] && [ -e $log ]; }
purged() {
    local left
    left=$(ls -d /etc/outlierd /var/{lib,log,spool,cache}/outlierd* /usr/{bin,lib}/outlierd* /etc/systemd/system/*outlierd* \
        /etc/systemd/system/*/*outlierd* 2>/dev/null)
    [ -z "$left" ] || { echo "$left"; return 1; }
}

pid=$(main_pid)
version=$(dpkg-query -W -f '${Version}' outlierd)
history=$(stat -c %s /var/lib/outlierd/outlierd.history)
model_sum=$(sha256sum < $model)
check "upgrade: apt" from_repository /host/repository-next -o Dpkg::Options::=--force-confold install --only-upgrade outlierd
check "upgrade: running service restarted" wait_for 20 upgraded
check "upgrade: changed config kept" config_kept
check "upgrade: history kept" history_kept
check "upgrade: model kept" model_kept
cp $log /host/out/events.jsonl
check "remove: apt" apt-get -q -y remove outlierd
check "remove: stopped and gone" removed
check "remove: line is low" gpio_is 17 0
check "remove: config, model and log kept" state_kept
check "reinstall" from_repository /host/repository -o Dpkg::Options::=--force-confold install --no-install-recommends outlierd
check "reinstall: not started" sh -c '! systemctl is-active --quiet outlierd'
check "purge: apt" apt-get -q -y purge outlierd
check "purge: nothing left" purged
