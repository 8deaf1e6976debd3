"""Laws of one model for several categories: each image is judged as its category's own model would judge it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import safetensors.torch
import torch
from PIL import Image, ImageOps
from torch import Tensor

from energyad.data.datasets import Category
from energyad.detector import AnomalyDetector
from energyad.energy.categories import CategoryClassifier, CategoryMixture, stack_categories
from energyad.energy.latent_energy import MeanEnergy
from energyad.energy.memory_bank import MemoryBank, MemoryBankEnergy
from energyad.energy.networks import AutoencoderEnergy
from energyad.energy.patch_energy import PatchEnergy
from energyad.energy.reranking import Reranker
from energyad.energy.whitening import fit_whitening
from energyad.errors import DataError, ModelError
from energyad.evaluation.evaluate import evaluate
from energyad.features.grids import Grid
from energyad.fitting.classifier import fit_category_classifier
from energyad.graphs import export
from energyad.graphs.cache import extractor_graph
from energyad.images.prefetch import ordered_map
from energyad.images.reading import as_rgb, resize
from energyad.images.tiling import Tiles
from energyad.model.assembly import assemble_scorer
from energyad.model.folder import CARD_FILE, HEAD_FILE
from energyad.model.manifest import PartStatistics
from energyad.model.statistics import rescale
from energyad.runtimes.eager import HeadRuntime
from energyad.runtimes.onnx import OnnxFeatures
from energyad.scoring.results import results_csv, scored_result
from energyad.scoring.scorer import EnergyHead
from energyad.settings import FitSettings
from tests.quick import TINY
from tests.untraced import fit_untraced

CHANNELS, LATENTS, SIDE = 6, 5, 4


def an_expert(seed: int, *, prototypes: int, energies: int = 1) -> PatchEnergy:
    """Of a category whose patches lie around `seed`."""
    generator = torch.Generator().manual_seed(seed)
    patches = torch.randn(200, CHANNELS, generator=generator) + seed
    whitening = fit_whitening(patches, latent_dim=LATENTS)

    def energy() -> MemoryBankEnergy:
        points = torch.randn(prototypes, LATENTS, generator=generator)
        radii = torch.rand(prototypes, generator=generator) + 0.5
        autoencoder = AutoencoderEnergy(LATENTS, width=8, bottleneck=2, generator=generator)
        return MemoryBankEnergy(
            autoencoder, MemoryBank(points, radii), deviations=whitening.deviations(), num_directions=3
        )

    def a_bank() -> MemoryBank:
        points = torch.randn(2 * prototypes, LATENTS, generator=generator)
        return MemoryBank(points, torch.rand(2 * prototypes, generator=generator) + 0.5)

    several = [energy() for _ in range(energies)]
    reranker = Reranker.from_banks([a_bank(), a_bank()], deviations=whitening.deviations(), fraction=1 / 8)
    return PatchEnergy(whitening, several[0] if energies == 1 else MeanEnergy(several), reranker).eval()


def mean_decides(count: int) -> CategoryClassifier:
    """The category whose number is nearest to the mean of all channels: −(m − k)² up to what is alike for all k."""
    numbers = torch.arange(count).float()
    axes = (2 * numbers / CHANNELS).expand(CHANNELS, count).contiguous()
    return CategoryClassifier(torch.zeros(CHANNELS), axes, -numbers.square())


@pytest.mark.slow
@pytest.mark.parametrize(("energies", "tiles"), [(1, 1), (2, 2)])
def test_each_image_is_judged_by_its_expert_alone_in_any_batch(energies: int, tiles: int) -> None:
    made = [an_expert(seed, prototypes=10 + 7 * seed, energies=energies) for seed in range(3)]
    numbers = [2, 0, 1, 1, 2]
    drawn = torch.randn(5 * tiles, SIDE, SIDE, CHANNELS, generator=torch.Generator().manual_seed(9))
    features = drawn + torch.tensor(numbers).repeat_interleave(tiles)[:, None, None, None]
    units = torch.tensor([1.0, 2.0, 5.0])[numbers].repeat_interleave(tiles)[:, None, None]
    own = [
        made[number](features[place * tiles : (place + 1) * tiles], patches_per_image=tiles * SIDE**2)
        for place, number in enumerate(numbers)
    ]
    expected = [torch.cat(parts) / units for parts in zip(*own, strict=True)]
    experts = stack_categories(made, mean_decides(3), units=(1.0, 2.0, 5.0)).eval().requires_grad_(False)
    energies, category = experts.predict(features, tiles * SIDE**2)
    torch.testing.assert_close([*energies], expected, rtol=1e-4, atol=1e-5)
    assert category.tolist() == numbers
    alone, _ = experts.predict(features[:tiles], tiles * SIDE**2)
    torch.testing.assert_close([*alone], [part[:tiles] for part in expected], rtol=1e-4, atol=1e-5)
    if tiles == 1:  # the graph is traced for the harder case
        return

    grid = Grid.square(image_size=32, size=SIDE, margin=0)
    head = EnergyHead(experts, grid=grid, smoothing=1.0, tiles=Tiles(rows=tiles)).eval()
    graph = export.export_head(head, num_channels=CHANNELS).SerializeToString()
    given = features.permute(0, 3, 1, 2).contiguous()
    for few in (given, given[: 2 * tiles]):
        score, heatmap, category = onnxruntime.InferenceSession(graph).run(None, {"features": few.numpy()})
        assert category.tolist() == numbers[: len(few) // tiles]
        with torch.no_grad():
            eager = head(few)
        np.testing.assert_allclose(score, eager.score, rtol=1e-4)
        np.testing.assert_allclose(heatmap, eager.heatmap, rtol=1e-3, atol=1e-5)


def recognised(shift: Tensor, images: Sequence[int], seed: int) -> list[float]:
    """Shares of new images of each category that a rule fitted on so many images gets right.

    shift: of each category's mean patch, in forty directions of which some vary thirty times as much as others.
    """
    generator = torch.Generator().manual_seed(seed)
    spread = torch.logspace(0, 1.5, 40)

    def looks(number: int, count: int) -> Tensor:
        return 100 + shift[number] + torch.randn(count, 40, generator=generator) * spread

    rule = fit_category_classifier([looks(number, count) for number, count in enumerate(images)])
    experts = CategoryMixture([an_expert(number, prototypes=5) for number in range(len(images))], rule)
    safetensors.torch.save(experts.state_dict())  # which takes contiguous tensors alone
    return [
        float((experts.classifier(looks(k, 500)[:, None]) == k).float().mean()) for k in range(len(images))
    ]


def test_experts_side_by_side_are_copies_and_their_own_prototypes_stay_as_few() -> None:
    made = [an_expert(seed, prototypes=10 + 7 * seed) for seed in range(2)]
    before = [{name: each.clone() for name, each in expert.state_dict().items()} for expert in made]
    stack_categories(made, mean_decides(2))
    for expert, own in zip(made, before, strict=True):
        assert all(torch.equal(each, own[name]) for name, each in expert.state_dict().items())


@pytest.mark.parametrize("count", [2, 3, 6])
def test_a_few_images_of_each_are_enough_to_tell_categories_apart(count: int) -> None:
    """Where they differ in single directions by eight deviations or less, and vary far more in others."""
    shares = [recognised(8 * torch.eye(40)[:count], [12] * count, seed) for seed in range(5)]
    assert min(map(min, shares)) > 0.85


def test_no_category_is_likelier_for_having_more_images() -> None:
    many, few = recognised(2 * torch.eye(40)[:2], [2000, 100], 0)
    assert abs(many - few) < 0.15 and min(many, few) > 0.7


@pytest.fixture(scope="module")
def two_categories(demo_category: Category) -> tuple[list[Path | Image.Image], list[str]]:
    """The demo's parts and their negatives, in turns."""
    parts = list(demo_category.train_good)
    both: list[Path | Image.Image] = []
    for path in parts:
        both += [path, negative(path)]
    return both, [demo_category.name, "negative"] * len(parts)


