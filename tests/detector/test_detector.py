from __future__ import annotations

import json
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import energyad
from energyad import AnomalyDetector
from energyad.data.datasets import Category
from energyad.data.demo import render_flawed
from energyad.energy.memory_bank import MemoryBankEnergy
from energyad.energy.reranking import Reranker
from energyad.errors import DataError, ImageError, ModelError
from energyad.fitting.category import split_images
from energyad.images.reading import read_image, resize
from energyad.model.assembly import assemble_scorer
from energyad.runtimes.eager import EagerRuntime
from tests.quick import QUICK, TINY
from tests.untraced import fit_untraced

SIZE = 128


@pytest.fixture(scope="module")
def good_images(demo_category: Category) -> list[np.ndarray]:
    """What `fitted_detector` was fitted on."""
    return [read_image(path) for path in demo_category.train_good]


@pytest.fixture(scope="module")
def new_part(demo_category: Category) -> np.ndarray:
    return next(read_image(item.path) for item in demo_category.test if not item.is_defective)


def with_outlier(image: np.ndarray) -> tuple[np.ndarray, tuple[slice, slice]]:
    """A bright checkered square on the part."""
    place = (slice(56, 76), slice(48, 68))
    spoilt = image.copy()
    spoilt[place] = (np.indices((20, 20)).sum(0)[..., None] // 4 % 2 * 255).astype(np.uint8)
    return spoilt, place


def test_a_planted_outlier_scores_above_every_good_part(
    fitted_detector: AnomalyDetector, good_images: list[np.ndarray], new_part: np.ndarray
) -> None:
    outlier, _ = with_outlier(new_part)
    prediction = fitted_detector.score(outlier)
    assert prediction.is_anomalous
    assert prediction.score > max(p.score for p in fitted_detector.score_batch([*good_images, new_part]))


def test_the_heatmap_has_the_images_own_size_and_peaks_on_the_outlier(
    fitted_detector: AnomalyDetector, new_part: np.ndarray
) -> None:
    outlier, place = with_outlier(new_part)
    wide = np.asarray(Image.fromarray(outlier).resize((3 * SIZE, SIZE)))
    heatmap = fitted_detector.score(wide).heatmap
    assert heatmap.shape == (SIZE, 3 * SIZE)
    row, column = np.unravel_index(heatmap.argmax(), heatmap.shape)
    assert place[0].start - 8 <= row < place[0].stop + 8
    assert 3 * (place[1].start - 8) <= column < 3 * (place[1].stop + 8)


def test_the_peak_lies_in_the_mask_of_obvious_demo_flaws(fitted_detector: AnomalyDetector) -> None:
    hits = []
    for flaw in ("chip", "contamination", "missing_segment"):
        image, mask = render_flawed(0, flaw, 0, severity=1.0, size=SIZE)
        heatmap = fitted_detector.score(image).heatmap
        row, column = np.unravel_index(heatmap.argmax(), heatmap.shape)
        hits.append(mask[max(0, row - 8) : row + 9, max(0, column - 8) : column + 9].any())
    assert all(hits)


def test_a_path_an_array_and_a_pillow_image_score_alike(
    fitted_detector: AnomalyDetector, new_part: np.ndarray, tmp_path: Path
) -> None:
    Image.fromarray(new_part).save(tmp_path / "part.png")
    scores = {
        fitted_detector.score(kind).score
        for kind in (new_part, Image.fromarray(new_part), tmp_path / "part.png")
    }
    assert len(scores) == 1


def test_a_stream_gives_one_prediction_an_image_in_order(
    fitted_detector: AnomalyDetector, good_images: list[np.ndarray]
) -> None:
    alone = [fitted_detector.score(image).score for image in good_images]
    streamed = [prediction.score for prediction in fitted_detector.stream(iter(good_images))]
    np.testing.assert_allclose(streamed, alone, rtol=1e-5)


def test_a_stream_reads_ahead_by_a_few_batches_only(
    fitted_detector: AnomalyDetector, new_part: np.ndarray
) -> None:
    taken = 0

    def endless() -> object:
        nonlocal taken
        while True:
            taken += 1
            yield new_part

    next(fitted_detector.stream(endless()))  # type: ignore[arg-type]
    assert taken < 64


def test_predictions_are_the_thresholds_consequence(
    fitted_detector: AnomalyDetector, new_part: np.ndarray
) -> None:
    prediction = fitted_detector.score(new_part)
    assert prediction.threshold == fitted_detector.threshold
    assert prediction.is_anomalous == (prediction.score > prediction.threshold)
    assert prediction.score == pytest.approx(float(prediction.heatmap.max()), rel=0.05)


@pytest.mark.slow
def test_scores_survive_saving_and_a_new_process_without_torch(
    fitted_detector: AnomalyDetector, new_part: np.ndarray, tmp_path: Path
) -> None:
    fitted_detector.save(tmp_path / "model")
    Image.fromarray(new_part).save(tmp_path / "part.png")
    program = (
        "import sys, json, energyad\n"
        "d = energyad.load(sys.argv[1], threads=1)\n"
        "p = d.score(sys.argv[2])\n"
        "print(json.dumps([p.score, float(p.heatmap.sum()), 'torch' in sys.modules]))"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "model"), str(tmp_path / "part.png")]
    output = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    prediction = fitted_detector.score(tmp_path / "part.png")
    assert output == [prediction.score, float(prediction.heatmap.sum()), False]


