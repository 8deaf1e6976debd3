"""The model folder: safetensors and JSON with a hash for each file. Loading one can run no code.

`model.json` is the manifest; it names every other file with its SHA-256. A model is written to a temporary folder
beside its place and renamed, so a reader sees the old model or the new one, never half of either.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from pydantic import ValidationError

from energyad.errors import ModelError, SettingsError, first_validation_error
from energyad.model.manifest import SCHEMA_VERSION, Manifest

MANIFEST = "model.json"
DEFAULT_FOLDER = Path("models")


def save_model(folder: Path, manifest: Manifest, contents: Mapping[str, bytes]) -> None:
    """Write the contents and the manifest with their hashes to a temporary folder, and put that in place.

    Raises ModelError where the folder cannot be written (no permission, no space left); the old model then stays.
    """
    folder = folder.absolute()
    require_place(folder)
    hashes = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    text = manifest.replace(files=hashes).model_dump_json(indent=2) + "\n"
    temporary: Path | None = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".tmp", dir=folder.parent))
        for name, content in {**contents, MANIFEST: text.encode()}.items():
            _write_through(temporary / name, content)
        temporary.chmod(0o755)
        replace_folder(temporary, folder)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ModelError(f"{folder}: cannot be written ({reason}); an old model stays as it was") from error
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)


def require_place(folder: Path) -> None:
    """Refuse a place where `save_model` would fail, before a fit spends minutes. Raises ModelError."""
    folder = folder.absolute()
    is_model = (folder / MANIFEST).exists()
    if folder.exists() and not is_model and (not folder.is_dir() or any(folder.iterdir())):
        raise ModelError(f"{folder}: exists and is no model; give another --output")
    present = next(parent for parent in folder.parents if parent.exists())
    try:  # permissions do not tell all: mounts are read-only, quotas full
        tempfile.TemporaryDirectory(dir=present, prefix=f".{folder.name}.").cleanup()
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ModelError(f"{folder}: cannot be written ({reason}); give another --output") from error


def replace_folder(new: Path, place: Path) -> None:
    """Move `new` to `place`; what was there is put aside first and removed last, and `recover` undoes a half move."""
    aside = _aside(place)
    if place.exists():
        shutil.rmtree(aside, ignore_errors=True)
        place.rename(aside)
    new.rename(place)
    shutil.rmtree(aside, ignore_errors=True)


def recover(folder: Path) -> None:
    """Put the old model back where a save was killed between its two renames."""
    aside = _aside(folder)
    if not folder.exists() and aside.exists():
        with contextlib.suppress(OSError):
            aside.rename(folder)


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a model folder. Raises ModelError where there is none, or none that this version can read."""
    recover(folder)
    path = folder / MANIFEST
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ModelError(
            f"{folder}: no model here ({MANIFEST} is missing); see `energyad models`, or fit one"
        ) from error
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(
            f"{path}: cannot be read ({type(error).__name__}); fit the model again or restore it"
        ) from error
    version = values.get("schema_version", SCHEMA_VERSION) if isinstance(values, dict) else SCHEMA_VERSION
    if version != SCHEMA_VERSION:
        raise ModelError(
            f"{path}: schema {version}, and this program reads schema {SCHEMA_VERSION} alone; "
            "use the energyad that wrote it, or fit the model again"
        )
    try:
        return Manifest.model_validate(values)
    except SettingsError as error:  # of a dataclass that checks what no bound of a field says
        raise ModelError(f"{path}: not a valid manifest ({error}); restore the model") from error
    except ValidationError as error:
        where, fault = first_validation_error(error)
        raise ModelError(f"{path}: not a valid manifest ({where}: {fault}); restore the model") from error


def problems(folder: Path, manifest: Manifest) -> Iterator[str]:
    """One line for each file that is missing or not the one that was written."""
    for name, digest in manifest.files.items():
        path = folder / name
        if not path.is_file():
            yield _missing(path)
        elif file_hash(path) != digest:
            yield _altered(path)


def open_model(folder: Path) -> tuple[Manifest, dict[str, bytes]]:
    """The manifest and the files' contents; what was hashed is what is returned.

    Raises ModelError naming the first file that is missing or altered.
    """
    manifest = read_manifest(folder)
    contents = {}
    for name, digest in manifest.files.items():
        try:
            contents[name] = (folder / name).read_bytes()
        except OSError as error:
            raise ModelError(_missing(folder / name)) from error
        if hashlib.sha256(contents[name]).hexdigest() != digest:
            raise ModelError(_altered(folder / name))
    return manifest, contents


def find_model(name: str | Path | None, *, root: Path = DEFAULT_FOLDER) -> Path:
    """The folder of a model given by path or by name under `root`; the only one there where no name is given."""
    if name is not None:
        for folder in (Path(name), root / name):
            recover(folder)
            if (folder / MANIFEST).exists():
                return folder
        raise ModelError(f"no model '{name}' ({_present(root)})")
    present = list_models(root)
    if len(present) != 1:
        raise ModelError(f"which model? Give --model ({_present(root)})")
    return present[0]


def list_models(root: Path = DEFAULT_FOLDER) -> list[Path]:
    """Model folders under `root`, by name."""
    return sorted(path.parent for path in root.glob(f"*/{MANIFEST}") if not path.parent.name.startswith("."))


def file_hash(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _present(root: Path) -> str:
    names = ", ".join(path.name for path in list_models(root))
    return f"in {root}/: {names}" if names else f"{root}/ holds none; make one with `energyad fit`"


def _aside(folder: Path) -> Path:
    return folder.parent / f".{folder.name}.old"


def _missing(path: Path) -> str:
    return f"{path}: missing or unreadable; restore it or fit the model again"


def _altered(path: Path) -> str:
    return f"{path}: altered since it was written (its SHA-256 differs); restore it or fit the model again"


def _write_through(path: Path, content: bytes) -> None:
    """Write and wait for the disk, so that a renamed folder is a whole one even after a power cut."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


BACKBONE_FILE = "backbone.safetensors"
"""The backbone's tensors that the graph does not hold as they are, see `energyad.graphs.weights`."""

HEAD_FILE = "detector.safetensors"


GRAPH_FILE = "scorer.onnx"


CARD_FILE = "README.md"
