"""A model that learned from labels, or that knows more good parts: a candidate to replace the one in charge."""

from __future__ import annotations

import datetime
import hashlib
import json
import warnings
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import safetensors.torch
import torch
from jaxtyping import Bool, Float

from energyad.detector import AnomalyDetector
from energyad.errors import DataError
from energyad.features.extractor import FeatureExtractor
from energyad.feedback.evidence import Evidence, SeenImage, backbone_of, evidence_of, see_images
from energyad.feedback.kinds import fit_kinds
from energyad.feedback.labels import Label, agreed, is_unchanged
from energyad.feedback.learning import (
    MIN_TO_CHOOSE,
    RAISE_LIMITS,
    Lesson,
    category_energy,
    folds,
    learn,
    score,
    score_by_each,
    untaught,
    with_good_parts,
    with_points_of,
    with_raise_limit,
    without_points,
)
from energyad.fitting.memory_banks import added_points
from energyad.graphs import export
from energyad.graphs.weights import save_beside
from energyad.images.reading import ImageLike
from energyad.model import provenance
from energyad.model.architecture import Architecture
from energyad.model.assembly import architecture_of, assemble_scorer
from energyad.model.card import model_card
from energyad.model.folder import BACKBONE_FILE, CARD_FILE, GRAPH_FILE, HEAD_FILE
from energyad.model.manifest import Extension, KindFound, Manifest, PartStatistics, Teaching
from energyad.model.statistics import measure_batch
from energyad.progress import NullProgress, Progress
from energyad.runtimes.interface import RawScores
from energyad.runtimes.onnx import OnnxFeatures
from energyad.scoring.calibration import Calibration, calibrate
from energyad.scoring.kinds import KINDS_FILE, KindClassifier
from energyad.scoring.scorer import EnergyHead

FOLDS: Final = 4
MIN_GOOD: Final = 3
"""Good parts that a new threshold rests on, at the least."""


@dataclass(frozen=True, eq=False)
class OpenedModel:
    """A model, ready to learn.

    Attributes:
        manifest: Of the model.
        extractor: Its backbone, for the record of its weights.
        session: Runs the backbone.
        head: As it is in charge.
        base: Without what labels taught it.
        calibration_base: Without the fit's held-out parts, too.
    """

    manifest: Manifest
    extractor: FeatureExtractor
    session: OnnxFeatures
    head: EnergyHead
    base: EnergyHead
    calibration_base: EnergyHead


def teach(
    detector: AnomalyDetector,
    labels: Sequence[Label],
    good_images: Sequence[ImageLike] = (),
    *,
    threads: int | None = None,
    progress: Progress | None = None,
) -> AnomalyDetector:
    """Return a model that learned from labels, as if it had never learned from any before.

    False alarms are added to the memory banks; marked defects, and the strangest patches of those without marks, raise
    the energy of patches like them. What was learned is checked by cross-validation, see `Teaching`. A new threshold
    rests on good parts that taught nothing: those held out from the fit and new ones among `good_images`, and labelled
    good parts that were drawn at random. Labels of images that were looked at because the model had called them ng are
    no random sample, and set no threshold.

    Args:
        detector: The model in charge, of one category.
        labels: By any reviewers; images on which they differ teach nothing.
        good_images: The fit's, from which the held-out ones are taken, or new ones. Not needed without defects: the
            old threshold holds then, as no energy grows.
        threads: Of the backbone; all cores by default.
        progress: Called at each stage.

    Raises:
        DataError: There is nothing to learn from, or there are too few good parts for a threshold.
        ModelError: The model is for several categories, quantised, or imported.
    """
    progress = progress or NullProgress()
    opened = open_to_learn(detector, threads=threads)
    evidence = _evidence(labels, opened, progress)
    at_random = [one.image for one in evidence if _is_at_random(one)]
    lesson = _lesson([one for one in evidence if not _is_at_random(one)], opened.manifest)
    if not lesson.evidence:
        raise DataError(
            "no labels to learn from: label false alarms as good, or mark defects; see `energyad label`"
        )
    calibrators: list[SeenImage] = []
    if lesson.defects:
        calibrators = at_random + _unseen(good_images, opened, lesson, progress)
        _require_good(len(calibrators))
    limit, kinds, alarms = _cross_validate(opened, lesson, calibrators, progress)
    progress.stage("model", 1)
    taught = learn(opened.calibration_base, lesson, raise_limit=limit)
    teaching = Teaching(
        created=_now(),
        base_sha256=detector.reference.sha256,
        labels_sha256=_digest_of(evidence),
        num_defects=len(lesson.defects),
        num_marked=sum(one.coverage is not None for one in lesson.defects),
        num_false_alarms=len(lesson.good),
        bank_points=added_points(category_energy(opened.calibration_base), category_energy(taught)),
        raise_limit=limit if lesson.defects else 0.0,
        kinds=tuple(kinds),
        false_alarms=alarms,
    )
    changes: dict[str, object] = {"teaching": teaching}
    if lesson.defects:
        calibration, parts = _calibrated(taught, calibrators, opened.manifest)
        changes |= {"calibration": calibration, "good_parts": parts}
    final = with_points_of(taught, opened.base, opened.manifest.provenance.held_out_points)
    return _packed(detector, opened, final, changes, kinds=_fit_kinds(opened, lesson), threads=threads)


