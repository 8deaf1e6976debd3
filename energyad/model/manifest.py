"""What `model.json` says: its schema, validated whole whenever a manifest is made."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final, Literal, Self, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from energyad.dxmi.health import TrainingHealth
from energyad.errors import ModelError
from energyad.features.backbone_spec import BackboneSpec
from energyad.images.tiling import Tiles
from energyad.model.architecture import Architecture
from energyad.scoring.calibration import Calibration, Energy

SCHEMA_VERSION: Final = 1
Side: TypeAlias = Annotated[int, Field(ge=32, le=8192)]


class _Frozen(BaseModel):
    # Dataclasses do not validate themselves, so a manifest does it for those that it is given.
    model_config = ConfigDict(frozen=True, extra="forbid", revalidate_instances="always", allow_inf_nan=False)


class RoiSpec(_Frozen):
    """The region of interest of a model; its mask is in the head's file.

    Attributes:
        coverage: share of the image's pixels that lie in it.
        inside: the file of the region, and its SHA-256; None where all of the image counts.
        ignored: the file of what is left out of it, likewise.
    """

    coverage: float = Field(gt=0, le=1)
    inside: tuple[str, str] | None = None
    ignored: tuple[str, str] | None = None


class InputSpec(_Frozen):
    """What the graph takes, and how images become that.

    Attributes:
        image_size: height and width in pixels of the network's input.
        tiles: how the graph cuts an image into pieces of that shape.
        colour_order: of the three channels.
        dtype: of the pixels.
        resize: how an image of another size is resized, for people.
        white_level: of 16-bit images whose camera has fewer bits; None for the full range.
    """

    image_size: tuple[Side, Side]
    tiles: Tiles = Tiles()
    colour_order: str = "RGB"
    dtype: str = "uint8"
    resize: str = "the whole image, to this height and width"
    white_level: int | None = Field(default=None, ge=1, le=65535)

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width that images are resized to: the network's input, or what its tiles cover together."""
        return self.tiles.shape(self.image_size)

    @property
    def described(self) -> str:
        """The network's input for people, width first: "320 × 192 px", or "4 × 1 tiles of 480 × 128 px"."""
        height, width = self.image_size
        tiles = f"{self.tiles.columns} × {self.tiles.rows} tiles of " if self.tiles.count > 1 else ""
        return f"{tiles}{width} × {height} px"


@dataclass(frozen=True)
class PartStatistics:
    """What is kept of one part beside its verdict.

    Attributes:
        score: its energy.
        brightness: mean of the grey values (0 to 255) of the pixels that the network sees; None where unknown.
        contrast: their standard deviation, likewise.
        sharpness: standard deviation of their Laplacian, likewise.
        heatmap_mean: mean energy of the heatmap, likewise.
        category: that the part was recognised as; None in a model of one category.
    """

    score: Energy
    brightness: float | None = None
    contrast: float | None = None
    sharpness: float | None = None
    heatmap_mean: float | None = None
    category: str | None = None

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid", allow_inf_nan=False)


class ImportedModel(_Frozen):
    """Another library's model, whose graph is scored as it is.

    Attributes:
        library: that made it.
        file: its name before it was imported.
        sha256: of that file.
        heatmap_floor: of its own anomaly maps; energies are what lies above it.
    """

    library: Literal["anomalib"]
    file: str
    sha256: str
    heatmap_floor: float


class Provenance(_Frozen):
    """How a model came to be.

    Attributes:
        seed: of everything random.
        threads: of the backbone.
        fit_seconds: duration of the fit.
        num_images: good images, the held-out ones among them.
        image_digests: of the good images, by which they are known again; see `energyad.images.identity`.
        num_held_out: good images held out for the threshold.
        held_out_digests: of these, in a model of one category.
        held_out_points: latents of each rerank bank that came from them; see `ADDED_IN_ORDER`.
        num_rotated: rotated copies that were fitted on.
        data_sha256: of the good images.
        commit: of the checkout that energyad ran from; None for an installed package.
        versions: of Python and the packages that decide a fit.
        machine: system, processor type and number of cores.
    """

    seed: int
    threads: int
    fit_seconds: float = Field(ge=0)
    num_images: int = Field(ge=0)
    image_digests: tuple[str, ...] = ()
    num_held_out: int = Field(ge=0)
    held_out_digests: tuple[str, ...] = ()
    held_out_points: tuple[Annotated[int, Field(ge=0)], ...] = ()
    num_rotated: int = Field(default=0, ge=0)
    data_sha256: str
    commit: str | None
    versions: dict[str, str]
    machine: str


ADDED_IN_ORDER: Final = ("extensions", "teaching", "held out")
"""What lies in each rerank bank behind the fitted latents, in this order. Counts of latents are given for each scale,
the finest first."""


class KindFound(_Frozen):
    """Labelled defects of one kind, as they were found by models that had not learned from them.

    Attributes:
        kind: of the defects; None of those without a name.
        images: that show them.
        before: of these, called ng by the model before it was taught.
        after: of these, called ng by taught models that had not seen them.
    """

    kind: str | None
    images: int = Field(ge=1)
    before: int = Field(ge=0)
    after: int = Field(ge=0)


