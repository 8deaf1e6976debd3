"""anomalib's SuperSimpleNet, trained with marked defects on the same images, with the same backbone and no network."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import torch
from anomalib.models.image.supersimplenet.loss import SSNLoss
from anomalib.models.image.supersimplenet.torch_model import SupersimplenetModel
from jaxtyping import Bool, Float, UInt8
from torch import Tensor, nn

from benchmarks.detection.peers import LAYERS, write_timm_folder
from energyad.scoring.scorer import Scores

STEPS: Final = 80
"""Of the training. A step of four images takes three seconds of one core, and the 300 epochs of anomalib's default
are many thousands of them: this is a small part of one."""
BATCH_SIZE: Final = 4
"""Half of it defects."""

Pixels = UInt8[np.ndarray, "h w 3"]
Mask = Bool[np.ndarray, "h w"]


def fit_supersimplenet(
    good: Sequence[Pixels], defects: Sequence[tuple[Pixels, Mask]], *, seed: int
) -> Callable[[Pixels], Scores]:
    """Train as anomalib does with `supervised=True`: its losses, its optimiser, its schedule, in `STEPS` steps.

    Args:
        good: Good parts, all of one size.
        defects: Defective parts of this size, with their masks.
        seed: Of weights and batches.

    Returns:
        What scores an image.
    """
    with tempfile.TemporaryDirectory() as folder, torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # anomalib draws from the global generator
        weights = write_timm_folder(Path(folder))
        model = SupersimplenetModel(backbone=f"local-dir:{folder}", layers=list(LAYERS), stop_grad=False)
        mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (weights.mean, weights.std))

        def to_input(images: Sequence[Pixels]) -> Float[Tensor, "b 3 h w"]:
            return (torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2) / 255 - mean) / std

        _train(model, to_input, good, defects, seed=seed)
    model.eval()

    @torch.inference_mode()
    def score(pixels: Pixels) -> Scores:
        output = model(to_input([pixels]))
        return Scores(output.pred_score, output.anomaly_map[:, 0])

    return score


def _train(
    model: SupersimplenetModel,
    to_input: Callable[[Sequence[Pixels]], Float[Tensor, "b 3 h w"]],
    good: Sequence[Pixels],
    defects: Sequence[tuple[Pixels, Mask]],
    *,
    seed: int,
) -> None:
    heads = [{"params": model.adaptor.parameters(), "lr": 1e-4},
             {"params": model.segdec.parameters(), "lr": 2e-4, "weight_decay": 1e-5}]  # fmt: skip
    optimizer = torch.optim.AdamW(heads)
    milestones = [int(0.8 * STEPS), int(0.9 * STEPS)]
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, milestones, gamma=0.4)
    trained = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    loss_of = SSNLoss()
    model.train()
    for images, masks in _batches(good, defects, seed=seed):
        labels = masks.flatten(1).any(dim=1)
        maps, scores, target_mask, target_label = model(to_input(images), masks, labels)
        loss = loss_of(pred_map=maps, pred_score=scores, target_mask=target_mask, target_label=target_label)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        schedule.step()


def _batches(
    good: Sequence[Pixels], defects: Sequence[tuple[Pixels, Mask]], *, seed: int
) -> Iterator[tuple[list[Pixels], Bool[Tensor, "b h w"]]]:
    rng, half = np.random.default_rng(seed), BATCH_SIZE // 2
    for _ in range(STEPS):
        chosen = [defects[index] for index in rng.integers(len(defects), size=half)]
        sound = [good[index] for index in rng.choice(len(good), size=BATCH_SIZE - half, replace=False)]
        masks = [mask for _, mask in chosen] + [np.zeros(image.shape[:2], bool) for image in sound]
        yield [image for image, _ in chosen] + sound, torch.from_numpy(np.stack(masks))
