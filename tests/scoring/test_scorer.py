from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import functional as F

from energyad.energy.latent_energy import LatentEnergy
from energyad.energy.networks import AutoencoderEnergy
from energyad.energy.patch_energy import PatchEnergy
from energyad.energy.whitening import Whitening, fit_whitening
from energyad.features.extractor import load_extractor
from energyad.features.grids import Grid, GridAxis
from energyad.scoring.heatmaps import upsampling_matrix
from energyad.scoring.scorer import EnergyHead, Scorer, to_scores

GRID = Grid.square(image_size=64, size=8, margin=1)


@pytest.fixture(scope="module")
def scorer() -> Scorer:
    generator = torch.Generator().manual_seed(0)
    extractor = load_extractor("tf_efficientnet_lite0", image_size=(64, 64))
    whitening = fit_whitening(torch.randn(500, 176, generator=generator), latent_dim=16)
    energy = AutoencoderEnergy(16, width=8, bottleneck=4, generator=generator)
    return Scorer(
        extractor, EnergyHead(PatchEnergy(whitening, energy), grid=extractor.grid, smoothing=4.0)
    ).eval()


@pytest.mark.parametrize("smoothing", [0.0, 4.0])
def test_a_constant_energy_map_stays_constant(smoothing: float) -> None:
    matrix = upsampling_matrix(GRID.rows, smoothing=smoothing)
    torch.testing.assert_close(matrix.sum(1), torch.ones(64))


