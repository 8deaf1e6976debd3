"""The process of `IsolatedDecoder`: reads image files from its input and writes their pixels to its output."""

from __future__ import annotations

import os
import signal
import sys
import warnings
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np

from energyad.errors import ImageError, ImageTooLarge
from energyad.images.isolated import read_header, read_into, write_message
from energyad.images.reading import decode_image

_GRACE_SECONDS: Final = 5.0


def run() -> None:
    """Decode until the input ends. Arguments: seconds for one image, bytes of memory for one image."""
    timeout, max_memory = float(sys.argv[1]), int(sys.argv[2])
    for number in (
        signal.SIGINT,
        signal.SIGTERM,
    ):  # they are for the program, which closes the input at its end
        signal.signal(number, signal.SIG_IGN)
    cv2.setNumThreads(1)
    # Nothing that a library prints may come between the messages.
    output = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    _limit_memory(max_memory)
    output.write(b"\n")
    output.flush()
    while True:
        try:
            request, size = read_header(sys.stdin.buffer)
            data = bytearray(size)
            read_into(sys.stdin.buffer, memoryview(data))
        except EOFError:
            return
        # Whoever asked ends this process after the timeout; where they are gone, it ends itself.
        _set_alarm(timeout + _GRACE_SECONDS)
        reply, pixels = _reply(request, bytes(data))
        write_message(output, reply, pixels)
        _set_alarm(0)


def _reply(request: dict[str, Any], data: bytes) -> tuple[dict[str, Any], memoryview]:
    reply: dict[str, Any] = {"shape": None, "reason": "", "too_large": False}
    pixels = np.empty(0, np.uint8)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            pixels = decode_image(data, **request)
            reply["shape"] = pixels.shape
        except ImageError as error:
            reply |= {"reason": error.reason, "too_large": isinstance(error, ImageTooLarge)}
    reply["warnings"] = [str(entry.message) for entry in caught if issubclass(entry.category, UserWarning)]
    return reply, np.ascontiguousarray(pixels).reshape(-1).data


def _limit_memory(extra: int) -> None:
    """Limit the address space to what is in use and `extra` bytes, where the system can."""
    try:
        import resource

        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + extra
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    except (ImportError, OSError, ValueError):  # another system: the time limit still holds
        return


def _set_alarm(seconds: float) -> None:
    if hasattr(signal, "setitimer"):
        signal.setitimer(
            signal.ITIMER_REAL, seconds
        )  # the alarm's default ends the process, also inside a decoder
