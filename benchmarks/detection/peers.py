"""anomalib's PatchCore, MH-PatchCore and PaDiM with the same backbone weights and no network.

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
from types import SimpleNamespace
from typing import Any

import numpy as np
import safetensors.torch
import timm
import torch
from anomalib.models.components.sampling import KCenterGreedy
from anomalib.models.image.mh_patchcore import MHPatchcore
from anomalib.models.image.padim.torch_model import PadimModel
from anomalib.models.image.patchcore import torch_model as patchcore_model
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from benchmarks.detection.method import Fitted, input_shape, read_batches
from energyad.features import backbones
from energyad.features.backbone_spec import BackboneSpec
from energyad.runtimes import RawScores

LAYERS = ("blocks.2", "blocks.4")  # strides 8 and 16, the places of ResNet's layer2 and layer3
PADIM_FEATURES = 100  # of 152; the number that PaDiM takes of ResNet-18's 448
NEIGHBOURS = 9  # anomalib's default
EXACT = "donot_use_mm_for_euclid_dist"
CANDIDATES = 16384
ROWS_AT_ONCE = 16384


Pass = tuple[Callable[[Tensor], Any], Callable[[], None]]
"""Of a fit: what takes a batch of images, and what is done after the last one."""


@dataclass(frozen=True)
class Peer:
    """One of anomalib's models. model: patchcore, mh-patchcore or padim. coreset_ratio: of patchcore alone."""

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
        if self.model == "mh-patchcore":
            return shared | {"mh_patchcore": "anomalib's defaults"}
        if self.coreset_ratio is None:
            return shared | {"n_features": PADIM_FEATURES}
        own = {"coreset_sampling_ratio": self.coreset_ratio, "num_neighbors": NEIGHBOURS}
        return shared | own | {"coreset": "pruned"}

    def fit(self, good: Sequence[Path], *, seed: int, threads: int) -> Fitted:
        """Show the model all good images, as often as it asks for, and let it end each pass."""
        with (
            tempfile.TemporaryDirectory() as folder,
            torch.random.fork_rng(devices=[]),
            _numpy_seed(seed),
            pruned_coreset(),
        ):
            torch.manual_seed(seed)  # anomalib draws from the global generators
            shape = input_shape(good, self.image_size)
            weights = write_timm_folder(Path(folder))
            model, passes = self._create(f"local-dir:{folder}")
            normalise = _normaliser(weights)
            model.train()
            with torch.no_grad():
                for take, finish in passes:
                    for pixels in read_batches(good, shape):
                        take(normalise(pixels))
                    finish()
        model.eval()

        @torch.inference_mode()
        def score(pixels: UInt8[np.ndarray, "b h w 3"]) -> RawScores:
            output = model(normalise(pixels))
            return RawScores(output.pred_score.flatten().numpy(), output.anomaly_map[:, 0].numpy())

        return Fitted(score, shape, num_fitted_bytes(model))

    def _create(self, backbone: str) -> tuple[nn.Module, list[Pass]]:
        """The model, and the passes over the good images that fit it."""
        layers = list(LAYERS)
        if self.model == "mh-patchcore":
            module = MHPatchcore(backbone, layers, visualizer=False, evaluator=False)
            one = (lambda batch: module.training_step(SimpleNamespace(image=batch)), module.fit)
            return module.model, [one] * 3  # principal components, covariance, memory bank
        if self.model == "padim":
            padim = PadimModel(backbone, layers, pre_trained=True, n_features=PADIM_FEATURES)
            return padim, [(padim, padim.fit)]
        patchcore = patchcore_model.PatchcoreModel(
            layers, backbone, pre_trained=True, num_neighbors=NEIGHBOURS
        )
        return patchcore, [(patchcore, lambda: self._choose(patchcore))]

    def _choose(self, patchcore: patchcore_model.PatchcoreModel) -> None:
        """Make PatchCore's memory bank of the embeddings that it has stored."""
        assert self.coreset_ratio is not None
        patchcore.subsample_embedding(self.coreset_ratio)


def write_timm_folder(folder: Path) -> BackboneSpec:
    """timm's folder of the default backbone (`local-dir:`), with the weights that energyad uses."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    name = backbones.DEFAULT_BACKBONE
    stages = (0, 1, 2, 3)  # of all, the last stack of blocks would be left out
    extractor, weights = backbones.load_backbone(name, out_indices=stages, image_size=(256, 256))
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
    """anomalib's coreset with few of its distances; the same patches are chosen, up to rounding.

    A patch's distance to the nearest centre only falls. So as long as the farthest of a few candidates lies farther
    than any other patch did when they were drawn, it is the farthest of all, and the others need not be asked; later
    they are told of many centres in one matrix product. anomalib asks all patches of each centre, tens of thousands
    of times, and its default ratio of 0.1 then takes hours; so fit times are in its favour here.
    """

    def select_coreset_idxs(self) -> list[int]:
        """Places of the coreset's patches, in the order in which they are chosen."""
        self.model.fit(self.embedding)
        points = self.model.transform(self.embedding)
        points -= points.mean(dim=0)  # distances by products lose least where the products are small
        squares = points.square().sum(dim=1)
        nearest = torch.full((len(points),), torch.inf)
        chosen = [int(torch.randint(high=len(points), size=(1,)))]
        told = 0
        while len(chosen) < self.coreset_size:
            new = torch.tensor(chosen[told:])
            for rows, own, kept in zip(
                points.split(ROWS_AT_ONCE),
                squares.split(ROWS_AT_ONCE),
                nearest.split(ROWS_AT_ONCE),
                strict=True,
            ):
                distances = torch.addmm(squares[new], rows, points[new].T, alpha=-2).amin(dim=1).add_(own)
                torch.minimum(kept, distances, out=kept)
            told = len(chosen)
            nearest[chosen] = 0
            farthest, places = nearest.topk(min(CANDIDATES, len(points)))
            candidates, beyond = points[places], float(farthest[-1])
            while len(chosen) < self.coreset_size:
                distance, place = farthest.max(dim=0)
                if distance <= beyond and told < len(chosen):
                    break
                centre = candidates[place, None]
                apart = torch.cdist(candidates, centre, compute_mode=EXACT)[:, 0].square_()
                torch.minimum(farthest, apart, out=farthest)
                farthest[place] = 0
                chosen.append(int(places[place]))
        return chosen


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
    weights: BackboneSpec,
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
