"""The files of a model on their way: read from a folder, written to a storage, fetched and put in place as a whole."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from energyad.errors import DataError, ModelError, SettingsError
from energyad.integrations.storage import StorageFolder
from energyad.model.folder import (
    DIGEST,
    MANIFEST,
    MAX_FILE_BYTES,
    MAX_MANIFEST_BYTES,
    open_model,
    read_regular_file,
    read_signatures,
    replace_folder,
    require_place,
)
from energyad.model.signing import MAX_SIGNATURE_BYTES, SIGNATURE_FILE

MLFLOW_PREFIX: Final = "mlflow+"
"""Of a registry that is an MLflow server: `mlflow+https://server`."""
VERSION_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_FILE_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")

Read = Callable[[str, int], bytes]
"""Reads a file of a stored model, by its name, of at most so many bytes."""


def split_version(source: str) -> tuple[str, str]:
    """Split `REGISTRY/NAME@DIGEST` into what stands before the version and its digest, "" where none is named.

    Raises:
        SettingsError: What is named is no digest.
    """
    address, separator, digest = source.rpartition("@")
    if not separator or "/" in digest:
        return source, ""
    if digest and not VERSION_DIGEST.fullmatch(digest):
        raise SettingsError(f"{source}: a version is the 64 digits that `energyad models push` printed")
    return address, digest


def read_model_files(folder: Path) -> tuple[str, str, dict[str, bytes]]:
    """Read a model folder.

    Returns:
        The model's name, its digest, and its files by name, the manifest last.

    Raises:
        ModelError: A file is missing or damaged, or the model is saved anew meanwhile.
    """
    manifest, contents = open_model(folder)
    text = read_regular_file(folder, MANIFEST, limit=MAX_MANIFEST_BYTES)
    values = json.loads(text)
    hashes = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    if values["files"] != hashes:
        raise ModelError(f"{folder}: was saved anew meanwhile; try again")
    signatures = read_signatures(folder)
    signed = {} if signatures is None else {SIGNATURE_FILE: signatures.encode()}
    return manifest.name, values[DIGEST], {**contents, **signed, MANIFEST: text}


def write_model_files(place: StorageFolder, files: Mapping[str, bytes]) -> None:
    """Write the files of a model in their order, so that the manifest comes last."""
    for name, content in files.items():
        place.write(name, content)


def install_model(read: Read, folder: Path, *, source: str, digest: str | None = None) -> str:
    """Fetch the files of a model to a temporary folder, check them, and put the folder in place.

    Args:
        read: Reads a file of the stored model.
        folder: Where the model goes.
        source: What errors call the stored model.
        digest: That the model must have; None for any.

    Returns:
        The model's digest.

    Raises:
        ModelError: A file is missing, or not the one that was stored.
    """
    folder = folder.absolute()
    require_place(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".tmp", dir=folder.parent))
    try:
        pulled = _fetch(read, temporary, source)
        if digest is not None and pulled != digest:
            raise ModelError(f"{source}: holds the model {pulled[:12]} instead; push it again")
        open_model(temporary)
        temporary.chmod(0o755)
        replace_folder(temporary, folder)
    except ModelError as error:
        raise ModelError(str(error).replace(str(temporary), source)) from None
    except (DataError, OSError) as error:
        raise ModelError(f"{source}: cannot be fetched ({error}); {folder} stays as it was") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return pulled


def _fetch(read: Read, folder: Path, source: str) -> str:
    try:
        text = read(MANIFEST, MAX_MANIFEST_BYTES)
    except FileNotFoundError:
        raise ModelError(f"{source}: no model here ({MANIFEST} is missing); check the address") from None
    try:
        values = json.loads(text)
        names, digest = list(values["files"]), str(values[DIGEST])
    except (ValueError, TypeError, KeyError) as error:
        raise ModelError(f"{source}/{MANIFEST}: not a valid manifest; push it again") from error
    (folder / MANIFEST).write_bytes(text)
    for name in names:
        if not _FILE_NAME.fullmatch(name):
            raise ModelError(f"{source}/{MANIFEST}: refused: a file name that no model has; push it again")
        (folder / name).write_bytes(read(name, MAX_FILE_BYTES))
    with contextlib.suppress(FileNotFoundError):  # a model that nobody signed
        (folder / SIGNATURE_FILE).write_bytes(read(SIGNATURE_FILE, MAX_SIGNATURE_BYTES))
    return digest
