"""The digits of scikit-learn, 8 x 8 pixels, with fully connected networks."""

from __future__ import annotations

import torch
from sklearn.datasets import load_digits
from torch import nn

from benchmarks.generation.baselines import SigmaRange
from benchmarks.generation.measures import Classifier, LabelledImages
from benchmarks.generation.problem import Problem
from energyad.dxmi import DxMISettings, MLPEnergy
from energyad.dxmi.networks import TimeMLP, ValueMLP

NUM_TEST = 397
DIMS = 64
WIDTHS = (256, 256, 256)
ENERGY_WIDTHS = (256, 256)


def digits() -> LabelledImages:
    """Load them as vectors, and split them."""
    loaded = load_digits()
    images = torch.from_numpy(loaded.data).float() / 8 - 1
    return LabelledImages.split(images, torch.from_numpy(loaded.target), num_test=NUM_TEST)


def classifier() -> Classifier:
    """Two hidden layers, drawn from a fixed seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers = nn.Sequential(nn.Linear(DIMS, 128), nn.SiLU(), nn.Linear(128, 32), nn.SiLU())
        return Classifier(layers, 32)


def velocity(generator: torch.Generator) -> TimeMLP:
    """Three hidden layers."""
    return TimeMLP(DIMS, WIDTHS, out=DIMS, num_times=1, generator=generator)


def energy(generator: torch.Generator) -> MLPEnergy:
    """Two hidden layers."""
    return MLPEnergy(DIMS, ENERGY_WIDTHS, generator=generator)


def value(generator: torch.Generator) -> ValueMLP:
    """Two hidden layers beside a quadratic part."""
    return ValueMLP(DIMS, ENERGY_WIDTHS, generator=generator, diagonal_skip=True)


DIGITS = Problem(
    load=digits,
    classifier=classifier,
    velocity=velocity,
    energy=energy,
    value=value,
    settings=DxMISettings(
        temperature=0.1,
        running_cost="adaptive",
        running_cost_weight=0.1,
        energy_lr=1e-4,
        sampler_lr=3e-5,
        value_lr=1e-3,
        last_sigma=0.05,
        frozen_sampler_iterations=600,
        sampler_gradient_clip=1.0,
        sampler_steps_per_iteration=1,
        sampler_average=0.995,
        batch_size=128,
        hidden_widths=ENERGY_WIDTHS,
    ),
    iterations=1500,
    pretrain_iterations=4000,
    batch_size=128,
    many_steps=100,
    num_samples=1400,  # as many as training digits
    # Noise of deviation 0.1 is below the step of 1/8 between grey levels, and 20 is 27 times the data's deviation.
    pretrain_sigmas=SigmaRange(low=0.1, high=20.0),
    few_sigmas=SigmaRange(low=0.2, high=5.0),  # chosen by the fixed solvers
    seeds=(0, 1, 2, 3, 4),
)
