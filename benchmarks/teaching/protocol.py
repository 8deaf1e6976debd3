"""One category: which defects are shown, which figures are measured, and how each method learns."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from jaxtyping import Float

from energyad.data.datasets import GOOD, Category, TestItem
from energyad.detector import AnomalyDetector
from energyad.energy.latent_energy import LatentEnergy
from energyad.energy.networks import Affine
from energyad.energy.patch_energy import MultiScaleEnergy, PatchEnergy
from energyad.evaluation import metrics
from energyad.evaluation.evaluate import mask_at
from energyad.evaluation.metrics import PixelTally
from energyad.feedback.evidence import Evidence, SeenImage, evidence_of, see_images
from energyad.feedback.labels import Label
from energyad.feedback.learning import (
    category_energy,
    fit_classifier,
    learn,
    scales_of,
    score,
    score_by_each,
    with_points_of,
)
from energyad.feedback.marks import polygons_of
from energyad.feedback.teaching import Lesson, OpenedModel, cross_validate, open_to_learn
from energyad.images.identity import pixel_digest
from energyad.images.reading import as_rgb, resize
from energyad.progress import NullProgress
from energyad.scoring.calibration import calibrate
from energyad.scoring.scorer import EnergyHead, Scores
from energyad.settings import FitSettings

LIGHTS: Final[Mapping[str, Sequence[float]]] = {
    "light": tuple(round(1.1 + 0.05 * step, 2) for step in range(19)),
    "strong light": (1.25, 1.5, 1.8),
}
"""Gains of the light that false alarms come from, each the first under which enough good parts are rejected: a little
more than the model bears, and in wide steps, so that bright parts may saturate."""
MIN_ALARMS: Final = 0.3
"""Share of the good parts that is enough."""
NUM_CORRECTED: Final = 20
SPLITS: Final = 200
ODDS_POWER: Final = 0.1
"""Of the odds that the logistic regression alone gives, so that they fit a float; no rank of images depends on it."""
RATE: Final = 0.1
"""Of the resampled splits: few good parts certify it."""


@dataclass(frozen=True, eq=False)
class Bench:
    """A fitted model with its category, every image seen once.

    Attributes:
        category: With its test images.
        opened: The model.
        test: The test images, in the category's order.
        evidence: Their labels with marks, likewise; None of good ones.
        held_out: Good parts that were held out from the fit.
    """

    category: Category
    opened: OpenedModel
    test: tuple[SeenImage, ...]
    evidence: tuple[Evidence | None, ...]
    held_out: tuple[SeenImage, ...]

    @property
    def kinds(self) -> list[str]:
        """The folder of each test image."""
        return [item.defect_type for item in self.category.test]


@dataclass(frozen=True)
class Draw:
    """Which test images are shown, and which are measured.

    Attributes:
        shown: Defects that may be labelled, in the order in which they come.
        measured: Other defects of the same kinds.
        others: Defects of kinds that nobody shows.
        hidden_kinds: These kinds.
    """

    shown: tuple[int, ...]
    measured: tuple[int, ...]
    others: tuple[int, ...]
    hidden_kinds: tuple[str, ...]


def open_bench(category: Category, folder: Path, *, image_size: int, seed: int, threads: int) -> Bench:
    """Fit a model, or load it where that was done, and look at all images.

    Args:
        category: With masks.
        folder: Of the model.
        image_size: Pixels a side of the network's input.
        seed: Of the fit.
        threads: Of the backbone.
    """
    if not folder.exists():
        settings = replace(FitSettings().with_values({"input.image_size": image_size}), seed=seed)
        AnomalyDetector.fit(category.train_good, name=category.name, settings=settings, threads=threads).save(
            folder
        )
    opened = open_to_learn(AnomalyDetector.load(folder, threads=threads), threads=threads)
    held_out = frozenset(opened.manifest.provenance.held_out_digests)
    options: dict[str, Any] = {"progress": NullProgress(), "stage": ""}
    test = see_images([item.path for item in category.test], opened.manifest, opened.session, **options)
    good = see_images(
        category.train_good,
        opened.manifest,
        opened.session,
        is_wanted=lambda digest: digest in held_out,
        **options,
    )
    labels = [_label(item) for item in category.test if item.is_defective]
    known = evidence_of(labels, test, manifest=opened.manifest, grid=opened.head.grid)
    by_path = {one.label.image: one for one in known}
    evidence = tuple(by_path.get(item.path) for item in category.test)
    return Bench(category, opened, tuple(test), evidence, tuple(good))


def draw(bench: Bench, *, seed: int, hide: bool) -> Draw:
    """Split the defects of each kind at random: one half may be shown, figures come from the other half.

    Args:
        bench: The category.
        seed: Of the split and of the order.
        hide: Whether every second kind is never shown.
    """
    rng = np.random.default_rng(seed)
    kinds = list(bench.category.defect_types)
    hidden = tuple(kinds[seed % 2 :: 2]) if hide else ()
    shown: list[int] = []
    measured: list[int] = []
    others: list[int] = []
    for kind in kinds:
        indices = rng.permutation([index for index, name in enumerate(bench.kinds) if name == kind]).tolist()
        half = len(indices) // 2
        if kind in hidden:
            others += indices[half:]
        else:
            shown += indices[:half]
            measured += indices[half:]
    return Draw(tuple(rng.permutation(shown).tolist()), tuple(measured), tuple(others), hidden)


@dataclass(frozen=True, eq=False)
class Learned:
    """What a method made of the labels.

    Attributes:
        scores: Gives score and heatmap of an image.
        threshold: By the good parts that were held out from the fit.
        raise_limit: See `learn`; 0 where a method has none.
    """

    scores: Callable[[SeenImage], Scores]
    threshold: float
    raise_limit: float = 0.0


def not_taught(bench: Bench) -> Learned:
    """The model without any label, its threshold by the same good parts as that of the others."""
    threshold = _threshold(score(bench.opened.calibration_base, bench.held_out), bench)
    return Learned(_scores_of(bench.opened.base), threshold)


def taught(bench: Bench, shown: Sequence[int], *, marked: bool = True) -> Learned:
    """The model as `energyad teach` makes it.

    Args:
        bench: The category.
        shown: Labelled defects.
        marked: Whether they have marks.
    """
    evidence = _evidence_of(bench, shown)
    if not marked:
        evidence = [replace(one, coverage=None) for one in evidence]
    lesson = _lesson(bench, evidence)
    base, calibration = bench.opened.calibration_base, bench.opened.manifest.calibration
    limit = cross_validate(
        base, lesson, bench.held_out, calibration=calibration, progress=NullProgress()
    ).raise_limit
    head = learn(base, lesson, raise_limit=limit)
    held_out_points = bench.opened.manifest.provenance.held_out_points
    final = with_points_of(head, bench.opened.base, held_out_points)
    return Learned(_scores_of(final), _threshold(score(head, bench.held_out), bench), limit)


class LogisticEnergy(LatentEnergy):
    """A power of the odds that a patch is marked, by a logistic regression of its latents alone.

    Args:
        classifier: Logarithm of the odds.
    """

    def __init__(self, classifier: Affine) -> None:
        super().__init__()
        self.classifier = classifier

    def forward(self, z: Float[torch.Tensor, "*b k"]) -> Float[torch.Tensor, "*b"]:
        """Return the energies of latents."""
        return (ODDS_POWER * self.classifier(z)[..., 0]).exp()


def logistic(bench: Bench, shown: Sequence[int]) -> Learned:
    """A logistic regression of patches: that by which marks teach an energy, alone, of the finest scale."""
    base = bench.opened.calibration_base
    energy, scale = category_energy(base).by_scale()[0], scales_of(base)[0]
    classifier = fit_classifier(energy, scale, _lesson(bench, _evidence_of(bench, shown)))
    head = copy.deepcopy(base)
    head.patch_energy = MultiScaleEnergy(
        [PatchEnergy(energy.whitening, LogisticEnergy(classifier))],
        [scale],
        shape=head.grid.inner,
        weights=[1.0],
    )
    head.eval().requires_grad_(False)
    return Learned(_scores_of(head), _threshold(score(head, bench.held_out), bench))


def supersimplenet(bench: Bench, shown: Sequence[int]) -> Learned:
    """anomalib's SuperSimpleNet, trained on the images of the fit and on those that are marked."""
    from benchmarks.teaching.supersimplenet import fit_supersimplenet

    spec, held_out = bench.opened.manifest.input, {image.digest for image in bench.held_out}
    images = [as_rgb(path) for path in bench.category.train_good]
    good = [resize(image, spec.shape) for image in images if pixel_digest(image) not in held_out]
    defects = [
        (
            bench.test[index].pixels,
            mask_at(bench.category.test[index], spec.shape, of=bench.test[index].shape),
        )
        for index in shown
    ]
    fitted = fit_supersimplenet(good, defects, seed=bench.opened.manifest.provenance.seed)

    def scores(image: SeenImage) -> Scores:
        return fitted(image.pixels)

    of_held_out = np.array([float(scores(image).score) for image in bench.held_out])
    return Learned(scores, _threshold(of_held_out, bench))


