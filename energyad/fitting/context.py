"""What all steps of a fit share."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from energyad.features.grids import Grid, Scale
from energyad.images.reading import DEFAULT_MAX_PIXELS
from energyad.progress import NullProgress, Progress
from energyad.runtimes.onnx import OnnxFeatures
from energyad.scoring.heatmaps import patches_in_roi, upsampling_axes
from energyad.settings import FitSettings


@dataclass(frozen=True, kw_only=True, eq=False)
class FitContext:
    """Everything that the steps of a fit have in common.

    Attributes:
        settings: The fit's settings.
        session: Runs the frozen backbone.
        grid: Where the backbone's patches lie.
        scales: Parts of the features with an energy each, the finest first.
        roi_mask: Pixels of the resized image in the region of interest; None for all. What lies outside is not
            learned: it would take points of the memory bank from the part, and capacity of the network.
        skip_bad: Leave out images that cannot be read, with a warning, instead of raising ImageError.
        progress: Called at each stage.
        max_pixels: Width times height of the largest image file that is decoded.
    """

    settings: FitSettings
    session: OnnxFeatures
    grid: Grid
    scales: tuple[Scale, ...]
    roi_mask: Bool[np.ndarray, "h w"] | None = None
    skip_bad: bool = False
    progress: Progress = field(default_factory=NullProgress)
    max_pixels: int = DEFAULT_MAX_PIXELS

    @cached_property
    def patches_in_roi(self) -> Bool[Tensor, " p"] | None:
        """Which patches of a whole image lie in the region of interest; None for all."""
        if self.roi_mask is None:
            return None
        tiles = self.settings.input.tiling
        axes = upsampling_axes(self.grid, tiles, smoothing=self.settings.heatmap.smoothing)
        return patches_in_roi(torch.from_numpy(self.roi_mask), axes, tiles)

    def generator(self) -> torch.Generator:
        """Return a new generator of the settings' seed."""
        return torch.Generator().manual_seed(self.settings.seed)
