#!/bin/sh
# Installs outlierd from this folder, on a system with systemd:
#   sudo ./install.sh                     into /usr/local; again to upgrade
#   sudo PREFIX=/opt/outlierd ./install.sh
#   sudo ./install.sh --uninstall         but for configs, models, pictures and logs
# Units and the daemon's user are described in /usr/local/lib, where systemd looks, whatever PREFIX is. Configs that are
# there already stay. $PREFIX/lib/outlierd/installed lists what was installed.
set -eu
umask 022
here=$(cd "$(dirname "$0")" && pwd)
prefix=${PREFIX:-/usr/local}
system=/usr/local/lib
list=$prefix/lib/outlierd/installed

fail() { echo "install: $*" >&2; exit 1; }
remove_empty() { for folder; do rmdir "$folder" 2>/dev/null || true; done; }

# Files of the list that the list $1 has not.
remove_old() {
    [ -e "$list" ] || return 0
    while read -r file; do
        grep -qxF "$file" "$1" || rm -f "$file"
    done < "$list"
}

[ "$(id -u)" = 0 ] || fail "not root: sudo $0 $*"
case $prefix in /*) ;; *) fail "PREFIX=$prefix: an absolute path is needed" ;; esac
case ${1-} in
'') ;;
--uninstall)
    [ -e "$list" ] || fail "nothing is installed in $prefix; was it another PREFIX?"
    "$here/prerm" remove
    remove_old /dev/null
    rm -f "$list"
    remove_empty "$prefix/lib/outlierd" "$prefix/share/doc/outlierd"/* "$prefix/share/doc/outlierd"
    "$here/postrm" remove
    echo "install: removed; /etc/outlierd, /var/lib/outlierd, /var/log/outlierd and the user outlierd are still there"
    exit
    ;;
*) fail "$1: no such option; see the head of $0" ;;
esac

"$here/usr/bin/outlierd" --version >/dev/null ||
    fail "the program does not run here: it is for $(basename "$here" | sed 's/.*-//'), and needs a C library as new as its own"
command -v systemd-sysusers >/dev/null || fail "systemd-sysusers is missing: this needs systemd"

before=
[ ! -e "$list" ] || before=installed
new=$(mktemp)
trap 'rm -f "$new"' EXIT
(cd "$here" && find usr -type f | sort) | while read -r file; do
    case $file in
    usr/lib/outlierd/*) to=$prefix/lib/outlierd/${file##*/} ;;
    usr/lib/*) to=$system/${file#usr/lib/} ;;
    *) to=$prefix/${file#usr/} ;;
    esac
    mkdir -p "${to%/*}"
    # Beside it, then in its place: a program that runs cannot be written to.
    case $file in
    *.service | *.path | *.socket)
        sed -e "s#/usr/bin/outlierd#$prefix/bin/outlierd#g" -e "s#/usr/lib/outlierd/#$prefix/lib/outlierd/#g" \
            -e "s#/usr/share/doc/outlierd#$prefix/share/doc/outlierd#g" "$here/$file" > "$to.new"
        chmod 644 "$to.new"
        ;;
    *) cp -p "$here/$file" "$to.new"; chown 0:0 "$to.new" ;;
    esac
    mv -f "$to.new" "$to"
    echo "$to" >> "$new"
done
remove_old "$new"
cp "$new" "$list"
chmod 644 "$list"

mkdir -p /etc/outlierd
for file in "$here"/etc/outlierd/*; do
    to=/etc/outlierd/${file##*/}
    if [ ! -e "$to" ]; then
        sed "s#/usr/lib/outlierd/#$prefix/lib/outlierd/#g" "$file" > "$to"
    fi
done
# What the package does then.
"$here/postinst" configure "$before"
echo "install: outlierd is in $prefix; $prefix/share/doc/outlierd/boards.md says what comes next, from its step 2 on"
