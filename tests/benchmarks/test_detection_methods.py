"""Laws of the methods that the detection benchmark compares."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch
import torch
from anomalib.models.components.sampling import KCenterGreedy

from benchmarks.detection import peers, rows
from benchmarks.detection.ours import CHANGES, Energyad, energyad_method
from benchmarks.detection.peers import PrunedGreedy, _numpy_seed, write_timm_folder
from benchmarks.detection.same_features import FeatureRule, nearest_distance, side_by_side
from energyad.features.extractor import load_extractor
from energyad.features.grids import Scale
from energyad.settings import FitSettings

SIZE = 96


def test_peers_get_the_weights_that_energyad_has(tmp_path: Path) -> None:
    weights = write_timm_folder(tmp_path)
    written = safetensors.torch.load_file(tmp_path / "model.safetensors")
    own = load_extractor("tf_efficientnet_lite0", image_size=(SIZE, SIZE)).backbone.state_dict()
    assert weights.mean == (0.5, 0.5, 0.5)
    for key, value in own.items():
        torch.testing.assert_close(written[key], value, rtol=0, atol=0)


def test_patchcores_coreset_is_the_same_with_distances_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "CANDIDATES", 100)
    generator = torch.Generator().manual_seed(0)
    centres = 4 * torch.randn(30, 40, generator=generator)
    embedding = (centres[:, None] + torch.randn(30, 80, 40, generator=generator)).flatten(0, 1)

    def chosen(sampler: type[KCenterGreedy]) -> list[int]:
        with torch.random.fork_rng(devices=[]), _numpy_seed(0):
            torch.manual_seed(0)
            return sampler(embedding, 0.05).select_coreset_idxs()

    whole = chosen(KCenterGreedy)
    assert chosen(PrunedGreedy) == whole
    assert len(set(whole)) == 120


def test_nearest_distance_is_exact() -> None:
    generator = torch.Generator().manual_seed(2)
    queries, bank = torch.randn(50, 8, generator=generator), torch.randn(30, 8, generator=generator)
    torch.testing.assert_close(
        nearest_distance(queries, bank), torch.cdist(queries, bank).amin(dim=1), atol=1e-4, rtol=1e-4
    )


def test_a_patch_has_the_features_of_the_coarse_one_that_it_lies_in_beside_its_own() -> None:
    grids = torch.arange(4 * 4 * 2.0).view(1, 4, 4, 2)
    found = side_by_side(grids, [Scale(0, 1), Scale(1, 4, factor=2)])
    assert torch.equal(found[..., :1], grids[..., :1])
    assert torch.equal(found[0, 2, 1, 1:], grids[0, 2:, :2, 1].flatten())


def test_opponents_keep_their_smoothing_whatever_ours_is() -> None:
    for name in ("knn", "knn-whitened", "mahalanobis"):
        assert (
            FeatureRule(name, FitSettings().with_values({"heatmap.smoothing": 0.0})).settings["smoothing"]
            == 4
        )
        assert (
            FeatureRule(f"{name}-unsmoothed", FitSettings().with_values({"heatmap.smoothing": 4.0})).settings[
                "smoothing"
            ]
            == 0
        )


def test_ablations_change_one_thing_each() -> None:
    base = energyad_method("energyad", image_size=SIZE).fit_settings
    assert base == FitSettings().with_values({"input.image_size": SIZE})
    assert energyad_method("energyad-init", image_size=SIZE).fit_settings == base.with_values(
        {"dxmi.iterations": 0}
    )
    tau0 = energyad_method("energyad-tau0", image_size=SIZE).fit_settings
    assert tau0 == base.with_values({"dxmi.temperature": 0.0}) != base
    changed = [energyad_method(name, image_size=SIZE).fit_settings for name in CHANGES]
    assert len({str(each) for each in changed}) == len(CHANGES)


def test_the_seed_is_no_setting_and_every_setting_counts() -> None:
    method = Energyad(FitSettings().with_values({"input.image_size": SIZE}))
    other = Energyad(replace(method.fit_settings, seed=7))
    longer = Energyad(method.fit_settings.with_values({"dxmi.iterations": 4321}))
    assert rows.settings_hash(method.settings) == rows.settings_hash(other.settings)
    assert rows.settings_hash(method.settings) != rows.settings_hash(longer.settings)
