"""Laws of what DxMI gives to detection: the games share all but what they train, and tables subtract like from like."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from benchmarks.detection import games, games_table, sphere_games
from energyad.data.datasets import Category
from energyad.detector import AnomalyDetector
from energyad.dxmi import DxMITrainer
from energyad.energy.networks import AutoencoderEnergy
from energyad.energy.patch_energy import PatchEnergy
from energyad.fitting.energies import Latents
from energyad.fitting.training import train_energy
from energyad.model.assembly import assemble_scorer
from energyad.progress import NullProgress
from tests.quick import TINY


@pytest.fixture(scope="module")
def start(fitted_detector: AnomalyDetector) -> PatchEnergy:
    scorer = assemble_scorer(fitted_detector.manifest, fitted_detector.contents)
    return scorer.head.patch_energy.by_category()[0].by_scale()[0]


@pytest.fixture(scope="module")
def played(start: PatchEnergy) -> dict[str, games.Game]:
    generator = torch.Generator().manual_seed(0)
    size = start.whitening.projection.shape[1]

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, size, generator=generator)

    training = draw(600)
    latents = Latents(training, training[:400].view(4, 100, size), draw(2, 100), 2 * draw(50))
    settings = TINY.with_values({"dxmi.iterations": 5, "dxmi.pretrain_iterations": 20})
    return games.play_all(start, latents, settings)


def test_games_change_the_autoencoder_and_nothing_else(
    start: PatchEnergy, played: dict[str, games.Game]
) -> None:
    assert set(played) == set(games.GAMES) and played[games.START].energy is start
    z = torch.randn(40, start.whitening.projection.shape[1], generator=torch.Generator().manual_seed(1))
    swapped = games.with_autoencoder(played["DxMI"].energy, games.autoencoder_of(start))
    for game in played.values():
        assert isinstance(games.autoencoder_of(game.energy), AutoencoderEnergy)
        assert torch.equal(game.energy.whitening.projection, start.whitening.projection)
    before, after = start.latent_energy.terms(z), swapped.latent_energy.terms(z)
    torch.testing.assert_close(after.learned, before.learned)
    assert torch.equal(after.odds, before.odds)
    ratio = after.total / before.total  # the two stages are matched anew: one factor
    torch.testing.assert_close(ratio, ratio[:1].expand_as(ratio))


def test_a_start_with_a_wide_code_has_one_and_fits_do_not() -> None:
    latents = torch.randn(400, 16, generator=torch.Generator().manual_seed(0))
    settings = TINY.with_values({"energy.bottleneck": 12, "energy.pretrain_steps": 2, "dxmi.iterations": 0})

    def width_of_the_code() -> int:
        trained = train_energy(
            latents,
            latents[:50],
            settings=settings,
            generator=torch.Generator().manual_seed(0),
            progress=NullProgress(),
        )
        return trained.energy.sizes().bottleneck

    assert width_of_the_code() == 4
    with games.any_code():
        assert width_of_the_code() == 12
    assert width_of_the_code() == 4


def test_one_energy_of_directions_is_measured_on_each_category_after_each_game(
    demo_category: Category,
) -> None:
    settings = TINY.with_values(
        {
            "dxmi.iterations": 3,
            "dxmi.pretrain_iterations": 3,
            "energy.bottleneck": 8,
            "energy.pretrain_steps": 40,
        }
    )
    both = [demo_category, replace(demo_category, name="other")]
    rows = list(sphere_games.measure(both, settings, threads=1))
    assert [(row["game"], row["category"]) for row in rows] == [
        (game, category.name) for game in games.GAMES for category in both
    ]
    assert all(0 <= row[name] <= 1 for row in rows for name in ("image_auroc", "pixel_auroc", "aupro"))
    assert {row["iterations"] for row in rows} == {3} and rows[2]["health"][0]["radius"] > 0
    for one, other in zip(rows[::2], rows[1::2], strict=True):  # the same images
        assert one["image_auroc"] == other["image_auroc"]
    table = games_table.render([row | {"commit": "c" * 40, "processor": "p"} for row in rows])
    assert f"**Start: {games.SPHERE}; {games.ALONE}**" in table


@pytest.mark.parametrize("k", [3, 176])
def test_an_energy_on_the_sphere_is_the_same_at_any_length(k: int) -> None:
    generator = torch.Generator().manual_seed(0)
    energy = sphere_games.SphereEnergy(AutoencoderEnergy(k, width=8, bottleneck=2, generator=generator))
    z = torch.randn(50, k, generator=generator)
    torch.testing.assert_close(energy(7 * z), energy(z))
    torch.testing.assert_close(sphere_games.to_sphere(z).square().mean(dim=1), torch.ones(50))
    assert float(energy(z).detach().std()) > 0


@pytest.mark.parametrize("d", [2, 64])
def test_noise_of_the_control_has_the_radius_of_the_samples(d: int) -> None:
    data = torch.randn(500, d, generator=torch.Generator().manual_seed(0))
    settings = TINY.dxmi
    options: dict[str, Any] = {"data": data, "settings": settings}

    def energy() -> AutoencoderEnergy:
        return AutoencoderEnergy(d, width=8, bottleneck=1, generator=torch.Generator().manual_seed(0))

    trainer = DxMITrainer(energy=energy(), generator=torch.Generator().manual_seed(0), **options)
    radius = games.radius_of(trainer)
    control = games.GaussianNegatives(
        radius=radius, energy=energy(), generator=torch.Generator().manual_seed(0), **options
    )
    seen: list[torch.Tensor] = []
    control.learner.update_energy = lambda good, bad: seen.append(bad) or torch.zeros(3)  # type: ignore
    for _ in range(20):
        control.update()
    negatives = torch.cat(seen)
    nearest = torch.cdist(negatives, data).amin(dim=1).square().mean().item() / d
    assert 0.0 < nearest <= 1.1 * radius**2
    if d == 64:  # where the nearest one is the one that noise was added to
        assert nearest == pytest.approx(radius**2, rel=0.1)


def test_the_table_subtracts_the_start_of_the_same_view() -> None:
    def a_row(game: str, view: str, category: str, image: float, aupro: float | None) -> dict[str, Any]:
        shared = {"start": "reconstruction", "seed": 0, "commit": "c" * 40, "processor": "p", "health": []}
        return shared | {
            "game": game,
            "view": view,
            "category": category,
            "image_auroc": image,
            "pixel_auroc": aupro,
            "aupro": aupro,
        }

    rows = []
    for view, base in ((games.WHOLE, 0.9), (games.ALONE, 0.7)):
        for category, aupro in (("a", 0.8), ("b", None)):
            rows.append(a_row(games.START, view, category, base, aupro))
            rows.append(a_row("DxMI", view, category, base + 0.01, aupro))
    whole, alone = games_table.render(rows).split("**Start")[1:]
    assert "| image AUROC | none | 0.900 | 0.900 | 0.900 |" in whole
    assert "| image AUROC | DxMI | +1.0 | +1.0 | +1.0 |" in whole and "| +1.0 | +1.0 | +1.0 |" in alone
    assert "| AUPRO | none | 0.800 |  | 0.800 |" in whole
    assert "| image AUROC | temperature 0 | — | — | — |" in whole
