"""Versions of a model: the one in charge, a candidate beside it, and those that were in charge before.

`models/gasket` is in charge. `models/gasket.candidate` is a model like any other, which can be scored and evaluated;
`promote` puts it in charge. `models/.gasket.versions` keeps a copy of each version that was in charge, and a history,
each line of which holds the hash of the one before: fits, calibrations, what was learned, promotions. A change is noted
in the history before it is made: one that was killed in between is noted, not made, and can be done again.
"""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

from energyad.errors import DataError, ModelError, os_reason
from energyad.files import atomic_write
from energyad.line.chain import FIRST, ChainCheck
from energyad.model.folder import (
    CANDIDATE_SUFFIX,
    MANIFEST,
    file_hash,
    graph_file,
    manifest_text,
    open_model,
    read_manifest,
    read_signatures,
    save_model,
)
from energyad.model.manifest import KindFound, Manifest
from energyad.model.signing import SIGNATURE_FILE
from energyad.scoring.calibration import Calibration
from energyad.scoring.results import ModelReference

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None  # type: ignore[assignment]

HISTORY: Final = "history.jsonl"
DIGITS: Final = 16
"""Of the hash of a version's manifest, which names its folder."""

Action: TypeAlias = Literal[
    "fitted", "imported", "installed", "calibrated", "taught", "extended", "promoted", "rolled back"
]


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One line of a history.

    Attributes:
        time: ISO 8601.
        action: What was done.
        version: That is in charge, or the candidate, since.
        before: That was in charge until then; empty where there was none.
        forced: Whether it was promoted in spite of `faults`.
        details: What it learned from.
        by: Who did it; empty where that is not known.
        previous: Hash of the line before.
    """

    time: str
    action: Action
    version: str
    before: str
    forced: bool = False
    details: str = ""
    by: str = ""
    previous: str = FIRST


def candidate_of(folder: Path) -> Path:
    """Return the folder of a model's candidate."""
    return folder.with_name(f"{folder.name}{CANDIDATE_SUFFIX}")


def versions_of(folder: Path) -> Path:
    """Return the folder that keeps a model's versions."""
    return folder.with_name(f".{folder.name}.versions")


def version(folder: Path) -> str:
    """Return the name of the version that lies in a folder."""
    return file_hash(folder / MANIFEST)[:DIGITS]


def save(folder: Path, manifest: Manifest, contents: Mapping[str, bytes], *, action: Action) -> None:
    """Write a model in charge, as `save_model` does, and note in its history how it came to be.

    Args:
        folder: Of the model.
        manifest: Of the model.
        contents: Of its files.
        action: How it came to be.
    """
    before = version(folder) if (folder / MANIFEST).exists() else ""
    _append(folder, action, _version_of(manifest, contents), before, details=lesson_of(manifest))
    save_model(folder, manifest, contents)


def note(folder: Path, action: Action) -> None:
    """Note in a model's history how the version in charge came to be.

    Args:
        folder: Of the model.
        action: How it came to be.
    """
    _append(folder, action, version(folder), "", details=lesson_of(read_manifest(folder)))


def put_candidate(folder: Path, manifest: Manifest, contents: Mapping[str, bytes], *, action: Action) -> Path:
    """Write a candidate beside the model in charge; an older candidate is replaced.

    Args:
        folder: Of the model in charge.
        manifest: Of the candidate.
        contents: Of its files.
        action: How it came to be.

    Returns:
        The candidate's folder.
    """
    candidate = candidate_of(folder)
    new = _version_of(manifest, contents)
    _append(folder, action, new, version(folder), details=lesson_of(manifest))
    save_model(candidate, manifest, contents)
    return candidate


def faults(folder: Path) -> list[str]:
    """Return the reasons not to put a model's candidate in charge: one line each, none where all is well.

    Args:
        folder: Of the model in charge.

    Raises:
        ModelError: There is no candidate.
    """
    candidate, own = _candidate(folder), read_manifest(folder)
    found = []
    teaching = candidate.teaching
    if teaching is not None:
        found = [_loss(row) for row in teaching.kinds if row.after < row.before]
        alarms = teaching.false_alarms
        if alarms is not None and alarms.after > alarms.before:
            found.append(f"{alarms.after} of {alarms.images} good parts are rejected, {alarms.before} before")
    if len(candidate.extensions) == len(own.extensions):  # else no energy grew and no threshold fell
        found += _weaker(own.calibration, candidate.calibration)
    return found