def negative(path: Path) -> Image.Image:
    with Image.open(path) as image:
        return ImageOps.invert(image.convert("RGB"))


@pytest.fixture(scope="module")
def settings() -> FitSettings:
    """Of a rate that held-out parts of both categories certify together, and of neither alone."""
    return TINY.with_values({"threshold.review_rate": 0.2})


@pytest.fixture(scope="module")
def united(
    two_categories: tuple[Sequence[Path | Image.Image], Sequence[str]], settings: FitSettings
) -> AnomalyDetector:
    images, categories = two_categories
    return AnomalyDetector.fit(images, categories=categories, settings=settings, threads=1)


@pytest.mark.slow
def test_one_model_for_several_scores_as_one_each_in_units_of_its_own(
    united: AnomalyDetector, demo_category: Category, settings: FitSettings
) -> None:
    paths = [item.path for item in demo_category.test]
    units = []
    for images, good in (
        (paths, demo_category.train_good),
        ([negative(path) for path in paths], [negative(path) for path in demo_category.train_good]),
    ):
        own = fit_untraced(good, settings=settings)
        ratios = [
            alone.score / together.score
            for alone, together in zip(own.score_batch(images), united.score_batch(images), strict=True)
        ]
        assert max(ratios) / min(ratios) < 1.001
        assert ratios[0] == pytest.approx(own.threshold, rel=1e-3)  # its own threshold is the unit
        units.append(ratios[0])
    assert max(units) / min(units) > 1.01  # one unit for both would be wrong for one of them
    assert united.manifest.categories == (demo_category.name, "negative")


