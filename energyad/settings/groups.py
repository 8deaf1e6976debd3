"""The groups of a fit's settings, in the order in which an image passes through them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal, TypeAlias

from annotated_types import Ge, Le, MinLen

from energyad.declaration import (
    Fraction,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    SettingsGroup,
    setting,
)
from energyad.dxmi.settings import DxMISettings
from energyad.features.defaults import (
    DEFAULT_BACKBONE,
    DEFAULT_BORDER_MARGIN,
    DEFAULT_COARSE_STRIDES,
    DEFAULT_STRIDES,
)
from energyad.images.input_shape import AUTO_SIDES, Auto
from energyad.images.tiling import Tiles
from energyad.scoring.calibration import check_rates

Precision: TypeAlias = Literal["float32", "int8"]
Rotation: TypeAlias = Literal["auto", "on", "off"]
DIFFERENT = "different integers, each at least 1"


@dataclass(frozen=True, kw_only=True)
class InputSettings(SettingsGroup):
    """How images are read, resized and cut."""

    PREFIX: ClassVar[str] = "input."

    image_size: PositiveInt | tuple[PositiveInt, PositiveInt] | Auto = setting(
        "auto",
        "Input of an image or tile: a side, for so many pixels in the good images' aspect; height and width; or "
        "auto, for as many pixels as the good images have, from 256 to 320 a side.",
        legal="auto, or a multiple of 32 (of the patch size for a plain vision transformer), at least 64, or a list "
        "of two",
    )
    white_level: Annotated[int, Ge(1), Le(65535)] | None = setting(
        None, "White of 16-bit images: 4095 for a camera of 12 bits; none for the full range."
    )
    tiles: tuple[PositiveInt, PositiveInt] = setting(
        (1, 1),
        "Rows and columns of tiles that a large image is cut into.",
        legal="a list of rows and columns, each at least 1, and at most 256 tiles in all",
    )
    tile_overlap: Annotated[float, Ge(0), Le(0.5)] = setting(
        0.25, "Overlap of neighbouring tiles, as a fraction of a tile's side."
    )

    def __post_init__(self) -> None:
        """Check every value, and the tiles together. Raises SettingsError."""
        super().__post_init__()
        self.tiling  # noqa: B018 - checks

    @property
    def tiling(self) -> Tiles:
        """Where the tiles lie."""
        return Tiles(rows=self.tiles[0], columns=self.tiles[1], overlap=self.tile_overlap)

    @property
    def network_shape(self) -> tuple[int, int]:
        """Height and width in pixels of the network's input: of an image, or of each of its tiles.

        A size that is chosen by the good images is the smallest before they are seen.
        """
        size = AUTO_SIDES[0] if self.image_size == "auto" else self.image_size
        return size if isinstance(size, tuple) else (size, size)

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width in pixels that an image is resized to: the network's input, or all its tiles together."""
        return self.tiling.shape(self.network_shape)


@dataclass(frozen=True, kw_only=True)
class FeatureSettings(SettingsGroup):
    """Which features of the backbone are used."""

    PREFIX: ClassVar[str] = "features."

    backbone: str = setting(DEFAULT_BACKBONE, "Name of a timm model.", legal="a name that timm knows")
    strides: Annotated[tuple[PositiveInt, ...], MinLen(1)] = setting(
        DEFAULT_STRIDES,
        "Strides of the backbone's stages whose features are used.",
        legal=f"a list of at least one, {DIFFERENT}",
    )
    coarse_strides: tuple[PositiveInt, ...] = setting(
        DEFAULT_COARSE_STRIDES,
        "Strides used of the image at half its size, which has an energy of its own; [] for no such energy.",
        legal=f"a list of {DIFFERENT}",
    )
    border_margin: NonNegativeInt = setting(
        DEFAULT_BORDER_MARGIN,
        "Pixels at each side whose patches are left out, since they see the backbone's padding.",
    )
    precision: Precision = setting(
        "float32", "Arithmetic of the backbone; int8 is faster and runs on ONNX Runtime alone."
    )

    def __post_init__(self) -> None:
        """Check every value. Raises SettingsError."""
        super().__post_init__()
        for name in ("strides", "coarse_strides"):
            strides = getattr(self, name)
            self.require(len(set(strides)) == len(strides), name, f"must be a list of {DIFFERENT}")


@dataclass(frozen=True, kw_only=True)
class AugmentationSettings(SettingsGroup):
    """Altered copies of the good images that are fitted on as well."""

    PREFIX: ClassVar[str] = "augmentation."

    photometric_jitter: NonNegativeFloat = setting(
        0.15,
        "How far exposure and gamma of the copies vary, as the logarithm of a factor; 0 for no such copies.",
    )
    rotation: Rotation = setting(
        "auto",
        "Rotated copies of few images, for parts that come in any direction; auto decides by the images.",
    )


