from __future__ import annotations

import json
import os
import pickle
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import ValidationError

from energyad.errors import ModelError
from energyad.model import folder as model_folder
from energyad.model.manifest import SCHEMA_VERSION, Manifest
from energyad.model.provenance import source_commit
from tests import ROOT

CONTENTS = {"weights.safetensors": b"tensors", "README.md": b"# a card\n"}


def manifest(**changes: object) -> Manifest:
    values: dict[str, object] = {
        "name": "gasket",
        "created": "2026-01-01T00:00:00+00:00",
        "input": {"image_size": [64, 64]},
        "backbone": {"name": "n", "mean": (0, 0, 0), "std": (1, 1, 1), "source": "s", "sha256": "0"},
        "architecture": {
            "strides": (4,),
            "border_margin": 8,
            "scales": [{"channels": 24, "latent_dim": 8, "width": 8, "bottleneck": 2}],
            "smoothing": 4.0,
        },
        "good_parts": [{"score": 0.5}],
        "calibration": {
            "threshold": 1.0,
            "false_reject_rate": 0.01,
            "method": "conformal",
            "good_scores": (0.5,),
        },
        "settings": {},
        "provenance": {
            "seed": 0,
            "threads": 1,
            "fit_seconds": 1.0,
            "num_images": 2,
            "num_held_out": 1,
            "data_sha256": "0",
            "commit": None,
            "versions": {},
            "machine": "m",
        },
    }
    return Manifest.model_validate(values | changes)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    model_folder.save_model(tmp_path / "models" / "gasket", manifest(), CONTENTS)
    return tmp_path / "models" / "gasket"


def edit(folder: Path, **changes: object) -> None:
    path = folder / model_folder.MANIFEST
    path.write_text(json.dumps(model_folder.with_digest(json.loads(path.read_text()) | changes)))


def test_what_is_saved_is_what_is_opened(folder: Path) -> None:
    opened, contents = model_folder.open_model(folder)
    assert contents == CONTENTS and opened.name == "gasket"
    assert list(model_folder.problems(folder, opened)) == []


def test_saving_leaves_no_other_file_behind(folder: Path) -> None:
    model_folder.save_model(folder, manifest(), {"other": b"new"})
    assert {p.name for p in folder.iterdir()} == {"other", model_folder.MANIFEST}
    assert [p.name for p in folder.parent.iterdir()] == ["gasket"]


def test_an_altered_file_is_named(folder: Path) -> None:
    (folder / "weights.safetensors").write_bytes(b"tensorz")
    with pytest.raises(ModelError, match=r"weights\.safetensors: altered"):
        model_folder.open_model(folder)
    assert "altered" in next(iter(model_folder.problems(folder, model_folder.read_manifest(folder))))


def test_a_missing_file_is_named(folder: Path) -> None:
    (folder / "weights.safetensors").unlink()
    with pytest.raises(ModelError, match=r"weights\.safetensors: missing"):
        model_folder.open_model(folder)


@pytest.mark.parametrize("version", [0, SCHEMA_VERSION + 1, 13, "1", None])
def test_another_schema_is_refused_in_one_line(folder: Path, version: object) -> None:
    edit(folder, schema_version=version, something_new=True)
    with pytest.raises(ModelError, match=rf"model\.json: schema {version}, .*fit the model again") as refused:
        model_folder.open_model(folder)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("text", ["", "{", "[1]", "[" * 100_000, '{"schema_version": 1}', "\0"])
def test_a_damaged_manifest_is_one_clear_error(folder: Path, text: str) -> None:
    (folder / model_folder.MANIFEST).write_text(text)
    with pytest.raises(ModelError, match=r"model\.json"):
        model_folder.open_model(folder)


@pytest.mark.parametrize("name", ["../outside", "/etc/passwd", "a/b", "..", ""])
def test_a_manifest_cannot_point_outside_its_folder(folder: Path, name: str) -> None:
    edit(folder, files={name: "0" * 64})
    with pytest.raises(ModelError, match="plain file name"):
        model_folder.open_model(folder)


