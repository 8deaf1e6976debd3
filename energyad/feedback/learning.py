"""From labelled images to a taught energy, and how well that finds defects that it did not learn from."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import torch
from jaxtyping import Bool, Float
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits
from torch import Tensor, nn

from energyad.energy.latent_energy import LatentEnergy, MeanEnergy
from energyad.energy.memory_bank import MemoryBankEnergy
from energyad.energy.networks import Affine
from energyad.energy.patch_energy import CategoryEnergy, MultiScaleEnergy, PatchEnergy
from energyad.energy.taught import TaughtEnergy
from energyad.energy.whitening import Whitening
from energyad.errors import ModelError
from energyad.features.grids import Scale
from energyad.feedback.evidence import Evidence, SeenImage
from energyad.fitting.memory_banks import extend_memory_banks
from energyad.scoring.scorer import EnergyHead

MIN_COVERAGE: Final = 0.25
"""Fraction of a patch that marks cover, for it to be an example of a defect; less for coarser patches."""
STRANGEST_FRACTION: Final = 0.01
"""Of the patches of a defective image without marks: these are taken for the defect."""
MAX_BACKGROUND: Final = 8192
"""Patches beside the marks that a classifier is fitted on, at the most."""
REGULARISATION: Final = 0.1
"""C of the logistic regression, whose examples weigh `TOTAL_WEIGHT` together, however many they are."""
TOTAL_WEIGHT: Final = 10_000.0
RAISE_LIMITS: Final = (0.5, 1.0)
"""Logarithms of the most that marks may raise an energy by; cross-validation chooses. The last is that of synthetic
defects, see `energyad.energy.discriminator.MAX_LOG_ODDS`."""
MIN_TO_CHOOSE: Final = 4
"""Defective images from which on cross-validation chooses among them; with fewer the first is taken."""
MAX_ADDED_POINTS: Final = 1024
"""Points that teaching adds to each scale's banks together, so that a model grows by less than 1 MB."""
SCORED_AT_ONCE: Final = 8


@dataclass(frozen=True)
class Lesson:
    """What to learn from.

    Attributes:
        evidence: Labelled images: marked and whole defects, and good parts that were called ng.
        num_fitted: Images that the model was fitted on.
        seed: Of the choice of patches.
    """

    evidence: Sequence[Evidence]
    num_fitted: int
    seed: int

    @property
    def defects(self) -> list[Evidence]:
        """The defective images."""
        return [evidence for evidence in self.evidence if evidence.is_defect]

    @property
    def good(self) -> list[Evidence]:
        """The good parts."""
        return [evidence for evidence in self.evidence if not evidence.is_defect]

    def of(self, indices: Sequence[int]) -> Lesson:
        """Return the lesson of some of the images."""
        return replace(self, evidence=[self.evidence[index] for index in indices])


def learn(head: EnergyHead, lesson: Lesson, *, raise_limit: float) -> EnergyHead:
    """Return a head that has learned from labelled images; the given one stays as it is.

    Good parts are added to the memory banks of reranking, which lowers energies or leaves them. Defects are told from
    good patches by a logistic regression of each scale, which raises energies or leaves them, see `TaughtEnergy`. Good
    patches are those of the memory banks and of the labelled images beside the marks: no other image is needed.

    Args:
        head: Of a model of one category that was not taught before, see `untaught`.
        lesson: What to learn from.
        raise_limit: Logarithm of the most that defects may raise an energy by.
    """
    good = [evidence.image for evidence in lesson.good]
    taught = with_good_parts(head, good, num_fitted=lesson.num_fitted, seed=lesson.seed)
    if lesson.defects:
        classifiers = [
            fit_classifier(of_scale, scale, lesson)
            for of_scale, scale in zip(category_energy(head).by_scale(), scales_of(head), strict=True)
        ]
        members = [
            _with_classifier(of_scale, classifier, raise_limit)
            for of_scale, classifier in zip(category_energy(taught).by_scale(), classifiers, strict=True)
        ]
        return _with_scales(taught, members)
    return taught.eval().requires_grad_(False)


