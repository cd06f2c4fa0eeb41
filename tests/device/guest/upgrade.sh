# A later version over a running service, then removal and purge.
upgraded() { active && [ "$(main_pid)" != "$pid" ] && [ "$(dpkg-query -W -f '${Version}' outlierd)" != "$version" ]; }
config_kept() { grep -q /dev/video9 $config; }
removed() {
    [ ! -e /usr/bin/outlierd ] && [ -z "$(ls /usr/lib/systemd/system | grep outlierd)" ] && ! pgrep -x outlierd &&
        ! pgrep -x feed && [ -z "$(ls /etc/systemd/system/multi-user.target.wants | grep outlierd)" ]
}
history_kept() { [ "$(stat -c %s /var/lib/outlierd/outlierd.history)" -ge "$history" ]; }
state_kept() { [ -e $config ] && [ -e $model ] && [ -e $log ]; }
purged() { [ ! -e /etc/outlierd ] && [ ! -e /var/lib/outlierd ] && [ ! -e /var/log/outlierd ]; }

pid=$(main_pid)
version=$(dpkg-query -W -f '${Version}' outlierd)
history=$(stat -c %s /var/lib/outlierd/outlierd.history)
check "upgrade: dpkg" dpkg --force-confold -i /host/outlierd-next.deb
check "upgrade: running service restarted" wait_for 20 upgraded
check "upgrade: changed config kept" config_kept
check "upgrade: history kept" history_kept
cp $log /host/out/events.jsonl
check "remove: dpkg" dpkg -r outlierd
check "remove: stopped and gone" removed
check "remove: line is low" gpio_is 17 0
check "remove: config, model and log kept" state_kept
check "reinstall" dpkg --force-confold -i /host/outlierd.deb
check "reinstall: not started" sh -c '! systemctl is-active --quiet outlierd'
check "purge: dpkg" dpkg -P outlierd
check "purge: nothing left" purged
