from __future__ import annotations

import numpy as np
import pytest
import torch

from energyad.features.grids import Scale
from energyad.fitting import patches
from energyad.fitting.patches import gather_patches

WHOLE = Scale(0, 1)


def test_patches_beyond_the_limit_are_thinned_alike_in_every_image(monkeypatch: pytest.MonkeyPatch) -> None:
    features = np.arange(5 * 4 * 4, dtype=np.float16).reshape(5, 1, 4, 4, 1)
    generator = torch.Generator().manual_seed(0)
    everything = gather_patches(features, [1, 3], scale=WHOLE, generator=generator)
    assert everything.flatten().tolist() == [*range(16, 32), *range(48, 64)]
    monkeypatch.setattr(patches, "MAX_PATCHES", 20)
    some = gather_patches(features, range(5), scale=WHOLE, generator=generator).flatten()
    assert len(some) == 20
    assert torch.bincount((some // 16).long()).tolist() == [4] * 5
    assert len(some.unique()) == 20