def test_upsampling_without_smoothing_is_linear_interpolation() -> None:
    grid = Grid.square(image_size=64, size=8, margin=0)
    energies = torch.rand(1, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    matrix = upsampling_matrix(grid.rows, smoothing=0.0)
    expected = F.interpolate(energies, size=(64, 64), mode="bilinear", align_corners=False)
    torch.testing.assert_close(matrix @ energies @ matrix.T, expected)


def test_smoothing_is_the_gaussian_of_the_stated_deviation() -> None:
    grid = Grid.square(image_size=128, size=128, margin=0)
    row = upsampling_matrix(grid.rows, smoothing=5.0)[64]
    distance = torch.arange(128) - 64
    assert float((row * distance.square()).sum().sqrt()) == pytest.approx(5.0, rel=1e-3)


def test_the_border_continues_the_outermost_inner_patch() -> None:
    matrix = upsampling_matrix(GRID.rows, smoothing=0.0)
    assert bool((matrix[:8, 0] == 1).all()) and bool((matrix[-8:, -1] == 1).all())


def test_one_hot_patch_peaks_at_its_own_pixels() -> None:
    energies = torch.zeros(6, 6)
    energies[4, 1] = 1.0  # inner (4, 1) is patch (5, 2): rows 40 to 47, columns 16 to 23
    matrix = upsampling_matrix(GRID.rows, smoothing=2.0)
    row, column = divmod(int((matrix @ energies @ matrix.T).argmax()), 64)
    assert 40 <= row < 48 and 16 <= column < 24


@pytest.mark.parametrize("rows", [4, 12])
def test_a_hot_patch_of_a_wide_or_tall_input_counts_as_in_a_square_and_at_its_own_pixels(rows: int) -> None:
    grid = Grid(GridAxis(8 * (rows + 2), rows + 2, 1), GridAxis(64, 8, 1))
    whitening = Whitening(1, 1)
    whitening.projection.fill_(1.0)
    heads = [EnergyHead(PatchEnergy(whitening, First()), grid=each, smoothing=4.0) for each in (grid, GRID)]
    shaped, square = torch.zeros(1, 1, rows, 6), torch.zeros(1, 1, 6, 6)
    shaped[..., 2, 3] = square[..., 2, 3] = 1.0
    found, expected = (head(energies) for head, energies in zip(heads, (shaped, square), strict=True))
    assert found.heatmap.shape == (1, 8 * (rows + 2), 64)
    torch.testing.assert_close(found.score, expected.score)
    row, column = divmod(int(found.heatmap[0].argmax()), 64)
    assert 24 <= row < 32 and 32 <= column < 40


class First(LatentEnergy):
    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return z[..., 0]


def test_the_score_is_the_heatmaps_peak(scorer: Scorer) -> None:
    pixels = torch.randint(
        0, 256, (3, 64, 64, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    scores = scorer(pixels)
    assert scores.heatmap.shape == (3, 64, 64)
    assert torch.equal(scores.score, scores.heatmap.flatten(1).amax(1))


def test_scoring_twice_gives_the_same_bits(scorer: Scorer) -> None:
    pixels = torch.randint(
        0, 256, (2, 64, 64, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    assert torch.equal(scorer(pixels).heatmap, scorer(pixels).heatmap)


class _Given(LatentEnergy):
    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return z[..., 0]


def a_head(*, smoothing: float = 4.0, contrast: float = 1.0) -> EnergyHead:
    """A head whose features are the energies."""
    whitening = Whitening(1, 1)
    whitening.projection.fill_(1.0)
    options: dict[str, Any] = {"smoothing": smoothing, "contrast": contrast}
    return EnergyHead(PatchEnergy(whitening, _Given()), grid=GRID, **options)


def unweighted_head(*, smoothing: float = 4.0) -> EnergyHead:
    """The same with the border weighing what smoothing makes of it."""
    head = a_head(smoothing=smoothing)
    head.border.fill_(1.0)
    return head


def test_a_higher_energy_anywhere_never_lowers_the_score() -> None:
    head = a_head()
    energies = torch.rand(20, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    raised = energies + torch.rand(20, 1, 6, 6, generator=torch.Generator().manual_seed(1))
    assert bool((head(raised).score > head(energies).score).all())


@pytest.mark.parametrize("smoothing", [0.0, 2.0, 4.0])
def test_one_strange_patch_counts_alike_wherever_it_lies(smoothing: float) -> None:
    """Smoothing has nothing to share its energy with beyond the border, where the heatmap continues it."""
    one_each = torch.eye(36).view(36, 1, 6, 6)
    scores = a_head(smoothing=smoothing)(one_each).score
    torch.testing.assert_close(scores, scores[14].expand(36), rtol=0.02, atol=0)
    unweighted = unweighted_head(smoothing=smoothing)(one_each).score
    assert float(unweighted[14]) == pytest.approx(float(scores[14]))
    assert float(unweighted[0]) > 1.1 * float(scores[0])


def test_the_heatmap_continues_the_border_and_stops_at_the_score() -> None:
    energies = torch.rand(20, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    scores, unweighted = a_head()(energies), unweighted_head()(energies)
    torch.testing.assert_close(scores.heatmap, unweighted.heatmap.minimum(scores.score[:, None, None]))
    assert torch.equal(scores.score, scores.heatmap.amax(dim=(1, 2)))
    assert torch.equal(unweighted.score, unweighted.heatmap.amax(dim=(1, 2)))
    torch.testing.assert_close(a_head()(torch.ones(1, 1, 6, 6)).score, torch.ones(1))


@pytest.mark.parametrize("contrast", [0.5, 4 / 3, 2.0])
def test_contrast_moves_neither_scores_nor_what_is_stranger_in_an_image(contrast: float) -> None:
    energies = torch.rand(20, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    plain, found = (a_head(contrast=each)(energies) for each in (1.0, contrast))
    assert torch.equal(found.score, plain.score)
    assert torch.equal(found.score, found.heatmap.amax(dim=(1, 2)))
    score = plain.score[:, None, None]
    torch.testing.assert_close(found.heatmap / score, (plain.heatmap / score) ** contrast)
    assert bool((found.heatmap <= plain.heatmap * (1 + 1e-6)).all()) == (contrast > 1)
    # In units of another category, or of none at all: the same picture.
    rescaled = a_head(contrast=contrast)(7 * energies)
    torch.testing.assert_close(rescaled.heatmap, 7 * found.heatmap)
    assert not bool(a_head(contrast=contrast)(torch.zeros(1, 1, 6, 6)).heatmap.any())


def test_what_the_score_comes_from_is_seen_though_it_localises_nothing() -> None:
    detection = torch.rand(20, 8, 8, generator=torch.Generator().manual_seed(0)) + 0.1
    localisation = torch.rand(20, 8, 8, generator=torch.Generator().manual_seed(1)) / 100
    scores = to_scores(detection, localisation, torch.ones(8, 8), contrast=2.0)
    assert torch.equal(scores.score, detection.amax(dim=(1, 2)))
    assert torch.equal(scores.heatmap.flatten(1).argmax(dim=1), detection.flatten(1).argmax(dim=1))
    assert torch.equal(scores.heatmap.amax(dim=(1, 2)), scores.score)


def test_where_the_energies_localise_the_heatmap_shows_them_up_to_the_score() -> None:
    detection = torch.zeros(1, 8, 8).index_fill(2, torch.tensor([3]), 0.5)
    localisation = torch.full((1, 8, 8), 0.25).index_fill(1, torch.tensor([6]), 9.0)
    heatmap = to_scores(detection, localisation, torch.ones(8, 8), contrast=2.0).heatmap[0]
    assert heatmap[6].tolist() == [0.5] * 8 and heatmap[:, 3].tolist() == [0.5] * 8
    assert heatmap[0, 0] == 0.5 * (0.25 / 0.5) ** 2


def test_no_weight_of_the_upsampling_is_subnormal() -> None:
    """Processors take a hundred times as long for such a product."""
    for smoothing in (0.0, 1.0, 4.0, 9.0):
        matrix = upsampling_matrix(GridAxis(256, 32, 2), smoothing=smoothing)
        assert float(matrix[matrix != 0].min()) > 1e-12
        torch.testing.assert_close(matrix.sum(dim=1), torch.ones(256))
