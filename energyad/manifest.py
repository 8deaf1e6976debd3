"""What `model.json` says: its schema, validated when it is read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

SCHEMA_VERSION = 1


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class InputSpec(_Frozen):
    """What the graph takes and how images become that."""

    image_size: int = Field(ge=32)
    colour_order: str = "RGB"
    dtype: str = "uint8"
    resize: str = "the whole image, squeezed to a square"
    white_level: int | None = None


class BackboneSpec(_Frozen):
    """The frozen network and where its weights came from."""

    name: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    source: str
    sha256: str


class CalibrationSpec(_Frozen):
    """The threshold and the held-out good scores it rests on; energies, ascending."""

    threshold: float
    false_reject_rate: float
    method: str
    good_scores: tuple[float, ...]


class GoodPart(_Frozen):
    """A held-out good image: its score, and what its pixels look like, for telling drift. See `drift.Observation`."""

    score: float
    brightness: float | None = None
    contrast: float | None = None
    sharpness: float | None = None
    heatmap_mean: float | None = None


class Provenance(_Frozen):
    """How the model came to be."""

    seed: int
    threads: int
    fit_seconds: float
    num_images: int
    num_held_out: int
    data_sha256: str
    commit: str | None
    versions: dict[str, str]
    machine: str


class Manifest(_Frozen):
    """All of `model.json`."""

    schema_version: int = SCHEMA_VERSION
    name: str
    created: str
    input: InputSpec
    backbone: BackboneSpec
    calibration: CalibrationSpec
    good_parts: tuple[GoodPart, ...] = ()
    settings: dict[str, Any]
    provenance: Provenance
    history: list[dict[str, Any]] = Field(default_factory=list)
    files: dict[str, str] = Field(default_factory=dict)

    @field_validator("files")
    @classmethod
    def _plain_names(cls, files: dict[str, str]) -> dict[str, str]:
        for name in files:
            if Path(name).name != name or name in {"", ".", ".."}:
                raise ValueError(f"'{name}' is not a plain file name")
        return files