@pytest.mark.slow
def test_a_saved_model_for_several_scores_alike_on_every_engine(
    united: AnomalyDetector, demo_category: Category, tmp_path: Path
) -> None:
    united.save(tmp_path / "both")
    paths = [item.path for item in demo_category.test][:6]
    mixed = [*paths, *map(negative, paths)]  # more than fit into one call
    expected = [each.score for each in united.score_batch(mixed)]
    for runtime in ("onnxruntime", "openvino", "torch"):
        found = AnomalyDetector.load(tmp_path / "both", runtime=runtime).score_batch(mixed)
        assert [each.score for each in found] == pytest.approx(expected, rel=1e-4)
        assert [each.category for each in found] == [demo_category.name] * len(paths) + ["negative"] * len(
            paths
        )
    short = united.manifest.replace(categories=(*united.manifest.categories, "third"))
    AnomalyDetector(short, united.contents, united.runtime).save(tmp_path / "three")
    with pytest.raises(ModelError, match=HEAD_FILE):
        AnomalyDetector.load(tmp_path / "three", runtime="torch")


@pytest.mark.slow
def test_before_it_is_exported_a_model_for_several_scores_as_its_graph_from_any_thread(
    united: AnomalyDetector, two_categories: tuple[Sequence[Path | Image.Image], Sequence[str]]
) -> None:
    scorer = assemble_scorer(united.manifest, united.contents)
    session = OnnxFeatures(extractor_graph(scorer.extractor).SerializeToString(), threads=4)
    runtime = HeadRuntime(session, scorer.head)
    pixels = [resize(as_rgb(image), united.manifest.input.shape)[None] for image in two_categories[0]]
    expected = [united.runtime.run(each) for each in pixels]
    for own, found in zip(expected, ordered_map(runtime.run, pixels, workers=4), strict=True):
        assert own.category is not None and found.category is not None
        np.testing.assert_allclose(found.score, own.score, rtol=1e-4)
        np.testing.assert_array_equal(found.category, own.category)


@pytest.mark.slow
def test_what_images_were_taken_for_is_counted_and_told(
    united: AnomalyDetector, fitted_detector: AnomalyDetector, demo_category: Category
) -> None:
    found = evaluate(united, demo_category)
    assert found.recognised == len(found.items) == len(demo_category.test)
    other = evaluate(united, replace(demo_category, name="other"))
    assert other.recognised == 0 and {item.category for item in other.items} == {demo_category.name}
    assert evaluate(fitted_detector, demo_category).recognised is None
    told = sorted(part.score for part in united.manifest.good_parts)
    assert told == pytest.approx(sorted(united.manifest.calibration.good_scores))  # both in units
    part = PartStatistics(4.0, brightness=7.0, heatmap_mean=2.0, category="one")
    assert rescale(part, 2.0) == PartStatistics(2.0, brightness=7.0, heatmap_mean=1.0, category="one")
    kept = [part.category for part in united.manifest.good_parts]
    assert kept == sorted(kept, reverse=True) and set(kept) == set(united.manifest.categories)
    row = f"| categories | {demo_category.name}, negative:"
    assert row in united.contents[CARD_FILE].decode()
    assert "| categories |" not in fitted_detector.contents[CARD_FILE].decode()
    path = demo_category.test[0].path
    for detector, category in ((united, demo_category.name), (fitted_detector, None)):
        result = scored_result(detector.score(path), image=None, model=detector.reference)
        assert result.category == category
        assert results_csv([result]).splitlines()[1].count(str(category)) == (category is not None)


def test_every_category_needs_good_images_and_every_image_a_category(demo_category: Category) -> None:
    good = demo_category.train_good[:5]
    with pytest.raises(DataError, match="'lonely'"):
        AnomalyDetector.fit(good, categories=["bottle"] * 4 + ["lonely"])
    with pytest.raises(DataError, match="0 usable good image"):
        AnomalyDetector.fit([], categories=[])
    with pytest.raises(DataError, match="3 categories for 5"):
        AnomalyDetector.fit(good, categories=["bottle"] * 3)