def promote(folder: Path, *, force: bool = False, by: str = "") -> str:
    """Put a model's candidate in charge, as a whole or not at all. Killed at any time, it can be done again.

    Args:
        folder: Of the model in charge.
        force: In spite of `faults`.
        by: Who does it.

    Returns:
        The version that is in charge now.

    Raises:
        ModelError: There is no candidate, it is damaged, it came from another model, or it has faults.
    """
    source, reasons = candidate_of(folder), faults(folder)
    if reasons and not force:
        raise ModelError(f"{source}: not promoted: {'; '.join(reasons)}; --force promotes it nevertheless")
    before, candidate = version(folder), version(source)
    manifest, _ = open_model(source)
    if candidate != before:  # it is where an earlier promotion was killed after its last step but one
        _keep(folder)
        lesson = lesson_of(manifest)
        _append(folder, "promoted", candidate, before, forced=bool(reasons), details=lesson, by=by)
        _copy(source, folder)
    if version(source) == candidate:
        shutil.rmtree(source, ignore_errors=True)
    return version(folder)


def rollback(folder: Path, *, by: str = "") -> str:
    """Put the version in charge that was in charge before the present one.

    Args:
        folder: Of the model in charge.
        by: Who does it.

    Returns:
        The version that is in charge now.

    Raises:
        ModelError: There is none, or it is damaged.
    """
    now = version(folder)
    earlier = _before(folder, now)
    if earlier is None:
        raise ModelError(f"{folder}: no earlier version is kept; there is nothing to go back to")
    kept = versions_of(folder) / earlier
    open_model(kept)
    _keep(folder)
    _append(folder, "rolled back", earlier, now, by=by)
    _copy(kept, folder)
    return version(folder)


def read_history(folder: Path) -> list[Entry]:
    """Read and check a model's history, oldest first.

    Args:
        folder: Of the model in charge.

    Raises:
        DataError: A line was changed, removed or added by another program.
    """
    return [entry for entry, _ in _checked_lines(folder)]


def has_history(folder: Path) -> bool:
    """Whether anything was noted of a model."""
    return bool(_whole_lines(folder))


def check(folder: Path, *, heads: frozenset[str] = frozenset()) -> ChainCheck:
    """Check a model's history, that it names the version in charge, and the files of this.

    Args:
        folder: Of the model in charge.
        heads: Hashes that were printed earlier and kept elsewhere, which are looked for in the history.
    """
    hashes: list[str] = []
    named: set[str] = set()
    fault = None
    try:
        for entry, digest in _checked_lines(folder):
            hashes.append(digest)
            named |= {entry.version, entry.before}
        open_model(folder)
        if hashes and version(folder) not in named:
            fault = f"{folder}: its history does not say how version {version(folder)} came in charge"
    except (DataError, ModelError) as error:
        fault = str(error)
    return ChainCheck(len(hashes), hashes[-1] if hashes else FIRST, fault, heads & {FIRST, *hashes})


def find_version(folder: Path, reference: ModelReference) -> tuple[str, Path] | None:
    """Find the version that a result comes from, among the one in charge, the candidate and those that are kept.

    Args:
        folder: Of the model in charge.
        reference: How the result names it.

    Returns:
        The version and its folder; None where it is not kept.
    """
    kept = sorted(manifest.parent for manifest in versions_of(folder).glob(f"*/{MANIFEST}"))
    for path in (folder, candidate_of(folder), *kept):
        with contextlib.suppress(ModelError, OSError):
            manifest = read_manifest(path)
            made = manifest.calibration.created or manifest.created
            if (manifest.files.get(graph_file(manifest)), made) == (reference.sha256, reference.calibrated):
                return version(path), path
    return None


def shadow_folder(folder: Path, name: str) -> Path:
    """Return the folder of what is to score in the shadow of a model.

    Args:
        folder: Of the model in charge.
        name: "candidate", a version that is kept or the beginning of its name, or a model's folder.

    Raises:
        ModelError: There is none.
    """
    if name == "candidate":
        _candidate(folder)
        return candidate_of(folder)
    if (Path(name) / MANIFEST).exists():
        return Path(name)
    kept = [manifest.parent for manifest in versions_of(folder).glob(f"*/{MANIFEST}")]
    named = [path for path in kept if path.name.startswith(name)]
    if len(named) != 1:
        versions = ", ".join(sorted(path.name for path in kept)) or "none"
        raise ModelError(f"{name}: give candidate, a model's folder or a version that is kept ({versions})")
    return named[0]


def lesson_of(manifest: Manifest) -> str:
    """Say in a few words what a model learned since its fit."""
    parts = []
    if manifest.teaching is not None:
        taught = manifest.teaching
        parts.append(f"{taught.num_defects} defects ({taught.num_marked} marked)")
        parts.append(f"{taught.num_false_alarms} good parts")
    extended = sum(extension.num_images for extension in manifest.extensions)
    if extended:
        parts.append(f"{extended} new good parts")
    return ", ".join(parts)


