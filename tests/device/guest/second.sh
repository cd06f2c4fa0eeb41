# The boot after the power cut: the log is whole but for its last line, then upgrade, removal and purge.
check "devices up again" devices_up
check "feeder up again" feeder_up
. /host/guest/after_cut.sh
. /host/guest/upgrade.sh
