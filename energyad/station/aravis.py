"""GigE Vision and USB3 Vision cameras, by the library Aravis (0.8), which the system's packages bring.

It is called through ctypes: its own bindings need the system's Python. Declared here is what is used, and no more.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
from typing import Any, Final

import numpy as np
from jaxtyping import UInt

from energyad.errors import DataError, MissingExtraError
from energyad.station.config import CameraConfig
from energyad.station.pixel_formats import to_pixels

_LIBRARY: Final = "libaravis-0.8.so.0"
_BUFFERS: Final = 4
_COMPLETE: Final = 0
"""Of a buffer's status: all packets came."""
_NO_PACKET_SOCKET: Final = 1
_POINTER: Final = ctypes.c_void_p


class _Error(ctypes.Structure):
    """GLib's GError."""

    _fields_ = (("domain", ctypes.c_uint32), ("code", ctypes.c_int), ("message", ctypes.c_char_p))


@functools.cache
def _library() -> ctypes.CDLL:
    """Load Aravis. Raises MissingExtraError where it is not installed."""
    try:
        return ctypes.CDLL(_LIBRARY)
    except OSError:
        raise MissingExtraError(
            "a GigE Vision or USB3 Vision camera needs Aravis: apt install libaravis-0.8-0"
        ) from None


def _call(name: str, result: Any, *arguments: tuple[Any, Any]) -> Any:
    """Call a function that cannot fail; each argument with its type."""
    function = getattr(_library(), name)
    function.restype, function.argtypes = result, [kind for kind, _ in arguments]
    return function(*(value for _, value in arguments))


def _checked(name: str, result: Any, *arguments: tuple[Any, Any]) -> Any:
    """Call a function whose last argument is for its error. Raises DataError with its message."""
    error = ctypes.POINTER(_Error)()
    value = _call(name, result, *arguments, (_POINTER, ctypes.addressof(error)))
    if error:
        raise DataError(error.contents.message.decode("utf-8", "replace"))
    return value


class AravisCapture:
    """Gives the frames of a camera, whole ones alone, the oldest that the driver still has first.

    A camera that cannot be opened is one that is not opened: see `isOpened`.

    Args:
        config: Which camera: `aravis:NAME`, or `aravis:` for the first one.

    Raises:
        MissingExtraError: Aravis is not installed.
    """

    def __init__(self, config: CameraConfig) -> None:
        self._camera: int | None = None
        self._stream: int | None = None
        self._timeout = int(1e6 * config.timeout)
        self.reason = ""
        _library()
        try:
            self._open(config)
        except DataError as error:
            self.reason = str(error)
            self.release()

    def isOpened(self) -> bool:  # noqa: N802
        """Whether the camera sends."""
        return self._stream is not None

    def read(self) -> tuple[bool, UInt[np.ndarray, "h w c"] | None]:
        """Wait for the next whole frame; False where none comes in time."""
        for _ in range(10 * _BUFFERS):
            buffer = _call(
                "arv_stream_timeout_pop_buffer",
                _POINTER,
                (_POINTER, self._stream),
                (ctypes.c_uint64, self._timeout),
            )
            if buffer is None:
                return False, None
            try:
                if _call("arv_buffer_get_status", ctypes.c_int, (_POINTER, buffer)) == _COMPLETE:
                    return True, _pixels(buffer)
            finally:
                _call("arv_stream_push_buffer", None, (_POINTER, self._stream), (_POINTER, buffer))
        return False, None

    def release(self) -> None:
        """Let the camera stop, and close it."""
        if self._stream is not None:
            with contextlib.suppress(DataError):  # it is gone
                _checked("arv_camera_stop_acquisition", None, (_POINTER, self._camera))
        for thing in (self._stream, self._camera):
            if thing is not None:
                _unref(thing)
        self._stream = self._camera = None

    def _open(self, config: CameraConfig) -> None:
        name = config.source.partition(":")[2]
        _call("arv_update_device_list", None)
        self._camera = _checked("arv_camera_new", _POINTER, (ctypes.c_char_p, name.encode() or None))
        if self._camera is None:
            raise DataError(f"no camera {name or 'that speaks GigE Vision or USB3 Vision'}")
        if config.pixel_format is not None:
            wanted = (ctypes.c_char_p, config.pixel_format.encode())
            _checked("arv_camera_set_pixel_format_from_string", None, (_POINTER, self._camera), wanted)
        for feature, value in config.features.items():
            device = _call("arv_camera_get_device", _POINTER, (_POINTER, self._camera))
            text = (ctypes.c_char_p, f"{feature}={value}".encode())
            _checked("arv_device_set_features_from_string", ctypes.c_int, (_POINTER, device), text)
        if _call("arv_camera_is_gv_device", ctypes.c_int, (_POINTER, self._camera)):
            # Packet sockets need privileges, and lose frames where there are none of the camera's own network.
            options = (ctypes.c_int, _NO_PACKET_SOCKET)
            _call("arv_camera_gv_set_stream_options", None, (_POINTER, self._camera), options)
        size = _checked("arv_camera_get_payload", ctypes.c_uint, (_POINTER, self._camera))
        stream = _checked(
            "arv_camera_create_stream", _POINTER, (_POINTER, self._camera), (_POINTER, None), (_POINTER, None)
        )
        for _ in range(_BUFFERS):
            buffer = _call("arv_buffer_new_allocate", _POINTER, (ctypes.c_size_t, size))
            _call("arv_stream_push_buffer", None, (_POINTER, stream), (_POINTER, buffer))
        self._stream = stream
        _checked("arv_camera_start_acquisition", None, (_POINTER, self._camera))


def _pixels(buffer: int) -> UInt[np.ndarray, "h w c"]:
    size = ctypes.c_size_t()
    data = _call(
        "arv_buffer_get_data",
        _POINTER,
        (_POINTER, buffer),
        (ctypes.POINTER(ctypes.c_size_t), ctypes.byref(size)),
    )
    width, height = (
        _call(f"arv_buffer_get_image_{side}", ctypes.c_int, (_POINTER, buffer))
        for side in ("width", "height")
    )
    number = _call("arv_buffer_get_image_pixel_format", ctypes.c_uint32, (_POINTER, buffer))
    view = np.ctypeslib.as_array(ctypes.cast(data, ctypes.POINTER(ctypes.c_uint8)), (size.value,))
    return to_pixels(view.copy(), number, width=width, height=height)


def _unref(thing: int) -> None:
    library = ctypes.CDLL("libgobject-2.0.so.0")
    library.g_object_unref.argtypes, library.g_object_unref.restype = [_POINTER], None
    library.g_object_unref(thing)
