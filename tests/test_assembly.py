"""Laws of heads that an earlier energyad saved: their tensors fill today's modules."""

from __future__ import annotations

import numpy as np
import pytest
import safetensors.torch
import torch

from energyad.data.demo import render_good
from energyad.detector import AnomalyDetector
from energyad.errors import ModelError
from energyad.model.assembly import assemble_scorer
from energyad.model.folder import HEAD_FILE
from energyad.settings import FitSettings

pytestmark = pytest.mark.usefixtures("no_head_graph")  # the scorer is made of tensors

SETTINGS = FitSettings().with_values(
    {
        "input.image_size": 64,
        "energy.pretrain_steps": 5,
        "dxmi.iterations": 0,
        "memory_bank.size": 20,
        "memory_bank.rerank_banks": 0,
        "synthetic_defects.per_image": 0,
        "features.coarse_strides": (),
    }
)
IMAGES = [render_good(0, "train", index, size=64) for index in range(8)]


@pytest.fixture(scope="module")
def of_one() -> AnomalyDetector:
    """A model of one category."""
    return AnomalyDetector.fit(IMAGES, settings=SETTINGS, any_direction=False, threads=1)


@pytest.mark.filterwarnings("ignore:only")
def test_a_closer_look_of_other_settings_is_refused() -> None:
    own = SETTINGS.with_values({"memory_bank.rerank_banks": 2, "memory_bank.rerank_bank_size": 10})
    model = AnomalyDetector.fit(IMAGES, settings=own, any_direction=False, threads=1)
    for looks in (0, 3):
        other = own.with_values({"memory_bank.rerank_banks": looks}).to_dict()
        manifest = model.manifest.model_copy(update={"settings": other})
        with pytest.raises(ModelError, match=f"{HEAD_FILE}: its tensors do not fit"):
            assemble_scorer(manifest, model.contents)


@pytest.mark.filterwarnings("ignore:only")
@pytest.mark.parametrize("prototypes", [0, 20])
def test_whether_there_is_a_discriminator_the_tensors_say(prototypes: int) -> None:
    for planted in (0, 1):
        own = SETTINGS.with_values(
            {
                "memory_bank.size": prototypes,
                "synthetic_defects.per_image": planted,
                "synthetic_defects.discriminator_iterations": 5,
            }
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
def test_a_model_of_before_keeps_the_scores_that_its_threshold_was_made_from(of_one: AnomalyDetector) -> None:
    """Until schema 10 the border weighed more; its saved graph says so still."""
    settings = SETTINGS.with_values({"heatmap.contrast": 1.0}).to_dict()
    evenly = of_one.manifest.model_copy(update={"settings": settings})
    manifest = evenly.model_copy(update={"schema_version": 10})
    today, before = (assemble_scorer(each, of_one.contents) for each in (evenly, manifest))
    pixels = torch.from_numpy(np.stack(IMAGES))
    with torch.no_grad():
        now, then = today(pixels), before(pixels)
    assert torch.equal(then.score, then.heatmap.amax(dim=(1, 2)))
    assert bool((now.score < then.score).any())
    assert torch.equal(now.heatmap, then.heatmap.minimum(now.score[:, None, None]))
