from __future__ import annotations

import pytest
import torch

from energyad.coreset import FEWEST, greedy_coreset, usual_distances
from energyad.heads import choose_prototypes
from energyad.latents import fit_whitening
from energyad.progress import Silent
from energyad.settings import FitSettings


def test_a_coreset_covers_what_a_random_choice_misses() -> None:
    generator = torch.Generator().manual_seed(0)
    frequent = torch.randn(5000, 16, generator=generator)
    rare = 20 + torch.randn(3, 16, generator=generator)
    points = torch.cat([frequent, rare])
    chosen = greedy_coreset(points, 100, generator)
    assert int((chosen >= 5000).sum()) >= 1
    farthest = torch.cdist(points, points[chosen]).amin(dim=1).max()
    drawn = points[torch.randperm(len(points), generator=generator)[:100]]
    assert float(farthest) < 0.8 * float(torch.cdist(points, drawn).amin(dim=1).max())


def test_small_sets_are_taken_whole_and_no_place_twice() -> None:
    points = torch.randn(40, 8, generator=torch.Generator().manual_seed(0)).repeat(2, 1)
    chosen = greedy_coreset(points, 100, torch.Generator().manual_seed(1))
    assert sorted(chosen.tolist()) == list(range(80))


def test_prototypes_of_each_stage_lie_among_its_features() -> None:
    generator = torch.Generator().manual_seed(0)
    mixed = torch.randn(20000, 6, generator=generator) @ torch.randn(6, 6, generator=generator)
    features = mixed * torch.tensor([8.0, 4.0, 2.0, 1.0, 1.0, 1.0])
    whitening = fit_whitening(features, num_latents=6)
    inverse = whitening.unwhitening()
    unit = float(inverse.norm(dim=1).max())
    strongest = torch.linalg.eigvalsh(torch.cov(features.T))[-1].sqrt()
    own = (features - whitening.mean) / strongest
    assert unit == pytest.approx(1, abs=1e-5)
    torch.testing.assert_close(whitening(features) @ inverse, own, rtol=0.01, atol=0.01)
    settings = FitSettings(num_prototypes=500, prototype_directions=0.6)
    images = whitening(features).view(20, 1000, 6)
    places = [slice(0, 4), slice(4, 6)]
    stages = choose_prototypes(images, whitening, places, settings, generator, Silent())
    for prototypes, place, count in zip(stages, places, (3, 2), strict=True):
        assert prototypes.points.shape == (500, place.stop - place.start)
        assert prototypes.num_directions == count
        axes = whitening(features) @ prototypes.basis
        # a turn of the stage's own features, the axes that vary most first
        torch.testing.assert_close(axes.norm(dim=1), own[:, place].norm(dim=1), rtol=0.01, atol=0.01)
        assert torch.equal(axes.std(dim=0).argsort(descending=True), torch.arange(axes.shape[1]))
        assert float(torch.cdist(prototypes.points, axes).amin(dim=1).max()) < 0.01


def test_a_radius_is_the_mean_distance_of_what_lies_near_in_other_images() -> None:
    points, origins = torch.tensor([[0.0, 0.0], [100.0, 0.0], [0.0, 100.0]]), torch.tensor([0, 1, 2])
    near, far = torch.tensor([[0.1, 0.0]]).repeat(5000, 1), torch.tensor([[100.0, 3.0]]).repeat(5000, 1)
    radii = usual_distances(points, origins, [(3, near), (4, far)])
    usual = 0.5 * (0.1 + 3.0)
    few = [(5000 * each + FEWEST * usual) / (5000 + FEWEST) for each in (0.1, 3.0)]
    torch.testing.assert_close(radii, torch.tensor([*few, usual]))  # nothing lies near the third
    own = usual_distances(points, origins, [(0, near), (4, far)])  # the first is no measure for its own image
    assert float(own[0]) > 10 and float(own[1]) > 10


def test_no_radius_is_zero_and_one_image_alone_gives_equal_ones() -> None:
    points = torch.randn(20, 4, generator=torch.Generator().manual_seed(0))
    assert float(usual_distances(points, torch.zeros(20, dtype=torch.long), [(1, points)]).min()) > 0
    alone = usual_distances(points, torch.zeros(20, dtype=torch.long), [(0, points)])
    assert len(alone.unique()) == 1 and float(alone.min()) > 0


def test_no_prototypes_where_none_are_asked() -> None:
    whitening = fit_whitening(torch.randn(50, 4), num_latents=4)
    settings = FitSettings(num_prototypes=0)
    images = torch.randn(5, 10, 4)
    assert choose_prototypes(images, whitening, [slice(0, 4)], settings, torch.Generator(), Silent()) == []
