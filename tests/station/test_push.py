"""Laws of images that are pushed: each that was answered is a part; what `serve` would refuse is refused."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from pathlib import Path

import cv2
import numpy as np
import pytest

from energyad.errors import SettingsError
from energyad.service.push import PushServer
from energyad.station.config import PushConfig
from energyad.station.pushing import PartExists, put_image

from .conftest import Rig

KEY = "a key of 16 letters"


def post(port: int, path: str, data: bytes, **headers: str) -> tuple[int, dict[str, str]]:
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/v1/views/{path}",
        data=data,
        headers={"content-type": "image/png", **headers},
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def png() -> bytes:
    return cv2.imencode(".png", np.zeros((8, 8, 3), np.uint8))[1].tobytes()


@pytest.mark.slow
def test_an_image_that_is_pushed_is_a_part_and_what_serve_would_refuse_is_refused(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ENERGYAD_API_KEY", KEY)
    config = PushConfig(port=0, max_upload_mib=0.01)
    with (
        rig.running() as station,
        PushServer(station, config, max_pixels=1000, decode_seconds=60.0) as server,
    ):
        assert post(server.port, "front/images?part=A%207", png(), **{"X-API-Key": KEY}) == (
            202,
            {"part": "A_7"},
        )
        status, body = post(server.port, "front/images", png(), Authorization=f"Bearer {KEY}")
        assert status == 202
        parts = rig.await_parts(2)
        assert [part.part for part in parts] == ["A_7", body["part"]]
        assert all(part.latency is not None for part in parts)
        key = {"X-API-Key": KEY}
        refusals = {
            "no key": post(server.port, "front/images", png())[0],
            "the name again": post(server.port, "front/images?part=A_7", png(), **key)[0],
            "no such view": post(server.port, "top/images", png(), **key)[0],
            "no image": post(server.port, "front/images", b"text", **key)[0],
            "too large": post(server.port, "front/images", bytes(20_000), **key)[0],
            "another kind": post(server.port, "front/images", b"{}", **key, **{"content-type": "text/plain"})[
                0
            ],
            "another site": post(server.port, "front/images", png(), **key, Origin="http://evil.example")[0],
            "another host": post(server.port, "front/images", png(), **key, Host="evil.example")[0],
        }
    assert refusals == {
        "no key": 401, "the name again": 409, "no such view": 404, "no image": 422, "too large": 413,
        "another kind": 415, "another site": 403, "another host": 421,
    }  # fmt: skip
    assert len(rig.parts()) == 2


def test_parts_of_several_views_must_be_named(rig: Rig) -> None:
    rig.views = ("top", "side")
    with rig.running() as station:
        with pytest.raises(Exception, match="name it"):
            station.push("top", "", b"0.5", suffix=".png")
        for view in rig.views:
            station.push(view, "7", b"0.5", suffix=".png")
        (part,) = rig.await_parts(1)
    assert (part.part, part.verdict, len(part.views)) == ("7", "ok", 2)


def test_other_machines_need_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ENERGYAD_API_KEY", raising=False)
    with pytest.raises(SettingsError, match="without a key"):
        PushServer(None, PushConfig(host="0.0.0.0"), max_pixels=1, decode_seconds=1.0)  # type: ignore[arg-type]


def test_an_image_is_never_written_over_another_and_leaves_nothing_half_written(tmp_path: Path) -> None:
    put_image(tmp_path / "a.png", b"1")
    with pytest.raises(PartExists, match="give another name"):
        put_image(tmp_path / "a.png", b"2")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"a.png": b"1"}