def extend(
    detector: AnomalyDetector,
    good_images: Sequence[ImageLike],
    *,
    threads: int | None = None,
    progress: Progress | None = None,
) -> AnomalyDetector:
    """Return a model that knows new good parts too, and has forgotten nothing.

    Half of the parts, drawn at random, are added to the memory banks; the other half sets a threshold of its own, and
    is added then. No energy grows, so the old threshold holds for parts as they were, and the new one, where it is
    higher, for both.

    Args:
        detector: The model in charge, of one category.
        good_images: Of new good parts. Those of the fit are left out.
        threads: Of the backbone; all cores by default.
        progress: Called at each stage.

    Raises:
        DataError: There are too few new parts.
        ModelError: The model is for several categories, quantised, or imported.
    """
    opened = open_to_learn(detector, threads=threads)
    manifest, progress = opened.manifest, progress or NullProgress()
    seen = _new_parts(good_images, opened, progress)
    order = np.random.default_rng(manifest.provenance.seed).permutation(len(seen))
    added, held_out = ([seen[index] for index in half] for half in np.array_split(order, 2))
    progress.stage("model", 1)
    extended = _with_parts(opened.head, added, manifest)
    calibration, parts = _calibrated(extended, held_out, manifest)
    final = _with_parts(extended, held_out, manifest)
    extension = Extension(
        created=_now(),
        num_images=len(seen),
        data_sha256=provenance.data_hash([image.source for image in seen]),
        bank_points=added_points(category_energy(opened.head), category_energy(final)),
    )
    changes: dict[str, object] = {"extensions": (*manifest.extensions, extension)}
    if calibration.threshold > manifest.calibration.threshold:
        changes |= {"calibration": calibration, "good_parts": parts}
    return _packed(detector, opened, final, changes, kinds=detector.kinds, threads=threads)


def open_to_learn(detector: AnomalyDetector, *, threads: int | None = None) -> OpenedModel:
    """Open a model to teach it.

    Args:
        detector: The model.
        threads: Of the backbone; all cores by default.

    Raises:
        ModelError: It is for several categories, quantised, or imported.
    """
    manifest = detector.manifest
    scorer = assemble_scorer(manifest, detector.contents)
    category_energy(scorer.head)
    held_out, teaching = manifest.provenance.held_out_points, manifest.teaching
    base = untaught(scorer.head, () if teaching is None else teaching.bank_points, behind=held_out)
    graph = backbone_of(detector.contents[GRAPH_FILE]).SerializeToString()
    return OpenedModel(
        manifest=manifest,
        extractor=scorer.extractor,
        session=OnnxFeatures(graph, threads=threads or 0),
        head=scorer.head,
        base=base,
        calibration_base=without_points(base, held_out),
    )


def _evidence(labels: Sequence[Label], opened: OpenedModel, progress: Progress) -> list[Evidence]:
    """Look at the images on whose label reviewers agree; those that changed are left out. Each loss is warned of."""
    chosen, differing = agreed(labels)
    if differing:
        warnings.warn(f"reviewers differ on {differing} images, which teach nothing", stacklevel=3)
    present = []
    for label in chosen:
        if is_unchanged(label.image, label.sha256):
            present.append(label)
        else:
            warnings.warn(f"left out: {label.image} is not there, or not what was labelled", stacklevel=3)
    seen = see_images(
        [label.image for label in present],
        opened.manifest,
        opened.session,
        stage="labels",
        progress=progress,
    )
    return evidence_of(present, seen, manifest=opened.manifest, grid=opened.head.grid)


def _is_at_random(evidence: Evidence) -> bool:
    """Whether this is a good part that was drawn at random, so that it may help to set a threshold."""
    return not evidence.is_defect and evidence.label.sampling == "random"


def _new_parts(good_images: Sequence[ImageLike], opened: OpenedModel, progress: Progress) -> list[SeenImage]:
    """Look at good parts that the model does not know yet, each once. Raises DataError where they are too few."""
    known = frozenset(opened.manifest.provenance.image_digests)
    seen = _see_others(good_images, opened, known, "features", progress)
    if len(seen) < len(good_images):
        warnings.warn(
            f"{len(good_images) - len(seen)} of {len(good_images)} images are left out: they were in the fit, are "
            "copies of others, or cannot be read",
            stacklevel=3,
        )
    if len(seen) < MIN_GOOD:
        raise DataError(f"{len(seen)} new good parts, and {MIN_GOOD} are the least: give more images")
    return seen


