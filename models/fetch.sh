#!/bin/sh
# Fetches backbones of the ONNX Model Zoo; fetch.list, beside this script, pins their sizes and hashes.
#
#   models/fetch.sh [NAME...] [--to DIR]     NAME with or without .onnx; none: resnet50-v1-12-int8
#   models/fetch.sh --list
#
# Needs curl or wget. What is there and right is left alone; an interrupted download goes on where it stopped.
# OUTLIERD_MODELS_URL=URL: a mirror, a folder with the files under their names (file:// with curl).
# Exit codes: 0 all there; 64 usage; 69 cannot be had; 74 cannot be written; 78 the list is damaged.
set -u

publishers='https://huggingface.co/onnxmodelzoo/legacy_models/resolve/main
https://media.githubusercontent.com/media/onnx/models/main'
list=$(dirname "$0")/fetch.list
default=resnet50-v1-12-int8.onnx

say() { printf 'fetch.sh: %s\n' "$*" >&2; }
fail() { code=$1; shift; say "$*"; exit "$code"; }

entry() { awk -v name="$1" '!/^#/ && $1 == name' "$list"; }

size_of() { if [ -f "$1" ]; then wc -c <"$1" | tr -d ' '; else echo 0; fi; }

hash_of() {
    if command -v sha256sum >/dev/null; then sha256sum <"$1" | cut -d ' ' -f 1
    elif command -v shasum >/dev/null; then shasum -a 256 <"$1" | cut -d ' ' -f 1
    elif command -v openssl >/dev/null; then openssl dgst -sha256 -r <"$1" | cut -d ' ' -f 1
    else fail 69 'no sha256sum, shasum or openssl: install coreutils'
    fi
}

# matches FILE: whether it has the size and hash of the entry; `why` says what is wrong.
matches() {
    got=$(size_of "$1")
    if [ "$got" != "$size" ]; then why="it has $got bytes, not $size"; return 1; fi
    got=$(hash_of "$1") || exit
    if [ "$got" != "$sha256" ]; then why="its SHA-256 is $got, not $sha256"; return 1; fi
}

# Downloads URL $1 to $2, continuing what is there.
download() {
    if [ "$tool" = curl ]; then
        if [ -t 2 ]; then bar=--progress-bar; else bar=-s; fi
        curl -f -L -S $bar --connect-timeout 20 --speed-limit 1 --speed-time 60 --max-filesize "$size" -C - -o "$2" "$1"
    else
        wget -q -t 1 -T 60 -c -O "$2" "$1"
    fi
}

# from URL: fills $part from there; 0 when it is right.
from() {
    resumed=$(size_of "$part")
    if [ "$resumed" -gt "$size" ]; then rm -f "$part"; resumed=0; fi
    if [ "$resumed" != "$size" ]; then
        say "$name ($size bytes) from $1"
        if [ "$resumed" != 0 ]; then say "going on at byte $resumed of $part"; fi
        download "$1" "$part"
        status=$?
        # A server that cannot continue: from the start.
        if [ $status != 0 ] && [ "$resumed" != 0 ] && [ "$(size_of "$part")" = "$resumed" ]; then
            say 'that cannot be continued; from the start'
            rm -f "$part"
            resumed=0
            download "$1" "$part"
            status=$?
        fi
        if [ $status != 0 ]; then
            why="$tool ended with status $status"
            if [ "$(size_of "$part")" = 0 ]; then rm -f "$part"; fi
            return 1
        fi
    fi
    if matches "$part"; then return 0; fi
    rm -f "$part"
    if [ "$resumed" = 0 ]; then why="the server gives something else: $why"; return 1; fi
    say "what was there and what came do not fit ($why); from the start"
    from "$1"
}

fetch() {
    name=$1
    set -- $(entry "$name")
    [ $# = 4 ] || fail 78 "$list: the entry of $name is damaged"
    size=$2 sha256=$3 folder=$4
    file=$to/$name part=$to/$name.part
    if [ -e "$file" ]; then
        if matches "$file"; then say "$file is there"; return; fi
        fail 69 "$file is there and is another file: $why; move it away"
    fi
    tool=$(command -v curl || command -v wget) || fail 69 'no curl and no wget: install one of them'
    tool=$(basename "$tool")
    mkdir -p "$to" || fail 74 "cannot make $to"
    (: >>"$part") 2>/dev/null || fail 74 "cannot write into $to"
    failures=
    for url in $urls; do
        if [ -z "$mirror" ]; then url=$url/$folder; fi
        if from "$url/$name"; then
            sync "$part" 2>/dev/null || :
            mv "$part" "$file" || fail 74 "cannot rename $part"
            say "$file: size and SHA-256 are right"
            return
        fi
        say "$url/$name: $why"
    done
    hint='OUTLIERD_MODELS_URL names a mirror'
    if [ -e "$part" ]; then hint="$hint; the next call goes on with $part"; fi
    fail 69 "$name cannot be had. Is there a network? $hint"
}

[ -r "$list" ] || fail 78 "$list is missing: it belongs beside this script"
mirror=${OUTLIERD_MODELS_URL:-}
urls=${mirror:-$publishers}
urls=${urls%/}
to=. names=
while [ $# -gt 0 ]; do
    case $1 in
    --to) [ $# -ge 2 ] || fail 64 '--to needs a folder'; to=$2; shift ;;
    --to=*) to=${1#--to=} ;;
    --list) awk '!/^#/ && NF { printf "%-26s %11d bytes  %s\n", $1, $2, $3 }' "$list"; exit ;;
    -h | --help) sed -n '2,/^set /{/^#/s/^# \{0,1\}//p;}' "$0"; exit ;;
    -*) fail 64 "$1 is not known; --help says what is" ;;
    *)
        wanted=${1%.onnx}.onnx
        [ -n "$(entry "$wanted")" ] || fail 64 "$1 is not known; --list says what is"
        names="$names $wanted"
        ;;
    esac
    shift
done
for name in ${names:-$default}; do fetch "$name"; done