def test_eager_pytorch_agrees_with_the_exported_graph(
    fitted_detector: AnomalyDetector, good_images: list[np.ndarray]
) -> None:
    eager = EagerRuntime(assemble_scorer(fitted_detector.manifest, fitted_detector.contents))
    pixels = np.stack([resize(image, fitted_detector.manifest.input.image_size) for image in good_images[:3]])
    ours, theirs = eager.run(pixels), fitted_detector.runtime.run(pixels)
    np.testing.assert_allclose(ours.score, theirs.score, rtol=1e-4)
    # A squared distance is a small difference of large products: its rounding is that of the largest
    np.testing.assert_allclose(ours.heatmap, theirs.heatmap, rtol=1e-4, atol=1e-4 * theirs.heatmap.max())


@pytest.mark.slow
@pytest.mark.parametrize("rate", [0.01, 0.4])
def test_the_finished_model_knows_the_held_out_parts_and_its_scores_have_only_fallen(
    rate: float, good_images: list[np.ndarray]
) -> None:
    settings = TINY.with_values({"threshold.false_reject_rate": rate, "threshold.review_rate": None})
    model = fit_untraced(good_images, name="part", settings=settings)
    generator = torch.Generator().manual_seed(settings.seed)
    held_out = split_images(
        len(good_images), holdout=settings.threshold.holdout_fraction, generator=generator
    ).held_out
    scores = sorted(each.score for each in model.score_batch([good_images[place] for place in held_out]))
    before = model.calibration.good_scores
    assert len(scores) == len(before) > 1
    assert all(now < 0.9 * then for now, then in zip(scores, before, strict=True))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:only")
@pytest.mark.parametrize("count", [2, 3])
def test_the_threshold_of_very_few_images_is_in_the_units_of_the_scores(
    count: int, good_images: list[np.ndarray], new_part: np.ndarray
) -> None:
    model = fit_untraced(good_images[:count], name="part", settings=TINY)
    assert 0.1 < model.score(new_part).score / model.threshold < 10


@pytest.mark.slow
def test_other_trainings_have_the_same_memory_banks(good_images: list[np.ndarray]) -> None:
    def memory_banks(iterations: int) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        settings = TINY.with_values({"dxmi.iterations": iterations})
        model = fit_untraced(good_images, settings=settings)
        head = assemble_scorer(model.manifest, model.contents).head
        first = [part.weight for part in head.modules() if isinstance(part, MemoryBankEnergy)]
        second = [part.points for part in head.modules() if isinstance(part, Reranker)]
        assert len(first) == len(second) == 2  # of the image, and of it at half its size
        # Training gives the first stage its unit: the medians of the two stages are matched on good parts.
        return [weight / weight.norm() for weight in first], second

    (first, second), (other_first, other_second) = memory_banks(0), memory_banks(10)
    assert all(torch.equal(*pair) for pair in zip(second, other_second, strict=True))
    torch.testing.assert_close(first, other_first, rtol=1e-5, atol=0)


@pytest.mark.slow
def test_the_same_seed_gives_the_same_model_bit_for_bit(good_images: list[np.ndarray]) -> None:
    first, second = (fit_untraced(good_images, settings=TINY) for _ in range(2))
    for name in ("backbone.safetensors", "detector.safetensors"):
        assert first.contents[name] == second.contents[name]
    assert first.threshold == second.threshold
    reseeded = replace(TINY, seed=1)
    other = fit_untraced(good_images, settings=reseeded)
    assert other.contents["detector.safetensors"] != first.contents["detector.safetensors"]


