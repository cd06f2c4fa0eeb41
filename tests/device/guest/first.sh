# The first boot: install, learn, watch; ends with a power cut in the middle of the log's writing.
. /host/guest/install.sh
check "devices up" devices_up
check "feeder up" feeder_up
. /host/guest/learn.sh
. /host/guest/events.sh
. /host/guest/camera.sh
. /host/guest/instances.sh
. /host/guest/other.sh
. /host/guest/cut.sh
