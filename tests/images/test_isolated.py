"""A file costs the program that decodes it in other processes one error at most, and the next file nothing."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.robustness.writers import png, samples
from energyad.errors import ImageError, ImageTooLarge, SettingsError
from energyad.images import isolated
from energyad.images.isolated import IsolatedDecoder
from energyad.images.reading import decode_image

posix = pytest.mark.skipif(os.name != "posix", reason="signals")


@pytest.fixture(scope="module")
def decoder() -> IsolatedDecoder:
    with IsolatedDecoder(workers=2, timeout=30.0, max_memory=1 << 30) as decoder:
        yield decoder


def pid_of(decoder: IsolatedDecoder) -> int:
    """The process that the next decode takes."""
    process = decoder._idle.get()
    decoder._idle.put(process)
    assert process is not None
    return process._process.pid


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("side", [1, 300, 1500])
def test_pixels_are_those_of_this_process(decoder: IsolatedDecoder, side: int, bits: int) -> None:
    data = png(samples(3, bits, side, side + 1), bits, 2)
    np.testing.assert_array_equal(decoder.decode(data), decode_image(data))
    assert decoder.decode(data).flags.writeable


def test_errors_name_the_file_and_the_next_file_is_decoded(decoder: IsolatedDecoder) -> None:
    whole = png(samples(3, 8), 8, 2)
    for data, kind, reason in (
        (b"", ImageError, "empty"),
        (whole[:-20], ImageError, "truncated"),
        (whole, ImageTooLarge, "max_pixels"),
    ):
        with pytest.raises(kind, match=f"b.png: .*{reason}"):
            decoder.decode(data, name="b.png", max_pixels=700)
        assert decoder.decode(whole).shape == (21, 37, 3)


def test_warnings_and_white_level_pass_through(decoder: IsolatedDecoder) -> None:
    data = png(samples(1, 12), 16, 0)
    with pytest.warns(UserWarning, match="4095 for 12 bits"):
        decoder.decode(data)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert decoder.decode(data, white_level=4095).max() == 255


def test_threads_share_the_processes(decoder: IsolatedDecoder) -> None:
    files = [png(samples(3, 8, seed=seed), 8, 2) for seed in range(40)]
    with ThreadPoolExecutor(6) as pool:
        for data, pixels in zip(files, pool.map(decoder.decode, files), strict=True):
            np.testing.assert_array_equal(pixels, decode_image(data))


@pytest.mark.slow
@posix
def test_a_process_that_hangs_is_ended_after_the_timeout() -> None:
    data = png(samples(3, 8), 8, 2)
    with IsolatedDecoder(timeout=0.5) as decoder:
        decoder.decode(data)
        os.kill(pid_of(decoder), signal.SIGSTOP)
        started = time.perf_counter()
        with pytest.raises(ImageError, match=r"a\.png: decoding took longer than 0\.5 s"):
            decoder.decode(data, name="a.png")
        assert time.perf_counter() - started < 5.0
        assert decoder.decode(data).shape == (21, 37, 3)


@pytest.mark.slow
@posix
def test_a_process_that_crashes_while_decoding_is_that_files_error() -> None:
    data = png(samples(3, 8), 8, 2)
    with IsolatedDecoder(timeout=30.0) as decoder:
        decoder.decode(data)
        pid = pid_of(decoder)
        os.kill(pid, signal.SIGSTOP)
        threading.Timer(0.3, os.kill, (pid, signal.SIGKILL)).start()
        with pytest.raises(ImageError, match=r"a\.png: the decoder process ended on it \(status -9\)"):
            decoder.decode(data, name="a.png")
        assert decoder.decode(data).shape == (21, 37, 3)


@posix
def test_a_process_that_was_ended_while_idle_is_replaced() -> None:
    data = png(samples(3, 8), 8, 2)
    with IsolatedDecoder() as decoder:
        decoder.decode(data)
        pid = pid_of(decoder)
        os.kill(pid, signal.SIGKILL)
        decoder._idle.queue[-1]._process.wait()
        assert decoder.decode(data).shape == (21, 37, 3)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="address space is limited on Linux")
def test_an_image_beyond_the_memory_is_that_files_error() -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (6000, 6000)).save(buffer, "PNG", compress_level=1)
    with IsolatedDecoder(max_memory=100 << 20) as decoder:
        with pytest.raises(ImageError, match=r"a\.png: there is not enough memory"):
            decoder.decode(buffer.getvalue(), name="a.png")
        assert decoder.decode(png(samples(3, 8), 8, 2)).shape == (21, 37, 3)


def test_closing_ends_the_processes() -> None:
    with IsolatedDecoder() as decoder:
        decoder.decode(png(samples(3, 8), 8, 2))
        process = decoder._idle.queue[-1]._process
    assert process.returncode is not None
    with pytest.raises(SettingsError, match="closed"):
        decoder.decode(b"")


@pytest.mark.slow
@posix
def test_processes_end_with_the_program_even_when_it_is_killed(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png(samples(3, 8), 8, 2))
    program = tmp_path / "program.py"  # its main module has no guard
    program.write_text(
        "import os, signal, sys\nfrom pathlib import Path\nfrom energyad.images.isolated import IsolatedDecoder\n"
        "decoder = IsolatedDecoder()\ndecoder.decode(Path(sys.argv[1]).read_bytes())\n"
        "print(decoder._idle.queue[-1]._process.pid, flush=True)\nos.kill(os.getpid(), signal.SIGKILL)\n"
    )
    command = [sys.executable, str(program), str(tmp_path / "a.png")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    pid = int(done.stdout)
    deadline = time.perf_counter() + 10.0
    while time.perf_counter() < deadline and is_running(pid):
        time.sleep(0.05)
    assert not is_running(pid)


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split(")")[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not hasattr(os, "fork"), reason="fork")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_child_gets_processes_of_its_own(decoder: IsolatedDecoder) -> None:
    data = png(samples(3, 8), 8, 2)
    decoder.decode(data)
    pid = os.fork()
    if pid == 0:
        os._exit(0 if decoder.decode(data).shape == (21, 37, 3) else 1)
    for _ in range(20):
        assert decoder.decode(data).shape == (21, 37, 3)
    assert os.waitpid(pid, 0)[1] == 0


@pytest.mark.parametrize("options", [{"workers": 0}, {"timeout": 0.0}, {"max_memory": 0}])
def test_settings_that_are_not_positive_are_errors(options: dict[str, int]) -> None:
    with pytest.raises(SettingsError, match="above 0"):
        IsolatedDecoder(**options)


def test_a_process_that_does_not_start_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(isolated, "_COMMAND", "raise SystemExit(3)")
    with IsolatedDecoder() as decoder, pytest.raises(ImageError, match=r"did not start"):
        decoder.decode(b"x")