def fit_classifier(energy: PatchEnergy, scale: Scale, lesson: Lesson) -> Affine:
    """Tell marked patches from good ones by a logistic regression; both count alike, as do the defective images.

    Args:
        energy: Of one scale: its whitening, and its memory bank for good patches.
        scale: Where this scale's features lie.
        lesson: Its defects.

    Returns:
        The logarithm of the odds that a latent is marked.
    """
    marked, background = [], []
    for evidence in lesson.defects:
        latents = _latents(energy, scale, evidence.image)
        is_marked, is_background = _patches_of(energy, scale, evidence, latents)
        marked.append(latents[is_marked])
        background.append(latents[is_background])
    beside = torch.cat(background)
    generator = torch.Generator().manual_seed(lesson.seed)
    beside = beside[torch.randperm(len(beside), generator=generator)[:MAX_BACKGROUND]]
    good = torch.cat([_bank_latents(energy), beside])
    x = torch.cat([*marked, good]).numpy()
    weights = [np.full(len(good), 0.5 / len(good))]
    weights = [np.full(len(patches), 0.5 / len(marked) / len(patches)) for patches in marked] + weights
    y = np.repeat([1, 0], [len(x) - len(good), len(good)])
    model = LogisticRegression(C=REGULARISATION, max_iter=200)
    # The products are small: beside other work, threads would wait for each other.
    with threadpool_limits(limits=1):
        model.fit(x, y, sample_weight=TOTAL_WEIGHT * np.concatenate(weights))
    classifier = Affine(x.shape[1], 1)
    with torch.no_grad():
        classifier.weight.copy_(torch.from_numpy(model.coef_))
        classifier.bias.copy_(torch.from_numpy(model.intercept_))
    return classifier


def with_raise_limit(head: EnergyHead, limit: float) -> EnergyHead:
    """Return a taught head whose defects may raise energies by another factor at the most, exp(limit)."""
    other = copy.deepcopy(head)
    for module in other.modules():
        if isinstance(module, TaughtEnergy):
            module.raise_limit.fill_(limit)
    return other


def with_good_parts(
    head: EnergyHead, images: Sequence[SeenImage], *, num_fitted: int, seed: int, behind: Sequence[int] = ()
) -> EnergyHead:
    """Return a head whose rerankers know these good parts too. No energy of any image grows.

    Args:
        head: Stays as it is.
        images: Of good parts.
        num_fitted: Images that the model was fitted on.
        seed: Of the choice of patches.
        behind: How many points of each scale's banks stay behind the added ones.
    """
    extended = copy.deepcopy(head)
    if images:
        features = torch.stack([image.features for image in images]).movedim(-3, -1)
        patches = [_in_roi(head, scale.of(features), scale) for scale in scales_of(head)]
        energy = category_energy(head)
        extended.patch_energy = extend_memory_banks(
            energy,
            patches,
            num_fitted=num_fitted,
            seed=seed,
            max_points=MAX_ADDED_POINTS,
            behind=behind,
            widened=True,
        )
    return extended


def score(head: EnergyHead, images: Sequence[SeenImage]) -> Float[np.ndarray, " n"]:
    """Return the score of each image."""
    return score_by_each([head], images)[0]


@torch.inference_mode()
def score_by_each(heads: Sequence[EnergyHead], images: Sequence[SeenImage]) -> Float[np.ndarray, "heads n"]:
    """Return the scores of images by heads that learned from one: what teaching leaves alone is computed once.

    Args:
        heads: That `learn` made of one head, or that head itself.
        images: To be scored.
    """
    heads = [copy.deepcopy(head) for head in heads] if len(heads) > 1 else heads
    common = _common_work(heads) if len(heads) > 1 else []
    scores = []
    for start in range(0, len(images), SCORED_AT_ONCE):
        features = torch.cat([image.features for image in images[start : start + SCORED_AT_ONCE]]).float()
        scores.append(torch.stack([head(features).score for head in heads]))
        for work in common:
            work.forget()
    return torch.cat(scores, dim=1).numpy() if scores else np.empty((len(heads), 0), np.float32)


