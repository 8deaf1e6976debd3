"""anomalib's PatchCore and PaDiM with the same backbone weights and no network.

Their torch models are driven directly: anomalib's Engine does the same and writes checkpoints besides. Nothing of them
is changed but how PatchCore's coreset is computed: see `PrunedGreedy`.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import timm
import torch
from anomalib.models.components.sampling import KCenterGreedy
from anomalib.models.image.padim.torch_model import PadimModel
from anomalib.models.image.patchcore import torch_model as patchcore_model
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from benchmarks.detection.method import Fitted, read_batches
from energyad import backbones
from energyad.runtimes import RawScores

LAYERS = ("blocks.2", "blocks.4")  # strides 8 and 16, the places of ResNet's layer2 and layer3
PADIM_FEATURES = 100  # of 152; the number that PaDiM takes of ResNet-18's 448
NEIGHBOURS = 9  # anomalib's default
EXACT = "donot_use_mm_for_euclid_dist"
SAFETY = 1.001  # against rounding
CHUNK = 1024  # rows that stay in a processor's cache


@dataclass(frozen=True)
class Peer:
    """One of anomalib's models. coreset_ratio: PatchCore's; None for PaDiM."""

    model: str
    image_size: int
    coreset_ratio: float | None = None

    @property
    def settings(self) -> dict[str, Any]:
        """Settings, with anomalib's version as a part of them."""
        shared = {
            "anomalib": metadata.version("anomalib"),
            "backbone": backbones.DEFAULT_BACKBONE,
            "layers": list(LAYERS),
            "image_size": self.image_size,
        }
        if self.coreset_ratio is None:
            return shared | {"n_features": PADIM_FEATURES}
        own = {"coreset_sampling_ratio": self.coreset_ratio, "num_neighbors": NEIGHBOURS}
        return shared | own | {"coreset": "pruned"}

    def fit(self, good: Sequence[Path], *, seed: int, threads: int) -> Fitted:
        """Collect embeddings of all good images, then the coreset or the Gaussians."""
        with (
            tempfile.TemporaryDirectory() as folder,
            torch.random.fork_rng(devices=[]),
            _numpy_seed(seed),
            pruned_coreset(),
        ):
            torch.manual_seed(seed)  # anomalib draws from the global generators
            weights = write_timm_folder(Path(folder), self.image_size)
            model, finish = self._create(f"local-dir:{folder}")
            normalise = _normaliser(weights)
            model.train()
            with torch.no_grad():
                for pixels in read_batches(good, self.image_size):
                    model(normalise(pixels))
                finish()
        model.eval()

        @torch.inference_mode()
        def score(pixels: UInt8[np.ndarray, "b h w 3"]) -> RawScores:
            output = model(normalise(pixels))
            return RawScores(output.pred_score.flatten().numpy(), output.anomaly_map[:, 0].numpy())

        return Fitted(score, num_fitted_bytes(model))

    def _create(self, backbone: str) -> tuple[nn.Module, Callable[[], None]]:
        """The model, and what ends its fit."""
        ratio = self.coreset_ratio
        if ratio is None:
            padim = PadimModel(backbone, list(LAYERS), pre_trained=True, n_features=PADIM_FEATURES)
            return padim, padim.fit
        patchcore = patchcore_model.PatchcoreModel(
            list(LAYERS), backbone, pre_trained=True, num_neighbors=NEIGHBOURS
        )
        return patchcore, lambda: patchcore.subsample_embedding(ratio)


def write_timm_folder(folder: Path, image_size: int) -> backbones.BackboneWeights:
    """timm's folder of the default backbone (`local-dir:`), with the weights that energyad uses."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    name = backbones.DEFAULT_BACKBONE
    stages = (0, 1, 2, 3, 4)
    extractor, weights = backbones.load_backbone(name, out_indices=stages, image_size=image_size)
    model = timm.create_model(name, pretrained=False)
    model.load_state_dict(extractor.state_dict(), strict=False)
    safetensors.torch.save_file(model.state_dict(), folder / "model.safetensors")
    config = {
        "architecture": name,
        "num_classes": model.num_classes,
        "pretrained_cfg": {
            "num_classes": model.num_classes,
            "mean": weights.mean,
            "std": weights.std,
            "first_conv": "conv_stem",
            "classifier": "classifier",
        },
    }
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return weights


def num_fitted_bytes(model: nn.Module) -> int:
    """Bytes of all buffers outside of the backbone and the blur's fixed kernel."""
    fitted = {
        name: tensor
        for name, tensor in model.state_dict().items()
        if not name.startswith(("feature_extractor.", "anomaly_map_generator."))
    }
    return sum(tensor.numel() * tensor.element_size() for tensor in fitted.values())


class PrunedGreedy(KCenterGreedy):
    """anomalib's coreset without the distances that the triangle inequality rules out; the same patches are chosen.

    A patch at least twice as near to its centre as that centre is to the new one keeps it (Elkan, ICML 2003). anomalib
    computes every distance, tens of thousands of times, and its default ratio of 0.1 then takes hours; so fit times
    are in its favour here.
    """

    min_distances: Any  # a tensor, None before the first centre

    def reset_distances(self) -> None:
        """Begin anew."""
        super().reset_distances()
        self._nearest = torch.zeros(len(self.features), dtype=torch.long)
        self._centres = torch.empty(self.coreset_size, self.features.shape[1])
        self._count = 0

    def update_distances(self, cluster_center: int | Tensor | None) -> None:
        """Take a new centre into account."""
        centre = self.features[cluster_center].squeeze()
        if self.min_distances is None:
            self.min_distances = torch.full((len(self.features), 1), torch.inf)
        self._centres[self._count] = centre
        apart = torch.cdist(centre[None], self._centres[: self._count + 1], compute_mode=EXACT)[0]
        may_gain = (apart[self._nearest] <= SAFETY * 2 * self.min_distances[:, 0]).nonzero()[:, 0]
        for rows in may_gain.split(CHUNK):
            distances = torch.linalg.norm(self.features[rows] - centre, ord=2, dim=1, keepdim=True)
            before = self.min_distances[rows]
            self.min_distances[rows] = torch.minimum(before, distances)
            self._nearest[rows[(distances < before)[:, 0]]] = self._count
        self._count += 1


@contextmanager
def pruned_coreset() -> Iterator[None]:
    """Let PatchCore choose its coreset by `PrunedGreedy`."""
    original = patchcore_model.KCenterGreedy
    patchcore_model.KCenterGreedy = PrunedGreedy
    try:
        yield
    finally:
        patchcore_model.KCenterGreedy = original


def _normaliser(
    weights: backbones.BackboneWeights,
) -> Callable[[UInt8[np.ndarray, "b h w 3"]], Float[Tensor, "b 3 h w"]]:
    """The weights' own mean and deviation (0.5) where anomalib's pre-processor would take ImageNet's."""
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (weights.mean, weights.std))
    return lambda pixels: (torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255 - mean) / std


@contextmanager
def _numpy_seed(seed: int) -> Iterator[None]:
    """anomalib's random projection draws from numpy's global generator."""
    state = np.random.get_state()
    np.random.seed(seed)
    try:
        yield
    finally:
        np.random.set_state(state)
