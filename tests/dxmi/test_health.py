"""A training's health says what went wrong in it, in numbers and one line."""

from __future__ import annotations

import copy
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from energyad.dxmi import TrainingHealth
from energyad.dxmi.diagnosis import auroc, chain_objective, classifier_auroc, measure_health
from energyad.dxmi.record import at_bound
from energyad.dxmi.settings import DxMISettings

from .players import seeded, small_trainer

HEALTHY = TrainingHealth(
    energy_ratio=1.5,
    bound_share=0.0,
    mean_square_ratio=1.1,
    classifier_auroc=0.8,
    objective_before=1.3,
    objective_after=1.2,
)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({}, "healthy"),
        ({"bound_share": 0.9}, "saturated: the samples' energy is at its bound in 90%"),
        ({"mean_square_ratio": 5.3}, "runaway: the samples' mean square is 5.3 times"),
        ({"objective_after": 2.0}, "objective went from 1.3 to 2"),
        ({"classifier_auroc": 1.0}, "one-sided"),
    ],
)
def test_a_verdict_is_one_line_that_names_the_fault(change: dict[str, float], words: str):
    verdict = replace(HEALTHY, **change).verdict()
    assert words in verdict and "\n" not in verdict


def test_energies_beside_their_bound_count_as_at_it():
    energies = torch.tensor([0.1, 0.24, 0.5])
    assert at_bound(energies, DxMISettings(energy_regularization=2.0)).tolist() == [0, 1, 1]
    assert at_bound(energies, DxMISettings(energy_regularization=0.0)).tolist() == [0, 0, 0]


@pytest.mark.slow
@pytest.mark.parametrize("dims", [2, 100])
def test_a_classifier_tells_shifted_samples_and_not_the_same_distribution(dims: int):
    data = torch.randn(2000, dims, generator=seeded())
    same, shifted = torch.randn(2000, dims, generator=seeded(1)), data.flip(0) + 3
    assert classifier_auroc(data, same, generator=seeded(2)) == pytest.approx(0.5, abs=0.08)
    assert classifier_auroc(data, shifted, generator=seeded(2)) > 0.99


def test_auroc_is_the_chance_of_a_right_order_and_ties_count_half():
    assert auroc(torch.tensor([0.0, 1.0]), torch.tensor([2.0, 3.0, 4.0])) == 1
    assert auroc(torch.tensor([0.0, 1.0]), torch.tensor([0.0, 1.0])) == 0.5
    assert auroc(torch.tensor([2.0]), torch.tensor([1.0])) == 0


@pytest.mark.slow
def test_measuring_leaves_the_training_alone_and_sees_a_sampler_that_improves():
    trainer, undisturbed = small_trainer(sampler_lr=5e-3), small_trainer(sampler_lr=5e-3)
    first = copy.deepcopy(trainer.sampler)
    records = list(trainer.run(60, record_every=20))
    health = measure_health(trainer, records, first_sampler=first)
    assert health.objective_after < health.objective_before
    assert health.objective_before == chain_objective(trainer, first)
    list(undisturbed.run(60))
    assert list(trainer.run(5)) == list(undisturbed.run(5))


@pytest.mark.slow
def test_a_health_is_read_without_torch():
    code = "import energyad.dxmi.health, sys; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
