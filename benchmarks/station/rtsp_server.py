"""`python -m benchmarks.station.rtsp_server PORT`: a looped RTSP stream that shows a picture that counts, by GStreamer.

GStreamer's RTSP server (Debian: libgstrtspserver-1.0-0, gstreamer1.0-plugins-base, gstreamer1.0-plugins-good) is called
through ctypes: its own bindings need the system's Python. The stream is Motion JPEG at rtsp://127.0.0.1:PORT/stream.
"""

from __future__ import annotations

import ctypes
import sys

FRAMES_PER_SECOND = 30
PIPELINE = (
    "( videotestsrc is-live=true pattern=ball"
    f" ! video/x-raw,format=I420,width=320,height=240,framerate={FRAMES_PER_SECOND}/1"
    " ! jpegenc ! rtpjpegpay name=pay0 pt=26 )"
)
_POINTER = ctypes.c_void_p


def serve(port: int) -> None:
    """Serve until the process is ended."""
    core, glib, server = (
        ctypes.CDLL(name)
        for name in ("libgstreamer-1.0.so.0", "libglib-2.0.so.0", "libgstrtspserver-1.0.so.0")
    )

    def call(library: ctypes.CDLL, name: str, result: type | None, *arguments: object) -> int:
        function = getattr(library, name)
        function.restype = result
        return function(*arguments)

    call(core, "gst_init", None, None, None)
    rtsp = _POINTER(call(server, "gst_rtsp_server_new", _POINTER))
    call(server, "gst_rtsp_server_set_address", None, rtsp, b"127.0.0.1")
    call(server, "gst_rtsp_server_set_service", None, rtsp, str(port).encode())
    factory = _POINTER(call(server, "gst_rtsp_media_factory_new", _POINTER))
    call(server, "gst_rtsp_media_factory_set_launch", None, factory, PIPELINE.encode())
    call(server, "gst_rtsp_media_factory_set_shared", None, factory, 1)
    mounts = _POINTER(call(server, "gst_rtsp_server_get_mount_points", _POINTER, rtsp))
    call(server, "gst_rtsp_mount_points_add_factory", None, mounts, b"/stream", factory)
    if not call(server, "gst_rtsp_server_attach", ctypes.c_uint, rtsp, None):
        raise SystemExit(f"port {port} is taken")
    call(glib, "g_main_loop_run", None, _POINTER(call(glib, "g_main_loop_new", _POINTER, None, 0)))


if __name__ == "__main__":
    serve(int(sys.argv[1]))
