"""One category: which defects are shown, which figures are measured, and how each method learns."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from jaxtyping import Bool, Float
from sklearn.linear_model import LogisticRegression

from energyad.data.datasets import Category, TestItem
from energyad.detector import AnomalyDetector
from energyad.evaluation import metrics
from energyad.evaluation.evaluate import mask_at
from energyad.evaluation.metrics import PixelTally
from energyad.feedback.evidence import Evidence, SeenImage, evidence_of, see_images
from energyad.feedback.labels import Label
from energyad.feedback.learning import category_energy, learn, scales_of, score, with_points_of
from energyad.feedback.marks import polygons_of
from energyad.feedback.teaching import Lesson, OpenedModel, cross_validate, open_to_learn
from energyad.images.reading import as_rgb
from energyad.progress import NullProgress
from energyad.scoring.calibration import calibrate
from energyad.scoring.scorer import EnergyHead
from energyad.settings import FitSettings

GAINS: Final = (1.25, 1.5, 1.8, 0.6, 0.4)
"""Of the light that false alarms come from: the first under which enough good parts are rejected."""
MIN_ALARMS: Final = 0.3
"""Share of the good parts that is enough."""
NUM_CORRECTED: Final = 20
SPLITS: Final = 200
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


def open_bench(category: Category, folder: Path, *, seed: int, threads: int) -> Bench:
    """Fit a model, or load it where that was done, and look at all images.

    Args:
        category: With masks.
        folder: Of the model.
        seed: Of the fit.
        threads: Of the backbone.
    """
    if not folder.exists():
        settings = replace(FitSettings(), seed=seed)
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
    found = evidence_of(labels, test, manifest=opened.manifest, grid=opened.head.grid)
    by_path = {one.label.image: one for one in found}
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
        places = rng.permutation([place for place, name in enumerate(bench.kinds) if name == kind]).tolist()
        half = len(places) // 2
        if kind in hidden:
            others += places[half:]
        else:
            shown += places[:half]
            measured += places[half:]
    return Draw(tuple(rng.permutation(shown).tolist()), tuple(measured), tuple(others), hidden)


@dataclass(frozen=True, eq=False)
class Scored:
    """Scores of all test images, the threshold, and heatmaps where the method makes some."""

    scores: Float[np.ndarray, " n"]
    threshold: float
    raise_limit: float = 0.0
    head: EnergyHead | None = None


def as_it_was(bench: Bench) -> Scored:
    """The model without any label, its threshold by the same good parts as that of the others."""
    threshold = _threshold(score(bench.opened.calibration_base, bench.held_out), bench)
    return Scored(score(bench.opened.base, bench.test), threshold, head=bench.opened.base)


def taught(bench: Bench, shown: Sequence[int], *, marked: bool = True) -> Scored:
    """The model as `energyad teach` makes it.

    Args:
        bench: The category.
        shown: Labelled defects.
        marked: Whether they have marks.
    """
    evidence = [one for one in (bench.evidence[place] for place in shown) if one is not None]
    if not marked:
        evidence = [replace(one, coverage=None) for one in evidence]
    made = bench.opened.manifest.provenance
    lesson = Lesson(evidence, num_fitted=made.num_images - made.num_held_out, seed=made.seed)
    base, calibration = bench.opened.calibration_base, bench.opened.manifest.calibration
    limit = cross_validate(
        base, lesson, bench.held_out, calibration=calibration, progress=NullProgress()
    ).raise_limit
    head = learn(base, lesson, raise_limit=limit)
    final = with_points_of(head, bench.opened.base, made.held_out_points)
    threshold = _threshold(score(head, bench.held_out), bench)
    return Scored(score(final, bench.test), threshold, limit, final)


def logistic(bench: Bench, shown: Sequence[int]) -> Scored:
    """A logistic regression of patches on the same latents, without the energy: an image has its highest odds."""
    energy = category_energy(bench.opened.calibration_base).by_scale()[0]
    scale = scales_of(bench.opened.base)[0]

    def latents(image: SeenImage) -> Float[np.ndarray, "p k"]:
        patches = scale.of(image.features.movedim(-3, -1).float())
        return energy.whitening(patches).flatten(0, 2).numpy()

    good = (energy.reranker.bank_points().flatten(0, 1) / energy.whitening.deviations()).numpy()  # type: ignore[union-attr]
    x, y = [good], [np.zeros(len(good))]
    for place in shown:
        one = bench.evidence[place]
        if one is not None and one.coverage is not None:
            coverage, patches = one.coverage.flatten().numpy(), latents(one.image)
            for chosen, value in ((coverage >= 0.25, 1.0), (coverage == 0, 0.0)):
                x.append(patches[chosen])
                y.append(np.full(int(chosen.sum()), value))
    model = LogisticRegression(C=0.1, max_iter=200, class_weight="balanced")
    labels = np.concatenate(y)
    if len(set(labels.tolist())) < 2:  # marks smaller than a patch
        return Scored(np.zeros(len(bench.test)), 0.0)
    model.fit(np.concatenate(x), labels)

    def odds(images: Sequence[SeenImage]) -> Float[np.ndarray, " n"]:
        return np.exp(np.array([model.decision_function(latents(image)).max() for image in images]) / 10)

    return Scored(odds(bench.test), _threshold(odds(bench.held_out), bench))


METHODS: Final[Mapping[str, Callable[[Bench, Sequence[int]], Scored]]] = {
    "marks": taught,
    "images": lambda bench, shown: taught(bench, shown, marked=False),
    "logistic": logistic,
}
"""How to learn from labelled defects: with their marks, without, and without the energy."""


def figures(bench: Bench, scored: Scored, places: Sequence[int]) -> dict[str, float | None]:
    """Figures of some defects against all good test images.

    Args:
        bench: The category.
        scored: Of all test images.
        places: Of the defects.
    """
    good = [place for place, kind in enumerate(bench.kinds) if kind == "good"]
    chosen = [*good, *places]
    scores = scored.scores[chosen]
    defective = [False] * len(good) + [True] * len(places)
    values: dict[str, float | None] = {
        "image_auroc": metrics.image_auroc(defective, scores.tolist()),
        "missed": float((scores[len(good) :] <= scored.threshold).mean()),
        "false_rejects": float((scores[: len(good)] > scored.threshold).mean()),
    }
    if scored.head is not None and bench.category.has_masks:
        tally = _tally(bench, scored.head, chosen)
        values |= {"pixel_auroc": metrics.pixel_auroc([tally]), "aupro": metrics.aupro([tally])}
    return {name: None if value is None else round(value, 5) for name, value in values.items()}


def corrected_alarms(bench: Bench, *, seed: int) -> dict[str, Any]:
    """Correct good parts under another light, and count how many others of them are still rejected."""
    good = [item.path for item in bench.category.test if not item.is_defective]
    halves = np.array_split(np.random.default_rng(seed).permutation(len(good)), 2)
    base, threshold = bench.opened.base, bench.opened.manifest.calibration.threshold
    for gain in GAINS:
        known, others = (_under_light(bench, [good[place] for place in half], gain) for half in halves)
        alarms = [image for image, value in zip(known, score(base, known), strict=True) if value > threshold]
        if len(alarms) >= MIN_ALARMS * len(known):
            break
    alarms = alarms[:NUM_CORRECTED]
    made = bench.opened.manifest.provenance
    evidence = [Evidence(_fine(image), image, None) for image in alarms]
    lesson = Lesson(evidence, num_fitted=made.num_images - made.num_held_out, seed=made.seed)
    learned = learn(bench.opened.calibration_base, lesson, raise_limit=0.0)
    head = with_points_of(learned, base, made.held_out_points)
    return {
        "gain": gain,
        "corrected": len(alarms),
        "good_parts": len(others),
        "before": int((score(base, others) > threshold).sum()),
        "after": int((score(head, others) > threshold).sum()),
    }


def resampled_rate(bench: Bench, scored: Scored, *, seed: int) -> float:
    """Return the mean share of good test images above a threshold that other good test images set, over splits."""
    assert scored.head is not None
    scores = scored.scores[[place for place, kind in enumerate(bench.kinds) if kind == "good"]]
    rng = np.random.default_rng(seed)
    shares = []
    for _ in range(SPLITS):
        own, new = np.array_split(rng.permutation(scores), 2)
        threshold = calibrate(own.tolist(), false_reject_rate=RATE).threshold
        shares.append(float((new > threshold).mean()))
    return float(np.mean(shares))


def _under_light(bench: Bench, paths: Sequence[Path], gain: float) -> list[SeenImage]:
    changed = [np.clip(as_rgb(path).astype(np.float32) * gain, 0, 255).astype(np.uint8) for path in paths]
    return see_images(changed, bench.opened.manifest, bench.opened.session, progress=NullProgress(), stage="")


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


@torch.inference_mode()
def _tally(bench: Bench, head: EnergyHead, places: Sequence[int]) -> PixelTally:
    tally = PixelTally.empty()
    for place in places:
        image = bench.test[place]
        heatmap = head(image.features.float()).heatmap[0].numpy()
        mask: Bool[np.ndarray, "h w"] = mask_at(bench.category.test[place], heatmap.shape, of=image.shape)
        tally.add(heatmap, mask)
    return tally
