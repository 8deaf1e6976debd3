"""Laws of a real RTSP stream: frames are read at its pace whatever is slow behind them, and it is opened again."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from benchmarks.station.machines import free_port
from energyad.station import cameras
from energyad.station.cameras import Camera, write_frame
from energyad.station.config import CameraConfig
from energyad.station.triggering import PartNames
from energyad.station.triggers import Clock
from tests import ROOT

from .conftest import until

RTSP_REQUIRED = "ENERGYAD_TEST_RTSP"
"""Set where a missing RTSP server is a failure, not a reason to leave this out."""


def start_server(port: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "benchmarks.station.rtsp_server", str(port)]
    return subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, stderr=subprocess.DEVNULL)


@pytest.mark.slow
def test_a_stream_that_goes_away_is_opened_again_and_no_frame_waits_for_a_slow_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    try:
        ctypes.CDLL("libgstrtspserver-1.0.so.0")
    except OSError:
        assert RTSP_REQUIRED not in os.environ, "no libgstrtspserver-1.0: install it"
        pytest.skip("no libgstrtspserver-1.0: install it")
    is_free, said, port = threading.Event(), [], free_port()

    def write_when_free(path: Path, frame: np.ndarray) -> None:
        is_free.wait(60)
        write_frame(path, frame)

    monkeypatch.setattr(cameras, "write_frame", write_when_free)
    names, stop = PartNames(Clock()), threading.Event()
    camera = Camera(
        "front", CameraConfig(source=f"rtsp://127.0.0.1:{port}/stream", timeout=10.0), tmp_path, clock=Clock(),
        announce=lambda path, trigger: None, name_frame=lambda moment: names.new(),
        warn=said.append, say=said.append,
    )  # fmt: skip
    server = start_server(port)
    thread = threading.Thread(target=camera.run, args=(stop,))
    thread.start()
    try:
        until(lambda: camera.num_passed_over > 20)
        assert camera._writer._work_queue.qsize() == 0 and not list(tmp_path.glob("*.png"))
        said.clear()  # the server may have started after the camera looked for it
        server.terminate()
        server.wait(60)
        until(lambda: any("no camera at" in text for text in said))
        server = start_server(port)
        until(lambda: any("the camera is back" in text for text in said))
        is_free.set()
        until(lambda: len(list(tmp_path.glob("*.png"))) > 1)
    finally:
        is_free.set()
        stop.set()
        thread.join(60)
        server.terminate()
        server.wait(60)
    assert sum("no camera at" in text for text in said) == 1
