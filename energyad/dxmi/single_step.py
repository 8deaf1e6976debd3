"""A single-step generator made from a trained sampler."""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from energyad.dxmi.sampler import GaussianSampler
from energyad.dxmi.schedule import time_pairs
from energyad.dxmi.trainer import DxMITrainer


class SingleStepGenerator(nn.Module):
    """One evaluation of a sampler's network: from the noise straight to a sample."""

    def __init__(self, sampler: GaussianSampler) -> None:
        super().__init__()
        self.sampler = sampler

    def forward(
        self, start: Float[Tensor, "n *event"], generator: torch.Generator
    ) -> Float[Tensor, "n *event"]:
        """Samples from starts such as `DxMITrainer.start` draws."""
        pair = time_pairs(self.sampler.schedule.route(1), start.device)
        return self.sampler.step(start.unsqueeze(0), pair, generator)[0]


def single_step_trainer(trainer: DxMITrainer, *, iterations: int) -> DxMITrainer:
    """A trainer that plays on with the same energy, sampler and randomness, in single steps alone.

    Learning rates decay once more, over that many iterations.

    Best made from a sampler that knows single steps already (`trained_steps` holding 1). The players are the given
    trainer's own and change with it: save a checkpoint first if they shall be kept.
    """
    settings = replace(
        trainer.settings,
        trained_steps=(1,),
        pretrain_iterations=0,
        frozen_sampler_iterations=0,
        decay_iterations=iterations,
    )
    return DxMITrainer(
        energy=trainer.energy,
        data=trainer.data,
        settings=settings,
        generator=trainer.generator,
        sampler=trainer.sampler,
        value=trainer.value,
    )
