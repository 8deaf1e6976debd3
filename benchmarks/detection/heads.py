"""Heads on the features of test images, which are extracted once for all of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from benchmarks.detection.method import read_batches
from benchmarks.detection.quality import measure_quality
from energyad.data.datasets import Category
from energyad.energy.patch_energy import PatchEnergies, PatchEnergy
from energyad.runtimes.onnx import OnnxFeatures
from energyad.scoring.scorer import EnergyHead


class Finest(PatchEnergy):
    """The finest scale's energy, of features that hold other scales' too.

    Args:
        energy: Of the finest scale.
    """

    def __init__(self, energy: PatchEnergy) -> None:
        super().__init__(energy.whitening, energy.latent_energy, energy.reranker)

    def forward(
        self,
        features: Float[Tensor, "b *g c"],
        patches_per_image: int,
        in_roi: Bool[Tensor, " p"] | None = None,
    ) -> PatchEnergies:
        """Return the energies of each patch. See `CategoryEnergy.forward`."""
        own = features[..., : len(self.whitening.mean)]
        return super().forward(own, patches_per_image, in_roi)


def features_of_test(category: Category, session: OnnxFeatures, shape: tuple[int, int]) -> list[Tensor]:
    """Return the features of the test images, in batches of half precision.

    Args:
        category: Its test images.
        session: Runs the backbone.
        shape: Height and width of the network's input.
    """
    paths = [item.path for item in category.test]
    return [torch.from_numpy(session.run(pixels)).half() for pixels in read_batches(paths, shape)]


@torch.no_grad()
def figures_of(category: Category, head: EnergyHead, features: Sequence[Tensor]) -> dict[str, float | None]:
    """Return image AUROC, pixel AUROC and AUPRO of a head.

    Args:
        category: Its test images.
        head: Of one category.
        features: Of the test images, see `features_of_test`.
    """
    scores = [head(grids.float()) for grids in features]
    quality = measure_quality(
        category,
        np.concatenate([each.score.numpy() for each in scores]),
        np.concatenate([each.heatmap.numpy() for each in scores]),
        with_aupimo=False,
    )
    found = {name: getattr(quality, name) for name in ("image_auroc", "pixel_auroc", "aupro")}
    return {name: value and round(value, 5) for name, value in found.items()}
