"""Models in the registry of an MLflow server. Needs the extra `mlflow`.

A push stores the files of a model folder as artifacts of a run, and registers them as a new version of the model's
name. The version's tag `energyad.digest` is the model's digest, which whoever pulls checks the files against.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # MLflow asks when it is imported

from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.tracking import MlflowClient

from energyad.errors import DataError, ModelError, first_line
from energyad.integrations.model_files import MLFLOW_PREFIX, install_model, read_model_files, split_version

EXPERIMENT: Final = "energyad"
DIGEST_TAG: Final = "energyad.digest"
_FOLDER: Final = "model"
_EXISTS: Final = "RESOURCE_ALREADY_EXISTS"


def push_to_mlflow(folder: Path, registry: str) -> str:
    """Check a model folder and register it as the latest version of its name.

    Args:
        folder: The model folder.
        registry: `mlflow+` and the address of the tracking server.

    Returns:
        The model's digest, the SHA-256 over its manifest, which holds those of all other files.

    Raises:
        ModelError: The model is damaged.
        DataError: The server cannot be reached or refuses.

    Example:
        >>> push_to_mlflow(Path("models/gasket"), "mlflow+https://mlflow.plant")
    """
    name, digest, files = read_model_files(folder)
    with _named(registry):
        client = _client(registry)
        try:
            client.create_registered_model(name)
        except MlflowException as error:
            if error.error_code != _EXISTS:
                raise
        run = client.create_run(_experiment(client), run_name=name)
        with tempfile.TemporaryDirectory() as temporary:
            for file_name, content in files.items():
                Path(temporary, file_name).write_bytes(content)
            client.log_artifacts(run.info.run_id, temporary, _FOLDER)
        client.set_terminated(run.info.run_id)
        source = f"{run.info.artifact_uri}/{_FOLDER}"
        client.create_model_version(name, source, run.info.run_id, tags={DIGEST_TAG: digest})
    return digest


def pull_from_mlflow(source: str, folder: Path) -> str:
    """Fetch a model from the registry of an MLflow server, check it, and put it in place as a whole.

    Args:
        source: `REGISTRY/NAME`, or `REGISTRY/NAME@DIGEST` for a certain version.
        folder: Where the model goes; a model that is there is replaced.

    Returns:
        The model's digest.

    Raises:
        ModelError: There is no such model, or what arrived is not what was pushed; what was there stays.
        DataError: The server cannot be reached or refuses.
    """
    address, digest = split_version(source)
    registry, _, name = address.rpartition("/")
    with _named(registry):
        client = _client(registry)
        version = _version(client, name, digest, source)
        uri = client.get_model_version_download_uri(name, version.version)
        artifacts = get_artifact_repository(uri, tracking_uri=_address(registry))
        sizes = {Path(file.path).name: file.file_size for file in artifacts.list_artifacts()}
        with tempfile.TemporaryDirectory() as temporary:

            def read(file_name: str, limit: int) -> bytes:
                if file_name not in sizes:
                    raise FileNotFoundError(file_name)
                size = sizes[file_name]
                if size is None:
                    raise ModelError(
                        f"{source}/{file_name}: the server does not say how large it is; use a registry that does"
                    )
                if size > limit:
                    raise ModelError(f"{source}/{file_name}: larger than {limit:,} bytes; push it again")
                return Path(artifacts.download_artifacts(file_name, temporary)).read_bytes()

            return install_model(read, folder, source=source, digest=version.tags[DIGEST_TAG])


def _version(client: MlflowClient, name: str, digest: str, source: str) -> ModelVersion:
    """The version with a digest, or the one that was pushed last."""
    versions = client.search_model_versions(f"name='{name}'")
    pushed = [one for one in versions if DIGEST_TAG in one.tags and digest in ("", one.tags[DIGEST_TAG])]
    if not pushed:
        raise ModelError(f"{source}: no model here that energyad pushed; check the name")
    return max(pushed, key=lambda one: int(one.version))


def _experiment(client: MlflowClient) -> str:
    known = client.get_experiment_by_name(EXPERIMENT)
    if known is not None:
        return str(known.experiment_id)
    return str(client.create_experiment(EXPERIMENT))


def _client(registry: str) -> MlflowClient:
    return MlflowClient(tracking_uri=_address(registry), registry_uri=_address(registry))


def _address(registry: str) -> str:
    return registry.removeprefix(MLFLOW_PREFIX).rstrip("/")


@contextmanager
def _named(registry: str) -> Iterator[Any]:
    """Errors of the server as one line that names it."""
    try:
        yield
    except MlflowException as error:
        raise DataError(f"{registry}: {first_line(error)}; check the address and the server") from error
    except OSError as error:  # requests raises such
        raise DataError(f"{registry}: cannot be reached ({first_line(error)})") from error
