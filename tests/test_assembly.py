"""Laws of heads that an earlier energyad saved: their tensors fill today's modules."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import safetensors.torch
import torch

from energyad.data.demo import render_good
from energyad.detector import AnomalyDetector
from energyad.energy.patch_energy import PatchEnergy
from energyad.errors import ModelError
from energyad.model.assembly import assemble_scorer
from energyad.model.folder import HEAD_FILE
from energyad.settings import FitSettings

pytestmark = pytest.mark.usefixtures("no_head_graph")  # the scorer is made of tensors

SETTINGS = FitSettings(
    image_size=64,
    pretrain_steps=5,
    iterations=0,
    memory_bank_size=20,
    rerank_banks=0,
    synthetic_defects=0,
    coarse_strides=(),
)
IMAGES = [render_good(0, "train", index, size=64) for index in range(8)]


@pytest.fixture(scope="module")
def of_one() -> AnomalyDetector:
    """A model of one category."""
    return AnomalyDetector.fit(IMAGES, settings=SETTINGS, any_direction=False, threads=1)


@pytest.mark.filterwarnings("ignore:only")
def test_a_head_of_schema_7_is_filled_by_its_names(of_one: AnomalyDetector) -> None:
    of_two = AnomalyDetector.fit(
        IMAGES, categories=["one", "two"] * 4, settings=SETTINGS, any_direction=False, threads=1
    )
    for model, inside in ((of_one, ""), (of_two, "energy.")):
        today = safetensors.torch.load(model.contents[HEAD_FILE])
        before = {f"{inside}{name.removeprefix('expert.')}": each for name, each in today.items()}
        assert not before.keys() & today.keys()
        contents = dict(model.contents) | {HEAD_FILE: safetensors.torch.save(before)}
        manifest = model.manifest.model_copy(update={"schema_version": 7})
        filled = assemble_scorer(manifest, contents).head.state_dict()
        assert filled.keys() == today.keys()
        assert all(torch.equal(filled[name], each) for name, each in today.items())


@pytest.mark.filterwarnings("ignore:only")
def test_a_closer_look_of_other_settings_is_refused() -> None:
    own = replace(SETTINGS, rerank_banks=2, rerank_bank_size=10)
    model = AnomalyDetector.fit(IMAGES, settings=own, any_direction=False, threads=1)
    for looks in (0, 3):
        manifest = model.manifest.model_copy(
            update={"settings": model.manifest.settings | {"rerank_banks": looks}}
        )
        with pytest.raises(ModelError, match=f"{HEAD_FILE}: its tensors do not fit"):
            assemble_scorer(manifest, model.contents)


@pytest.mark.filterwarnings("ignore:only")
@pytest.mark.parametrize("prototypes", [0, 20])
def test_whether_there_is_a_discriminator_the_tensors_say(prototypes: int) -> None:
    """Settings of an earlier energyad do not know of it, and take today's default."""
    for planted in (0, 1):
        own = replace(
            SETTINGS, memory_bank_size=prototypes, synthetic_defects=planted, discriminator_iterations=5
        )
        model = AnomalyDetector.fit(IMAGES, settings=own, any_direction=False, threads=1)
        settings = {n: v for n, v in model.manifest.settings.items() if n != "synthetic_defects"}
        manifest = model.manifest.model_copy(update={"settings": settings})
        filled = assemble_scorer(manifest, model.contents).head.state_dict()
        saved = safetensors.torch.load(model.contents[HEAD_FILE])
        assert filled.keys() == saved.keys()
        assert all(torch.equal(filled[name], each) for name, each in saved.items())
        assert any("discriminator" in name for name in saved) == (planted > 0)