def _weaker(was: Calibration, now: Calibration) -> list[str]:
    """What a new threshold promises less of."""
    found = []
    if was.method == "conformal" and now.method != "conformal":
        found.append(f"the rate is not certified any more: {now.guarantee()}")
    if now.false_reject_rate > was.false_reject_rate:
        found.append(
            f"it promises {now.false_reject_rate:.2%} false rejects, not {was.false_reject_rate:.2%}"
        )
    if now != was and now.method != "conformal" and len(now.good_scores) < len(was.good_scores):
        found.append(
            f"its threshold rests on {len(now.good_scores)} good parts, not on {len(was.good_scores)}"
        )
    return found


def _loss(row: KindFound) -> str:
    kind = "defects without a name" if row.kind is None else row.kind
    return f"{kind}: {row.after} of {row.images} found, {row.before} before"


def _candidate(folder: Path) -> Manifest:
    candidate = candidate_of(folder)
    if not (candidate / MANIFEST).exists():
        raise ModelError(
            f"{candidate}: there is no candidate; `energyad teach` or `energyad extend` makes one"
        )
    return read_manifest(candidate)


def _keep(folder: Path) -> None:
    """Keep a copy of the version in charge."""
    copy = versions_of(folder) / version(folder)
    if not (copy / MANIFEST).exists():
        _copy(folder, copy)
        if version(copy) != version(folder):  # it was replaced meanwhile
            raise ModelError(f"{folder}: was replaced meanwhile; try again")


def _copy(source: Path, target: Path) -> None:
    """Replace a model, and its signatures, by another one."""
    manifest, contents = open_model(source)
    save_model(target, manifest, contents)
    signatures = read_signatures(source)
    if signatures is not None:
        atomic_write(target / SIGNATURE_FILE, signatures)


def _before(folder: Path, now: str) -> str | None:
    """The version that the present one replaced, if it is kept. Calibrating makes no version to go back to."""
    for entry in reversed(read_history(folder)):
        if entry.version != now:
            continue
        if entry.action == "promoted":
            is_kept = (versions_of(folder) / entry.before / MANIFEST).exists()
            return entry.before if is_kept else None
        if entry.action == "calibrated":
            now = entry.before
    return None


def _version_of(manifest: Manifest, contents: Mapping[str, bytes]) -> str:
    """The name of a version that is not written yet."""
    return hashlib.sha256(manifest_text(manifest, contents).encode()).hexdigest()[:DIGITS]


@contextlib.contextmanager
def _one_at_a_time(versions: Path) -> Iterator[None]:
    """Let no other process continue a history meanwhile; the lock ends with its holder."""
    with (versions / f"{HISTORY}.lock").open("a") as file:
        if fcntl is not None:
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _append(
    folder: Path,
    action: Action,
    new: str,
    before: str,
    *,
    forced: bool = False,
    details: str = "",
    by: str = "",
) -> None:
    versions = versions_of(folder)
    made = {
        "action": action,
        "version": new,
        "before": before,
        "forced": forced,
        "details": details,
        "by": by,
    }
    try:
        versions.mkdir(parents=True, exist_ok=True)
        with _one_at_a_time(versions):
            _add_line(folder, made)
    except OSError as error:
        raise ModelError(
            f"{versions / HISTORY}: cannot be written ({os_reason(error)}); the model stays as it was"
        ) from error


def _add_line(folder: Path, made: Mapping[str, Any]) -> None:
    """Add a line, on the disk; one that was torn by a kill is dropped."""
    lines = list(_checked_lines(folder))
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    entry = Entry(time=now, previous=lines[-1][1] if lines else FIRST, **made)
    path = versions_of(folder) / HISTORY
    with path.open("r+b" if path.exists() else "w+b") as file:
        file.seek(sum(len(line) + 1 for line in _whole_lines(folder)))
        file.truncate()
        file.write((json.dumps(asdict(entry), ensure_ascii=False) + "\n").encode())
        file.flush()
        os.fsync(file.fileno())


def _whole_lines(folder: Path) -> list[bytes]:
    with contextlib.suppress(FileNotFoundError):
        return (versions_of(folder) / HISTORY).read_bytes().split(b"\n")[:-1]
    return []


def _checked_lines(folder: Path) -> Iterator[tuple[Entry, str]]:
    """Each entry with the hash of its line."""
    path, previous = versions_of(folder) / HISTORY, FIRST
    for number, line in enumerate(_whole_lines(folder), start=1):
        try:
            values: dict[str, Any] = json.loads(line)
            entry = Entry(**values)
        except (ValueError, TypeError) as error:
            raise DataError(f"{path}, line {number}: no entry of a history; it was changed") from error
        if entry.previous != previous:
            raise DataError(
                f"{path}, line {number}: does not follow the line before; one of them was changed"
            )
        previous = hashlib.sha256(line).hexdigest()
        yield entry, previous
