"""Several scales in one model: each has features, a grid, an expert and a share in the energy of its own."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Bool, Float16
from torch import Tensor

from energyad.experts import Expert, Judge, ScaleProduct
from energyad.grids import Grid, Scale
from energyad.heads import GoodPatches, add_parts, fit_expert, gather_patches
from energyad.progress import Progress
from energyad.settings import FitSettings
from energyad.training import TrainedEnergy

Observe = Callable[[int, int, Expert], None]
"""Called with the number of a scale, DxMI's iteration and that scale's expert of that time."""


def gather_scales(
    features: Float16[np.ndarray, "n rows g c"],
    images: Sequence[int],
    scales: Sequence[Scale],
    *,
    generator: torch.Generator,
    area: Bool[Tensor, " p"] | None = None,
) -> list[Float16[Tensor, "n q k"]]:
    """Patches of these images, of each scale; see `gather_patches`."""
    return [gather_patches(features, images, scale=each, generator=generator, area=area) for each in scales]


def judge_of(experts: Sequence[Expert], scales: Sequence[Scale], grid: Grid, half_share: float) -> Judge:
    """One judge of an expert for the image, and where there is one for the image at half its size, of both."""
    if len(experts) == 1:
        return experts[0]
    return ScaleProduct(experts, scales, side=grid.inner, shares=(1 - half_share, half_share)).eval()


def for_scale(settings: FitSettings, scale: Scale) -> FitSettings:
    """The same for a scale with fewer patches: fewer steps of training, and fewer prototypes.

    A scale of patches twice as wide has a quarter of them. It trains for a quarter of the steps, so that each is seen
    as often as one of the grid, and has half the prototypes. Of more of either nothing was gained.
    """
    share = scale.factor**2
    decay = settings.dxmi.decay_iterations
    return replace(
        settings,
        num_prototypes=-(-settings.num_prototypes // scale.factor),
        warmup_iterations=-(-settings.warmup_iterations // share),
        iterations=-(-settings.iterations // share),
        dxmi=replace(settings.dxmi, decay_iterations=decay and -(-decay // share)),
    )


def fit_judge(
    good: Sequence[GoodPatches],
    scales: Sequence[Scale],
    grid: Grid,
    settings: FitSettings,
    generator: torch.Generator,
    progress: Progress,
    observe: Observe | None = None,
) -> tuple[Judge, list[TrainedEnergy]]:
    """Fit what judges patches, an expert for each scale; also how all their trainings went. good: patches of each."""
    experts, trainings = [], []
    for number, patches in enumerate(good):
        look = None if observe is None else functools.partial(observe, number)
        own_settings = for_scale(settings, scales[number])
        # One of its own: what a scale draws does not depend on how long another one trains.
        drawing = generator if number == 0 else torch.Generator().manual_seed(settings.seed)
        expert, own = fit_expert(patches, own_settings, drawing, progress, look)
        experts.append(expert)
        trainings += own
    return judge_of(experts, scales, grid, settings.half_share), trainings


def with_parts(
    judge: Judge, parts: Sequence[Float16[Tensor, "n p c"]], *, num_fitted: int, settings: FitSettings
) -> Judge:
    """The same, and each closer look knows these good parts' patches too; see `add_parts`. parts: of each scale."""
    add = functools.partial(add_parts, num_fitted=num_fitted, settings=settings)
    if isinstance(judge, Expert):
        return add(judge, parts[0])
    held = [each for each in judge.experts if isinstance(each, Expert)]
    experts = [add(expert, own) for expert, own in zip(held, parts, strict=True)]
    return ScaleProduct(experts, judge.scales, side=judge.side, shares=judge.shares.tolist()).eval()
