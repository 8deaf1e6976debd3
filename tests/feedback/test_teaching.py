"""Laws of teaching: marks only raise, good parts only lower, thresholds rest on parts that taught nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from energyad.data.datasets import Category
from energyad.detector import AnomalyDetector
from energyad.errors import DataError, ModelError
from energyad.feedback.evidence import SeenImage, coverage_of, evidence_of, see_images
from energyad.feedback.importing import read_labels
from energyad.feedback.labels import Label
from energyad.feedback.learning import (
    Lesson,
    category_energy,
    folds,
    learn,
    score,
    score_by_each,
    untaught,
    with_raise_limit,
)
from energyad.feedback.teaching import OpenedModel, extend, open_to_learn, teach
from energyad.graphs import export
from energyad.images import reading
from energyad.model.folder import GRAPH_FILE, HEAD_FILE
from energyad.progress import NullProgress
from energyad.scoring.calibration import calibrate


@pytest.fixture(scope="module")
def opened(fitted_detector: AnomalyDetector) -> OpenedModel:
    return open_to_learn(fitted_detector, threads=1)


@pytest.fixture(scope="module")
def labels(demo_category: Category) -> list[Label]:
    return [one.by("anna") for one in read_labels(demo_category.root)]


@pytest.fixture(scope="module")
def seen(opened: OpenedModel, labels: list[Label]) -> list[SeenImage]:
    paths = [label.image for label in labels]
    return see_images(paths, opened.manifest, opened.session, progress=NullProgress(), stage="")


@pytest.fixture
def no_trace(monkeypatch: pytest.MonkeyPatch, fitted_detector: AnomalyDetector) -> None:
    """Heads of which tensors and manifest are looked at keep the fit's graph: tracing takes most of the time."""
    monkeypatch.setattr(export, "export_head", lambda head, num_channels: None)
    graph = onnx.load_from_string(fitted_detector.contents[GRAPH_FILE])
    monkeypatch.setattr(export, "join", lambda extractor, head: graph)


def lesson_of(opened: OpenedModel, labels: Sequence[Label], seen: Sequence[SeenImage]) -> Lesson:
    evidence = evidence_of(labels, seen, manifest=opened.manifest, grid=opened.head.grid)
    return Lesson(evidence, num_fitted=12, seed=0)


def of(labels: Sequence[Label], value: str) -> list[Label]:
    return [label for label in labels if label.value == value]


@pytest.mark.parametrize("marked", [True, False])
def test_defects_only_raise_energies_and_most_where_they_are(
    opened: OpenedModel, labels: list[Label], seen: list[SeenImage], marked: bool
) -> None:
    shown = [label if marked else replace(label, marks=()) for label in of(labels, "defect")]
    taught = learn(opened.base, lesson_of(opened, shown, seen), raise_limit=1.0)
    pairs = zip(category_energy(opened.base).by_scale(), category_energy(taught).by_scale(), strict=True)
    for old, new in pairs:
        latents = torch.randn(
            500, old.whitening.projection.shape[1], generator=torch.Generator().manual_seed(0)
        )
        before, after = old.latent_energy(latents), new.latent_energy(latents)
        assert (after >= before * (1 - 1e-5)).all() and (after <= before * np.exp(1.0) * (1 + 1e-5)).all()
    ratios = score(taught, seen) / score(opened.base, seen)
    defective = np.array([label.value == "defect" for label in labels])
    assert ratios[defective].mean() > ratios[~defective].mean()


def test_marks_where_no_patch_lies_teach_as_an_image_without_marks_does(
    opened: OpenedModel, labels: list[Label], seen: list[SeenImage]
) -> None:
    lesson = lesson_of(opened, of(labels, "defect")[:2], seen)
    nowhere = torch.zeros_like(coverage_of(np.zeros((8, 8), bool), opened.manifest, opened.head.grid))
    scores = [
        score(learn(opened.base, replace(lesson, evidence=evidence), raise_limit=1.0), seen)
        for evidence in (
            [replace(one, coverage=nowhere) for one in lesson.evidence],
            [replace(one, coverage=None) for one in lesson.evidence],
        )
    ]
    np.testing.assert_array_equal(*scores)


