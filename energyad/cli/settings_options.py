"""Options that change the settings of a fit, and the settings that they make."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

if TYPE_CHECKING:
    from energyad.settings import FitSettings

Config: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--config", metavar="FILE", help="Settings as `energyad config` prints them; a part will do."
    ),
]
Overrides: TypeAlias = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="GROUP.NAME=VALUE", help="Any setting that `energyad config` prints."),
]
Seed: TypeAlias = Annotated[
    int | None, typer.Option("--seed", min=0, metavar="N", help="Of everything random.")
]
Backbone: TypeAlias = Annotated[
    str | None,
    typer.Option("--backbone", metavar="NAME", help="Any timm model; default tf_efficientnet_lite0."),
]
ImageSize: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--image-size",
        metavar="auto|N|HxW",
        help="auto: pixels and shape by the images; else side of a square of as many pixels, or height and width.",
    ),
]
Precision: TypeAlias = Annotated[
    str | None,
    typer.Option("--precision", metavar="NAME", help="float32, or int8: faster, ONNX Runtime alone."),
]
WhiteLevel: TypeAlias = Annotated[
    int | None,
    typer.Option(
        "--white-level",
        min=1,
        max=65535,
        metavar="N",
        help="White of 16-bit images: 4095 for 12-bit cameras.",
    ),
]
Iterations: TypeAlias = Annotated[
    int | None,
    typer.Option("--iterations", min=0, metavar="N", help="DxMI iterations; fewer is a quick trial."),
]
Energies: TypeAlias = Annotated[
    int | None,
    typer.Option(
        "--energies", min=1, metavar="N", help="Averaged; of little gain, at as many times the training."
    ),
]
Tiling: TypeAlias = Annotated[
    str | None,
    typer.Option("--tiles", metavar="N", help="Cut large images into N x N tiles, or COLUMNSxROWS (8x1)."),
]
Rotation: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--rotation",
        metavar="auto|on|off",
        help="Fit on rotated copies of few images, where parts come in any direction; auto decides by the images.",
    ),
]

SETTING_NAMES: Mapping[str, str] = {
    "seed": "seed",
    "backbone": "features.backbone",
    "image_size": "input.image_size",
    "precision": "features.precision",
    "white_level": "input.white_level",
    "tiles": "input.tiles",
    "rotation": "augmentation.rotation",
    "energies": "energy.ensemble_size",
    "iterations": "dxmi.iterations",
    "target_frr": "threshold.false_reject_rate",
    "review_frr": "threshold.review_rate",
}
"""The setting that each option sets."""


def settings_from(options: Mapping[str, Any]) -> FitSettings:
    """Make the settings of a fit: the defaults, then a file's, then options, then each `--set`.

    Args:
        options: A command's parameters by name, as `typer.Context.params` holds them: `config`, `overrides`, and those
            of `SETTING_NAMES`, None where one is not given. Others are passed over.

    Raises:
        SettingsError: For an unknown name or an illegal value.
    """
    from energyad.images.input_shape import parse_image_size
    from energyad.images.tiling import parse_tiles
    from energyad.settings import FitSettings
    from energyad.settings.text import overridden, read_toml

    settings = FitSettings()
    if options["config"] is not None:
        settings = read_toml(options["config"], settings)
    values = {setting: options[name] for name, setting in SETTING_NAMES.items() if options[name] is not None}
    for setting, parse in (("input.image_size", parse_image_size), ("input.tiles", parse_tiles)):
        if setting in values:
            values[setting] = parse(values[setting])
    review_rate = settings.threshold.review_rate
    if review_rate is not None and values.get("threshold.false_reject_rate", 0) > review_rate:
        values = {"threshold.review_rate": None, **values}  # no room is left for a review
    return overridden(settings.with_values(values), options["overrides"] or ())


def print_settings(settings: FitSettings) -> None:
    """Print them as TOML on standard output."""
    from energyad.settings.text import to_toml

    typer.echo(to_toml(settings), nl=False)
