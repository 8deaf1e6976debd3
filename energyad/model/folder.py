"""The model folder: safetensors and JSON with a hash for each file. Loading one can run no code.

`model.json` is the manifest; it names every other file with its SHA-256, and itself carries the SHA-256 of its values.
These hashes find accidents: a damaged disk, a copy in part, an edit by hand. Whoever can write the folder can write
new ones; against that a model can be signed, see `energyad.model.signing`. A model is written to a temporary folder
beside its place and renamed, so a reader sees the old model or the new one, never half of either.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import platform
import re
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from energyad.errors import DataError, ModelError, SettingsError, first_validation_error
from energyad.files import atomic_write
from energyad.model import signing
from energyad.model.manifest import SCHEMA_VERSION, Manifest

MANIFEST = "model.json"
DIGEST = "sha256"
"""Field of `model.json` with the hash of all others."""
DEFAULT_FOLDER = Path("models")
MAX_FILE_BYTES: Final = 4 << 30
"""A larger file is no part of a model."""
MAX_MANIFEST_BYTES: Final = 64 << 20
ATTEMPTS: Final = 5
"""Of a load beside saves, and of a save beside loads that undo its first rename."""
CANDIDATE_SUFFIX: Final = ".candidate"
"""Of the folder of a model that may take the place of the one beside it."""
LEFT_OVER_AFTER: Final = 3600.0
"""Seconds after which a temporary folder belongs to no save any more; a minute where its process has ended."""


def save_model(folder: Path, manifest: Manifest, contents: Mapping[str, bytes]) -> None:
    """Write the contents and the manifest with their hashes to a temporary folder, and put that in place.

    Args:
        folder: Of the model; its parents are made.
        manifest: Its `files` are replaced by the hashes of `contents`.
        contents: Bytes of each file by its name.

    Raises:
        ModelError: The folder cannot be written (no permission, no space left); the old model then stays.
    """
    folder = folder.absolute()
    require_place(folder)
    text = manifest_text(manifest, contents)
    _require_readable_sizes(folder, {**contents, MANIFEST: text.encode()})
    temporary: Path | None = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(folder)
        temporary = Path(tempfile.mkdtemp(prefix=_prefix(folder), suffix=".tmp", dir=folder.parent))
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


def manifest_text(manifest: Manifest, contents: Mapping[str, bytes]) -> str:
    """Return what `save_model` writes as `model.json`; see there for the arguments."""
    hashes = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    values = with_digest(json.loads(manifest.replace(files=hashes).model_dump_json()))
    return json.dumps(values, indent=2, ensure_ascii=False) + "\n"


def require_place(folder: Path) -> None:
    """Check a place before a fit spends minutes.

    Raises:
        ModelError: `save_model` would fail there.
    """
    folder = folder.absolute()
    is_model = (folder / MANIFEST).exists()
    if folder.exists() and not is_model and (not folder.is_dir() or any(folder.iterdir())):
        raise ModelError(f"{folder}: exists and is no model; give another --output")
    present = next(parent for parent in folder.parents if parent.exists())
    try:  # permissions do not tell all: mounts are read-only, quotas full
        tempfile.TemporaryDirectory(dir=present, prefix=_prefix(folder), suffix=".tmp").cleanup()
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ModelError(f"{folder}: cannot be written ({reason}); give another --output") from error


def replace_folder(new: Path, target: Path) -> None:
    """Move `new` to `place`; what was there is put aside first and removed last, and `recover` undoes a half move."""
    aside = _aside(target)
    for attempt in range(ATTEMPTS):
        try:
            if target.exists():
                shutil.rmtree(aside, ignore_errors=True)
                target.rename(aside)
            new.rename(target)
            break
        except OSError as error:  # a reader put the old folder back in between, or another save was first
            undone = error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT) and new.exists()
            if not undone or attempt == ATTEMPTS - 1:
                raise
    shutil.rmtree(aside, ignore_errors=True)


def recover(folder: Path) -> None:
    """Put the old model back where a save was killed between its two renames."""
    aside = _aside(folder)
    if not folder.exists() and aside.exists():
        time.sleep(0.05)  # a save that is alive is done by then
        with contextlib.suppress(OSError):
            if not folder.exists():
                aside.rename(folder)


def with_digest(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of a manifest with the SHA-256 of their canonical JSON.

    Args:
        values: As JSON has them; a digest among them is left out.

    Raises:
        ValueError: A number is not finite.
    """
    undigested = {name: value for name, value in values.items() if name != DIGEST}
    text = json.dumps(undigested, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return {**undigested, DIGEST: hashlib.sha256(text.encode()).hexdigest()}


def read_manifest(folder: Path, *, trusted_keys: Sequence[Path] | None = None) -> Manifest:
    """Read the manifest of a model folder.

    Args:
        folder: The model folder.
        trusted_keys: Public keys, of which one must have signed the model, see `energyad.model.signing`; none where
            empty. None for those that `ENERGYAD_TRUSTED_KEYS` names.

    Raises:
        ModelError: There is none, it was altered, this version cannot read it, or no trusted key signed it.
    """
    manifest, digest = _manifest_and_digest(folder)
    keys = signing.trusted_keys() if trusted_keys is None else trusted_keys
    if keys:
        signing.verify(digest, read_signatures(folder), keys, folder=folder)
    return manifest


def sign_model(folder: Path, key: Path) -> str:
    """Add a signature to a model whose files are whole; one that the same key made before is replaced.

    Args:
        folder: The model folder.
        key: See `energyad.model.signing.sign`.

    Returns:
        The number of the key.

    Raises:
        ModelError: The model is damaged, or its folder cannot be written.
        SettingsError: The file holds no private key.
    """
    manifest, digest = _manifest_and_digest(folder)
    for problem in _problems(folder, manifest):
        raise ModelError(problem)
    line = signing.sign(digest, key)
    number = line.partition(" ")[0]
    others = [
        text
        for text in (read_signatures(folder) or "").splitlines(keepends=True)
        if not text.startswith(number)
    ]
    try:
        atomic_write(folder / signing.SIGNATURE_FILE, "".join([*others, line]))
    except DataError as error:
        raise ModelError(str(error)) from error
    return number


def read_signatures(folder: Path) -> str | None:
    """The signatures of a model; None where it has none. Raises ModelError where they cannot be read."""
    path = folder / signing.SIGNATURE_FILE
    try:
        content = read_regular_file(folder, signing.SIGNATURE_FILE, limit=signing.MAX_SIGNATURE_BYTES)
    except FileNotFoundError:
        return None
    except (OSError, RuntimeError) as error:
        raise ModelError(f"{path}: cannot be read ({type(error).__name__}); sign the model again") from error
    return content.decode("ascii", "replace")


def _manifest_and_digest(folder: Path) -> tuple[Manifest, str]:
    path = folder / MANIFEST
    try:
        values = json.loads(_read_manifest_bytes(folder))
    except FileNotFoundError as error:
        raise ModelError(
            f"{folder}: no model here ({MANIFEST} is missing); see `energyad models`, or fit one"
        ) from error
    except (OSError, ValueError, RuntimeError) as error:  # RuntimeError: links in a circle, brackets too deep
        raise ModelError(
            f"{path}: cannot be read ({type(error).__name__}); fit the model again or restore it"
        ) from error
    if not isinstance(values, dict):
        raise ModelError(f"{path}: not a valid manifest (no object); fit the model again or restore it")
    version = values.get("schema_version", SCHEMA_VERSION)
    if version != SCHEMA_VERSION:
        raise ModelError(
            f"{path}: schema {version}, and this program reads schema {SCHEMA_VERSION} alone; "
            "use the energyad that wrote it, or fit the model again"
        )
    _check_digest(path, values)
    digest = values.pop(DIGEST)
    try:
        return Manifest.model_validate(values), digest
    except SettingsError as error:  # of a dataclass that checks what no bound of a field says
        raise ModelError(f"{path}: not a valid manifest ({error}); restore the model") from error
    except ValidationError as error:
        where, fault = first_validation_error(error)
        raise ModelError(f"{path}: not a valid manifest ({where}: {fault}); restore the model") from error


def problems(folder: Path, manifest: Manifest) -> Iterator[str]:
    """Yield one line for each file that is missing or not the one that was written."""
    lines = list(_problems(folder, manifest))
    if lines:
        with contextlib.suppress(ModelError):
            open_model(folder)
            return  # it was saved anew since its manifest was read
    yield from lines


def open_model(
    folder: Path, *, trusted_keys: Sequence[Path] | None = None
) -> tuple[Manifest, dict[str, bytes]]:
    """Read the manifest and the files' contents; what was hashed is what is returned.

    A model that is saved meanwhile is read again.

    Args:
        folder: The model folder.
        trusted_keys: See `read_manifest`.

    Raises:
        ModelError: The first file that is missing, altered or no regular file of the folder.
    """
    for attempt in range(ATTEMPTS):
        before = _identity(folder)
        try:
            manifest = read_manifest(folder, trusted_keys=trusted_keys)
            return manifest, {
                name: _verified(folder, name, digest) for name, digest in manifest.files.items()
            }
        except ModelError:
            if before == _identity(folder) or attempt == ATTEMPTS - 1:
                raise
    raise AssertionError("unreachable")


def read_regular_file(folder: Path, name: str, *, limit: int = MAX_FILE_BYTES) -> bytes:
    """Read a regular file of the folder, at once or not at all: pipes and devices are not waited for.

    Raises:
        ModelError: It is no regular file, a link out of the folder, or longer than `limit` bytes.
        OSError: It is missing or cannot be read.
    """
    path = folder / name
    real = path.resolve(strict=True)
    if not real.is_relative_to(folder.resolve()):
        raise ModelError(f"{path}: refused: a link out of the folder; put the file itself there")
    flags = (
        os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    )
    kind = real.stat().st_mode
    if not stat.S_ISREG(kind):  # before it is opened: to open a device may already do something
        raise ModelError(f"{path}: refused: not a regular file; restore it or fit the model again")
    with os.fdopen(os.open(real, flags), "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise ModelError(f"{path}: refused: not a regular file; restore it or fit the model again")
        content = file.read(limit + 1) if status.st_size <= limit else b""
    if max(status.st_size, len(content)) > limit:
        raise ModelError(f"{path}: refused: larger than {limit:,} bytes; restore it or fit the model again")
    return content


def find_model(name: str | Path | None, *, root: Path = DEFAULT_FOLDER) -> Path:
    """Find a model's folder.

    Args:
        name: A path, or a folder's name under `root`; None for the only model there.
        root: Where models are looked for.

    Raises:
        ModelError: There is no such model, or no name was given and there are none or several.
    """
    if name is not None:
        for folder in (Path(name), root / name):
            recover(folder)
            if (folder / MANIFEST).exists():
                return folder
        raise ModelError(f"no model '{name}' ({_present(root)})")
    present = [folder for folder in list_models(root) if not folder.name.endswith(CANDIDATE_SUFFIX)]
    if len(present) != 1:
        raise ModelError(f"which model? Give --model ({_present(root)})")
    return present[0]


def graph_file(manifest: Manifest) -> str:
    """Return the name of the file that holds a model's graph."""
    return GRAPH_FILE if manifest.imported is None else IMPORTED_GRAPH_FILE


def list_models(root: Path = DEFAULT_FOLDER) -> list[Path]:
    """Return the model folders under `root`, by name."""
    return sorted(path.parent for path in root.glob(f"*/{MANIFEST}") if not path.parent.name.startswith("."))


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _present(root: Path) -> str:
    names = ", ".join(path.name for path in list_models(root))
    return f"in {root}/: {names}" if names else f"{root}/ holds none; make one with `energyad fit`"


def _problems(folder: Path, manifest: Manifest) -> Iterator[str]:
    for name, digest in manifest.files.items():
        try:
            _verified(folder, name, digest)
        except ModelError as error:
            yield str(error)


def _verified(folder: Path, name: str, digest: str) -> bytes:
    path = folder / name
    try:
        content = read_regular_file(folder, name)
    except (OSError, RuntimeError) as error:  # RuntimeError: links that lead to each other
        raise ModelError(f"{path}: missing or unreadable; restore it or fit the model again") from error
    if hashlib.sha256(content).hexdigest() != digest:
        raise ModelError(
            f"{path}: altered since it was written (its SHA-256 differs); restore it or fit the model again"
        )
    return content


def _read_manifest_bytes(folder: Path) -> bytes:
    """The manifest's text; waits where a save is between its two renames."""
    for _ in range(ATTEMPTS):
        recover(folder)
        with contextlib.suppress(FileNotFoundError):
            return read_regular_file(folder, MANIFEST, limit=MAX_MANIFEST_BYTES)
        if not _aside(folder).exists() and not (folder / MANIFEST).exists():
            break
    return read_regular_file(folder, MANIFEST, limit=MAX_MANIFEST_BYTES)


def _check_digest(path: Path, values: Mapping[str, Any]) -> None:
    try:
        expected = with_digest(values)[DIGEST]
    except ValueError as error:
        raise ModelError(
            f"{path}: a number in it is not finite; restore it or fit the model again"
        ) from error
    if values.get(DIGEST) != expected:
        reason = "its SHA-256 differs" if DIGEST in values else "its SHA-256 is missing"
        raise ModelError(
            f"{path}: altered since it was written ({reason}); restore it or fit the model again"
        )


def _identity(folder: Path) -> tuple[int, int, int] | None:
    """What differs once another manifest is in place."""
    try:
        status = (folder / MANIFEST).stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_mtime_ns


def _require_readable_sizes(folder: Path, contents: Mapping[str, bytes]) -> None:
    for name, content in contents.items():
        limit = MAX_MANIFEST_BYTES if name == MANIFEST else MAX_FILE_BYTES
        if len(content) > limit:
            raise ModelError(
                f"{folder / name}: {len(content):,} bytes are more than a model may have ({limit:,})"
            )


def _prefix(folder: Path) -> str:
    """Of temporary folders: says whose they are, so that the next save can tell what a killed one left."""
    return f".{folder.name}.{os.getpid()}-{_host()}-"


def _host() -> str:
    return hashlib.sha256(platform.node().encode()).hexdigest()[:8]


def _remove_leftovers(folder: Path) -> None:
    """Remove temporary folders of saves that were killed."""
    pattern = re.compile(rf"\.{re.escape(folder.name)}\.(?:(\d+)-([0-9a-f]{{8}})-)?[a-z0-9_]{{8}}\.tmp")
    for path in folder.parent.iterdir():
        match = pattern.fullmatch(path.name)
        if match is None or path.is_symlink() or not path.is_dir():
            continue
        with contextlib.suppress(OSError):
            age = time.time() - max(entry.stat().st_mtime for entry in (path, *path.iterdir()))
            ended = match[1] is not None and match[2] == _host() and not _is_running(int(match[1]))
            if age > (60 if ended else LEFT_OVER_AFTER):
                shutil.rmtree(path, ignore_errors=True)


def _is_running(process: int) -> bool:
    if os.name != "posix":  # elsewhere a signal of 0 is not just a question
        return True
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        return True
    return True


def _aside(folder: Path) -> Path:
    return folder.parent / f".{folder.name}.old"


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


IMPORTED_GRAPH_FILE = "scorer.xml"
"""The graph of an imported model, in OpenVINO's format; the hash of its weights is in its name."""

IMPORTED_WEIGHTS_FILE = "scorer.bin"


CARD_FILE = "README.md"
