#!/bin/sh
# Feeds a stream of MJPEG into the FIFO $RUNTIME_DIRECTORY/stream, for outlierd's source = "pipe:...", while it is read:
#   feed camera    from the camera connector, by rpicam-vid, libcamera-vid or GStreamer, whichever is installed
#   feed rtsp      from the network camera whose address is the first line of $CREDENTIALS_DIRECTORY/url, by ffmpeg
# outlierd-camera@.service and outlierd-rtsp@.service run this, and say what the variables mean.
# Exit code 69: what it needs is not installed; 78: what it is told is wrong; 1: the stream ended.
set -eu

fail() {
    code=$1
    shift
    echo "$*" >&2
    exit "$code"
}

number() {
    case $2 in '' | 0 | *[!0-9]*) fail 78 "$1=$2: a whole number above 0 is needed" ;; esac
}

there() { command -v "$1" >/dev/null; }

camera_program() {
    number WIDTH "$WIDTH"
    number HEIGHT "$HEIGHT"
    number FPS "$FPS"
    if there rpicam-vid; then
        program=rpicam-vid
    elif there libcamera-vid; then
        program=libcamera-vid
    elif there gst-launch-1.0 && gst-inspect-1.0 --exists libcamerasrc && gst-inspect-1.0 --exists jpegenc; then
        program=gst-launch-1.0
        [ "$CAMERA" = 0 ] || fail 78 "CAMERA=$CAMERA: GStreamer knows cameras by name; write EXTRA=camera-name=NAME instead"
    else
        fail 69 "no program for the camera connector is installed: \`apt install rpicam-apps\` (Raspberry Pi OS)," \
            "or \`apt install gstreamer1.0-tools gstreamer1.0-libcamera gstreamer1.0-plugins-good\`"
    fi
}

# Writes the stream to descriptor 3. Words of $EXTRA are arguments.
camera() {
    case $program in
    gst-launch-1.0)
        exec gst-launch-1.0 -q libcamerasrc ${EXTRA-} ! "video/x-raw,width=$WIDTH,height=$HEIGHT,framerate=$FPS/1" ! \
            queue leaky=downstream max-size-buffers=1 ! videoconvert ! jpegenc ! fdsink fd=3 sync=false >&2
        ;;
    *)
        exec "$program" --timeout 0 --nopreview --flush --camera "$CAMERA" --codec mjpeg --width "$WIDTH" \
            --height "$HEIGHT" --framerate "$FPS" --output - ${EXTRA-} >&3
        ;;
    esac
}

rtsp_program() {
    number FPS "$FPS"
    case $CODEC in mjpeg | copy) ;; *) fail 78 "CODEC=$CODEC: mjpeg, or copy for a camera that sends MJPEG itself" ;; esac
    there ffmpeg || fail 69 "ffmpeg is not installed: \`apt install ffmpeg\`"
    address=
    read -r address < "$CREDENTIALS_DIRECTORY/url" || [ -n "$address" ] || fail 78 "there is no address to read from"
    # ffmpeg tries so long, in microseconds, four times.
    case $address in
    rtsp://* | rtsps://*) options='option rtsp_transport tcp
option timeout 5000000' ;;
    http://* | https://*) options='option rw_timeout 5000000' ;;
    *) fail 78 "the address must begin with rtsp://, rtsps://, http:// or https://" ;;
    esac
}

# The address, which may hold a password, goes in by a pipe: everyone can read a process's arguments. ffmpeg writes it
# into its messages, where it is starred out. Frames are thinned out by the time of their coming, whatever the camera's
# clock says, and never doubled.
rtsp() {
    quoted=$(printf '%s' "$address" | sed "s/'/'\\\\''/g")
    if [ "$CODEC" = mjpeg ]; then
        thinned="isnan(prev_selected_t)+gte(t-prev_selected_t\,1/$FPS)"
        set -- -vf "select=$thinned" -fps_mode passthrough -c:v mjpeg -q:v 4
    else
        set -- -c:v copy
    fi
    printf "ffconcat version 1.0\nfile '%s'\n%s\n" "$quoted" "$options" |
        ffmpeg -hide_banner -nostats -loglevel error -protocol_whitelist pipe,tcp,udp,rtp,rtsp,tls,http,https -safe 0 \
            -use_wallclock_as_timestamps 1 -f concat -i pipe:0 -map 0:v:0 "$@" -flush_packets 1 ${EXTRA-} -f mjpeg pipe:3 \
            2>&1 >/dev/null | sed -u 's#://[^[:space:]]*@#://***@#g' >&2
}

fifo=$RUNTIME_DIRECTORY/stream
feed=${1-}
case $feed in camera | rtsp) "${feed}_program" ;; *) fail 64 "usage: feed camera|rtsp" ;; esac
[ -p "$fifo" ] || mkfifo -m 640 "$fifo"
while :; do
    # Waits for a reader: while nobody watches, the camera is off.
    status=0
    ("$feed") 3> "$fifo" || status=$?
    # That the reader went is no failure: 141 is SIGPIPE, and without a reader a FIFO cannot be opened so.
    [ $status = 141 ] && continue
    if dd if=/dev/null of="$fifo" oflag=nonblock conv=notrunc,nocreat 2>/dev/null; then
        fail 1 "the stream ended"
    fi
done
