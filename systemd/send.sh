#!/bin/sh
# Sends the events of the spool to $TO, oldest first, each once, and ends when none is left. outlierd-notify.service runs it;
# /etc/outlierd/notify.conf says what TO, PICTURE and KEEP_DAYS are. An event is sent again, and the later ones wait, while
# its receiver cannot be reached: after $RETRY_FIRST seconds (5), then twice as long, at most $RETRY_MOST (900). One that
# the receiver refuses is dropped, and one that has waited for KEEP_DAYS. That a receiver gets an event twice takes a loss of
# power between its answer and the removal.
# SPOOL: the folder (default /var/spool/outlierd). The token is the first line of $CREDENTIALS_DIRECTORY/token.
# Exit code 69: what it needs is not installed; 78: what it is told is wrong.
set -eu
export LC_ALL=C
spool=${SPOOL:-/var/spool/outlierd}

fail() {
    code=$1
    shift
    echo "$*" >&2
    exit "$code"
}

number() {
    case $2 in '' | 0 | *[!0-9]*) fail 78 "$1=$2: a whole number above 0 is needed" ;; esac
}

there() { command -v "$1" >/dev/null || fail 69 "$1 is not installed: \`apt install $2\`"; }

keep_days=${KEEP_DAYS:-3} first=${RETRY_FIRST:-5} most=${RETRY_MOST:-900}
number KEEP_DAYS "$keep_days"
number RETRY_FIRST "$first"
number RETRY_MOST "$most"
case ${PICTURE:=yes} in yes | no) ;; *) fail 78 "PICTURE=$PICTURE: yes or no" ;; esac
to=${TO-}
way=${to%%:*} address=${to#*:}
case $way:$address in
ntfy:http://?* | ntfy:https://?* | webhook:http://?* | webhook:https://?*) there curl curl ;;
mail:?*@?*) there sendmail msmtp-mta ;;
*) fail 78 "TO is not set: in /etc/outlierd/notify.conf, to ntfy:URL, webhook:URL or mail:ADDRESS" ;;
esac
token=
if [ -n "${CREDENTIALS_DIRECTORY-}" ]; then
    [ -r "$CREDENTIALS_DIRECTORY/token" ] || fail 78 "$CREDENTIALS_DIRECTORY/token cannot be read"
    # Its last line may have no end.
    read -r token < "$CREDENTIALS_DIRECTORY/token" || true
fi

# text NAME, figure NAME : that field of the event, or nothing.
text() { sed -nE 's/.*"'"$1"'":"(([^"\\]|\\.)*)".*/\1/p' "$json" | sed -E 's/\\(.)/\1/g'; }
figure() { sed -nE 's/.*"'"$1"'":(-?[0-9][-+.0-9e]*).*/\1/p' "$json"; }

# What a person reads.
describe() {
    instance=$(text instance) p=$(figure p) message=$(text message)
    title="${instance:-outlierd}: $(text event)"
    words="${message:+$message; }${p:+p $p, threshold $(figure threshold); }$(text time)"
}

# option NAME VALUE : a line of curl's config. Addresses and tokens go in by it: everyone can read a process's arguments.
option() { printf '%s = "%s"\n' "$1" "$(printf '%s' "$2" | tr '\r\n' '  ' | sed 's/[\\"]/\\&/g')"; }

ntfy_options() {
    option header "Title: $title"
    if [ -n "$picture" ]; then
        option header "Message: $words"
        option header "Filename: picture.jpg"
        option upload-file "$picture"
    else
        option data-raw "$words"
    fi
}

webhook_options() {
    if [ -n "$picture" ]; then
        option form "event=<$json;type=application/json"
        option form "picture=@$picture;type=image/jpeg"
    else
        option header "Content-Type: application/json"
        option data-binary "@$json"
    fi
}

# Exit code 65: refused for what it is.
by_http() {
    status=$({
        option url "$address"
        [ -z "$token" ] || option header "Authorization: Bearer $token"
        option header "Expect:"
        "${way}_options"
    } | curl -q --silent --show-error --proto =http,https --connect-timeout 15 --max-time 60 --output /dev/null \
        --write-out '%{http_code}' --config -) || return 1
    case $status in
    2??) return 0 ;;
    400 | 413 | 415 | 422) set -- 65 ;;
    *) set -- 1 ;;
    esac
    echo "$title: the receiver answers with status $status" >&2
    return "$1"
}

by_mail() {
    {
        printf 'To: %s\nSubject: =?utf-8?B?%s?=\nMIME-Version: 1.0\n' "$address" "$(printf '%s' "$title" | base64 -w 0)"
        printf 'Content-Type: multipart/mixed; boundary="outlierd"\n\n--outlierd\n'
        printf 'Content-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: base64\n\n'
        printf '%s\n' "$words" | base64
        if [ -n "$picture" ]; then
            printf -- '--outlierd\nContent-Type: image/jpeg\nContent-Transfer-Encoding: base64\n'
            printf 'Content-Disposition: attachment; filename="picture.jpg"\n\n'
            base64 "$picture"
        fi
        printf -- '--outlierd--\n'
    } | sendmail -i -t
}

deliver() {
    case $way in
    mail) by_mail ;;
    *) by_http ;;
    esac
}

oldest() { (cd "$spool" && ls | sed -n 's/^\([0-9]\{10\}\)\.json$/\1/p') | head -n 1; }
remove() { rm -f "$json" "$spool/$entry.jpg"; }

wait=$first
while entry=$(oldest) && [ -n "$entry" ]; do
    json=$spool/$entry.json picture=$spool/$entry.jpg
    { [ "$PICTURE" = yes ] && [ -e "$picture" ]; } || picture=
    describe
    result=0
    deliver || result=$?
    if [ $result = 65 ] && [ -n "$picture" ]; then
        echo "$title: sent again without its picture" >&2
        picture=""
        result=0
        deliver || result=$?
    fi
    if [ $result = 0 ]; then
        remove
        wait=$first
    elif [ $result = 65 ]; then
        echo "$title: refused, and dropped" >&2
        remove
    elif [ -n "$(find "$json" -mmin "+$((keep_days * 1440))")" ]; then
        echo "$title: not sent in $keep_days days, and dropped" >&2
        remove
    else
        echo "$title: not sent; tried again in $wait s" >&2
        sleep "$wait"
        wait=$((wait * 2 < most ? wait * 2 : most))
    fi
done