METHODS: Final[Mapping[str, Callable[[Bench, Sequence[int]], Learned]]] = {
    "marks": taught,
    "images": lambda bench, shown: taught(bench, shown, marked=False),
    "logistic": logistic,
    "supersimplenet": supersimplenet,
}
"""How to learn from labelled defects: with their marks, without, without the energy, and by another library."""
QUICK_METHODS: Final = ("marks", "images", "logistic")
"""All but the one that takes minutes for each number of labels."""


@dataclass(frozen=True, eq=False)
class Predicted:
    """What a method says of some test images.

    Attributes:
        scores: Of each.
        tally: Pixels of their heatmaps; empty without masks.
    """

    scores: Float[np.ndarray, " n"]
    tally: PixelTally


@torch.inference_mode()
def predict(bench: Bench, learned: Learned, indices: Sequence[int]) -> Predicted:
    """Score test images, and count the pixels of their heatmaps.

    Args:
        bench: The category.
        learned: By a method.
        indices: Of the images.
    """
    scores, tally = [], PixelTally.empty()
    for index in indices:
        image = bench.test[index]
        said = learned.scores(image)
        scores.append(float(said.score))
        if bench.category.has_masks:
            heatmap = said.heatmap[0].numpy()
            tally.add(heatmap, mask_at(bench.category.test[index], heatmap.shape, of=image.shape))
    return Predicted(np.array(scores), tally)


