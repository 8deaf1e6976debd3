"""energyad and its ablations. Each is a change of the default settings, and this table is all there is to them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from benchmarks.detection.method import Fitted, side_of
from energyad.detector import AnomalyDetector
from energyad.model.folder import HEAD_FILE
from energyad.runtimes import RawScores
from energyad.settings import FitSettings
from energyad.settings.text import overridden

SHARED = "-shared"
"""After a name: one energy for all categories of a unified model, in place of an energy for each."""

CHANGES: Mapping[str, str] = {
    "energyad": "",
    "energyad-tau0": "dxmi.temperature=0",
    "energyad-init": "dxmi.iterations=0",  # the energy before DxMI
    "energyad-autoencoder": "memory_bank.size=0",  # the energy without the distance to good patches
    "energyad-whole": "features.coarse_strides=[]",  # no energy of the image at half its size
    "energyad-one-ring": "features.border_margin=8",  # of patches left out at the border
    "energyad-int8": "features.precision=int8",  # the backbone in 8-bit integers
    "energyad-x3": "energy.ensemble_size=3",
    "energyad-unplanted": "synthetic_defects.per_image=0",  # no discriminator
    "energyad-one-light": "augmentation.photometric_jitter=0",  # no jittered copies
    "energyad-shared": "memory_bank.size=3072",  # of all categories together
}
"""As `energyad.settings.text` reads them."""


@dataclass(frozen=True)
class Energyad:
    """energyad with these settings; the seed is the run's.

    categories: of the good images, in one model for several; where None, it is not told of them.
    """

    fit_settings: FitSettings
    categories: tuple[str, ...] | None = None

    @property
    def image_size(self) -> int:
        """Pixels a side of a square as large as what it scores."""
        return side_of(self.fit_settings)

    @property
    def settings(self) -> dict[str, Any]:
        """The whole FitSettings but the seed, which has a column of its own."""
        return {name: value for name, value in self.fit_settings.to_dict().items() if name != "seed"}

    def fit(self, good: Sequence[Path], *, seed: int, threads: int) -> Fitted:
        """Fit as a user would: a part of the good images is held out for the threshold."""
        settings = replace(self.fit_settings, seed=seed)
        detector = AnomalyDetector.fit(
            good, name="benchmark", categories=self.categories, settings=settings, threads=threads
        )

        def score(pixels: UInt8[np.ndarray, "b h w 3"]) -> RawScores:
            return detector.runtime.run(pixels)

        return Fitted(score, detector.input_shape, len(detector.contents[HEAD_FILE]))


def energyad_method(name: str, *, image_size: int) -> Energyad:
    """The method of that name, one of `CHANGES`."""
    return Energyad(
        overridden(FitSettings().with_values({"input.image_size": image_size}), CHANGES[name].split())
    )
