"""Laws of reranking: which patches it measures again, what their energy becomes, and what added points may change."""

from __future__ import annotations

import copy

import pytest
import torch

from energyad.energy.latent_energy import LatentEnergy, MeanEnergy
from energyad.energy.memory_bank import MemoryBank, MemoryBankEnergy
from energyad.energy.networks import AutoencoderEnergy
from energyad.energy.patch_energy import PatchEnergy
from energyad.energy.reranking import Reranker
from energyad.energy.whitening import Whitening
from energyad.features.grids import Grid
from energyad.images.tiling import Tiles
from energyad.scoring.scorer import EnergyHead

LATENTS, PATCHES = 7, 64
DEVIATIONS = torch.linspace(1.0, 0.2, LATENTS)


def drawn(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def a_bank(seed: int, size: int = 30) -> MemoryBank:
    points = torch.randn(size, LATENTS, generator=drawn(seed)) * DEVIATIONS
    return MemoryBank(points, torch.rand(size, generator=drawn(seed + 1)) + 0.5)


def first(z: torch.Tensor) -> torch.Tensor:
    """An energy that is not negative."""
    return z[..., 0].abs()


BANKS = [a_bank(0), a_bank(10)]
FRACTION = 1 / 8
RERANKER = Reranker.from_banks(BANKS, deviations=DEVIATIONS, fraction=FRACTION)


def test_the_reranking_distance_is_the_mean_over_banks_in_units_of_local_scales() -> None:
    z = torch.randn(3, 50, LATENTS, generator=drawn(2))
    expected = [
        ((z * DEVIATIONS)[..., None, :] - each.points)
        .square()
        .sum(-1)
        .div(each.local_scales.square())
        .amin(-1)
        for each in BANKS
    ]
    torch.testing.assert_close(
        RERANKER.squared_distance(z), torch.stack(expected).mean(0), rtol=0.02, atol=0.02
    )
    for each, own in zip(RERANKER.bank_points(), BANKS, strict=True):  # 8 bits of what is largest in a latent
        assert bool(((each - own.points).abs() <= own.points.abs().amax(0) / 100 + 0.01).all())


def test_reranking_replaces_the_highest_energies_of_each_image_and_no_others() -> None:
    z = torch.randn(5, PATCHES, LATENTS, generator=drawn(3))
    energies = torch.rand(5, PATCHES, generator=drawn(4)) * torch.tensor([1.0, 9.0, 1.0, 0.1, 1.0])[:, None]
    found = RERANKER(z, energies, learned=first(z), patches_per_image=PATCHES)
    count = round(PATCHES * FRACTION)
    strangest = energies >= energies.sort(dim=1).values[:, -count, None]
    assert torch.equal(found[~strangest], energies[~strangest])
    torch.testing.assert_close(found[strangest], (first(z) * RERANKER.squared_distance(z))[strangest])


def test_patches_outside_the_region_of_interest_are_not_reranked() -> None:
    z = torch.randn(1, PATCHES, LATENTS, generator=drawn(3))
    energies = torch.arange(PATCHES)[None].float()
    in_roi = torch.arange(PATCHES) < PATCHES // 2
    found = RERANKER(z, energies, learned=first(z), patches_per_image=PATCHES, in_roi=in_roi)
    changed = (found != energies)[0].nonzero()[:, 0]
    assert changed.tolist() == list(range(PATCHES // 2 - len(changed), PATCHES // 2)) and len(changed) > 0


def test_points_repeated_change_no_distance_and_added_ones_raise_none() -> None:
    z = torch.randn(4, PATCHES, LATENTS, generator=drawn(5))
    before = RERANKER.squared_distance(z)
    filled = copy.deepcopy(RERANKER)
    filled.pad_to(41)
    assert filled.size == 41 and torch.equal(filled.squared_distance(z), before)
    added = z[0, :9] * DEVIATIONS
    middle = torch.stack([each.local_scales.median() for each in BANKS])
    torch.testing.assert_close(RERANKER.median_local_scales(), middle)
    more = RERANKER.extended([MemoryBank(added, scale.expand(9)) for scale in middle])
    found = more.inverse.view(2, -1)[:, -9:].rsqrt()
    torch.testing.assert_close(found, middle[:, None].expand(2, 9))
    extended = more.squared_distance(z)
    assert more.fraction == RERANKER.fraction
    assert RERANKER.size == 30 and bool((extended <= before).all())
    assert float(extended[0, :9].max()) < 0.02 < float(before[0, :9].min())


@pytest.mark.parametrize("several", [False, True])
def test_the_learned_term_is_an_energy_without_its_distances(several: bool) -> None:
    z = torch.randn(4, LATENTS, generator=drawn(6))
    networks = [AutoencoderEnergy(LATENTS, width=8, bottleneck=2, generator=drawn(seed)) for seed in (0, 1)]
    energies = [
        MemoryBankEnergy(network, a_bank(0), deviations=DEVIATIONS, num_directions=3) for network in networks
    ]
    energy = MeanEnergy(energies) if several else energies[0]
    expected = torch.stack([each(z) for each in networks[: 1 + several]]).mean(dim=0)
    total, learned, odds = energy.terms(z)
    torch.testing.assert_close(learned, expected)
    torch.testing.assert_close(total, energy(z))
    assert torch.equal(odds, torch.ones(4))
    assert all(torch.equal(each, networks[0](z)) for each in networks[0].terms(z)[:2])


class _First(LatentEnergy):
    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return first(z)


def test_tiles_share_the_reranked_patches_of_their_image() -> None:
    """What is strange may all lie in one tile, and another tile's patches are then no candidates."""
    whitening = Whitening(LATENTS, LATENTS)
    whitening.projection.copy_(torch.eye(LATENTS))
    expert = PatchEnergy(whitening, _First(), RERANKER)
    features = torch.randn(6, 4, 4, LATENTS, generator=drawn(7))
    features[:, ..., 0] *= torch.tensor([9.0, 0.1, 0.1] * 2)[:, None, None]
    changed = (expert(features, patches_per_image=48).detection != first(features)).flatten(1).sum(1)
    assert changed.tolist() == [6, 0, 0, 6, 0, 0]


def test_patches_in_the_region_of_interest_are_listed_tile_by_tile() -> None:
    whitening = Whitening(1, 1)
    tiles, grid = Tiles(rows=2, columns=2, overlap=0.25), Grid.square(image_size=64, size=8, margin=1)
    mask = torch.zeros(tiles.shape((64, 64)), dtype=torch.bool)
    mask[:16, -16:] = True
    head = EnergyHead(PatchEnergy(whitening, _First()), grid=grid, smoothing=0.0, tiles=tiles, mask=mask)
    assert head.in_roi is not None
    judged = head.in_roi.view(4, 6, 6)
    assert judged[1, 0, -1] and judged[1].any() and not judged[[0, 2, 3]].any()
    for patch in range(4 * 36):  # a patch is judged where its energy is seen
        features = torch.zeros(4 * 36).index_fill(0, torch.tensor([patch]), 1.0).view(4, 1, 6, 6)
        whitening.projection.fill_(1.0)
        assert bool(head(features).score > 0.01) <= bool(head.in_roi[patch])
