"""Law: whatever is sent, the answer is a 4xx with a reason, and the next image is scored as ever."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

PNG, FORM = {"content-type": "image/png"}, {"content-type": "multipart/form-data; boundary=b"}


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(width: int, height: int, packed: bytes) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


def saved(kind: str) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(file, kind)
    return file.getvalue()


def part(name: str, data: bytes, *, field: str = "file") -> bytes:
    head = f'--b\r\nContent-Disposition: form-data; name="{field}"; filename="{name}"\r\n\r\n'
    return head.encode() + data + b"\r\n"


BOMB = png(60_000, 60_000, zlib.compress(bytes(8 * 2**20), 9))
DEEP = b"[" * 10_000 + b"]" * 10_000
SVG = b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>'

HOSTILE: dict[str, tuple[bytes, dict[str, str], int, str]] = {
    "a decompression bomb": (BOMB, PNG, 413, "decompression bomb"),
    "a bomb in a form": (part("a.png", BOMB) + b"--b--\r\n", FORM, 413, "decompression bomb"),
    "dimensions at their limit": (png(2**31 - 1, 2**31 - 1, b""), PNG, 422, "damaged"),
    "more pixels than the service takes": (png(8000, 8000, zlib.compress(bytes(10))), PNG, 413, "50,000,000"),
    "no dimensions": (png(0, 0, zlib.compress(b"")), PNG, 422, "damaged"),
    "fewer pixels than promised": (png(4000, 4000, zlib.compress(b"\0" * 10)), PNG, 422, "damaged"),
    "a bitmap of huge dimensions": (
        b"BM" + struct.pack("<IIIIiiHH", 0, 0, 54, 40, 2**30, 2**30, 1, 24) + bytes(60),
        PNG,
        422,
        "damaged",
    ),
    "a truncated png": (saved("PNG")[:-40], PNG, 422, "truncated"),
    "a truncated jpeg": (saved("JPEG")[:-40], PNG, 422, "truncated"),
    "a truncated tiff": (saved("TIFF")[:200], PNG, 422, "damaged"),
    "nothing": (b"", PNG, 422, "empty"),
    "text": (b"hello", PNG, 422, "not a PNG"),
    "a gif": (saved("GIF"), PNG, 422, "not a PNG"),
    "an svg that asks for a file": (SVG, PNG, 422, "not a PNG"),
    "deep json as such": (DEEP, {"content-type": "application/json"}, 415, "no image"),
    "deep json as an image": (DEEP, PNG, 422, "not a PNG"),
    "html": (b"<html>", {"content-type": "text/html"}, 415, "no image"),
    "more than the limit": (bytes(33 * 2**20), PNG, 413, "32 MiB"),
    "a form without parts": (b"--b--\r\n", FORM, 400, "no file"),
    "a form of fields alone": (
        b'--b\r\nContent-Disposition: form-data; name="file"\r\n\r\n../x\r\n--b--\r\n',
        FORM,
        400,
        "no file",
    ),
    "a form without boundary": (b"x", {"content-type": "multipart/form-data"}, 400, "form"),
    "a torn form": (part("a.png", saved("PNG"))[:50], FORM, 400, "form"),
    "a form of nonsense": (b"\x00\xff" * 500, FORM, 400, "form"),
    "too many files": (part("a.png", b"x") * 2 + b"--b--\r\n", FORM, 400, "at most 1"),
    "a form of many fields": (
        b'--b\r\nContent-Disposition: form-data; name="x"\r\n\r\ny\r\n' * 100 + b"--b--\r\n",
        FORM,
        400,
        "form",
    ),
    "a header that never ends": (b"--b\r\n" + b"A" * 100_000, FORM, 400, "form"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_it_is_refused_with_a_reason_and_the_service_stays_up(
    client: TestClient, defective: Path, name: str
) -> None:
    body, headers, status, word = HOSTILE[name]
    answer = client.post("/v1/score", content=body, headers=headers)
    assert (answer.status_code, list(answer.json())) == (status, ["error"]), answer.text
    reason = answer.json()["error"]
    assert word in reason and "\n" not in reason and "Traceback" not in reason and len(reason) < 400
    assert client.post("/v1/score", files={"file": defective.read_bytes()}).json()["verdict"] == "ng"


NAMES: dict[str, tuple[str, str | None]] = {
    "../../etc/passwd": ("up", "passwd"),
    "..\\..\\boot.ini": ("up on windows", "boot.ini"),
    "/tmp/energyad-was-here.png": ("absolute", "energyad-was-here.png"),
    "..": ("up alone", None),
    "a/": ("a folder", None),
    "\x1b[2Jx.png": ("a terminal's escape", "[2Jx.png"),
    "x" * 3000: ("long", "x" * 200),
}


@pytest.mark.parametrize("name", NAMES, ids=lambda name: NAMES[name][0])
def test_a_name_labels_the_answer_and_opens_nothing(
    client: TestClient, defective: Path, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    body = part(name, defective.read_bytes()) + b"--b--\r\n"
    answer = client.post("/v1/score", content=body, headers=FORM)
    assert answer.status_code == 200
    assert answer.json()["image"] == NAMES[name][1]
    assert not list(tmp_path.iterdir()) and not Path("/tmp/energyad-was-here.png").exists()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "TIFF", "WEBP"])
def test_damaged_bytes_never_end_in_a_fault(client: TestClient, kind: str) -> None:
    generator, whole = np.random.default_rng(5), saved(kind)
    statuses = set()
    for _ in range(40):
        spoilt = bytearray(whole)
        for place in generator.integers(0, min(len(whole), 600), 4):
            spoilt[place] = generator.integers(256)
        answer = client.post("/v1/score", content=bytes(spoilt), headers=PNG)
        statuses.add(answer.status_code)
    assert 422 in statuses and statuses <= {200, 413, 422}


@pytest.mark.parametrize(
    "send",
    [
        lambda client: client.get("/../../etc/passwd"),
        lambda client: client.get("/page.js/../../settings.py"),
        lambda client: client.get("/v1/models/..%2f..%2fetc/drift"),
        lambda client: client.put("/v1/score", content=b"x"),
        lambda client: client.post("/v1/score?pictures=perhaps", content=b"x", headers=PNG),
        lambda client: client.post("/v1/score", content=b"x", headers={**PNG, "content-length": "-1"}),
    ],
    ids=["up", "up from the page", "up by a model", "method", "value", "length"],
)
def test_an_address_that_is_not_meant_is_refused_too(
    client: TestClient, send: Callable[[TestClient], object]
) -> None:
    answer = send(client)
    assert 400 <= answer.status_code < 500 and answer.json()["error"]  # type: ignore[attr-defined]