def test_heads_that_are_scored_together_score_as_one_by_one(
    opened: OpenedModel, labels: list[Label], seen: list[SeenImage]
) -> None:
    taught = learn(opened.base, lesson_of(opened, labels, seen), raise_limit=0.5)
    other = learn(opened.base, lesson_of(opened, of(labels, "defect")[:2], seen), raise_limit=0.5)
    heads = [opened.base, taught, with_raise_limit(taught, 1.0), other]
    together = score_by_each(heads, seen)
    for head, scores in zip(heads, together, strict=True):
        np.testing.assert_array_equal(scores, score(head, seen))
    assert len(np.unique(together, axis=0)) == len(heads)
    assert score_by_each(heads, []).shape == (len(heads), 0)


def test_good_parts_only_lower_energies(
    opened: OpenedModel, labels: list[Label], seen: list[SeenImage]
) -> None:
    taught = learn(opened.base, lesson_of(opened, of(labels, "fine"), seen), raise_limit=1.0)
    before, after = score(opened.base, seen), score(taught, seen)
    assert (after <= before * (1 + 1e-5)).all() and (after < 0.99 * before).any()


@pytest.mark.slow
@pytest.mark.usefixtures("no_trace")
def test_what_was_taught_can_be_taken_away_bit_for_bit(
    fitted_detector: AnomalyDetector, demo_category: Category, opened: OpenedModel, labels: list[Label]
) -> None:
    taught = teach(fitted_detector, labels, demo_category.train_good, threads=1)
    teaching = taught.manifest.teaching
    assert teaching is not None and sum(teaching.bank_points) > 0
    again = open_to_learn(taught, threads=1)
    for name, tensor in opened.base.state_dict().items():
        assert torch.equal(again.base.state_dict()[name], tensor), name
    some = labels[:-2]
    twice, once = (teach(one, some, demo_category.train_good, threads=1) for one in (taught, fitted_detector))
    assert twice.contents[HEAD_FILE] == once.contents[HEAD_FILE]
    assert twice.calibration.threshold == once.calibration.threshold


@pytest.mark.slow
@pytest.mark.usefixtures("no_trace")
def test_a_threshold_rests_on_held_out_parts_and_such_as_were_drawn_at_random(
    fitted_detector: AnomalyDetector, demo_category: Category, labels: list[Label], tmp_path: Path
) -> None:
    defects, good = [replace(label, kind="flaw") for label in of(labels, "defect")], of(labels, "fine")
    made = fitted_detector.manifest.provenance
    with pytest.raises(DataError, match="0 good parts for a new threshold, and 3 are the least"):
        teach(fitted_detector, defects, threads=1)
    at_random = [replace(label, sampling="random") for label in good]
    taught = teach(fitted_detector, defects + at_random, demo_category.train_good, threads=1)
    assert len(taught.calibration.good_scores) == made.num_held_out + len(good)
    assert taught.manifest.teaching is not None
    assert taught.manifest.teaching.num_false_alarms == 0
    assert taught.kinds is not None and taught.kinds.names == ("flaw",)
    assert list(taught.calibration.good_scores) == sorted(part.score for part in taught.manifest.good_parts)
    rates = {"false_reject_rate": 0.01, "review_rate": 0.05}
    assert taught.calibration.threshold == calibrate(taught.calibration.good_scores, **rates).threshold


@pytest.mark.usefixtures("no_trace")
def test_without_defects_the_threshold_stays(fitted_detector: AnomalyDetector, labels: list[Label]) -> None:
    taught = teach(fitted_detector, of(labels, "fine"), threads=1)
    assert taught.calibration == fitted_detector.calibration
    assert taught.manifest.teaching is not None and taught.manifest.teaching.raise_limit == 0


@pytest.mark.slow
@pytest.mark.usefixtures("no_trace")
def test_an_extended_model_forgets_nothing_and_stays_extended_when_it_is_taught(
    fitted_detector: AnomalyDetector,
    demo_category: Category,
    opened: OpenedModel,
    labels: list[Label],
    seen: list[SeenImage],
) -> None:
    new = [turned(path) for path in demo_category.train_good[:8]]
    extended = extend(fitted_detector, new, threads=1)
    first = open_to_learn(extended, threads=1)
    assert (score(first.head, seen) <= score(opened.head, seen) * (1 + 1e-5)).all()
    assert extended.threshold >= fitted_detector.threshold
    (extension,) = extended.manifest.extensions
    taught = open_to_learn(teach(extended, of(labels, "fine"), threads=1), threads=1)
    bare = untaught(taught.head, taught.manifest.teaching.bank_points, behind=held_out(taught))  # type: ignore[union-attr]
    for name, tensor in first.head.state_dict().items():
        assert torch.equal(bare.state_dict()[name], tensor), name
    assert extension.num_images == 8 and all(count > 0 for count in extension.bank_points)
    with (
        pytest.warns(UserWarning, match="16 of 16 images are left out"),
        pytest.raises(DataError, match="0 new good parts"),
    ):
        extend(fitted_detector, demo_category.train_good, threads=1)


