#!/usr/bin/python3
"""A camera of other people's parts: Debian's GStreamer RTSP server with Digest, and an HTTP server for a picture.

usage: gstreamer_camera.py CLIPS PICTURE RTSP_PORT HTTP_PORT USER PASSWORD

/cam/realmonitor?channel=1&subtype=0 is CLIPS/second.h265 with second.alaw, subtype=1 is main.h264, both endless, in real
time, from the clip's beginning for each viewer; GET of HTTP is the file PICTURE. It says `ready` when both listen.
"""

import http.server
import sys
import threading

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtsp", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtsp, GstRtspServer  # noqa: E402

PICTURE_NS = Gst.SECOND // 25
SAMPLES = 160  # 20 ms of G.711


def pictures(stream, is_slice, begins):
    """The access units of an Annex B stream with start codes of three octets."""
    units = [unit.rstrip(b"\0") for unit in stream.split(b"\0\0\1")[1:]]
    found, head = [], b""
    for unit in units:
        coded = b"\0\0\0\1" + unit
        if not is_slice(unit):
            head += coded
        elif begins(unit):
            found.append(head + coded)
            head = b""
        else:
            found[-1] += coded
    return found


def h264(stream):
    return pictures(stream, lambda unit: unit[0] & 31 in range(1, 6), lambda unit: unit[1] & 128)


def h265(stream):
    return pictures(stream, lambda unit: unit[0] >> 1 & 63 < 32, lambda unit: unit[2] & 128)


class Feed:
    """Gives an appsrc one piece after the other, again and again."""

    def __init__(self, source, pieces, length_ns):
        self.pieces, self.length_ns, self.next = pieces, length_ns, 0
        source.set_property("format", Gst.Format.TIME)
        source.connect("need-data", self.feed)

    def feed(self, source, _wanted):
        buffer = Gst.Buffer.new_wrapped(self.pieces[self.next % len(self.pieces)])
        buffer.pts = buffer.dts = self.next * self.length_ns
        buffer.duration = self.length_ns
        self.next += 1
        source.emit("push-buffer", buffer)


class Mounts(GstRtspServer.RTSPMountPoints):
    """Cameras tell streams apart by the query; the control of a track follows it."""

    def do_make_path(self, url):
        query, _, control = (url.query or "").partition("/")
        number = dict(part.partition("=")[::2] for part in query.split("&")).get("subtype", "0")
        return f"{url.abspath}/{number}" + (f"/{control}" if control else "")


def factory(launch, feeds):
    made = GstRtspServer.RTSPMediaFactory()
    made.set_launch(launch)
    made.add_role_from_structure(
        Gst.Structure.new_from_string("viewer,media.factory.access=(boolean)true,media.factory.construct=(boolean)true")
    )

    def configure(_factory, media):
        # The media keeps them alive as long as it plays.
        media.feeds = [Feed(media.get_element().get_by_name(name), *what) for name, what in feeds.items()]

    made.connect("media-configure", configure)
    return made


def serve_picture(path, port):
    picture = open(path, "rb").read()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Type", "image/jpeg")
            self.send_header("Content-Length", str(len(picture)))
            self.end_headers()
            self.wfile.write(picture)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("0.0.0.0", port), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()


def main(clips, picture, rtsp_port, http_port, user, password):
    Gst.init(None)
    server = GstRtspServer.RTSPServer()
    server.set_service(rtsp_port)
    auth = GstRtspServer.RTSPAuth()
    auth.set_supported_methods(GstRtsp.RTSPAuthMethod.DIGEST)
    token = GstRtspServer.RTSPToken()
    token.set_string("media.factory.role", "viewer")
    auth.add_digest(user, password, token)
    server.set_auth(auth)

    def read(name):
        with open(f"{clips}/{name}", "rb") as file:
            return file.read()

    sound = read("second.alaw")
    sound = [sound[at : at + SAMPLES] for at in range(0, len(sound), SAMPLES)]
    mounts = Mounts()
    mounts.add_factory(
        "/cam/realmonitor/0",
        factory(
            "( appsrc name=video caps=video/x-h265,stream-format=byte-stream,alignment=au,framerate=25/1 ! "
            "rtph265pay name=pay0 pt=96 "
            "appsrc name=audio caps=audio/x-alaw,rate=8000,channels=1 ! rtppcmapay name=pay1 pt=8 )",
            {
                "video": (h265(read("second.h265")), PICTURE_NS),
                "audio": (sound, Gst.SECOND * SAMPLES // 8000),
            },
        ),
    )
    mounts.add_factory(
        "/cam/realmonitor/1",
        factory(
            "( appsrc name=video caps=video/x-h264,stream-format=byte-stream,alignment=au,framerate=25/1 ! "
            "rtph264pay name=pay0 pt=96 )",
            {"video": (h264(read("main.h264")), PICTURE_NS)},
        ),
    )
    server.set_mount_points(mounts)
    if not server.attach(None):
        sys.exit(f"port {rtsp_port} cannot be opened")
    serve_picture(picture, int(http_port))
    print("ready", flush=True)
    GLib.MainLoop().run()


if __name__ == "__main__":
    if len(sys.argv) != 7:
        sys.exit(__doc__)
    main(*sys.argv[1:])
