from __future__ import annotations

import torch

from energyad.energy.coreset import PRIOR_IMAGES, fit_local_scales, greedy_coreset
from energyad.energy.whitening import fit_whitening
from energyad.fitting.memory_banks import fit_memory_bank


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


def test_beside_known_patches_the_choice_goes_on_with_those_farthest_from_them() -> None:
    generator = torch.Generator().manual_seed(0)
    known = 100 + torch.randn(50, 8, generator=generator)
    far = 20 * torch.eye(8)[:3]
    patches = torch.cat([known[:20] + 0.01, far, known[20:] + 0.01])
    chosen = greedy_coreset(patches, 3, generator, selected=known)
    assert sorted(chosen.tolist()) == [20, 21, 22]
    assert len(greedy_coreset(patches, 1, generator, selected=torch.cat([known, far]))) == 1


def test_thinning_leaves_out_what_would_not_have_been_chosen() -> None:
    generator = torch.Generator().manual_seed(0)
    frequent = torch.randn(20000, 8, generator=generator)
    rare = 6 * torch.nn.functional.normalize(torch.randn(200, 8, generator=generator))
    points, size = torch.cat([frequent, rare]), 600
    whole, thinned = (
        greedy_coreset(points, size, torch.Generator().manual_seed(1), thinned=each) for each in (False, True)
    )
    assert len(set(thinned.tolist())) == size
    assert len(set(thinned.tolist()) & set(whole.tolist())) > 0.98 * size
    assert int((thinned >= 20000).sum()) > 100  # a hundredth of them all


def test_so_few_patches_that_nothing_is_spared_are_not_thinned() -> None:
    points = torch.randn(2000, 8, generator=torch.Generator().manual_seed(0))
    whole, thinned = (
        greedy_coreset(points, 500, torch.Generator().manual_seed(1), thinned=each) for each in (False, True)
    )
    assert thinned.equal(whole)


def test_stretched_by_the_choice_is_as_stretched_before_it() -> None:
    points, stretch = (
        torch.randn(3000, 8, generator=torch.Generator().manual_seed(0)),
        torch.linspace(0.1, 2, 8),
    )
    before = greedy_coreset(points * stretch, 50, torch.Generator().manual_seed(1))
    assert greedy_coreset(points, 50, torch.Generator().manual_seed(1), channel_weights=stretch).equal(before)
    assert not greedy_coreset(points, 50, torch.Generator().manual_seed(1)).equal(before)


def test_prototypes_lie_among_the_features() -> None:
    generator = torch.Generator().manual_seed(0)
    scales = torch.tensor([8.0, 4.0, 2.0, 1.0])
    features = torch.randn(20000, 4, generator=generator) * scales
    whitening = fit_whitening(features, latent_dim=4)
    torch.testing.assert_close(whitening.deviations(), scales / 8, rtol=0.05, atol=0)
    images = whitening(features).view(20, 1000, 4)
    prototypes = fit_memory_bank(images, whitening.deviations(), 500, generator)
    assert prototypes.points.shape == (500, 4)
    own = (features @ whitening.projection - whitening.mean @ whitening.projection) * whitening.deviations()
    assert float(torch.cdist(prototypes.points, own).amin(dim=1).max()) < 0.01


def test_a_radius_is_the_mean_distance_of_what_lies_near_in_other_images() -> None:
    points, origins = torch.tensor([[0.0, 0.0], [100.0, 0.0], [0.0, 100.0]]), torch.tensor([0, 1, 2])
    near, far = torch.tensor([[0.1, 0.0]]).repeat(50, 1), torch.tensor([[100.0, 3.0]]).repeat(50, 1)
    radii = fit_local_scales(points, origins, [(3, near), (4, far)])
    usual = 0.5 * (0.1 + 3.0)
    one = [(each + PRIOR_IMAGES * usual) / (1 + PRIOR_IMAGES) for each in (0.1, 3.0)]
    torch.testing.assert_close(radii, torch.tensor([*one, usual]))  # nothing lies near the third
    own = fit_local_scales(points, origins, [(0, near), (4, far)])
    # the first is no measure for its own image
    assert float(own[0]) > 10 and float(own[1]) > 10


def test_a_radius_believes_many_images_and_not_many_patches_of_one() -> None:
    points, origins = torch.tensor([[0.0, 0.0], [100.0, 0.0]]), torch.tensor([0, 1])
    near, far = torch.tensor([[0.1, 0.0]]), torch.tensor([[100.0, 3.0]])

    def nearer(images: int, patches: int) -> float:
        shown = [(2 + i, each.repeat(patches, 1)) for i in range(images) for each in (near, far)]
        return float(fit_local_scales(points, origins, shown)[0])

    assert nearer(images=1, patches=1000) > 1  # of 0.1, and 1.55 on average
    assert nearer(images=200, patches=1) < 0.2


def test_no_radius_is_zero_and_one_image_alone_gives_equal_ones() -> None:
    points = torch.randn(20, 4, generator=torch.Generator().manual_seed(0))
    first = torch.zeros(20, dtype=torch.long)
    assert float(fit_local_scales(points, first, [(1, points)]).min()) > 0
    alone = fit_local_scales(points, first, [(0, points)])
    assert len(alone.unique()) == 1 and float(alone.min()) > 0