def turned(path: Path) -> np.ndarray:
    """A good part of another lot."""
    return np.ascontiguousarray(reading.as_rgb(path)[::-1])


def held_out(opened: OpenedModel) -> tuple[int, ...]:
    return opened.manifest.provenance.held_out_points


@pytest.mark.slow
def test_what_teaches_nothing_is_named(
    fitted_detector: AnomalyDetector, labels: list[Label], tmp_path: Path
) -> None:
    with pytest.raises(DataError, match="no labels to learn from"):
        teach(fitted_detector, [replace(labels[0], value="unsure")], threads=1)
    gone = replace(labels[0], image=tmp_path / "gone.png")
    with (
        pytest.warns(UserWarning, match=r"gone\.png is not there"),
        pytest.raises(DataError, match="no labels"),
    ):
        teach(fitted_detector, [gone], threads=1)
    other = replace(labels[0], reviewer="bert", value="fine" if labels[0].value == "defect" else "defect")
    with pytest.warns(UserWarning, match="differ on 1 images"), pytest.raises(DataError, match="no labels"):
        teach(fitted_detector, [labels[0], other], threads=1)


def test_each_image_is_scored_once_by_a_head_that_has_not_seen_it(
    opened: OpenedModel, labels: list[Label], seen: list[SeenImage]
) -> None:
    lesson = lesson_of(opened, labels, seen)
    scored: list[int] = []
    for known, left_out in folds(lesson, 4):
        assert not set(known) & set(left_out)
        assert len(known) + len(left_out) == len(labels)
        scored += left_out
    assert sorted(scored) == list(range(len(labels)))


@pytest.mark.parametrize("shape", [(128, 128), (100, 300), (31, 64)])
def test_marks_cover_the_patches_that_they_lie_on(opened: OpenedModel, shape: tuple[int, int]) -> None:
    mask = np.zeros(shape, bool)
    mask[: shape[0] // 2] = True
    coverage = coverage_of(mask, opened.manifest, opened.head.grid)
    assert coverage.shape == (1, *opened.head.grid.inner)
    rows = coverage.shape[1]
    assert (coverage[0, : rows // 2 - 1] > 0.95).all() and (coverage[0, -(rows // 2 - 1) :] < 0.05).all()
    assert coverage_of(np.zeros(shape, bool), opened.manifest, opened.head.grid).sum() == 0


@pytest.mark.slow
def test_the_graph_of_a_taught_model_scores_as_its_head_does(
    fitted_detector: AnomalyDetector, labels: list[Label], seen: list[SeenImage], tmp_path: Path
) -> None:
    at_random = [replace(label, sampling="random") for label in of(labels, "fine") * 1]
    defects = of(labels, "defect")
    others = [turned(label.image) for label in at_random] + [
        turned(label.image)[:, ::-1] for label in at_random
    ]
    taught = teach(
        fitted_detector, defects + at_random, [np.ascontiguousarray(one) for one in others], threads=1
    )
    taught.save(tmp_path / "taught")
    loaded = AnomalyDetector.load(tmp_path / "taught", threads=1)
    loaded.check()
    scores = [loaded.score(label.image).score for label in labels]
    head = open_to_learn(loaded, threads=1).head
    # Features of half precision; of two patches that are alike, another one may be reranked.
    assert np.allclose(scores, score(head, seen), rtol=1e-2)
    size = sum(len(content) for content in loaded.contents.values())
    assert size - sum(len(content) for content in fitted_detector.contents.values()) < 1_000_000


def test_models_that_cannot_be_taught_say_so(fitted_detector: AnomalyDetector, opened: OpenedModel) -> None:
    class Mixture(torch.nn.Module):
        pass

    class Head:
        patch_energy = Mixture()

    with pytest.raises(ModelError, match="several categories"):
        category_energy(Head())  # type: ignore[arg-type]
