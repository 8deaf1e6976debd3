"""Registries of models: what is pulled is what was pushed, or nothing."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("fsspec")

from energyad.detector import AnomalyDetector
from energyad.errors import DataError, MissingExtraError, ModelError, SettingsError
from energyad.integrations.registry import pull_model, push_model

from .writes import dying_after


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A bucket of a server that speaks S3."""
    boto3 = pytest.importorskip("boto3")
    pytest.importorskip("s3fs")
    server = pytest.importorskip("moto.server").ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    address = f"http://{host}:{port}"
    monkeypatch.setenv("AWS_ENDPOINT_URL", address)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    boto3.client("s3", endpoint_url=address).create_bucket(Bucket="plant")
    yield "s3://plant/models"
    server.stop()


@pytest.mark.parametrize("kind", ["folder", "memory"])
def test_a_pulled_model_is_the_pushed_one(kind: str, model_folder: Path, tmp_path: Path) -> None:
    registry = str(tmp_path / "registry") if kind == "folder" else "memory://registry"
    digest = push_model(model_folder, registry)
    name = AnomalyDetector.load(model_folder, threads=1).name
    assert pull_model(f"{registry}/{name}", tmp_path / "pulled") == digest
    assert files_of(tmp_path / "pulled") == files_of(model_folder)


@pytest.mark.slow
def test_a_model_goes_to_s3_and_comes_back(bucket: str, model_folder: Path, tmp_path: Path) -> None:
    push_model(model_folder, bucket)
    pull_model(f"{bucket}/{model_folder.name}", tmp_path / "pulled")
    assert files_of(tmp_path / "pulled") == files_of(model_folder)


def recalibrated(model_folder: Path, place: Path) -> Path:
    """The model with another threshold."""
    detector = AnomalyDetector.load(model_folder, threads=1)
    calibration = detector.calibration.__class__(
        **{**vars(detector.calibration), "threshold": detector.threshold * 2}
    )
    AnomalyDetector(
        detector.manifest.replace(calibration=calibration), detector.contents, detector.runtime
    ).save(place)
    return place


def test_an_earlier_version_can_be_pulled(model_folder: Path, tmp_path: Path) -> None:
    registry, name = str(tmp_path / "registry"), model_folder.name
    first = push_model(model_folder, registry)
    second = push_model(recalibrated(model_folder, tmp_path / "new" / name), registry)
    assert first != second
    assert pull_model(f"{registry}/{name}", tmp_path / "pulled") == second
    assert pull_model(f"{registry}/{name}@{first}", tmp_path / "pulled") == first
    assert files_of(tmp_path / "pulled") == files_of(model_folder)


@pytest.mark.parametrize("damage", ["altered", "missing", "swapped", "manifest", "path"])
def test_a_model_damaged_on_the_way_is_refused_and_the_old_one_stays(
    damage: str, model_folder: Path, tmp_path: Path
) -> None:
    registry, name = tmp_path / "registry", model_folder.name
    digest = push_model(model_folder, str(registry))
    stored, pulled = registry / name / digest, tmp_path / "pulled"
    shutil.copytree(model_folder, pulled)
    manifest = json.loads((stored / "model.json").read_text(encoding="utf-8"))
    if damage == "altered":
        (stored / "scorer.onnx").write_bytes((stored / "scorer.onnx").read_bytes()[:-1] + b"?")
    elif damage == "missing":
        (stored / "scorer.onnx").unlink()
    elif damage == "swapped":  # another whole model under this digest
        shutil.rmtree(stored)
        shutil.copytree(recalibrated(model_folder, tmp_path / "new" / name), stored)
    elif damage == "manifest":
        (stored / "model.json").write_text("[]")
    else:
        manifest["files"]["../../outside"] = "0" * 64
        (stored / "model.json").write_text(json.dumps(manifest), encoding="utf-8")
    with pytest.raises(ModelError) as refused:
        pull_model(f"{registry}/{name}", pulled)
    assert str(registry) in str(refused.value) and ".tmp" not in str(refused.value)
    assert files_of(pulled) == files_of(model_folder)
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith(".")) == []
    assert not (tmp_path / "outside").exists()


def test_a_push_killed_before_its_end_leaves_the_version_before(
    model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry, name = str(tmp_path / "registry"), model_folder.name
    first = push_model(model_folder, registry)
    new = recalibrated(model_folder, tmp_path / "new" / name)
    for allowed in range(len(list(new.iterdir())) + 1):
        with pytest.raises(KeyboardInterrupt), dying_after(allowed, KeyboardInterrupt, monkeypatch):
            push_model(new, registry)
        assert pull_model(f"{registry}/{name}", tmp_path / "pulled") == first


def test_what_is_no_registry_is_named(model_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no model here"):
        pull_model(str(tmp_path / "nothing"), tmp_path / "pulled")
    with pytest.raises(DataError, match="nowhere"):
        push_model(model_folder, "nowhere://plant")
    with pytest.raises(SettingsError, match="64 digits"):
        pull_model(f"{tmp_path}/gasket@1", tmp_path / "pulled")


def test_a_protocol_whose_package_is_missing_names_it(
    model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "gcsfs", None)
    with pytest.raises(MissingExtraError, match="gcsfs"):
        push_model(model_folder, "gs://plant/models")


def test_a_server_of_mlflow_without_its_package_names_the_extra(
    model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "mlflow", None)
    for refused in (
        lambda: push_model(model_folder, "mlflow+http://127.0.0.1:9"),
        lambda: pull_model("mlflow+http://127.0.0.1:9/gasket", tmp_path / "pulled"),
    ):
        with pytest.raises(MissingExtraError, match=r"energyad\[mlflow\]"):
            refused()
