#!/bin/sh
# A hook that hands events to outlierd-notify.service: all, or those of the kinds that are its arguments.
#   hook = ["/usr/lib/outlierd/spool", "raise", "clear", "camera-lost"]
# An entry of the spool is NUMBER.json, the event, and for a raise NUMBER.jpg, its snapshot, which is there first. Numbers
# grow. At most $SPOOL_MOST events wait (200); the oldest makes room.
# SPOOL: the folder (default /var/spool/outlierd).
set -eu
export LC_ALL=C
umask 027
spool=${SPOOL:-/var/spool/outlierd}
most=${SPOOL_MOST:-200}

wanted() {
    [ $# -gt 0 ] || return 0
    for kind; do [ "$kind" != "$OUTLIERD_EVENT" ] || return 0; done
    return 1
}
wanted "$@" || exit 0

# Several daemons have one spool.
exec 9< "$spool"
flock -w 8 9 || { echo "the spool $spool is locked by another" >&2; exit 1; }
cat > "$spool/.part.json"
snapshot=
[ "$OUTLIERD_EVENT" != raise ] || snapshot=$(sed -n 's/.*"snapshot":"\([^"\\]*\)".*/\1/p' "$spool/.part.json")

numbers=$(cd "$spool" && ls | sed -n 's/^\([0-9]\{10\}\)\.json$/\1/p')
number=$(printf '%010d' "$(expr "$(echo "${numbers:-0}" | tail -n 1)" + 1)")
count=$(echo "$numbers" | grep -c . || true)
for oldest in $numbers; do
    [ "$count" -ge "$most" ] || break
    rm -f "$spool/$oldest.json" "$spool/$oldest.jpg"
    count=$((count - 1))
    echo "$most events wait in $spool: the oldest is dropped" >&2
done

# What is here of this number was never handed over.
rm -f "$spool/$number.jpg"
if [ -n "$snapshot" ] && cp -- "$snapshot" "$spool/.part.jpg"; then mv "$spool/.part.jpg" "$spool/$number.jpg"; fi
mv "$spool/.part.json" "$spool/$number.json"