def figures(good: Predicted, defective: Predicted, threshold: float) -> dict[str, float | None]:
    """Figures of some defects against all good test images.

    Args:
        good: Good test images.
        defective: Defects.
        threshold: Above it an image is rejected.
    """
    scores = [*good.scores.tolist(), *defective.scores.tolist()]
    labels = [False] * len(good.scores) + [True] * len(defective.scores)
    tallies = [good.tally, defective.tally]
    values = {
        "image_auroc": metrics.image_auroc(labels, scores),
        "missed": float((defective.scores <= threshold).mean()),
        "false_rejects": float((good.scores > threshold).mean()),
        "pixel_auroc": metrics.pixel_auroc(tallies),
        "aupro": metrics.aupro(tallies),
    }
    return {name: None if value is None else round(value, 5) for name, value in values.items()}


def corrected_alarms(bench: Bench, *, seed: int, gains: Sequence[float]) -> dict[str, Any]:
    """Correct good parts under another light, and count how many others of them are still rejected.

    Args:
        bench: The category.
        seed: Of the halves: parts that may be corrected, and others.
        gains: Of the light; the first that rejects enough good parts is taken.
    """
    good = [item.path for item in bench.category.test if not item.is_defective]
    halves = np.array_split(np.random.default_rng(seed).permutation(len(good)), 2)
    base, threshold = bench.opened.base, bench.opened.manifest.calibration.threshold
    for gain in gains:
        known, others = (_under_light(bench, [good[index] for index in half], gain) for half in halves)
        alarms = [image for image, value in zip(known, score(base, known), strict=True) if value > threshold]
        if len(alarms) >= MIN_ALARMS * len(known):
            break
    alarms = alarms[:NUM_CORRECTED]
    lesson = _lesson(bench, [Evidence(_fine(image), image, None) for image in alarms])
    learned = learn(bench.opened.calibration_base, lesson, raise_limit=0.0)
    head = with_points_of(learned, base, bench.opened.manifest.provenance.held_out_points)
    defects = [image for image, kind in zip(bench.test, bench.kinds, strict=True) if kind != GOOD]
    rejected = (score_by_each([base, head], others) > threshold).sum(axis=1).tolist()
    missed = (score_by_each([base, head], defects) <= threshold).mean(axis=1).round(5).tolist()
    return {
        "gain": gain,
        "corrected": len(alarms),
        "good_parts": len(others),
        "before": rejected[0],
        "after": rejected[1],
        "missed_before": missed[0],
        "missed_after": missed[1],
    }


def resampled_rate(good: Float[np.ndarray, " n"], *, seed: int) -> float:
    """Return the mean share of good test images above a threshold that other good test images set, over splits.

    Args:
        good: Scores of good test images.
        seed: Of the splits.
    """
    rng = np.random.default_rng(seed)
    shares = []
    for _ in range(SPLITS):
        known, new = np.array_split(rng.permutation(good), 2)
        threshold = calibrate(known.tolist(), false_reject_rate=RATE).threshold
        shares.append(float((new > threshold).mean()))
    return float(np.mean(shares))


def _under_light(bench: Bench, paths: Sequence[Path], gain: float) -> list[SeenImage]:
    changed = [np.clip(as_rgb(path).astype(np.float32) * gain, 0, 255).astype(np.uint8) for path in paths]
    return see_images(changed, bench.opened.manifest, bench.opened.session, progress=NullProgress(), stage="")


def _scores_of(head: EnergyHead) -> Callable[[SeenImage], Scores]:
    return lambda image: head(image.features.float())


def _evidence_of(bench: Bench, shown: Sequence[int]) -> list[Evidence]:
    return [one for one in (bench.evidence[index] for index in shown) if one is not None]


def _lesson(bench: Bench, evidence: Sequence[Evidence]) -> Lesson:
    made = bench.opened.manifest.provenance
    return Lesson(evidence, num_fitted=made.num_images - made.num_held_out, seed=made.seed)


def _fine(image: SeenImage) -> Label:
    return Label(image=Path(image.digest), sha256=image.digest, value="fine", reviewer="benchmark")


def _label(item: TestItem) -> Label:
    marks = polygons_of(item.read_mask(as_rgb(item.path).shape[:2])) if item.mask is not None else ()
    return Label(
        image=item.path, sha256="", value="defect", kind=item.defect_type, marks=marks, reviewer="benchmark"
    )


def _threshold(scores: Float[np.ndarray, " n"], bench: Bench) -> float:
    rate = bench.opened.manifest.calibration.false_reject_rate
    return calibrate(scores.tolist(), false_reject_rate=rate).threshold