@pytest.mark.filterwarnings("ignore:only")
def test_a_closer_look_is_at_the_share_that_the_model_was_fitted_with_and_before_it_was_named_at_a_32nd() -> (
    None
):
    own = replace(SETTINGS, rerank_banks=1, rerank_bank_size=10, rerank_fraction=0.5)
    model = AnomalyDetector.fit(IMAGES, settings=own, any_direction=False, threads=1)
    unnamed = {n: v for n, v in model.manifest.settings.items() if n != "rerank_fraction"}
    for settings, share in ((model.manifest.settings, 0.5), (unnamed, 1 / 32)):
        manifest = model.manifest.model_copy(update={"settings": settings})
        expert = assemble_scorer(manifest, model.contents).head.expert
        assert isinstance(expert, PatchEnergy) and expert.closer_look is not None
        assert expert.closer_look.share == share


@pytest.mark.filterwarnings("ignore:only")
def test_a_model_of_before_keeps_the_scores_that_its_threshold_was_made_from(of_one: AnomalyDetector) -> None:
    """Until schema 10 the border weighed more; its saved graph says so still."""
    settings = of_one.manifest.settings | {"heatmap_contrast": 1.0}
    evenly = of_one.manifest.model_copy(update={"settings": settings})
    manifest = evenly.model_copy(update={"schema_version": 10})
    today, before = (assemble_scorer(each, of_one.contents) for each in (evenly, manifest))
    pixels = torch.from_numpy(np.stack(IMAGES))
    with torch.no_grad():
        now, then = today(pixels), before(pixels)
    assert torch.equal(then.score, then.heatmap.amax(dim=(1, 2)))
    assert bool((now.score < then.score).any())
    assert torch.equal(now.heatmap, then.heatmap.minimum(now.score[:, None, None]))


@pytest.mark.filterwarnings("ignore:only")
def test_heatmaps_of_a_model_of_before_are_its_energies(of_one: AnomalyDetector) -> None:
    """Until schema 12; that there is a contrast its settings do not say."""
    settings = {n: v for n, v in of_one.manifest.settings.items() if n != "heatmap_contrast"}
    manifest = of_one.manifest.model_copy(update={"schema_version": 11, "settings": settings})
    today, before = (assemble_scorer(each, of_one.contents) for each in (of_one.manifest, manifest))
    pixels = torch.from_numpy(np.stack(IMAGES))
    with torch.no_grad():
        now, then = today(pixels), before(pixels)
    assert torch.equal(now.score, then.score)
    score = then.score[:, None, None]
    torch.testing.assert_close(now.heatmap, (then.heatmap / score) ** (4 / 3) * score)
    assert float((then.heatmap - now.heatmap).max()) > 0.05 * float(then.score.max())


@pytest.mark.filterwarnings("ignore:only")
def test_a_model_of_before_has_one_energy_and_what_is_gone_is_named(of_one: AnomalyDetector) -> None:
    model = of_one
    before = {n: v for n, v in model.manifest.settings.items() if not n.startswith("half_")}
    kept, gone = (
        model.manifest.model_copy(update={"settings": before | {"scale_powers": powers}})
        for powers in ([], [1.0, 0.5])
    )
    assert isinstance(assemble_scorer(kept, model.contents).head.expert, PatchEnergy)
    with pytest.raises(ModelError, match="fitted with scale_powers, which is gone: score it with --runtime"):
        assemble_scorer(gone, model.contents)
    alone, beside = (
        model.manifest.model_copy(
            update={"settings": before | {"heatmap_half_share": 0.2, "coarse_strides": own}}
        )
        for own in ([], [8, 16])
    )
    assert isinstance(assemble_scorer(alone, model.contents).head.expert, PatchEnergy)
    with pytest.raises(ModelError, match="fitted with heatmap_half_share, which is gone: score it with"):
        assemble_scorer(beside, model.contents)
    odd = before | {"strides": [16, 32], "coarse_strides": [16, 32]}
    odd.pop("border")
    elsewhere = model.manifest.model_copy(
        update={"settings": odd, "input": model.manifest.input.model_copy(update={"image_size": 128})}
    )
    with pytest.raises(ModelError, match="half-size patches lay elsewhere: score it with --runtime"):
        assemble_scorer(elsewhere, model.contents)
