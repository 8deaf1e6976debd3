"""What `model.json` says: its schema, validated when it is read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, field_validator

from energyad.images.tiling import MOST_TILES, Tiles
from energyad.scoring.calibration import Calibration, Method

SCHEMA_VERSION = 13
"""13: the heatmap names its contrast. 12: it had shares of its own, which are gone. 11: the border weighs as much as
the middle. 10: the closer look names its share. 9: a discriminator. 8: a closer look. 7: an expert for each of several
categories. 2: review thresholds, calibration history, tiles, area. Version 1 is read as it is."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class TileSpec(_Frozen):
    """How the graph cuts an image. overlap: of neighbours, as a share of a tile's side."""

    rows: int = Field(default=1, ge=1, le=MOST_TILES)
    columns: int = Field(default=1, ge=1, le=MOST_TILES)
    overlap: float = Field(default=0.25, ge=0, le=0.5)

    @property
    def count(self) -> int:
        """Tiles of an image."""
        return self.rows * self.columns


class RoiSpec(_Frozen):
    """What of the image is judged; the mask itself is in the head's file. share: of the image.

    roi, ignore: names of the files it came from, with their SHA-256.
    """

    share: float = Field(gt=0, le=1)
    roi: tuple[str, str] | None = None
    ignore: tuple[str, str] | None = None


class InputSpec(_Frozen):
    """What the graph takes and how images become that. image_size: pixels a side of the network's square."""

    image_size: int = Field(ge=32)
    tiles: TileSpec = TileSpec()
    colour_order: str = "RGB"
    dtype: str = "uint8"
    resize: str = "the whole image, squeezed to a square"
    white_level: int | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width that images are squeezed to: the network's square, or what its tiles cover together."""
        return Tiles(**self.tiles.model_dump()).shape(self.image_size)


class BackboneSpec(_Frozen):
    """The frozen network and where its weights came from."""

    name: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    source: str
    sha256: str


class CalibrationSpec(_Frozen):
    """The thresholds and the held-out good scores they rest on; energies, ascending.

    created: when, ISO 8601. data_sha256: of the good images; for a fit, of those fitted on too.
    """

    threshold: float
    false_reject_rate: float
    method: Method
    good_scores: tuple[float, ...] = Field(min_length=1)
    review_threshold: float | None = None
    review_rate: float | None = None
    review_method: Method | None = None
    created: str | None = None
    data_sha256: str | None = None

    def rule(self) -> Calibration:
        """What decides over scores."""
        return Calibration(**self.model_dump(exclude={"created", "data_sha256"}))


@dataclass(frozen=True)
class PartStatistics:
    """What is kept of one part. brightness, contrast: mean and standard deviation of grey values, 0 to 255.

    sharpness: standard deviation of the grey values' Laplacian. heatmap_mean: mean energy. All of the pixels that the
    network sees. None where only the score is known. category: that it was taken for; None of a model of one.
    """

    score: float
    brightness: float | None = None
    contrast: float | None = None
    sharpness: float | None = None
    heatmap_mean: float | None = None
    category: str | None = None

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")


class Provenance(_Frozen):
    """How the model came to be."""

    seed: int
    threads: int
    fit_seconds: float
    num_images: int
    num_held_out: int
    num_turned: int = 0
    data_sha256: str
    commit: str | None
    versions: dict[str, str]
    machine: str


class Manifest(_Frozen):
    """All of `model.json`. categories: that have an expert each, in its order; empty for a model of one."""

    schema_version: int = SCHEMA_VERSION
    name: str
    created: str
    input: InputSpec
    backbone: BackboneSpec
    categories: tuple[str, ...] = ()
    area: RoiSpec | None = None
    calibration: CalibrationSpec
    previous_calibrations: tuple[CalibrationSpec, ...] = ()
    good_parts: tuple[PartStatistics, ...] = ()
    settings: dict[str, Any]
    provenance: Provenance
    history: list[dict[str, Any]] = Field(default_factory=list)
    files: dict[str, str] = Field(default_factory=dict)

    @property
    def is_quantised(self) -> bool:
        """Whether the graph's backbone is in 8-bit integers, which PyTorch does not run."""
        return bool(self.settings.get("features", {}).get("precision") == "int8")

    @field_validator("files")
    @classmethod
    def _plain_names(cls, files: dict[str, str]) -> dict[str, str]:
        for name in files:
            if Path(name).name != name or name in {"", ".", ".."}:
                raise ValueError(f"'{name}' is not a plain file name")
        return files


def reference_statistics(manifest: Manifest) -> list[PartStatistics]:
    """The held-out good parts of a model; their scores alone where it was fitted before it kept more."""
    if manifest.good_parts:
        return list(manifest.good_parts)
    return [PartStatistics(score) for score in manifest.calibration.good_scores]
