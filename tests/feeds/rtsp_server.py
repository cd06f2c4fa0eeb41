#!/usr/bin/python3
"""An RTSP camera on loopback, behind a password: prints its port, then shows the pattern (of GStreamer's videotestsrc)
that each line of standard input names, until that ends.

    rtsp_server.py h264|jpeg USER PASSWORD
"""

import sys
import threading

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer  # noqa: E402

ENCODERS = {
    "h264": "x264enc tune=zerolatency speed-preset=ultrafast key-int-max=25 ! rtph264pay name=pay0",
    "jpeg": "jpegenc ! rtpjpegpay name=pay0",
}


def main():
    codec, user, password = sys.argv[1:]
    Gst.init(None)
    shown = ["ball"]
    sources = []

    factory = GstRtspServer.RTSPMediaFactory()
    factory.set_launch(
        "( videotestsrc is-live=true name=source ! video/x-raw,width=320,height=240,framerate=25/1,format=I420 ! "
        + ENCODERS[codec]
        + " pt=96 )"
    )
    # A later client has the same pictures.
    factory.set_shared(True)

    def configured(_, media):
        sources.append(media.get_element().get_by_name("source"))
        sources[-1].set_property("pattern", shown[0])

    factory.connect("media-configure", configured)

    auth = GstRtspServer.RTSPAuth()
    auth.set_supported_methods(GstRtsp_digest())
    token = GstRtspServer.RTSPToken()
    token.set_string("media.factory.role", "viewer")
    auth.add_digest(user, password, token)
    permissions = GstRtspServer.RTSPPermissions()
    for right in ["media.factory.access", "media.factory.construct"]:
        permissions.add_permission_for_role("viewer", right, True)
    factory.set_permissions(permissions)

    server = GstRtspServer.RTSPServer()
    server.set_address("127.0.0.1")
    server.set_service("0")
    server.set_auth(auth)
    server.get_mount_points().add_factory("/camera", factory)
    server.attach(None)
    print(server.get_bound_port(), flush=True)

    loop = GLib.MainLoop()

    def listen():
        for line in sys.stdin:
            shown[0] = line.strip()
            for source in sources:
                source.set_property("pattern", shown[0])
        loop.quit()

    threading.Thread(target=listen, daemon=True).start()
    loop.run()


def GstRtsp_digest():
    gi.require_version("GstRtsp", "1.0")
    from gi.repository import GstRtsp

    return GstRtsp.RTSPAuthMethod.DIGEST


main()
