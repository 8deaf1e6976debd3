"""Laws of heads that an earlier energyad saved: their tensors fill today's modules."""

from __future__ import annotations

from dataclasses import replace

import pytest
import safetensors.torch
import torch

from energyad.assembly import assemble_scorer
from energyad.demo import render_good
from energyad.detector import HEAD_FILE, AnomalyDetector
from energyad.errors import ModelError
from energyad.settings import FitSettings

SETTINGS = FitSettings(
    image_size=64, warmup_iterations=5, iterations=0, num_prototypes=20, num_closer_looks=0
)
IMAGES = [render_good(0, "train", index, size=64) for index in range(8)]


@pytest.mark.filterwarnings("ignore:only")
@pytest.mark.parametrize("categories", [None, ["one", "two"] * 4])
def test_a_head_of_schema_7_is_filled_by_its_names(categories: list[str] | None) -> None:
    model = AnomalyDetector.fit(
        IMAGES, categories=categories, settings=SETTINGS, any_direction=False, threads=1
    )
    today = safetensors.torch.load(model.contents[HEAD_FILE])
    inside = "energy." if categories else ""
    before = {f"{inside}{name.removeprefix('expert.')}": each for name, each in today.items()}
    assert not before.keys() & today.keys()
    contents = dict(model.contents) | {HEAD_FILE: safetensors.torch.save(before)}
    manifest = model.manifest.model_copy(update={"schema_version": 7})
    filled = assemble_scorer(manifest, contents).head.state_dict()
    assert filled.keys() == today.keys()
    assert all(torch.equal(filled[name], each) for name, each in today.items())


@pytest.mark.filterwarnings("ignore:only")
@pytest.mark.parametrize("looks", [0, 3])
def test_a_closer_look_of_other_settings_is_refused(looks: int) -> None:
    own = replace(SETTINGS, num_closer_looks=2, closer_prototypes=10)
    model = AnomalyDetector.fit(IMAGES, settings=own, any_direction=False, threads=1)
    manifest = model.manifest.model_copy(
        update={"settings": model.manifest.settings | {"num_closer_looks": looks}}
    )
    with pytest.raises(ModelError, match=f"{HEAD_FILE}: its tensors do not fit"):
        assemble_scorer(manifest, model.contents)