class _Once:
    """A method that runs once, and gives the same result until it forgets it."""

    def __init__(self, method: Callable[..., Any]) -> None:
        self.method, self.result = method, None

    def __call__(self, *inputs: Tensor) -> Any:
        if self.result is None:
            self.result = self.method(*inputs)
        return self.result

    def forget(self) -> None:
        self.result = None


def _common_work(heads: Sequence[EnergyHead]) -> list[_Once]:
    """Let heads share latents, untaught energies and distances to the first stage's bank: learning changes none."""
    work = []
    for modules in zip(*(_unchanged_parts(head) for head in heads), strict=True):
        name = modules[0][1]
        once = _Once(getattr(modules[0][0], name))
        for module, _ in modules:
            setattr(module, name, once)
        work.append(once)
    return work


def _unchanged_parts(head: EnergyHead) -> Iterator[tuple[nn.Module, str]]:
    """Modules that learning leaves as they are, and their methods."""
    for module in head.modules():
        if isinstance(module, Whitening):
            yield module, "forward"
        if isinstance(module, MemoryBankEnergy):
            yield module, "squared_distance"
            yield _without_marks(module.learned), "terms"


def category_energy(head: EnergyHead) -> CategoryEnergy:
    """Return the energy of a head of one category. Raises ModelError for one of several."""
    if not isinstance(head.patch_energy, CategoryEnergy):
        raise ModelError(
            "the model is for several categories, which cannot be taught together; fit a model for each of them"
        )
    return head.patch_energy


def scales_of(head: EnergyHead) -> tuple[Scale, ...]:
    """Return where each scale's features lie."""
    energy = category_energy(head)
    if isinstance(energy, MultiScaleEnergy):
        return energy.scales
    (patch_energy,) = energy.by_scale()
    return (Scale(0, patch_energy.whitening.projection.shape[0]),)


def untaught(head: EnergyHead, bank_points: Sequence[int], *, behind: Sequence[int]) -> EnergyHead:
    """Return a head without what labels taught it.

    Args:
        head: Stays as it is.
        bank_points: Points of each scale's banks that labels added; none where empty.
        behind: How many points of each scale's banks stand behind those; none where empty.
    """
    members = [
        PatchEnergy(of_scale.whitening, _bare(of_scale.latent_energy), of_scale.reranker)
        for of_scale in category_energy(head).by_scale()
    ]
    return without_points(_with_scales(head, members), bank_points, behind=behind)


def without_points(head: EnergyHead, counts: Sequence[int], *, behind: Sequence[int] = ()) -> EnergyHead:
    """Return a head without some points of each scale's rerank banks.

    Args:
        head: Stays as it is.
        counts: How many points, of each scale; none where empty.
        behind: How many points of each scale's banks stand behind those; none where empty.
    """
    by_scale = category_energy(head).by_scale()
    none = [0] * len(by_scale)
    members = []
    for of_scale, count, stay in zip(by_scale, counts or none, behind or none, strict=True):
        reranker = (
            of_scale.reranker if of_scale.reranker is None else of_scale.reranker.without(count, behind=stay)
        )
        members.append(PatchEnergy(of_scale.whitening, of_scale.latent_energy, reranker))
    return _with_scales(head, members)


def with_points_of(head: EnergyHead, other: EnergyHead, counts: Sequence[int]) -> EnergyHead:
    """Return a head that also has the last points of another head's rerank banks. No energy grows.

    Args:
        head: Stays as it is.
        other: Of the same fit.
        counts: How many points, of each scale; none where empty.
    """
    by_scale, others = category_energy(head).by_scale(), category_energy(other).by_scale()
    members = []
    for of_scale, theirs, count in zip(by_scale, others, counts or [0] * len(others), strict=True):
        reranker = of_scale.reranker
        if reranker is not None and theirs.reranker is not None and count > 0:
            reranker = reranker.with_last_of(theirs.reranker, count)
        members.append(PatchEnergy(of_scale.whitening, of_scale.latent_energy, reranker))
    return _with_scales(head, members)


