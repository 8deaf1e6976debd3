"""anomalib's PatchCore and PaDiM, ready to predict, with the same backbone.

What they are fitted on decides no time of a prediction but for two sizes, which are those of a full fit: the number of
vectors in PatchCore's coreset, and PaDiM's number of features. So PatchCore gets as many vectors as its coreset would
have, drawn at random from some good images (selecting them takes ten minutes), and PaDiM sees some good images alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from anomalib.models.image.patchcore.torch_model import PatchcoreModel

from benchmarks.detection import peers
from benchmarks.detection.method import Fitted

CORESETS = {"patchcore-0.1": 0.1, "patchcore-0.01": 0.01}
"""Shares of all patches that are kept: anomalib's default, and a tenth of it."""
NOTES = {
    name: f"{share:.0%} of all patches, drawn at random from some good images instead of selected"
    for name, share in CORESETS.items()
} | {"padim": "Gaussians of some good images"}


class RandomCoreset(peers.Peer):
    """PatchCore whose memory is drawn at random. `coreset_ratio`: of the images it is fitted on."""

    def _choose(self, patchcore: PatchcoreModel) -> None:
        bank = torch.vstack(patchcore.embedding_store)
        count = round((self.coreset_ratio or 1.0) * len(bank))
        patchcore.memory_bank = bank[torch.randperm(len(bank))[:count]].clone()
        patchcore.embedding_store.clear()


def fit_peer(name: str, good: Sequence[Path], *, image_size: int, few: int, threads: int) -> Fitted:
    """A peer that predicts at the cost of one fitted on all good images, from `few` of them."""
    some = list(good[:few])
    if name == "padim":
        return peers.Peer("padim", image_size).fit(some, seed=0, threads=threads)
    share = min(1.0, CORESETS[name] * len(good) / len(some))
    return RandomCoreset("patchcore", image_size, share).fit(some, seed=0, threads=threads)
