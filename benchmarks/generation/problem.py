"""What a data set brings to the benchmark: images, networks and settings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from benchmarks.generation.baselines import SigmaRange
from benchmarks.generation.measures import Classifier, LabelledImages
from energyad.dxmi import DxMISettings

Build = Callable[[torch.Generator], nn.Module]


@dataclass(frozen=True, kw_only=True)
class Problem:
    """A data set with what is trained on it.

    Attributes:
        load: Its images.
        classifier: Builds what measures samples; untrained.
        velocity: Builds a sampler's network, (x, times [n, 1]) -> [n, *event].
        energy: Builds an energy.
        value: Builds a value function.
        settings: Of DxMI, but for the number of steps.
        iterations: Of DxMI, those with a frozen sampler among them.
        pretrain_iterations: Of denoising.
        batch_size: Of denoising.
        many_steps: Evaluations of the baselines that are run to their end.
        num_samples: That are measured.
        pretrain_sigmas: EDM's noise levels in pretraining.
        few_sigmas: EDM's noise levels with few steps. Each step that the ends of a wide range take is missing in the
            middle.
        seeds: Run by default.
    """

    load: Callable[[], LabelledImages]
    classifier: Callable[[], Classifier]
    velocity: Build
    energy: Build
    value: Build
    settings: DxMISettings
    iterations: int
    pretrain_iterations: int
    batch_size: int
    many_steps: int
    num_samples: int
    pretrain_sigmas: SigmaRange
    few_sigmas: SigmaRange
    seeds: tuple[int, ...]
