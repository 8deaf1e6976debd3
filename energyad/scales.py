"""Several scales in one model: each has features, a grid, an expert and a share in the energy of its own."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float16
from torch import Tensor

from energyad.experts import Expert, Judge, ScaleProduct
from energyad.features import Grid, Scale
from energyad.heads import GoodPatches, add_parts, fit_expert, gather_patches
from energyad.progress import Progress
from energyad.settings import FitSettings
from energyad.training import TrainedEnergy

Observe = Callable[[int, int, Expert], None]
"""Called with the number of a scale, DxMI's iteration and that scale's expert of that time."""


def scales_of(scales: tuple[Scale, ...], settings: FitSettings) -> tuple[Scale, ...]:
    """What is judged by itself: a backbone's scales, or all its features as one where the settings name no powers."""
    return scales if settings.scale_powers else (Scale(0, scales[-1].stop),)


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


def judge_of(experts: Sequence[Expert], scales: Sequence[Scale], grid: Grid, settings: FitSettings) -> Judge:
    """One judge of an expert for each scale. Scales that the settings name no power of have the last one's."""
    if len(experts) == 1:
        return experts[0]
    named = settings.scale_powers[: len(scales)]
    powers = named + named[-1:] * (len(scales) - len(named))
    return ScaleProduct(experts, scales, side=grid.inner, powers=powers).eval()


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
        expert, own = fit_expert(patches, settings, generator, progress, look)
        experts.append(expert)
        trainings += own
    return judge_of(experts, scales, grid, settings), trainings


def with_parts(
    judge: Judge, parts: Sequence[Float16[Tensor, "n p c"]], *, num_fitted: int, settings: FitSettings
) -> Judge:
    """The same, and each closer look knows these good parts' patches too; see `add_parts`. parts: of each scale."""
    add = functools.partial(add_parts, num_fitted=num_fitted, settings=settings)
    if isinstance(judge, Expert):
        return add(judge, parts[0])
    held = [each for each in judge.experts if isinstance(each, Expert)]
    experts = [add(expert, own) for expert, own in zip(held, parts, strict=True)]
    return ScaleProduct(experts, judge.scales, side=judge.side, powers=judge.powers).eval()