def _with_parts(head: EnergyHead, images: Sequence[SeenImage], manifest: Manifest) -> EnergyHead:
    """Add good parts to the memory banks, before the points of held-out parts and of labels, which may go again."""
    teaching = manifest.teaching
    behind = _summed([manifest.provenance.held_out_points, () if teaching is None else teaching.bank_points])
    lesson = _lesson([], manifest)
    return with_good_parts(head, images, num_fitted=lesson.num_fitted, seed=lesson.seed, behind=behind)


def _require_good(count: int) -> None:
    if count < MIN_GOOD:
        raise DataError(
            f"{count} good parts for a new threshold, and {MIN_GOOD} are the least: give the images of the fit, or new "
            "ones, with --good"
        )


def _fit_kinds(opened: OpenedModel, lesson: Lesson) -> KindClassifier | None:
    return fit_kinds(lesson.evidence, head=opened.head, manifest=opened.manifest)


def _lesson(evidence: Sequence[Evidence], manifest: Manifest) -> Lesson:
    made = manifest.provenance
    return Lesson(evidence, num_fitted=max(1, made.num_images - made.num_held_out), seed=made.seed)


def _unseen(
    good_images: Sequence[ImageLike], opened: OpenedModel, lesson: Lesson, progress: Progress
) -> list[SeenImage]:
    """Good parts that taught nothing: held out from the fit, or new."""
    made = opened.manifest.provenance
    held_out = frozenset(made.held_out_digests)
    taught = (frozenset(made.image_digests) | {one.image.digest for one in lesson.evidence}) - held_out
    return _see_others(good_images, opened, taught, "good parts", progress)


def _see_others(
    images: Sequence[ImageLike], opened: OpenedModel, known: Collection[str], stage: str, progress: Progress
) -> list[SeenImage]:
    """Look at the images that are none of the known ones, by their digests, each once."""
    seen = see_images(
        images,
        opened.manifest,
        opened.session,
        stage=stage,
        progress=progress,
        is_wanted=lambda digest: digest not in known,
    )
    return list({image.digest: image for image in seen}.values())


def _cross_validate(
    opened: OpenedModel, lesson: Lesson, calibrators: Sequence[SeenImage], progress: Progress
) -> tuple[float, list[KindFound], KindFound | None]:
    """Choose how much defects may raise energies, and count what is found before and after, by images left out."""
    images = [one.image for one in lesson.evidence]
    before = score(opened.base, images) > _base_threshold(opened, calibrators)
    checked = cross_validate(
        opened.calibration_base,
        lesson,
        calibrators,
        calibration=opened.manifest.calibration,
        progress=progress,
    )
    defects = np.array([one.is_defect for one in lesson.evidence])
    kinds = np.array([one.label.kind or "" for one in lesson.evidence])
    rows = [
        _found(kind or None, defects & (kinds == kind), before, checked.rejected)
        for kind in sorted(set(kinds[defects]))
    ]
    alarms = _found(None, ~defects, before, checked.rejected) if (~defects).any() else None
    return checked.raise_limit, rows, alarms


@dataclass(frozen=True, eq=False)
class CrossValidated:
    """What cross-validation says.

    Attributes:
        raise_limit: That finds most of the defects that were left out.
        rejected: Which images are ng by a model that did not learn from them.
    """

    raise_limit: float
    rejected: Bool[np.ndarray, " n"]


def cross_validate(
    head: EnergyHead,
    lesson: Lesson,
    calibrators: Sequence[SeenImage],
    *,
    calibration: Calibration,
    progress: Progress,
) -> CrossValidated:
    """Score each labelled image by a head that learned from others, and choose how much defects may raise energies.

    Args:
        head: That was not taught.
        lesson: All that there is to learn from.
        calibrators: Good parts that set each head's threshold; none for the threshold of `calibration`.
        calibration: Of the model: its rate, and its threshold.
        progress: Called at each fold.
    """
    defects = np.array([one.is_defect for one in lesson.evidence])
    limits: tuple[float, ...] = RAISE_LIMITS if defects.sum() >= MIN_TO_CHOOSE else RAISE_LIMITS[:1]
    rejected = {limit: np.zeros(len(defects), bool) for limit in limits}
    progress.stage("cross-validation", FOLDS)
    heads, left_out = [], []
    for known, others in folds(lesson, FOLDS):
        taught = learn(head, lesson.of(known), raise_limit=limits[0])
        heads += [with_raise_limit(taught, limit) for limit in limits]
        left_out.append(others)
        progress.advance()
    thresholds = [calibration.threshold] * len(heads)
    if calibrators:
        thresholds = [_threshold(scores, calibration) for scores in score_by_each(heads, calibrators)]
    for fold, others in enumerate(left_out):
        of_fold = slice(fold * len(limits), (fold + 1) * len(limits))
        images = [lesson.evidence[index].image for index in others]
        scores = score_by_each(heads[of_fold], images)
        for limit, own, threshold in zip(limits, scores, thresholds[of_fold], strict=True):
            rejected[limit][others] = own > threshold

    def worth(limit: float) -> tuple[int, int, float]:
        return int(rejected[limit][defects].sum()), -int(rejected[limit][~defects].sum()), -limit

    best = max(limits, key=worth)
    return CrossValidated(best, rejected[best])


