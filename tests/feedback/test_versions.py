"""Laws of versions: whole or not at all, back again, and a history that shows each change."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from energyad.cli import app
from energyad.detector import AnomalyDetector
from energyad.errors import DataError, ModelError
from energyad.feedback import versions
from energyad.line.reloading import ReloadingDetector
from energyad.model.folder import find_model, open_model, read_manifest, sign_model
from energyad.model.manifest import KindFound, Teaching
from energyad.model.signing import make_keys


def found(kind: str, images: int, before: int, after: int) -> KindFound:
    return KindFound(kind=kind, images=images, before=before, after=after)


def teaching(*kinds: KindFound, alarms: KindFound | None = None) -> Teaching:
    return Teaching(
        created="now", base_sha256="", labels_sha256="", num_defects=2, kinds=kinds, false_alarms=alarms
    )


@pytest.fixture
def folder(model_folder: Path, tmp_path: Path) -> Path:
    place = tmp_path / "models" / "gasket"
    shutil.copytree(model_folder, place)
    return place


def put(folder: Path, detector: AnomalyDetector, taught: Teaching | None = None) -> str:
    manifest = detector.manifest.replace(teaching=taught or teaching(found("dent", 2, 0, 1)))
    return versions.version(versions.put_candidate(folder, manifest, detector.contents, action="taught"))


def test_promote_and_rollback_switch_and_the_history_says_so(
    folder: Path, fitted_detector: AnomalyDetector
) -> None:
    first, candidate = versions.version(folder), put(folder, fitted_detector)
    assert find_model(None, root=folder.parent) == folder
    following = ReloadingDetector(folder, lambda place: AnomalyDetector.load(place, threads=1))
    assert versions.promote(folder) == candidate == versions.version(folder)
    assert following().manifest.teaching is not None
    assert not versions.candidate_of(folder).exists()
    assert versions.rollback(folder) == first == versions.version(folder)
    assert following().manifest.teaching is None
    with pytest.raises(ModelError, match="nothing to go back to"):
        versions.rollback(folder)
    entries = versions.read_history(folder)
    assert [entry.action for entry in entries] == ["taught", "promoted", "rolled back"]
    assert entries[1].details == "2 defects (0 marked), 0 good parts"


@pytest.mark.parametrize("times", [1, 2])
def test_rollback_goes_behind_the_promotion_though_the_promoted_version_was_calibrated(
    folder: Path, fitted_detector: AnomalyDetector, times: int
) -> None:
    first = versions.version(folder)
    put(folder, fitted_detector)
    versions.promote(folder)
    for number in range(times):
        promoted = AnomalyDetector.load(folder, threads=1)
        anew = promoted.manifest.replace(created=f"2026-01-0{number + 1}T00:00:00+00:00")
        versions.save(folder, anew, promoted.contents, action="calibrated")
    assert versions.rollback(folder) == first == versions.version(folder)


def test_signatures_go_with_a_version(folder: Path, fitted_detector: AnomalyDetector, tmp_path: Path) -> None:
    public = make_keys(tmp_path / "plant.pem")
    sign_model(folder, tmp_path / "plant.pem")
    put(folder, fitted_detector)
    sign_model(versions.candidate_of(folder), tmp_path / "plant.pem")
    versions.promote(folder)
    open_model(folder, trusted_keys=[public])
    versions.rollback(folder)
    open_model(folder, trusted_keys=[public])


def test_a_candidate_that_loses_is_promoted_by_force_alone(
    folder: Path, fitted_detector: AnomalyDetector
) -> None:
    before = versions.version(folder)
    put(
        folder,
        fitted_detector,
        teaching(found("dent", 4, 3, 2), found("crack", 2, 0, 2), alarms=found("", 9, 1, 2)),
    )
    assert versions.faults(folder) == [
        "dent: 2 of 4 found, 3 before",
        "2 of 9 good parts are rejected, 1 before",
    ]
    with pytest.raises(ModelError, match=r"not promoted: dent: 2 of 4 found, 3 before; 2 of 9 .* --force"):
        versions.promote(folder)
    assert versions.version(folder) == before
    versions.promote(folder, force=True)
    assert versions.read_history(folder)[-1].forced
    with pytest.raises(ModelError, match="there is no candidate"):
        versions.promote(folder)


def test_a_threshold_on_fewer_good_parts_is_a_fault(folder: Path, fitted_detector: AnomalyDetector) -> None:
    manifest = fitted_detector.manifest
    calibration = manifest.calibration
    fewer = manifest.replace(
        teaching=teaching(), calibration=type(calibration)(**{**vars(calibration), "good_scores": (1.0,)})
    )
    versions.put_candidate(folder, fewer, fitted_detector.contents, action="taught")
    assert versions.faults(folder) == [
        f"its threshold rests on 1 good parts, not on {len(calibration.good_scores)}"
    ]


@pytest.mark.slow
@pytest.mark.parametrize("step", ["_copy", "_append", "_keep"])
def test_a_promotion_that_was_killed_can_be_done_again(
    folder: Path, fitted_detector: AnomalyDetector, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    first, candidate = versions.version(folder), put(folder, fitted_detector)
    with monkeypatch.context() as patch:

        def killed(*_: object, **__: object) -> None:
            raise KeyboardInterrupt

        patch.setattr(versions, step, killed)
        with pytest.raises(KeyboardInterrupt):
            versions.promote(folder)
    assert versions.version(folder) in (first, candidate)
    AnomalyDetector.load(folder, threads=1)
    assert versions.promote(folder) == candidate
    assert versions.rollback(folder) == first


def test_a_torn_last_line_is_written_anew_and_a_changed_one_is_found(
    folder: Path, fitted_detector: AnomalyDetector
) -> None:
    put(folder, fitted_detector)
    history = versions.versions_of(folder) / versions.HISTORY
    with history.open("ab") as file:
        file.write(b'{"time": "20')
    put(folder, fitted_detector)
    assert len(versions.read_history(folder)) == 2
    versions.promote(folder)
    history.write_bytes(history.read_bytes().replace(b'"taught"', b'"extended"', 1))
    with pytest.raises(DataError, match="line 2: does not follow the line before"):
        versions.read_history(folder)


def test_a_history_that_cannot_be_written_is_named_and_the_model_stays(
    folder: Path, fitted_detector: AnomalyDetector
) -> None:
    before = versions.version(folder)
    versions.versions_of(folder).write_text("a file where a folder should be")
    with pytest.raises(ModelError, match=r"history\.jsonl: cannot be written .* stays as it was"):
        versions.save(folder, fitted_detector.manifest, fitted_detector.contents, action="calibrated")
    assert versions.version(folder) == before


@pytest.mark.slow
def test_the_commands_promote_and_go_back(folder: Path, fitted_detector: AnomalyDetector) -> None:
    first, candidate = versions.version(folder), put(folder, fitted_detector)
    run = CliRunner()
    done = run.invoke(app, ["promote", str(folder)])
    assert done.exit_code == 0, done.output
    assert versions.version(folder) == candidate
    listed = run.invoke(app, ["models", "--history", str(folder)])
    assert "promoted" in listed.output and candidate in listed.output
    assert run.invoke(app, ["rollback", str(folder)]).exit_code == 0
    assert versions.version(folder) == first
    assert read_manifest(folder).teaching is None
