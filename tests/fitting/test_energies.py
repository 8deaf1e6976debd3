"""Laws of the fit of one scale: what its memory banks hold, and what an ensemble is."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from energyad.energy.latent_energy import MeanEnergy
from energyad.energy.networks import AutoencoderEnergy
from energyad.energy.patch_energy import PatchEnergy
from energyad.features.grids import Grid, Scale
from energyad.fitting.context import FitContext
from energyad.fitting.energies import fit_patch_energy
from energyad.fitting.memory_banks import MAX_EXCESS, extend_memory_bank
from energyad.fitting.patches import TrainingPatches
from energyad.fitting.training import TrainedEnergy
from energyad.settings import FitSettings

CHANNELS = 6
GRID = Grid.square(image_size=32, size=4, margin=0)
SETTINGS = FitSettings().with_values(
    {
        "energy.latent_dim": CHANNELS,
        "energy.width": 8,
        "energy.bottleneck": 2,
        "memory_bank.size": 1000,
        "memory_bank.directions": CHANNELS,
        "energy.pretrain_steps": 50,
        "dxmi.iterations": 0,
    }
)

NO_DEFECTS = torch.empty(0, 1, dtype=torch.float16)


def patches(images: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(images, GRID.num_patches, CHANNELS, generator=generator).half()


def fit(
    settings: FitSettings, synthetic: torch.Tensor = NO_DEFECTS
) -> tuple[PatchEnergy, list[TrainedEnergy]]:
    generator = torch.Generator().manual_seed(0)
    parts = TrainingPatches(
        fitted=patches(5, 0), jittered=patches(5, 1), held_out=patches(2, 2), synthetic=synthetic
    )
    return fit_patch_energy(parts, a_context(settings), generator)


def a_context(settings: FitSettings) -> FitContext:
    session: Any = None  # patches are given
    return FitContext(settings=settings, session=session, grid=GRID, scales=(Scale(0, CHANNELS),))


def test_added_parts_are_known_to_the_reranker_and_no_energy_grows() -> None:
    settings = SETTINGS.with_values(
        {"memory_bank.size": 20, "memory_bank.rerank_banks": 2, "memory_bank.rerank_bank_size": 1000}
    )
    expert, _ = fit(settings)
    fitted, added, others = patches(5, 0), patches(5, 4), patches(40, 3)

    def closer(expert: PatchEnergy, images: torch.Tensor) -> torch.Tensor:
        assert expert.reranker is not None
        return expert.reranker.squared_distance(expert.whitening(images.float()))

    assert float(closer(expert, fitted).max()) < 1e-2 < float(closer(expert, added).min())
    larger = extend_memory_bank(expert, added, num_fitted=5, seed=settings.seed)
    assert float(closer(larger, torch.cat([fitted, added])).max()) < 1e-2
    assert float(closer(expert, added).min()) > 1e-2  # the first one is left as it was
    one, two = (each(others.float(), patches_per_image=GRID.num_patches) for each in (expert, larger))
    for before, after in zip(one, two, strict=True):
        assert bool((after <= before).all()) and float((before - after).max()) > 1e-3
    assert larger.latent_energy is expert.latent_energy


def test_added_parts_reach_farther_where_the_learned_energy_is_unusual_and_no_energy_grows() -> None:
    settings = SETTINGS.with_values(
        {"memory_bank.size": 20, "memory_bank.rerank_banks": 2, "memory_bank.rerank_bank_size": 1000}
    )
    expert, _ = fit(settings)
    unusual, others = 4 * patches(2, 4), patches(20, 3)
    plain, widened = (
        extend_memory_bank(expert, unusual, num_fitted=5, seed=settings.seed, widened=is_so)
        for is_so in (False, True)
    )
    assert expert.reranker is not None and plain.reranker is not None and widened.reranker is not None
    near = unusual.float() + 0.3 * torch.randn(unusual.shape, generator=torch.Generator().manual_seed(9))
    before, closer, closest = (
        each(near, patches_per_image=GRID.num_patches).detection for each in (expert, plain, widened)
    )
    assert bool((closer <= before).all()) and bool((closest <= closer * (1 + 1e-5)).all())
    assert float(closest.mean()) < float(closer.mean())
    far, near_it = (each.reranker.squared_distance(each.whitening(near)).mean() for each in (plain, widened))  # type: ignore[union-attr]
    assert float(near_it) < 0.8 * float(far)

    size = expert.reranker.size
    scales = [each.reranker.inverse[0, size : each.reranker.size].rsqrt() for each in (plain, widened)]  # type: ignore[union-attr]
    z = widened.reranker.bank_points()[0, size:] / expert.whitening.deviations()
    fitted = expert.reranker.bank_points()[0] / expert.whitening.deviations()
    excess = (
        expert.latent_energy.terms(z).learned / expert.latent_energy.terms(fitted).learned.median()
    ).clamp(1, MAX_EXCESS)
    torch.testing.assert_close(scales[1] / scales[0], excess**0.25, rtol=0.05, atol=0)  # points have 8 bits
    assert float(excess.median()) > 1.5

    usual = [each(others.float(), patches_per_image=GRID.num_patches).detection for each in (plain, widened)]
    assert bool((usual[1] <= usual[0] * (1 + 1e-5)).all())


def test_as_many_points_are_added_as_is_the_share_of_the_parts() -> None:
    settings = SETTINGS.with_values({"memory_bank.rerank_banks": 3, "memory_bank.rerank_bank_size": 40})
    expert, _ = fit(settings)
    larger = extend_memory_bank(expert, patches(2, 2), num_fitted=5, seed=settings.seed)
    assert expert.reranker is not None and larger.reranker is not None
    assert (expert.reranker.size, larger.reranker.size) == (40, 56)


def test_reranking_leaves_training_as_it_is() -> None:
    settings = SETTINGS.with_values({"memory_bank.size": 20})
    with_it, without = fit(settings)[0], fit(settings.with_values({"memory_bank.rerank_banks": 0}))[0]
    assert without.reranker is None and with_it.reranker is not None
    states = [expert.latent_energy.state_dict() for expert in (with_it, without)]
    scaled = {"weight"}  # by one factor, see below
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[1].keys() - scaled)
    ratios = states[0]["weight"] / states[1]["weight"]
    torch.testing.assert_close(ratios, ratios.flatten()[0].expand_as(ratios))


@pytest.mark.parametrize("ensemble_size", [1, 3])
def test_reranked_patches_keep_their_energy_at_the_median(
    ensemble_size: int,
) -> None:
    settings = SETTINGS.with_values(
        {
            "memory_bank.size": 20,
            "memory_bank.rerank_banks": 2,
            "memory_bank.rerank_bank_size": 80,
            "memory_bank.rerank_fraction": 1 / 4,
            "energy.ensemble_size": ensemble_size,
        }
    )
    expert, _ = fit(settings)
    unseen = expert.whitening(patches(2, 2).float())
    first, strange = expert.latent_energy(unseen), unseen.shape[1] // 4
    seen, places = (
        expert(patches(2, 2).float(), patches_per_image=GRID.num_patches).detection,
        first.topk(strange).indices,
    )
    ratios = (seen / first).gather(1, places)
    assert abs(float(ratios.median()) - 1) < 1e-4


def test_images_that_are_all_alike_leave_the_first_stage() -> None:
    alike = patches(1, 0).expand(6, -1, -1)
    parts = TrainingPatches(fitted=alike[:5], jittered=alike[:0], held_out=alike[5:], synthetic=NO_DEFECTS)
    settings = SETTINGS.with_values({"memory_bank.size": 4, "memory_bank.rerank_banks": 2})
    one, two = (
        fit_patch_energy(parts, a_context(each), torch.Generator().manual_seed(0))[0]
        for each in (settings, settings.with_values({"memory_bank.rerank_banks": 0}))
    )
    others = one.whitening(patches(5, 1).float())
    factor = float((one.latent_energy(others) / two.latent_energy(others)).median())
    assert 0.4 < factor < 2.1


def test_no_memory_bank_where_none_is_asked() -> None:
    expert, _ = fit(SETTINGS.with_values({"memory_bank.size": 0}))
    assert isinstance(expert.latent_energy, AutoencoderEnergy) and expert.reranker is None


def test_ensemble_members_differ_and_their_mean_is_the_energy() -> None:
    settings = SETTINGS.with_values({"energy.ensemble_size": 3, "memory_bank.size": 20})
    expert, trainings = fit(settings)
    assert len(trainings) == 3
    assert isinstance(expert.latent_energy, MeanEnergy)
    latents = expert.whitening(patches(2, 2).float())
    each = torch.stack([energy(latents) for energy in expert.latent_energy.members])
    assert float((each[1:] - each[0]).abs().amax(dim=(1, 2)).min()) > 1e-3
    torch.testing.assert_close(expert.latent_energy(latents), each.mean(dim=0))


@pytest.mark.slow
def test_patches_like_synthetic_defects_have_more_energy_and_training_is_as_it_was() -> None:
    settings = SETTINGS.with_values(
        {"memory_bank.size": 20, "memory_bank.rerank_banks": 0, "energy.ensemble_size": 2}
    )
    like_good, like_planted = patches(40, 5), patches(40, 6).clone()
    planted = patches(40, 7).flatten(0, 1)
    for each in (like_planted, planted):
        each[..., 0] = 2 + each[..., 0] / 4
    with_it, without = fit(settings, planted)[0], fit(settings)[0]
    raised = [
        float(
            (with_it(images, GRID.num_patches).detection / without(images, GRID.num_patches).detection).mean()
        )
        for images in (like_good.float(), like_planted.float())
    ]
    assert raised[1] > 1.1 * raised[0] and 0.8 < raised[0] < 1.2
    own, earlier = with_it.state_dict(), without.state_dict()
    common = {name.replace("learned.energy.", "learned."): each for name, each in own.items()}
    assert isinstance(with_it.latent_energy, MeanEnergy)
    weights = [energy.state_dict() for energy in with_it.latent_energy.members]
    found = [name for name in weights[0] if "discriminator.first" in name]
    assert found and not torch.equal(weights[0][found[0]], weights[1][found[0]])
    assert all(
        torch.equal(common[name.replace("learned.energy.", "learned.")], each)
        for name, each in earlier.items()
    )
