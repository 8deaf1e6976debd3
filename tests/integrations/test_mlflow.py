"""A real MLflow server as a registry: what is pulled is what was pushed, or nothing."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("mlflow")
pytest.importorskip("fsspec")

from energyad.detector import AnomalyDetector
from energyad.errors import DataError, ModelError, SettingsError
from energyad.integrations import mlflow as registry
from energyad.integrations.registry import pull_model, push_model
from energyad.model.folder import open_model, read_manifest, sign_model
from energyad.model.signing import make_keys

pytestmark = pytest.mark.slow
PATIENCE = 240.0


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("artifacts")


@pytest.fixture(scope="module")
def server(artifacts: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server with a database and artifacts of its own."""
    try:
        importlib.metadata.version("mlflow")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("MLflow's client is here alone, without its server")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder = tmp_path_factory.mktemp("mlflow")
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--workers", "1"]
    command += ["--artifacts-destination", str(artifacts)]
    log = folder / "log.txt"
    with log.open("w") as lines, subprocess.Popen(command, cwd=folder, stdout=lines, stderr=lines) as process:
        try:
            wait_for(f"http://127.0.0.1:{port}/health", process, log)
            yield f"mlflow+http://127.0.0.1:{port}"
        finally:
            process.terminate()


def wait_for(address: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            urllib.request.urlopen(address, timeout=10)
        except (urllib.error.URLError, OSError):
            assert process.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.2)
        else:
            return


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_model_with_its_signature_goes_to_a_server_and_each_version_comes_back(
    server: str, model_folder: Path, tmp_path: Path
) -> None:
    name = read_manifest(model_folder).name
    signed = tmp_path / "signed" / name
    shutil.copytree(model_folder, signed)
    public = make_keys(tmp_path / "plant.pem")
    first = push_model(model_folder, server)
    detector = AnomalyDetector.load(model_folder, threads=1)
    other = detector.manifest.replace(
        calibration=detector.calibration.__class__(
            **{**vars(detector.calibration), "threshold": 2 * detector.threshold}
        )
    )
    AnomalyDetector(other, detector.contents, detector.runtime).save(signed)
    sign_model(signed, tmp_path / "plant.pem")
    second = push_model(signed, server)
    assert first != second
    assert pull_model(f"{server}/{name}", tmp_path / "pulled") == second
    assert files_of(tmp_path / "pulled") == files_of(signed)
    open_model(tmp_path / "pulled", trusted_keys=[public])
    assert pull_model(f"{server}/{name}@{first}", tmp_path / "pulled") == first
    assert files_of(tmp_path / "pulled") == files_of(model_folder)


@pytest.mark.parametrize("damage", ["altered", "missing", "swapped"])
def test_a_model_damaged_on_the_server_is_refused_and_the_old_one_stays(
    damage: str, server: str, artifacts: Path, model_folder: Path, tmp_path: Path
) -> None:
    name, pulled = read_manifest(model_folder).name, tmp_path / "pulled"
    digest = push_model(model_folder, server)
    shutil.copytree(model_folder, pulled)
    stored = max(artifacts.rglob("scorer.onnx"), key=os.path.getmtime)
    if damage == "altered":
        stored.write_bytes(stored.read_bytes()[:-1] + b"?")
    elif damage == "missing":
        stored.unlink()
    else:
        manifest = stored.with_name("model.json")
        manifest.write_bytes(manifest.read_bytes().replace(digest.encode(), b"0" * 64))
    with pytest.raises(ModelError) as refused:
        pull_model(f"{server}/{name}", pulled)
    assert server in str(refused.value) and ".tmp" not in str(refused.value)
    assert files_of(pulled) == files_of(model_folder)


def test_a_file_of_which_the_server_does_not_say_how_large_it_is_is_not_fetched(
    server: str, model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow.entities import FileInfo

    name = read_manifest(model_folder).name
    push_model(model_folder, server)
    open_repository = registry.get_artifact_repository

    def without_sizes(*arguments: Any, **options: Any) -> Any:
        repository = open_repository(*arguments, **options)
        files = [FileInfo(file.path, file.is_dir, None) for file in repository.list_artifacts()]
        repository.list_artifacts = lambda: files  # type: ignore[method-assign]
        repository.download_artifacts = None  # type: ignore[assignment]
        return repository

    monkeypatch.setattr(registry, "get_artifact_repository", without_sizes)
    with pytest.raises(ModelError, match="does not say how large"):
        pull_model(f"{server}/{name}", tmp_path / "pulled")
    assert not (tmp_path / "pulled").exists()


def test_what_is_not_in_the_registry_is_named(server: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no model here"):
        pull_model(f"{server}/nothing", tmp_path / "pulled")
    with pytest.raises(SettingsError, match="64 digits"):
        pull_model(f"{server}/gasket@1", tmp_path / "pulled")


def test_a_server_that_is_not_there_is_named(
    model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(DataError, match=r"127\.0\.0\.1:9"):
        push_model(model_folder, "mlflow+http://127.0.0.1:9")