def test_the_threshold_rests_on_images_kept_from_training(fitted_detector: AnomalyDetector) -> None:
    made = fitted_detector.manifest.provenance
    assert made.num_images == 16 > made.num_held_out > 1
    assert len(fitted_detector.manifest.calibration.good_scores) == made.num_held_out
    assert fitted_detector.threshold >= max(fitted_detector.manifest.calibration.good_scores)


@pytest.mark.slow
def test_a_rotated_part_scores_more_like_an_upright_one_where_rotated_copies_were_fitted_on(
    good_images: list[np.ndarray],
) -> None:
    quick = QUICK.with_values(
        {"energy.pretrain_steps": 100, "dxmi.iterations": 0, "synthetic_defects.per_image": 0}
    )
    augmented, plain = (
        fit_untraced(good_images[:8], settings=quick.with_values({"augmentation.rotation": rotation}))
        for rotation in ("on", "off")
    )
    assert augmented.manifest.provenance.num_rotated > 0 == plain.manifest.provenance.num_rotated
    upright = good_images[8:]
    rotated = [np.rot90(image, 1).copy() for image in upright]

    def excess(model: AnomalyDetector) -> float:
        of_rotated, of_upright = (
            np.mean([prediction.score for prediction in model.score_batch(parts)])
            for parts in (rotated, upright)
        )
        return float(of_rotated / of_upright)

    assert excess(augmented) < 0.95 * excess(plain)


def test_no_path_or_user_name_of_the_machine_is_in_the_model(fitted_detector: AnomalyDetector) -> None:
    home = str(Path(energyad.__file__).parents[1]).encode()
    assert all(home not in content for content in fitted_detector.contents.values())
    assert home.decode() not in fitted_detector.manifest.model_dump_json()


def test_eight_threads_get_the_scores_of_one(
    fitted_detector: AnomalyDetector, good_images: list[np.ndarray]
) -> None:
    expected = [fitted_detector.score(image).score for image in good_images[:8]]
    found: dict[int, float] = {}

    def work(index: int) -> None:
        for _ in range(3):
            found[index] = fitted_detector.score(good_images[index]).score

    workers = [threading.Thread(target=work, args=(index,)) for index in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [found[index] for index in range(8)] == expected


@pytest.mark.slow
def test_one_image_is_refused_and_few_are_warned_about(good_images: list[np.ndarray]) -> None:
    with pytest.raises(DataError, match="at least 2"):
        AnomalyDetector.fit(good_images[:1], settings=TINY)
    with pytest.warns(UserWarning, match="only 2 good images of 'ring'"):
        few = fit_untraced(good_images[:2], name="ring", settings=TINY)
    assert few.threshold > 0


@pytest.mark.slow
def test_a_bad_image_stops_the_fit_unless_told_to_skip_it(
    good_images: list[np.ndarray], tmp_path: Path
) -> None:
    bad = tmp_path / "zero.png"
    bad.touch()
    with pytest.raises(ImageError, match=r"zero\.png.*--skip-bad"):
        AnomalyDetector.fit([*good_images, bad], settings=TINY)
    with pytest.warns(UserWarning, match=r"left out: .*zero\.png"):
        fitted = fit_untraced([*good_images, bad], settings=TINY, skip_bad=True)
    assert fitted.manifest.provenance.num_images == len(good_images)


def test_a_folder_without_a_model_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="energyad models"):
        energyad.load(str(tmp_path))


def test_importing_the_package_loads_no_heavy_library() -> None:
    program = "import sys, energyad; print([m for m in ('torch', 'timm', 'cv2', 'onnxruntime') if m in sys.modules])"
    output = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stdout
    assert output.strip() == "[]"


@pytest.mark.parametrize(
    "one", ["a.jpg", Path("a.jpg"), b"bytes", np.zeros((4, 4, 3), np.uint8), Image.new("RGB", (4, 4))]
)
def test_one_image_where_several_are_expected_is_a_type_error(
    fitted_detector: AnomalyDetector, one: Any
) -> None:
    for take in (fitted_detector.score_batch, fitted_detector.stream):
        with pytest.raises(TypeError, match="give a list"):
            list(take(one))
