# The package, fresh, from a signed repository.
not_started() { ! active && [ "$(systemctl is-enabled outlierd)" = disabled ]; }
in_groups() { id -nG outlierd | grep -qw video && id -nG outlierd | grep -qw gpio; }
security() {
    systemd-analyze security --no-pager outlierd.service > /host/out/security.txt
    local level
    level=$(sed -n 's/.*exposure level for outlierd.service: \([0-9.]*\).*/\1/p' /host/out/security.txt)
    note "systemd-analyze security: $level"
    [ -n "$level" ] && [ "${level/./}" -le 20 ]
}
refuses() {
    local code=0
    outlierd check > /tmp/check 2>&1 || code=$?
    [ $code != 0 ] && grep -qi model /tmp/check
}
# A config that cannot work is not tried again and again.
gives_up() {
    ! systemctl start outlierd || return 1
    sleep 3
    [ "$(property NRestarts)" = 0 ] && ! active && [ "$(property ActiveState)" = failed ]
}

check "package installs" from_repository /host/repository install --no-install-recommends outlierd
check "package: the program runs" outlierd --version
check "package: not started, not enabled" not_started
check "package: user in video and gpio" in_groups
check "package: config is a conffile" grep -q outlierd.toml /var/lib/dpkg/info/outlierd.conffiles
check "package: man page" test -s /usr/share/man/man1/outlierd.1.gz
check "package: completions" test -s /usr/share/bash-completion/completions/outlierd
check "unit: systemd-analyze verify" systemd-analyze verify --man=no outlierd.service
check "unit: systemd-analyze security at 2.0 or better" security
check "unconfigured: check says what is missing" refuses
check "unconfigured: start fails once" gives_up
systemctl reset-failed outlierd
