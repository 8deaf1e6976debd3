"""Decode images in processes that can be ended: a file that takes too long, too much memory or a process with it costs
one error.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import struct
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np
from jaxtyping import UInt8

from energyad.errors import DecoderEnded, ImageError, ImageTooLarge, SettingsError
from energyad.images.decoding import DEFAULT_MAX_PIXELS

HEADER: Final = struct.Struct("<IQ")
"""Of each message: the length of its JSON part and of the bytes that follow it."""
START_SECONDS: Final = 120.0
_COMMAND: Final = "from energyad.images.decoder_process import run; run()"


class IsolatedDecoder:
    """Decode images in a few persistent processes.

    Safe to share between threads: each decode takes an idle process, or waits for one. Processes are started when they
    are first needed and again after they were ended; they end with `close`, or when this process does. They are
    started anew, never forked, so that the program that uses them needs no guard around its main module.

    Example:
        >>> with IsolatedDecoder(timeout=5.0) as decoder:  # doctest: +SKIP
        ...     pixels = decoder.decode(data, name="part.png")
    """

    def __init__(self, *, workers: int = 1, timeout: float = 10.0, max_memory: int = 2 << 30) -> None:
        """Prepare the processes; none is started yet.

        Args:
            workers: processes, and so images decoded at a time.
            timeout: seconds that one image may take before its process is ended.
            max_memory: bytes that decoding one image may take, beside what the process itself needs. Enforced where
                the system limits address space (Linux).

        Raises:
            SettingsError: a value is not positive.
        """
        if workers < 1 or timeout <= 0 or max_memory < 1:
            raise SettingsError("workers, timeout and max_memory of a decoder must be above 0")
        self._workers, self._timeout, self._max_memory = workers, timeout, max_memory
        self._closed = False
        self._begin()

    def decode(
        self,
        data: bytes,
        *,
        name: str = "image",
        max_pixels: int = DEFAULT_MAX_PIXELS,
        white_level: int | None = None,
    ) -> UInt8[np.ndarray, "h w 3"]:
        """Decode the bytes of an image file as 8-bit RGB, by the rules of `read_image`.

        Args:
            data: the whole file.
            name: what errors call it.
            max_pixels: width times height of the largest image that is decoded.
            white_level: the value of white in 16-bit files; None for 65535.

        Raises:
            ImageTooLarge: the image has more than `max_pixels`.
            DecoderEnded: decoding took too long, or ended its process.
            ImageError: the image cannot be decoded, or not within the memory.
        """
        if self._closed:
            raise SettingsError("the decoder is closed")
        if os.getpid() != self._pid:  # forked: the processes belong to the parent
            self._begin()
        process = self._idle.get()
        try:
            if process is None or not process.is_alive():
                process = _DecoderProcess(self._timeout, self._max_memory)
            request = {"name": name, "max_pixels": max_pixels, "white_level": white_level}
            return process.decode(data, request)
        finally:
            self._idle.put(process)

    def close(self) -> None:
        """Wait for what is being decoded, then end the processes."""
        self._closed = True
        if os.getpid() != self._pid:
            return
        for _ in range(self._workers):
            process = self._idle.get()
            if process is not None:
                process.end()
        for _ in range(self._workers):
            self._idle.put(None)

    def __enter__(self) -> IsolatedDecoder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._idle: queue.LifoQueue[_DecoderProcess | None] = queue.LifoQueue()
        for _ in range(self._workers):
            self._idle.put(None)


class _DecoderProcess:
    """One process, used by one thread at a time."""

    def __init__(self, timeout: float, max_memory: int) -> None:
        self._timeout = timeout
        self._is_timed_out = False
        paths = os.pathsep.join(path for path in sys.path if path)
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", _COMMAND, repr(timeout), str(max_memory)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # what the libraries print of damaged files
            env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        )
        with self._ended_after(START_SECONDS):
            ready = self._output.read(1)
        if ready != b"\n":
            self.end()
            raise ImageError(
                "image", f"the decoder process did not start (status {self._process.returncode})"
            )

    def is_alive(self) -> bool:
        return self._process.poll() is None

    def decode(self, data: bytes, request: dict[str, object]) -> UInt8[np.ndarray, "h w 3"]:
        name = str(request["name"])
        try:
            with self._ended_after(self._timeout):
                write_message(self._input, request, data)
                reply, size = read_header(self._output)
                pixels = np.empty(size, np.uint8)
                read_into(self._output, pixels.data)
        except (OSError, EOFError) as error:
            raise DecoderEnded(name, self._reason_of_death()) from error
        except BaseException:
            self.end()  # a reply that nobody reads would be taken for that of the next image
            raise
        for text in reply["warnings"]:
            warnings.warn(text, stacklevel=3)
        if reply["shape"] is None:
            raise (ImageTooLarge if reply["too_large"] else ImageError)(Path(name), reply["reason"])
        return pixels.reshape(reply["shape"])

    def end(self) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._input, self._output):
            with contextlib.suppress(OSError):  # what could not be written
                pipe.close()

    @property
    def _input(self) -> BinaryIO:
        return self._process.stdin  # type: ignore[return-value]

    @property
    def _output(self) -> BinaryIO:
        return self._process.stdout  # type: ignore[return-value]

    @contextlib.contextmanager
    def _ended_after(self, seconds: float) -> Iterator[None]:
        def end() -> None:
            self._is_timed_out = True
            self._process.kill()

        timer = threading.Timer(seconds, end)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def _reason_of_death(self) -> str:
        self.end()
        if self._is_timed_out:
            return (
                f"decoding took longer than {self._timeout:g} s and was ended; save it again or leave it out"
            )
        status = self._process.returncode
        return f"the decoder process ended on it (status {status}); save it again or leave it out"


def write_message(pipe: BinaryIO, fields: dict[str, object], data: bytes | memoryview) -> None:
    """Write a message: JSON and bytes."""
    text = json.dumps(fields).encode()
    pipe.write(HEADER.pack(len(text), len(data)) + text)
    pipe.write(data)
    pipe.flush()


def read_header(pipe: BinaryIO) -> tuple[dict[str, Any], int]:
    """The JSON of a message, and the number of bytes that follow. Raises EOFError where the pipe ends."""
    header = bytearray(HEADER.size)
    read_into(pipe, memoryview(header))
    length, size = HEADER.unpack(header)
    text = bytearray(length)
    read_into(pipe, memoryview(text))
    return json.loads(text), size


def read_into(pipe: BinaryIO, buffer: memoryview) -> None:
    """Fill the buffer. Raises EOFError where the pipe ends before."""
    while len(buffer):
        count = pipe.readinto(buffer)  # type: ignore[attr-defined]
        if not count:
            raise EOFError
        buffer = buffer[count:]
