"""Laws of a model folder that is damaged, hostile or saved while it is read: it loads whole or says why not."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from pathlib import Path

import pytest

from energyad.errors import ModelError
from energyad.model import folder as model_folder
from tests.model.test_manifest import CONTENTS, edit, manifest


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    model_folder.save_model(tmp_path / "models" / "gasket", manifest(), CONTENTS)
    return tmp_path / "models" / "gasket"


def values_of(folder: Path) -> dict[str, object]:
    return json.loads((folder / model_folder.MANIFEST).read_text())


def test_a_manifest_edited_by_hand_is_refused_whatever_was_edited(folder: Path) -> None:
    path = folder / model_folder.MANIFEST
    whole = path.read_text()
    for old, new in (
        ('"threshold": 1.0', '"threshold": 2.0'),
        ('"seed": 0', '"seed": 1'),
        ('"white_level": null', '"white_level": 4095'),
        ('"name": "gasket"', '"name": "washer"'),
    ):
        assert old in whole
        path.write_text(whole.replace(old, new))
        with pytest.raises(
            ModelError, match=r"model\.json: altered since it was written \(its SHA-256 differs\)"
        ):
            model_folder.read_manifest(folder)
    path.write_text(whole)
    assert model_folder.open_model(folder)[1] == CONTENTS


def test_a_manifest_without_its_digest_is_refused(folder: Path) -> None:
    values = values_of(folder)
    del values[model_folder.DIGEST]
    (folder / model_folder.MANIFEST).write_text(json.dumps(values))
    with pytest.raises(ModelError, match="its SHA-256 is missing"):
        model_folder.read_manifest(folder)


def test_a_manifest_formatted_anew_is_the_same_manifest(folder: Path) -> None:
    path = folder / model_folder.MANIFEST
    path.write_text(json.dumps(dict(reversed(values_of(folder).items())), indent=7))
    assert model_folder.open_model(folder)[1] == CONTENTS


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
@pytest.mark.parametrize(
    "place", ['"threshold": 1.0', '"smoothing": 4.0', '"fit_seconds": 1.0', '"score": 0.5', '"settings": {}']
)
def test_a_number_that_is_not_finite_is_refused_wherever_it_is(folder: Path, number: str, place: str) -> None:
    path = folder / model_folder.MANIFEST
    whole = path.read_text()
    assert place in whole
    new = f'"settings": {{"a": [{number}]}}' if "settings" in place else f"{place.split(':')[0]}: {number}"
    path.write_text(whole.replace(place, new))
    with pytest.raises(ModelError, match=r"model\.json: a number in it is not finite"):
        model_folder.read_manifest(folder)


@pytest.mark.parametrize(
    ("section", "changes", "fault"),
    [
        ("calibration", {"threshold": -0.1}, "calibration.threshold"),
        ("calibration", {"threshold": 3.5e38}, "calibration.threshold"),
        ("calibration", {"threshold": 10**400}, "calibration.threshold"),
        ("calibration", {"review_threshold": -1.0}, "calibration.review_threshold"),
        ("calibration", {"review_threshold": 1.5, "review_rate": 0.1}, "calibration: .*review threshold"),
        ("calibration", {"false_reject_rate": 0}, "calibration.false_reject_rate"),
        ("calibration", {"false_reject_rate": 1}, "calibration.false_reject_rate"),
        ("calibration", {"review_rate": 2}, "calibration.review_rate"),
        ("calibration", {"good_scores": [0.5, 0.4]}, "calibration.good_scores.*ascending"),
        ("input", {"image_size": [64, 10**9]}, "input.image_size"),
        ("input", {"white_level": 0}, "input.white_level"),
        ("backbone", {"mean": [0.5, 0.5, 2026.0]}, "backbone.mean"),
        ("backbone", {"std": [0.5, 0.0, 0.5]}, "backbone.std"),
        ("architecture", {"border_margin": 10**12}, "architecture.border_margin"),
        ("architecture", {"strides": [10**12]}, "architecture.strides"),
        ("architecture", {"smoothing": 1e308}, "architecture.smoothing"),
        ("architecture", {"contrast": 1e308}, "architecture.contrast"),
        ("provenance", {"fit_seconds": -1}, "provenance.fit_seconds"),
    ],
)
def test_a_number_out_of_range_is_named(
    folder: Path, section: str, changes: dict[str, object], fault: str
) -> None:
    edit(folder, **{section: values_of(folder)[section] | changes})  # type: ignore[operator]
    with pytest.raises(ModelError, match=fault):
        model_folder.read_manifest(folder)


@pytest.mark.parametrize("name", ["weights.safetensors", model_folder.MANIFEST])
@pytest.mark.parametrize(
    "kind", ["pipe", "socket", "folder", "device", "link to a device", "link out", "link in a circle"]
)
def test_what_is_no_regular_file_of_the_folder_is_refused_at_once(
    folder: Path, name: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = folder / name
    outside = path.rename(folder.parent / "outside")
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        monkeypatch.chdir(folder)  # a socket's path is short
        socket.socket(socket.AF_UNIX).bind(name)
    elif kind == "folder":
        path.mkdir()
    elif kind == "device":
        try:
            os.mknod(path, 0o600 | 0o020000, os.makedev(1, 5))  # /dev/zero
        except OSError:
            pytest.skip("devices are made by root alone")
    else:
        targets = {"link to a device": Path("/dev/zero"), "link out": outside, "link in a circle": path}
        path.symlink_to(targets[kind])
    started = time.perf_counter()
    with pytest.raises(ModelError, match=path.name):
        model_folder.open_model(folder)
    assert time.perf_counter() - started < 2


def test_links_inside_a_folder_and_to_a_folder_are_followed(folder: Path) -> None:
    (folder / "weights.safetensors").rename(folder / "stored")
    (folder / "weights.safetensors").symlink_to("stored")
    (folder.parent / "current").symlink_to(folder)
    assert model_folder.open_model(folder.parent / "current")[1] == CONTENTS


def test_a_file_beyond_the_bound_is_refused_before_it_is_read(folder: Path) -> None:
    with (folder / "weights.safetensors").open("wb") as file:
        file.truncate(model_folder.MAX_FILE_BYTES + 1)  # a hole: no space is taken
    started = time.perf_counter()
    with pytest.raises(ModelError, match="larger than"):
        model_folder.open_model(folder)
    assert time.perf_counter() - started < 2


def test_a_model_beyond_the_bound_is_not_written(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_folder, "MAX_FILE_BYTES", 10)
    with pytest.raises(ModelError, match="11 bytes are more than a model may have"):
        model_folder.save_model(folder, manifest(), {"w": b"0" * 11})


@pytest.mark.slow
def test_loads_beside_saves_give_one_model_or_the_other_and_saves_succeed(folder: Path) -> None:
    versions = [{"weights.safetensors": bytes([number]) * 2_000, "b": bytes([number])} for number in range(4)]
    stop, faults = threading.Event(), []

    def save() -> None:
        number = 0
        while not stop.is_set():
            try:
                model_folder.save_model(folder, manifest(name=f"m{number % 4}"), versions[number % 4])
            except ModelError as error:
                faults.append(error)
            number += 1

    model_folder.save_model(folder, manifest(name="m0"), versions[0])
    thread = threading.Thread(target=save)
    thread.start()
    loads, deadline = 0, time.monotonic() + 2
    try:
        while time.monotonic() < deadline:
            opened, contents = model_folder.open_model(folder)
            assert contents == versions[int(opened.name[1])]
            assert list(model_folder.problems(folder, opened)) == []
            loads += 1
    finally:
        stop.set()
        thread.join()
    assert faults == [] and loads > 3


@pytest.mark.parametrize(
    ("name", "age", "stays"),
    [
        (".gasket.abcd1234.tmp", 4000, False),
        (".gasket.abcd1234.tmp", 100, True),
        (f".gasket.{2**22 + 1}-{model_folder._host()}-abcd1234.tmp", 100, False),
        (f".gasket.{2**22 + 1}-{model_folder._host()}-abcd1234.tmp", 10, True),
        (f".gasket.{os.getpid()}-{model_folder._host()}-abcd1234.tmp", 100, True),
        (f".gasket.{2**22 + 1}-00000000-abcd1234.tmp", 100, True),
        (".gasket.precious.notes.tmp", 4000, True),
        (".washer.abcd1234.tmp", 4000, True),
    ],
    ids=[
        "old",
        "young",
        "of-a-dead-process",
        "of-one-just-dead",
        "of-this-one",
        "of-another-machine",
        "notes",
        "of-another-model",
    ],
)
def test_a_save_removes_what_killed_saves_left_and_nothing_else(
    folder: Path, name: str, age: float, stays: bool
) -> None:
    left = folder.parent / name
    left.mkdir()
    (left / "half").write_bytes(b"written")
    for path in (left / "half", left):
        os.utime(path, (time.time() - age,) * 2)
    model_folder.save_model(folder, manifest(), CONTENTS)
    assert left.exists() == stays


def test_a_check_of_the_place_that_was_killed_leaves_what_the_next_save_removes(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:  # killed before it cleans up; its number belongs to nobody then
        patch.setattr("tempfile.TemporaryDirectory.cleanup", lambda _: None)
        patch.setattr("os.getpid", lambda: 2**22 + 1)
        patch.setattr("tempfile.TemporaryDirectory._cleanup", lambda *_, **__: None)
        model_folder.require_place(folder)
    (left,) = folder.parent.glob(".*.tmp")
    os.utime(left, (time.time() - 120,) * 2)
    model_folder.save_model(folder, manifest(), CONTENTS)
    assert not left.exists()