@dataclass(frozen=True, kw_only=True)
class EnergySettings(SettingsGroup):
    """The energy: an autoencoder of whitened features, and its training before DxMI."""

    PREFIX: ClassVar[str] = "energy."

    latent_dim: PositiveInt = setting(
        176, "Whitened directions of the features that are kept, of each scale."
    )
    width: PositiveInt = setting(256, "Width of the autoencoder's hidden layers.")
    bottleneck: PositiveInt = setting(
        32, "Width of the autoencoder's code; at most a quarter of the latents is used."
    )
    ensemble_size: PositiveInt = setting(1, "Energies trained from different seeds, whose mean is used.")
    coarse_weight: Fraction = setting(
        1 / 3, "Weight of the half-size image's energy in the weighted product of both."
    )
    initial_energy: PositiveFloat = setting(0.12, "Mean energy of good patches when DxMI begins.")
    pretrain_steps: NonNegativeInt = setting(3000, "Steps of plain reconstruction before DxMI.")
    pretrain_batch_size: PositiveInt = setting(512, "Patches a step of them.")
    pretrain_lr: PositiveFloat = setting(3e-3, "Their learning rate at the beginning.")
    pretrain_power: Annotated[float, Ge(1)] = setting(
        2.0, "Power of the mean of patches' errors that they minimise; beyond 1 rare patches weigh more."
    )


@dataclass(frozen=True, kw_only=True)
class MemoryBankSettings(SettingsGroup):
    """Good patches that the energy measures distances from, and the comparison with more of them (reranking)."""

    PREFIX: ClassVar[str] = "memory_bank."

    size: NonNegativeInt = setting(
        1024, "Good patches in it, half as many of the half-size image; 0 for the autoencoder alone."
    )
    directions: PositiveInt = setting(96, "Leading whitened directions in which distances are measured.")
    rerank_banks: NonNegativeInt = setting(
        1, "Larger memory banks that an image's most abnormal patches are compared with; 0 for none."
    )
    rerank_bank_size: PositiveInt = setting(4096, "Good patches in each of these.")
    rerank_fraction: Annotated[PositiveFloat, Le(1)] = setting(
        1 / 8, "Fraction of an image's patches that are compared with these."
    )


@dataclass(frozen=True, kw_only=True)
class SyntheticDefectSettings(SettingsGroup):
    """Defects drawn on copies of good images, and the discriminator that learns from them."""

    PREFIX: ClassVar[str] = "synthetic_defects."

    per_image: NonNegativeInt = setting(4, "Defects on each copy of a good image; 0 for no discriminator.")
    discriminator_width: PositiveInt = setting(64, "Width of the discriminator's hidden layer.")
    discriminator_iterations: PositiveInt = setting(800, "Iterations of its training.")
    discriminator_strength: NonNegativeFloat = setting(
        0.1, "Standard deviation among good patches of its log-odds, which weigh the energy."
    )


@dataclass(frozen=True, kw_only=True)
class FitDxMISettings(DxMISettings):
    """How the energy is trained against a diffusion sampler."""

    PREFIX: ClassVar[str] = "dxmi."

    iterations: NonNegativeInt = setting(400, "Iterations of DxMI; 0 for pretraining alone.")


DEFAULT_DXMI = FitDxMISettings(
    iterations=300,
    start="noised_data",
    num_steps=6,
    beta_start=0.01,
    beta_end=0.15,
    temperature=0.4,
    energy_regularization=1.0,
    data_power=2.0,
    energy_lr=3e-4,
    energy_average=0.99,
    decay_iterations=300,
    final_lr_fraction=0.02,
    sampler_lr=1e-3,
    value_lr=2e-3,
    value_gradient_weight=5.0,
    diagonal_skip=True,
    sampler_steps_per_iteration=1,
    batch_size=128,
    chains_per_update=48,
    pretrain_iterations=500,
    hidden_widths=(128, 128),
)
"""Short chains from noised data, a sampler that is pretrained, and an energy that learns more slowly than it.

Good latents whose autoencoder leaves most directions to the noise have a mean energy of nearly half the temperature at
the equilibrium, and begin with `EnergySettings.initial_energy`: with a lower temperature the sampler shrinks and the
training runs away."""


@dataclass(frozen=True, kw_only=True)
class HeatmapSettings(SettingsGroup):
    """How patch energies become a heatmap."""

    PREFIX: ClassVar[str] = "heatmap."

    smoothing: NonNegativeFloat = setting(
        4.0, "Standard deviation in pixels of the Gaussian that smooths it."
    )
    contrast: PositiveFloat = setting(
        4 / 3,
        "Power of a pixel's fraction of the score; at 1 heatmaps are energies, beyond it peaks stand out.",
    )


@dataclass(frozen=True, kw_only=True)
class ThresholdSettings(SettingsGroup):
    """How the threshold is found on good parts that nothing was fitted on."""

    PREFIX: ClassVar[str] = "threshold."

    holdout_fraction: Fraction = setting(
        0.2, "Fraction of the good images held out for the threshold; beyond 20 images half of it."
    )
    false_reject_rate: Fraction = setting(0.01, "Fraction of good parts that the threshold may reject.")
    review_rate: Fraction | None = setting(
        0.05, "Fraction of good parts that may be rejected or sent to review; none for no such verdict."
    )

    def __post_init__(self) -> None:
        """Check every value, and the rates together. Raises SettingsError."""
        super().__post_init__()
        check_rates(self.false_reject_rate, self.review_rate)