def folds(lesson: Lesson, count: int) -> Iterator[tuple[list[int], list[int]]]:
    """Yield the images to learn from and those to be scored, each image scored once; kinds are spread evenly.

    Args:
        lesson: All images.
        count: Folds, at the most one an image.
    """
    order = np.random.default_rng(lesson.seed).permutation(len(lesson.evidence))
    by_kind = sorted(
        order, key=lambda index: (lesson.evidence[index].is_defect, lesson.evidence[index].label.kind or "")
    )
    number = min(count, len(by_kind))
    for fold in range(number):
        scored = [int(index) for index in by_kind[fold::number]]
        yield [index for index in range(len(by_kind)) if index not in scored], scored


def _with_scales(head: EnergyHead, members: Sequence[PatchEnergy]) -> EnergyHead:
    """A copy of a head with other energies of its scales, ready to score; it shares no tensor with them."""
    changed = copy.deepcopy(head)
    changed.patch_energy = copy.deepcopy(category_energy(head).with_scales(members))
    return changed.eval().requires_grad_(False)


def _in_roi(head: EnergyHead, patches: Float[Tensor, "n tiles r1 r2 k"], scale: Scale) -> Tensor:
    """The patches of each image in the region of interest, in half precision: [n p k]."""
    if head.in_roi is None:
        return patches.flatten(1, 3).half()
    on_grid = head.in_roi.view(head.tiles.count, *head.grid.inner)
    return patches[:, scale.any_of(on_grid)].half()


def _latents(energy: PatchEnergy, scale: Scale, image: SeenImage) -> Float[Tensor, "p k"]:
    return energy.whitening(scale.of(image.features.movedim(-3, -1).float())).flatten(0, 2)


def _patches_of(
    energy: PatchEnergy, scale: Scale, evidence: Evidence, latents: Float[Tensor, "p k"]
) -> tuple[Bool[Tensor, " p"], Bool[Tensor, " p"]]:
    """Which patches show the defect, and which show good parts for sure."""
    if evidence.coverage is None or evidence.coverage.max() == 0:  # or marks lie where no patch does
        strange = energy.latent_energy(latents)
        count = max(1, round(STRANGEST_FRACTION * len(strange)))
        return strange >= strange.topk(count).values[-1], torch.zeros(len(strange), dtype=torch.bool)
    coverage = scale.mean_of(evidence.coverage).flatten()
    limit = min(MIN_COVERAGE / scale.factor, float(coverage.max()))
    return coverage >= max(limit, 1e-6), coverage == 0


def _bank_latents(energy: PatchEnergy) -> Float[Tensor, "m k"]:
    """The points of the rerank banks, or of the first stage's bank, as latents."""
    deviations = energy.whitening.deviations()
    if energy.reranker is not None:
        return energy.reranker.bank_points().flatten(0, 1) / deviations
    return torch.empty(0, len(deviations))


def _with_classifier(energy: PatchEnergy, classifier: Affine, raise_limit: float) -> PatchEnergy:
    def taught(latent_energy: LatentEnergy) -> LatentEnergy:
        return TaughtEnergy(latent_energy, copy.deepcopy(classifier), raise_limit=raise_limit)

    return PatchEnergy(energy.whitening, _on_learned(energy.latent_energy, taught), energy.reranker)


def _bare(latent_energy: LatentEnergy) -> LatentEnergy:
    return _on_learned(latent_energy, _without_marks)


def _without_marks(learned: LatentEnergy) -> LatentEnergy:
    return learned.energy if isinstance(learned, TaughtEnergy) else learned


def _on_learned(energy: LatentEnergy, change: Callable[[LatentEnergy], LatentEnergy]) -> LatentEnergy:
    """Change the learned part of an energy, of each member where there are several."""
    if isinstance(energy, MeanEnergy):
        return MeanEnergy([_on_learned(member, change) for member in energy.energies()])
    if isinstance(energy, MemoryBankEnergy):
        changed = copy.deepcopy(energy)
        changed.learned = change(changed.learned)
        return changed
    return change(copy.deepcopy(energy))
