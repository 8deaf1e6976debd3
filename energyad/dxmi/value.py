"""The value V(x_t, t): what the rest of a chain from x_t will cost, energy included."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from energyad.dxmi.networks import TimeMLP, event_dims
from energyad.dxmi.settings import DxMISettings


class ValueMLP(nn.Module):
    """Default value function for events that are vectors. Any module of the same call can take its place."""

    def __init__(self, dims: int, hidden_widths: tuple[int, ...], *, generator: torch.Generator) -> None:
        super().__init__()
        self.network = TimeMLP(dims, hidden_widths, out=1, num_times=1, generator=generator)

    def forward(self, x: Float[Tensor, "n d"], times: Float[Tensor, "n 1"]) -> Float[Tensor, " n"]:
        """Values at x; times are t / T."""
        return self.network(x, times).squeeze(dim=1)


def default_value(
    data: Float[Tensor, "n *event"], settings: DxMISettings, generator: torch.Generator
) -> ValueMLP:
    """A new value function for data of vectors, its weights drawn from the generator."""
    return ValueMLP(event_dims(data), settings.hidden_widths, generator=generator)
