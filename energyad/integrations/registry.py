"""Models in a registry: a folder or URL with a version for each model that was pushed, or an MLflow server.

Needs the extra `storage`, and for MLflow `mlflow`.

A registry holds `NAME/DIGEST/` with the files of a model folder, and `NAME/latest`, which names the digest of the model
that was pushed last. A version is written before `latest` names it and never changes. So whoever pulls gets a whole
model, also while somebody pushes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from energyad.errors import ModelError, SettingsError
from energyad.extras import require
from energyad.integrations.model_files import (
    MLFLOW_PREFIX,
    VERSION_DIGEST,
    install_model,
    read_model_files,
    split_version,
    write_model_files,
)
from energyad.integrations.storage import StorageFolder

LATEST: Final = "latest"


def push_model(folder: Path, registry: str) -> str:
    """Check a model folder and store it as the latest version of its name.

    Args:
        folder: The model folder.
        registry: A folder, a URL that fsspec knows, or `mlflow+` and the address of an MLflow server.

    Returns:
        The model's digest, the SHA-256 over its manifest, which holds those of all other files.

    Raises:
        ModelError: The model is damaged.
        DataError: The registry cannot be written.

    Example:
        >>> push_model(Path("models/gasket"), "s3://plant/models")
        >>> push_model(Path("models/gasket"), "mlflow+https://mlflow.plant")
    """
    if registry.startswith(MLFLOW_PREFIX):
        require("mlflow", "a registry of MLflow")
        from energyad.integrations.mlflow import push_to_mlflow

        return push_to_mlflow(folder, registry)
    name, digest, files = read_model_files(folder)
    if name.startswith(".") or not name.isprintable() or set(name) & set("/\\@"):
        raise SettingsError(f"model '{name}': a registry takes no name with / or @ or a dot in front")
    versions = StorageFolder.open(registry).folder(name)
    write_model_files(versions.folder(digest), files)
    versions.write(LATEST, digest.encode())
    return digest


def pull_model(source: str, folder: Path) -> str:
    """Fetch a model from a registry, check it, and put it in place as a whole.

    Args:
        source: `REGISTRY/NAME`, or `REGISTRY/NAME@DIGEST` for a certain version.
        folder: Where the model goes; a model that is there is replaced.

    Returns:
        The model's digest.

    Raises:
        ModelError: There is no such model, or what arrived is not what was pushed; what was there stays.
    """
    if source.startswith(MLFLOW_PREFIX):
        require("mlflow", "a registry of MLflow")
        from energyad.integrations.mlflow import pull_from_mlflow

        return pull_from_mlflow(source, folder)
    address, digest = split_version(source)
    versions = StorageFolder.open(address.rstrip("/"))
    digest = digest or _latest(versions)
    version = versions.folder(digest)

    def read(name: str, limit: int) -> bytes:
        if version.size(name) > limit:
            raise ModelError(f"{version.url}/{name}: refused: larger than {limit:,} bytes; push it again")
        return version.read(name)

    return install_model(read, folder, source=version.url, digest=digest)


def _latest(versions: StorageFolder) -> str:
    try:
        digest = versions.read(LATEST).decode("ascii", "replace").strip()
    except FileNotFoundError:
        raise ModelError(f"{versions.url}: no model here ({LATEST} is missing); check the name") from None
    if not VERSION_DIGEST.fullmatch(digest):
        raise ModelError(f"{versions.url}/{LATEST}: names no version; push the model again")
    return digest