def _base_threshold(opened: OpenedModel, calibrators: Sequence[SeenImage]) -> float:
    """The threshold of the model without what labels taught it: by the same good parts, where it was taught before."""
    calibration = opened.manifest.calibration
    if opened.manifest.teaching is None or not calibrators:
        return calibration.threshold
    return _threshold(score(opened.calibration_base, calibrators), calibration)


def _found(
    kind: str | None,
    chosen: Bool[np.ndarray, " n"],
    before: Bool[np.ndarray, " n"],
    after: Bool[np.ndarray, " n"],
) -> KindFound:
    indices = np.flatnonzero(chosen)
    return KindFound(
        kind=kind, images=len(indices), before=int(before[indices].sum()), after=int(after[indices].sum())
    )


def _threshold(scores: Float[np.ndarray, " n"], like: Calibration) -> float:
    return calibrate(scores.tolist(), false_reject_rate=like.false_reject_rate).threshold


def _calibrated(
    head: EnergyHead, images: Sequence[SeenImage], manifest: Manifest
) -> tuple[Calibration, tuple[PartStatistics, ...]]:
    """A threshold at the model's rate by good parts, and what they look like."""
    parts = _statistics(head, images, manifest)
    like = manifest.calibration
    made = calibrate(
        [part.score for part in parts], false_reject_rate=like.false_reject_rate, review_rate=like.review_rate
    )
    digest = hashlib.sha256("".join(sorted(image.digest for image in images)).encode()).hexdigest()
    return replace(made, created=_now(), data_sha256=digest), tuple(parts)


@torch.inference_mode()
def _statistics(head: EnergyHead, images: Sequence[SeenImage], manifest: Manifest) -> list[PartStatistics]:
    parts = []
    for image in images:
        scores = head(image.features.float())
        raw = RawScores(scores.score.numpy(), scores.heatmap.numpy())
        parts += measure_batch(image.pixels[None], raw, manifest.categories)
    return parts


def _packed(
    detector: AnomalyDetector,
    opened: OpenedModel,
    head: EnergyHead,
    changes: dict[str, object],
    *,
    kinds: KindClassifier | None,
    threads: int | None,
) -> AnomalyDetector:
    """The model with another head: its files, and the manifest that describes them."""
    manifest = opened.manifest
    _, old = manifest.networks()
    exported = export.export_head(head, num_channels=opened.extractor.scales[-1].stop)
    graph = export.join(backbone_of(detector.contents[GRAPH_FILE]), exported)
    new = manifest.replace(architecture=_architecture(head, old), files={}, **changes)
    contents = {
        **detector.contents,
        HEAD_FILE: safetensors.torch.save(dict(head.state_dict())),
        GRAPH_FILE: graph.SerializeToString(),
        BACKBONE_FILE: save_beside(graph, opened.extractor.backbone.state_dict()),
        CARD_FILE: model_card(new).encode(),
    }
    contents.pop(KINDS_FILE, None)
    if kinds is not None:
        contents[KINDS_FILE] = kinds.to_bytes()
    return AnomalyDetector.from_contents(new, contents, threads=threads)


def _architecture(head: EnergyHead, old: Architecture) -> Architecture:
    return architecture_of(
        head.patch_energy,
        precision=old.precision,
        strides=old.strides,
        coarse_strides=old.coarse_strides,
        border_margin=old.border_margin,
        smoothing=old.smoothing,
        contrast=old.contrast,
    )


def _digest_of(evidence: Sequence[Evidence]) -> str:
    said = sorted((one.label.sha256, one.label.value, one.label.kind, one.label.marks) for one in evidence)
    return hashlib.sha256(json.dumps(said, default=str).encode()).hexdigest()


def _summed(counts: Sequence[Sequence[int]]) -> list[int]:
    return [sum(of_scale) for of_scale in zip(*(each for each in counts if each), strict=True)]


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
