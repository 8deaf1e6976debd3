"""Laws of comparing two methods on the same images: nothing is measured here."""

from __future__ import annotations

import re
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks import provenance
from benchmarks.detection import paired_table, rows, scores
from benchmarks.detection.scores import ScoreRow
from energyad.errors import DataError
from energyad.evaluation import metrics

from .test_detection_rows import of_today

RNG = np.random.default_rng(0)
DEFECTIVE = tuple(bool(each) for each in np.arange(80) < 40)
HARD = RNG.normal(size=80) + np.asarray(DEFECTIVE)


def scored(values: np.ndarray, method: str = "energyad", **others: object) -> ScoreRow:
    plain = {
        "method": method,
        "category": "screw",
        "seed": 0,
        "image_size": 256,
        "settings_hash": "one",
        "defective": DEFECTIVE,
        "scores": tuple(values.tolist()),
        "commit": "abcdef0123",
        "modified": False,
        "date": "2026-01-01",
    }
    return ScoreRow(**{**plain, **others})  # type: ignore[arg-type]


def auroc(row: ScoreRow) -> float:
    found = metrics.image_auroc(list(row.defective), list(row.scores))
    assert found is not None
    return found


def redrawn(pairs: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return metrics.redrawn_means(pairs, draws=paired_table.DRAWS, generator=rng)


def test_a_lead_is_the_difference_of_the_aurocs_of_each_seed() -> None:
    ours = {seed: scored(HARD + seed * RNG.normal(size=80), seed=seed) for seed in range(3)}
    theirs = {seed: scored(HARD + RNG.normal(size=80), "other", seed=seed) for seed in range(4)}
    found = paired_table.leads(ours, theirs)
    assert list(found) == [0, 1, 2]
    for seed, each in found.items():
        assert each.mean() == pytest.approx(auroc(ours[seed]) - auroc(theirs[seed]))
    with pytest.raises(DataError, match="other test images"):
        paired_table.leads(
            ours, {seed: replace(each, defective=DEFECTIVE[::-1]) for seed, each in theirs.items()}
        )


def test_an_image_that_is_hard_for_both_widens_no_interval() -> None:
    """The spread of one AUROC is many times that of the difference of two that rank nearly alike."""
    one, two = scored(HARD), scored(HARD + 0.05 * RNG.normal(size=80), "other")
    of_one = redrawn(metrics.pairs_won(one.defective, one.scores), np.random.default_rng(0)).std()
    of_both = redrawn(paired_table.leads({0: one}, {0: two})[0], np.random.default_rng(0)).std()
    assert 0 < of_both < of_one / 4


@pytest.mark.slow
def test_its_interval_holds_the_true_difference_as_often_as_it_says() -> None:
    inside = 0
    for trial in range(60):
        rng = np.random.default_rng(trial)
        noise = rng.normal(size=(2, 80))
        alike = [scored(noise[method] + 1.5 * np.asarray(DEFECTIVE)) for method in (0, 1)]
        drawn = redrawn(paired_table.leads({0: alike[0]}, {0: alike[1]})[0], rng)
        low, high = np.quantile(drawn, (0.025, 0.975))
        inside += low <= 0 <= high
    assert 52 <= inside <= 60


def test_the_strongest_rival_stands_first_and_others_of_fewer_seeds_are_left_out() -> None:
    bad, good = RNG.normal(size=80), HARD + 2 * np.asarray(DEFECTIVE)
    kept = [scored(HARD, seed=seed, category=name) for seed in (0, 1) for name in ("screw", "tile")]
    for method, values in (("bad", bad), ("good", good)):
        kept += [scored(values, method, seed=s, category=c) for s in (0, 1) for c in ("screw", "tile")]
    kept.append(scored(bad, "few"))
    kept += [scored(bad, "one-category", seed=seed) for seed in (0, 1)]
    text = paired_table.render(kept)
    assert re.findall(r"^\| ([a-z][a-z-]*) \|", text, re.MULTILINE) == ["good", "bad", "one-category"]
    points = 100 * (auroc(scored(HARD)) - auroc(scored(good)))
    (line,) = [line for line in text.splitlines() if line.startswith("| good")]
    assert line.count(f"{points:+.1f} (") == 3
    assert "| — | — | — | 2 |" in text
    assert paired_table.render([scored(bad, "other")]) == "No rows yet."
    larger = [replace(row, image_size=512) for row in kept if row.method in ("energyad", "bad")]
    assert paired_table.render([*kept, *larger]).startswith(text)  # sizes are not mixed
    assert "512 × 512 pixels" in paired_table.render([*kept, *larger])


def test_a_difference_is_told_seed_by_seed_over_the_seeds_that_both_have() -> None:
    noise = {(s, c): RNG.normal(size=80) for s in range(5) for c in ("screw", "tile")}
    kept = [scored(HARD + each, seed=s, category=c) for (s, c), each in noise.items()]
    theirs = {
        key: scored(HARD + 2 * each, "three", seed=key[0], category=key[1])
        for key, each in noise.items()
        if key[0] < 3
    }
    two = [scored(HARD, "two", seed=s, category=c) for s, c in noise if s < 2]
    text = paired_table.render([*kept, *theirs.values(), *two])
    by_seed = [
        100 * np.mean([auroc(scored(HARD + noise[s, c])) - auroc(theirs[s, c]) for c in ("screw", "tile")])
        for s in range(3)
    ]
    (line,) = [line for line in text.splitlines() if line.startswith("| three")]
    assert line.endswith(f"| {np.mean(by_seed):+.2f} ± {np.std(by_seed, ddof=1):.2f} | 3 |")
    assert "| two |" not in text


def test_scores_are_those_of_the_rows_that_count(tmp_path: Path) -> None:
    results = tmp_path / "results.jsonl"
    kept = scores.beside(results)
    for date, values in (("2026-01-01", HARD), ("2026-01-02", -HARD)):
        for method in ("energyad", "knn"):
            row = of_today(method, date=date)
            rows.append(results, row)
            scores.append(kept, row, defective=DEFECTIVE, scores=values)
    rows.append(results, of_today("knn", date="2026-01-03"))  # measured again, its scores lost
    (only,) = paired_table.read(results)
    assert (only.method, only.date) == ("energyad", "2026-01-02")
    np.testing.assert_allclose(only.scores, -HARD, rtol=1e-5)
    provenance.append_row(kept, asdict(scored(HARD)) | {"scores": [1.0]})
    with pytest.raises(DataError, match="line 5: no row of scores"):
        scores.read(kept)