class Teaching(_Frozen):
    """What a model learned from people after its fit.

    Attributes:
        created: when, ISO 8601.
        base_sha256: of the graph of the model that was in charge, hexadecimal.
        labels_sha256: over the labels.
        num_defects: images of defects.
        num_marked: of these, with marks.
        num_false_alarms: images of good parts that were added to the memory bank.
        bank_points: latents that these added to each rerank bank; see `ADDED_IN_ORDER`.
        raise_limit: logarithm of the most that marks can raise an energy by.
        kinds: how many defects were found before and after.
        false_alarms: labelled good parts, and how many of them were called ng before and after.
    """

    created: str
    base_sha256: str
    labels_sha256: str
    num_defects: int = Field(default=0, ge=0)
    num_marked: int = Field(default=0, ge=0)
    num_false_alarms: int = Field(default=0, ge=0)
    bank_points: tuple[Annotated[int, Field(ge=0)], ...] = ()
    raise_limit: float = Field(default=0.0, ge=0)
    kinds: tuple[KindFound, ...] = ()
    false_alarms: KindFound | None = None


class Extension(_Frozen):
    """New good parts that a model knows since its fit.

    Attributes:
        created: when, ISO 8601.
        num_images: of good parts.
        data_sha256: of them.
        bank_points: latents that they added to each rerank bank; see `ADDED_IN_ORDER`.
    """

    created: str
    num_images: int = Field(ge=1)
    data_sha256: str
    bank_points: tuple[Annotated[int, Field(ge=0)], ...]


class Manifest(_Frozen):
    """All of `model.json`.

    Attributes:
        schema_version: of this form; a program reads its own alone.
        name: of the model.
        created: when it was fitted, ISO 8601.
        input: what the graph takes.
        backbone: the frozen network; None of an imported model.
        architecture: shapes of the networks behind it; None of an imported model.
        imported: where the graph comes from, if not from a fit.
        categories: that have an energy each, in its order; empty for a model of one.
        roi: the region of interest; None where all of the image counts.
        calibration: the thresholds.
        previous_calibrations: those before them, the oldest first.
        good_parts: the held-out good parts that the thresholds rest on.
        settings: of the fit.
        provenance: of the fit.
        teaching: what it learned from labels since; None of a model that learned from none.
        extensions: what new good parts it knows since.
        history: records of the training.
        training_health: of each energy that DxMI trained.
        files: the other files of the folder, each with its SHA-256.
    """

    schema_version: Literal[1] = SCHEMA_VERSION
    name: str
    created: str
    input: InputSpec
    backbone: BackboneSpec | None = None
    architecture: Architecture | None = None
    imported: ImportedModel | None = None
    categories: tuple[str, ...] = ()
    roi: RoiSpec | None = None
    calibration: Calibration
    previous_calibrations: tuple[Calibration, ...] = ()
    good_parts: Annotated[tuple[PartStatistics, ...], Field(min_length=1)]
    settings: dict[str, Any]
    provenance: Provenance
    teaching: Teaching | None = None
    extensions: tuple[Extension, ...] = ()
    history: list[dict[str, Any]] = Field(default_factory=list)
    training_health: tuple[TrainingHealth, ...] = ()
    files: dict[str, str] = Field(default_factory=dict, max_length=64)

    def replace(self, **changes: Any) -> Self:
        """Return the same manifest with other values, validated whole.

        Args:
            **changes: new values by field.

        Raises:
            ValidationError: where a value is illegal or no field has that name.
        """
        return self.model_validate({**dict(self), **changes})

    @property
    def is_quantised(self) -> bool:
        """Whether the graph's backbone is in 8-bit integers, which PyTorch does not run."""
        return self.architecture is not None and self.architecture.precision == "int8"

    @property
    def source(self) -> str:
        """What the graph is made of, in a few words: the backbone, or the file that was imported."""
        if self.backbone is not None:
            return self.backbone.name
        return "" if self.imported is None else f"{self.imported.file} of {self.imported.library}"

    def networks(self) -> tuple[BackboneSpec, Architecture]:
        """Return what the networks of a fitted model are assembled from. Raises ModelError for an imported one."""
        if self.backbone is None or self.architecture is None:
            raise ModelError(
                f"model '{self.name}' is {self.source}, whose networks are not known here: it scores on OpenVINO "
                "alone, and is exported by the library that made it"
            )
        return self.backbone, self.architecture

    @model_validator(mode="after")
    def _fitted_or_imported(self) -> Self:
        fitted = self.backbone is not None and self.architecture is not None
        if fitted == (self.imported is not None):
            raise ValueError("a model has a backbone and an architecture, or it is imported")
        return self

    @field_validator("files")
    @classmethod
    def _plain_names(cls, files: dict[str, str]) -> dict[str, str]:
        for name in files:
            if Path(name).name != name or name in {"", ".", ".."}:
                raise ValueError(f"'{name}' is not a plain file name")
        return files

    @field_validator("calibration")
    @classmethod
    def _review_below_reject(cls, calibration: Calibration) -> Calibration:
        if calibration.lowest_threshold > calibration.threshold:
            raise ValueError("the review threshold is above the threshold")
        return calibration
