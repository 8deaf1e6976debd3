"""`energyad config`."""

from __future__ import annotations

import typer

from energyad.cli.calibrate import ReviewRate, TargetRate
from energyad.cli.options import Debug, Quiet
from energyad.cli.settings_options import (
    Backbone,
    Config,
    Energies,
    ImageSize,
    Iterations,
    Overrides,
    Precision,
    Rotation,
    Seed,
    Tiling,
    WhiteLevel,
    print_settings,
    settings_from,
)


def config(
    context: typer.Context,
    config: Config = None,
    overrides: Overrides = None,
    seed: Seed = None,
    backbone: Backbone = None,
    image_size: ImageSize = None,
    precision: Precision = None,
    white_level: WhiteLevel = None,
    iterations: Iterations = None,
    energies: Energies = None,
    target_frr: TargetRate = None,
    review_frr: ReviewRate = None,
    tiles: Tiling = None,
    rotation: Rotation = None,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Print the settings that a fit would use, as TOML with a comment for each.

    \b
      energyad config > part.toml               all settings, to be edited
      energyad fit --images good_parts/ --config part.toml
      energyad config --set heatmap.smoothing=8

    A file may hold a part of the settings; all others have their defaults.
    """
    from energyad.extras import require

    require("fit", "energyad config")
    print_settings(settings_from(context.params))
