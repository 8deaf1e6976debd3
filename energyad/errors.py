"""Every error a user can meet: one line that says what is wrong, where, and what to do about it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol


class _Faults(Protocol):
    """pydantic's errors and FastAPI's, without importing either."""

    def errors(self) -> Sequence[Any]: ...


def os_reason(error: OSError) -> str:
    """What the system says went wrong, for the middle of a line."""
    return (error.strerror or type(error).__name__).lower()


def first_validation_error(error: _Faults) -> tuple[str, str]:
    """Of a validation: where its first fault lies, with dots between the steps to it, and what it is."""
    first = error.errors()[0]
    return ".".join(str(part) for part in first["loc"]), str(first["msg"])


def first_line(error: BaseException) -> str:
    """Return the first line of an error's text, at most 200 characters, for the middle of a message."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


class EnergyadError(Exception):
    """Base of all errors raised on purpose. The command line prints it as one line and exits with status 2."""


class ImageError(EnergyadError):
    """An image file cannot be used; `path` names it."""

    def __init__(self, path: str | Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = Path(path)
        self.reason = reason

    def __reduce__(self) -> tuple[type[ImageError], tuple[Path, str]]:
        """Pickle by the two arguments: an error that cannot be unpickled hangs a process pool."""
        return type(self), (self.path, self.reason)


class ImageTooLarge(ImageError):
    """An image has more pixels than the limit; none of them was decoded."""


class DecoderEnded(ImageError):
    """The process that decoded an image ended, or was ended because it took too long."""


class DataError(EnergyadError):
    """A folder, category or list of images is not what the command needs."""


class BackboneError(EnergyadError):
    """A backbone's name or weights cannot be used."""


class ModelError(EnergyadError):
    """A model folder is missing, altered, newer than this version, or cannot be written."""


class MissingExtraError(EnergyadError):
    """A package that only some commands need is not installed; the message says which extra brings it."""


class SettingsError(EnergyadError):
    """A setting has an illegal value."""


class TrainingDiverged(EnergyadError):
    """Training left its healthy range (NaN, unbounded energy or sigma); the last good state was kept."""