def test_a_pickle_is_never_loaded(folder: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(folder.parent / "exploded"),)

    bomb = pickle.dumps(Bomb())
    model_folder.save_model(folder, manifest(), {"weights.safetensors": bomb})
    assert model_folder.open_model(folder)[1]["weights.safetensors"] == bomb
    assert not (folder.parent / "exploded").exists()


def test_a_failed_save_keeps_the_old_model(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def disk_full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", disk_full)
    with pytest.raises(ModelError, match="No space left on device"):
        model_folder.save_model(folder, manifest(), {"weights.safetensors": b"new"})
    assert model_folder.open_model(folder)[1] == CONTENTS
    assert [p.name for p in folder.parent.iterdir()] == ["gasket"]


def test_a_save_killed_between_its_renames_is_undone(folder: Path) -> None:
    folder.rename(folder.parent / ".gasket.old")
    assert model_folder.open_model(folder)[1] == CONTENTS


def test_an_unwritable_place_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ModelError, match="cannot be written"):
        model_folder.save_model(tmp_path / "file" / "model", manifest(), CONTENTS)


def test_a_folder_that_is_no_model_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "precious.txt").write_text("data")
    with pytest.raises(ModelError, match="is no model"):
        model_folder.save_model(tmp_path, manifest(), CONTENTS)
    assert (tmp_path / "precious.txt").read_text() == "data"


def test_a_model_is_found_by_path_by_name_and_when_it_is_the_only_one(folder: Path) -> None:
    root = folder.parent
    assert model_folder.find_model(folder, root=root) == folder
    assert model_folder.find_model("gasket", root=root) == folder
    assert model_folder.find_model(None, root=root) == folder


def test_two_models_must_be_told_apart(folder: Path) -> None:
    model_folder.save_model(folder.parent / "washer", manifest(), CONTENTS)
    with pytest.raises(ModelError, match="gasket, washer"):
        model_folder.find_model(None, root=folder.parent)
    with pytest.raises(ModelError, match="no model 'bolt'"):
        model_folder.find_model("bolt", root=folder.parent)


def test_a_manifest_is_changed_by_making_another_that_is_valid() -> None:
    first = manifest()
    renamed = first.replace(name="washer", calibration=replace(first.calibration, threshold=2.0))
    assert (renamed.name, renamed.calibration.threshold) == ("washer", 2.0)
    assert renamed.replace(name="gasket", calibration=first.calibration) == first == manifest()
    for changes in (
        {"calibration": replace(first.calibration, good_scores=())},
        {"architecture": replace(first.architecture, scales=())},
        {"good_parts": ()},
        {"unknown": 1},
    ):
        with pytest.raises(ValidationError):
            first.replace(**changes)


@pytest.mark.parametrize(
    ("section", "changes", "fault"),
    [
        ("input", {"tiles": {"rows": 0}}, "input.tiles.rows"),
        ("input", {"tiles": {"rows": 1, "step": 2}}, "input.tiles.step"),
        ("input", {"tiles": {"rows": 100, "columns": 100}}, "tiles 100x100"),
        ("calibration", {"good_scores": []}, "calibration.good_scores"),
        ("architecture", {"strides": []}, "architecture.strides"),
        ("architecture", {"rerank_fraction": 2}, "architecture.rerank_fraction"),
        ("backbone", {"mean": [0, 0]}, "backbone.mean"),
    ],
)
def test_an_illegal_value_in_a_manifest_is_named(
    folder: Path, section: str, changes: dict[str, object], fault: str
) -> None:
    values = json.loads((folder / model_folder.MANIFEST).read_text())
    edit(folder, **{section: values[section] | changes})
    with pytest.raises(ModelError, match=rf"model\.json: not a valid manifest \({fault}"):
        model_folder.read_manifest(folder)


def test_provenance_of_a_checkout_names_its_commit() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("no checkout")
    head = subprocess.run(["git", "-C", str(ROOT), "rev-parse", "HEAD"], capture_output=True, text=True)
    assert source_commit() == head.stdout.strip()
