"""Laws of kinds that people named: results name them, the energy still decides."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from energyad.data.datasets import Category
from energyad.detector import AnomalyDetector
from energyad.feedback.evidence import Evidence, evidence_of, see_images
from energyad.feedback.importing import read_labels
from energyad.feedback.kinds import MIN_EXAMPLES, fit_kinds
from energyad.feedback.teaching import OpenedModel, open_to_learn
from energyad.progress import NullProgress
from energyad.scoring.kinds import KINDS_FILE
from energyad.scoring.regions import UNKNOWN


def where(opened: OpenedModel) -> dict[str, Any]:
    return {"head": opened.head, "manifest": opened.manifest}


@pytest.fixture(scope="module")
def evidence(fitted_detector: AnomalyDetector, demo_category: Category) -> list[Evidence]:
    opened = open_to_learn(fitted_detector, threads=1)
    labels = [one.by("anna") for one in read_labels(demo_category.root)]
    kinds = sorted({label.kind for label in labels if label.kind})
    labels = [
        replace(label, kind="one" if label.kind in kinds[:3] else "other") if label.kind else label
        for label in labels
    ]
    seen = see_images(
        [label.image for label in labels], opened.manifest, opened.session, progress=NullProgress(), stage=""
    )
    return evidence_of(labels, seen, manifest=opened.manifest, grid=opened.head.grid)


@pytest.fixture(scope="module")
def named(fitted_detector: AnomalyDetector, evidence: list[Evidence]) -> AnomalyDetector:
    opened = open_to_learn(fitted_detector, threads=1)
    kinds = fit_kinds(evidence, **where(opened))
    assert kinds is not None and kinds.names == ("one", "other")
    contents = {**fitted_detector.contents, KINDS_FILE: kinds.to_bytes()}
    return AnomalyDetector.from_contents(fitted_detector.manifest, contents, threads=1)


@pytest.mark.slow
def test_regions_have_kinds_and_verdicts_and_scores_are_as_before(
    fitted_detector: AnomalyDetector, named: AnomalyDetector, demo_category: Category, tmp_path: Path
) -> None:
    named.save(tmp_path / "model")
    named = AnomalyDetector.load(tmp_path / "model", threads=1)
    named.check()
    right = []
    for item in demo_category.test:
        before, after = fitted_detector.score(item.path), named.score(item.path)
        assert (before.score, before.verdict) == (after.score, after.verdict)
        assert [replace(region, kind=None, kind_probability=None) for region in after.regions] == list(
            before.regions
        )
        assert all(region.kind in ("one", "other", UNKNOWN) for region in after.regions)
        assert all(region.kind is None for region in before.regions)
        if after.regions:
            right.append(after.regions[0].kind)
    assert right and set(right) != {UNKNOWN}
    line = named.score_image(max(demo_category.test, key=lambda item: named.score(item.path).score).path)
    first = json.loads(line.result().json_line())["regions"][0]
    assert first["kind"] in ("one", "other", UNKNOWN) and 0 <= first["kind_probability"] <= 1


def test_features_of_regions_are_those_that_were_taught(
    named: AnomalyDetector, evidence: list[Evidence]
) -> None:
    image = evidence[0].image
    features = named._patch_features().run(image.pixels[None])
    assert features == pytest.approx(image.features.float().numpy(), abs=2e-2)
    assert features.shape[1] >= named.kinds.centres.shape[1]  # type: ignore[union-attr]


def test_a_few_marked_and_named_defects_of_a_kind_are_needed(
    fitted_detector: AnomalyDetector, evidence: list[Evidence]
) -> None:
    opened = open_to_learn(fitted_detector, threads=1)
    ones = [one for one in evidence if one.label.kind == "one"]
    assert fit_kinds(ones[: MIN_EXAMPLES - 1], **where(opened)) is None
    unmarked = [replace(one, coverage=None) for one in ones]
    assert fit_kinds(unmarked, **where(opened)) is None
    few = fit_kinds(ones[:MIN_EXAMPLES], **where(opened))
    assert few is not None and few.names == ("one",) and np.isfinite(few.limits).all()


def test_how_far_a_mark_reaches_changes_nothing_where_the_model_finds_a_region_at_it(
    fitted_detector: AnomalyDetector, evidence: list[Evidence]
) -> None:
    opened = open_to_learn(fitted_detector, threads=1)
    marked = [one for one in evidence if one.label.kind and one.coverage is not None]
    generous = [replace(one, coverage=torch.ones_like(one.coverage)) for one in marked]
    exact, wide = (fit_kinds(given, **where(opened)) for given in (marked, generous))
    assert exact is not None and wide is not None
    assert wide.centres == pytest.approx(exact.centres, abs=1e-6)
    blind = opened.manifest.model_copy(
        update={"calibration": replace(opened.manifest.calibration, threshold=1e9, review_threshold=None)}
    )
    by_marks = fit_kinds(marked, head=opened.head, manifest=blind)
    assert by_marks is not None and not np.allclose(by_marks.centres, exact.centres, atol=1e-3)
