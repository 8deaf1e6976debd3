"""Laws of written files: whole or not at all, and an old one survives a failure."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from energyad.errors import DataError
from energyad.files import atomic_write


def test_a_file_is_written_with_its_folders_and_replaces_the_old_one(tmp_path: Path) -> None:
    place = tmp_path / "a" / "b.csv"
    assert atomic_write(place, "old\n").read_text() == "old\n"
    assert atomic_write(place, "grün\n") == place
    assert place.read_bytes() == "grün\n".encode()
    assert [path.name for path in place.parent.iterdir()] == ["b.csv"]


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = atomic_write(tmp_path / "b.csv", "old")

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fdopen", full)
    with pytest.raises(DataError, match=r"b\.csv: cannot be written: no space left"):
        atomic_write(place, "new")
    assert place.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["b.csv"]
