"""Laws of what is measured on fitted models: parts taken out, defects at the edge."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.detection import ablation, ablation_table, edges
from energyad.data.datasets import Category
from energyad.detector import AnomalyDetector
from energyad.energy.discriminator import DiscriminatorEnergy
from energyad.energy.patch_energy import MultiScaleEnergy, PatchEnergy
from energyad.features.grids import Scale
from energyad.model.assembly import assemble_scorer
from energyad.scoring.scorer import EnergyHead, Scores

pytestmark = pytest.mark.slow
HALF = "image at half its size"


@pytest.fixture(scope="module")
def head(fitted_detector: AnomalyDetector) -> EnergyHead:
    return assemble_scorer(fitted_detector.manifest, fitted_detector.contents).head


@pytest.fixture(scope="module")
def scores(head: EnergyHead) -> dict[str, Scores]:
    finest, *coarser = head.patch_energy.by_category()[0].by_scale()
    channels = len(finest.whitening.mean) + sum(-(-len(scale.whitening.mean) // 4) for scale in coarser)
    grids = torch.rand(3, channels, *head.grid.inner, generator=torch.Generator().manual_seed(0))
    return {part: ablation.without(head, part)(grids) for part in ablation.PARTS} | {"model": head(grids)}


def test_all_parts_are_the_model_and_without_any_scores_are_finite(scores: dict[str, Scores]) -> None:
    assert torch.equal(scores[ablation.WHOLE].heatmap, scores["model"].heatmap)
    assert all(bool(found.score.isfinite().all()) for found in scores.values())


@pytest.mark.parametrize("part", ["contrast of heatmaps", "an energy of the heatmap's own"])
def test_parts_of_the_heatmap_change_no_score(scores: dict[str, Scores], part: str) -> None:
    assert torch.equal(scores[part].score, scores["model"].score)
    assert not torch.equal(scores[part].heatmap, scores["model"].heatmap)


@pytest.mark.parametrize(
    "part", [part for part in ablation.PARTS if part not in {ablation.WHOLE, "border weights", HALF}]
)
def test_every_other_part_changes_heatmaps(scores: dict[str, Scores], part: str) -> None:
    assert not torch.equal(scores[part].heatmap, scores["model"].heatmap)


def test_without_the_half_the_energy_is_that_of_the_finest_scale(head: EnergyHead) -> None:
    (energy,) = head.patch_energy.by_category()[0].by_scale()
    channels, (rows, columns) = len(energy.whitening.mean), head.grid.inner
    scales = (Scale(0, channels), Scale(channels, channels, factor=2))
    product = MultiScaleEnergy([energy, energy], scales, shape=(rows, columns), weights=(0.5, 0.5))
    whole = copy.deepcopy(head)
    whole.patch_energy = product
    grids = torch.rand(2, scales[-1].stop, rows, columns, generator=torch.Generator().manual_seed(0))
    alone = ablation.without(whole, HALF)(grids)
    assert torch.equal(alone.heatmap, head(grids[:, :channels]).heatmap)
    assert not torch.equal(alone.heatmap, whole(grids).heatmap)


def test_without_a_factor_the_energy_is_the_product_of_the_others(head: EnergyHead) -> None:
    finest: PatchEnergy = ablation.without(head, "reranking").patch_energy.by_category()[0].by_scale()[0]
    z = torch.randn(50, finest.whitening.projection.shape[1], generator=torch.Generator().manual_seed(0))

    def energies(part: str) -> torch.Tensor:
        changed = ablation.without(head, part).patch_energy.by_category()[0].by_scale()[0]
        total: torch.Tensor = changed.latent_energy(z)
        return total

    total, learned, odds = finest.latent_energy.terms(z)
    torch.testing.assert_close(energies("memory bank"), learned)
    torch.testing.assert_close(energies("discriminator"), total / odds)
    torch.testing.assert_close(energies("autoencoder"), total / learned * odds)
    assert isinstance(
        finest.latent_energy.learned, DiscriminatorEnergy
    )  # the model itself has all of them still


def a_row(part: str, category: str, image: float, aupro: float | None) -> dict[str, Any]:
    figures = {"image_auroc": image, "pixel_auroc": aupro, "aupro": aupro}
    return {"part": part, "category": category, "seed": 0, "commit": "c" * 40, "processor": "p"} | figures


def test_the_table_states_points_lost_and_leaves_out_what_has_no_masks() -> None:
    rows = [a_row(ablation.WHOLE, name, 0.9, 0.8 if name == "a" else None) for name in ("a", "b")]
    rows += [a_row("autoencoder", "a", 0.88, 0.81), a_row("autoencoder", "b", 0.9, None)]
    image, pixel, aupro = ablation_table.render(rows).split("**")[2::2]
    assert "| all parts | 0.900 | 0.900 | 0.900 |" in image
    assert "| without: autoencoder | -2.0 | +0.0 | -1.0 |" in image
    assert "| without: autoencoder | +1.0 | +1.0 |" in aupro and "b" not in pixel.splitlines()[2]


def test_the_table_of_edges_has_a_line_for_either_place_and_their_mean() -> None:
    rows = [
        {"where": where, "category": name, "image_auroc": figure, "aupro": 0.5}
        for name in ("a", "b")
        for where, figure in (("edge", 0.25 if name == "a" else 0.75), ("inside", 1.0))
    ]
    found = ablation_table.render_edges(rows)
    assert "| edge, image AUROC | 0.250 | 0.750 | 0.500 |" in found
    assert "| inside, AUPRO | 0.500 | 0.500 | 0.500 |" in found and not ablation_table.render_edges([])


def test_middles_of_defects_lie_where_they_are_asked_for() -> None:
    edge, inside = (edges.allowed((100, 200), (50, 100), where) for where in ("edge", "inside"))
    assert edge[:16].all() and edge[:, -16:].all() and not edge[16:-16, 16:-16].any()
    assert inside.sum() == 0 or not (edge & inside).any()
    inside = edges.allowed((512, 256), (256, 256), "inside")
    assert inside[64:-64, 32:-32].all() and inside.sum() == 384 * 192


def test_defects_at_the_edge_and_inside_are_of_the_same_kinds(demo_category: Category) -> None:
    at_edge, inside = (edges.draw(demo_category, (128, 128), where, seed=0) for where in ("edge", "inside"))
    assert len(at_edge.pixels) == len(inside.pixels) >= edges.NUM_DEFECTIVE
    rows, columns = np.ogrid[:128, :128]
    from_edge = np.minimum(np.minimum(rows, 127 - rows), np.minimum(columns, 127 - columns))
    near, far = (
        np.mean([from_edge[mask].mean() for mask in each.masks if mask.any()]) for each in (at_edge, inside)
    )
    assert near < far


def test_commands_name_a_model_that_is_not_there(
    demo_category: Category, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for command in (ablation, edges):
        root = ["--data-root", str(demo_category.root.parent), "--categories", demo_category.name]
        status = command.main(["--models", str(tmp_path), *root])
        assert status == 2 and "synthetic_bottle" in capsys.readouterr().err
