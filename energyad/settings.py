"""All options of a fit in one frozen value, written whole into the model's JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import Any

from energyad.dxmi.settings import DxMISettings
from energyad.errors import SettingsError
from energyad.features.defaults import (
    DEFAULT_BACKBONE,
    DEFAULT_BORDER_MARGIN,
    DEFAULT_COARSE_STRIDES,
    DEFAULT_STRIDES,
)
from energyad.images.tiling import Tiles
from energyad.scoring.calibration import check_rates

PRECISIONS = ("float32", "int8")


def _default_dxmi() -> DxMISettings:
    return DxMISettings(
        start="noised_data",
        num_steps=6,
        beta_start=0.01,
        beta_end=0.15,
        temperature=0.1,
        energy_regularization=1.0,
        data_power=2.0,
        energy_lr=1e-3,
        energy_average=0.99,
        decay_iterations=400,
        final_lr_fraction=0.02,
        sampler_lr=1e-3,
        value_lr=2e-3,
        sampler_steps_per_iteration=1,
        batch_size=256,
        chains_per_update=96,
        hidden_widths=(256, 256),
    )


@dataclass(frozen=True, kw_only=True)
class FitSettings:
    """Options of a fit. One configuration serves every category.

    Attributes:
        backbone: a timm model's name. strides: of the stages whose features are used.
        coarse_strides: of those used of the image at half its size, with an energy of its own; none for one energy.
            Where turned copies are taught there is none.
        coarse_weight: of that energy in both energies' product, see `MultiScaleEnergy`.
        border: pixels at each side whose patches are left out, since they see the backbone's padding; their energy is
            the nearest judged patch's. With 8 heatmaps see more there, and of few images good parts look strange.
        image_size: pixels a side of the square that images are resized to, a multiple of 32.
        white_level: of 16-bit images whose camera has fewer bits (4095 for 12); None for the full range.
        precision: of the backbone's arithmetic: "float32", or "int8", which is faster and runs on ONNX Runtime alone.
        lighting: how far exposure and gamma of training's relit copies go, as the logarithm of a factor; 0 for none.
        latent_dim: whitened directions kept, of each scale. energy_width, bottleneck: layers of an energy's
            autoencoder; of few latents the bottleneck is a quarter.
        ensemble_size: trained from seeds of their own, and averaged.
        memory_bank_size: good latents that the energy measures distances from, half as many of the image at half its
            size; 0 for the autoencoder alone. memory_bank_directions: leading latents in which these distances are told
            one by one.
        rerank_banks: coresets of `rerank_bank_size` good latents each, which an image's strangest patches are
            compared with once more; 0 for the first look alone. rerank_fraction: of the patches that are.
        synthetic_defects: on each copy of a good image that a discriminator learns from, whose log-odds the energy is
            weighed with; 0 for none. discriminator_width: of its hidden layer. discriminator_iterations: of its
            training. discriminator_strength: standard deviation of its log-odds among good patches.
        pretrain_steps: steps of plain reconstruction before DxMI. pretrain_power: of the mean of patches' errors that
            they lower; beyond 1 rare patches weigh more. iterations: DxMI iterations.
        initial_energy: mean energy of the data when DxMI begins.
        smoothing: standard deviation in pixels of the heatmap's Gaussian. heatmap_contrast: power of a pixel's share of
            the score; beyond 1 the surroundings of a strange place stand out less, at 1 heatmaps are energies.
        tiles: rows and columns that large images are cut into, (1, 1) for none. tile_overlap: of neighbours, a share.
        holdout: share of the good images kept from training, for the threshold; beyond 20 images half of it. What
            they add is prototypes of closer looks, when the threshold stands.
        false_reject_rate: share of good parts the threshold may reject.
        review_rate: share of good parts that may be rejected or sent to a person; None for no such verdict.
        seed: of everything random.
    """

    backbone: str = DEFAULT_BACKBONE
    strides: tuple[int, ...] = DEFAULT_STRIDES
    coarse_strides: tuple[int, ...] = DEFAULT_COARSE_STRIDES
    coarse_weight: float = 1 / 3
    border: int = DEFAULT_BORDER_MARGIN
    image_size: int = 256
    white_level: int | None = None
    precision: str = "float32"
    lighting: float = 0.15
    latent_dim: int = 176
    energy_width: int = 256
    bottleneck: int = 32
    ensemble_size: int = 1
    memory_bank_size: int = 1024
    memory_bank_directions: int = 96
    rerank_banks: int = 1
    rerank_bank_size: int = 4096
    rerank_fraction: float = 1 / 8
    synthetic_defects: int = 4
    discriminator_width: int = 64
    discriminator_iterations: int = 800
    discriminator_strength: float = 0.1
    pretrain_steps: int = 3000
    pretrain_batch_size: int = 512
    pretrain_lr: float = 3e-3
    pretrain_power: float = 2.0
    initial_energy: float = 0.12
    iterations: int = 400
    dxmi: DxMISettings = field(default_factory=_default_dxmi)
    smoothing: float = 4.0
    heatmap_contrast: float = 4 / 3
    tiles: tuple[int, int] = (1, 1)
    tile_overlap: float = 0.25
    holdout: float = 0.2
    false_reject_rate: float = 0.01
    review_rate: float | None = 0.05
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse illegal values, naming each."""
        sizes = ("latent_dim", "energy_width", "bottleneck", "image_size")
        others = ("ensemble_size", "memory_bank_directions", "rerank_bank_size", "discriminator_width")
        for name in (*sizes, *others, "discriminator_iterations", "pretrain_batch_size"):
            self._require(getattr(self, name) >= 1, name, "must be at least 1")
        counts = ("memory_bank_size", "rerank_banks", "synthetic_defects", "pretrain_steps", "iterations")
        for name in ("border", "lighting", *counts, "discriminator_strength", "smoothing", "seed"):
            self._require(getattr(self, name) >= 0, name, "must not be negative")
        for name in ("pretrain_lr", "initial_energy", "heatmap_contrast"):
            self._require(getattr(self, name) > 0, name, "must be positive")
        self._require(self.seed < 2**63, "seed", "must be below 2^63")
        self._require(len(self.strides) > 0, "strides", "must name at least one stage")
        for name in ("strides", "coarse_strides"):
            given = getattr(self, name)
            distinct = len(set(given)) == len(given) and all(stride >= 1 for stride in given)
            self._require(distinct, name, "must be different numbers from 1 up")
        self._require(0 < self.coarse_weight < 1, "coarse_weight", "must lie between 0 and 1")
        self._require(self.pretrain_power >= 1, "pretrain_power", "must be at least 1")
        self._require(self.precision in PRECISIONS, "precision", f"must be one of {', '.join(PRECISIONS)}")
        self._require(0 < self.holdout < 1, "holdout", "must lie between 0 and 1")
        self._require(0 < self.rerank_fraction <= 1, "rerank_fraction", "must be above 0 and at most 1")
        self.cut()
        check_rates(self.false_reject_rate, self.review_rate)

    def cut(self) -> Tiles:
        """Where the tiles lie. Raises SettingsError."""
        return Tiles(rows=self.tiles[0], columns=self.tiles[1], overlap=self.tile_overlap)

    @property
    def input_shape(self) -> tuple[int, int]:
        """Height and width that images are resized to: the network's square, or what the tiles cover together."""
        return self.cut().shape(self.image_size)

    def _require(self, legal: bool, name: str, rule: str) -> None:
        if not legal:
            raise SettingsError(f"setting {name} = {getattr(self, name)!r}: {rule}")

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> FitSettings:
        """Inverse of `to_dict`, also after a trip through JSON; unknown names raise SettingsError."""
        unknown = set(values) - {f.name for f in fields(cls)}
        if unknown:
            raise SettingsError(f"unknown settings {sorted(unknown)}: remove them or upgrade energyad")
        plain: dict[str, Any] = {n: tuple(v) if isinstance(v, list) else v for n, v in values.items()}
        if isinstance(plain.get("dxmi"), dict):
            plain["dxmi"] = DxMISettings.from_dict(plain["dxmi"])
        return cls(**plain)
