"""Laws of assembly: a saved model's tensors fill the modules that its manifest states, and no others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import onnx
import pytest
import safetensors.torch
import torch

from energyad.data.demo import render_good
from energyad.detector import AnomalyDetector
from energyad.energy.reranking import Reranker
from energyad.errors import ModelError
from energyad.features.extractor import load_extractor
from energyad.model.architecture import Architecture, ScaleArchitecture
from energyad.model.assembly import architecture_of, assemble_scorer
from energyad.model.folder import BACKBONE_FILE, GRAPH_FILE, HEAD_FILE
from energyad.settings import FitSettings
from tests.quick import TINY
from tests.untraced import fit_untraced

pytestmark = [
    pytest.mark.slow,  # fits models of many parts
    pytest.mark.filterwarnings("ignore:only"),
]

PLAIN = TINY.with_values(
    {
        "dxmi.iterations": 0,
        "memory_bank.size": 0,
        "memory_bank.rerank_banks": 0,
        "synthetic_defects.per_image": 0,
        "features.coarse_strides": (),
    }
)
WHOLE = PLAIN.with_values(
    {
        "energy.ensemble_size": 2,
        "memory_bank.size": 20,
        "memory_bank.directions": 10,
        "memory_bank.rerank_banks": 2,
        "memory_bank.rerank_bank_size": 10,
        "memory_bank.rerank_fraction": 0.5,
        "synthetic_defects.per_image": 1,
        "synthetic_defects.discriminator_iterations": 5,
        "features.coarse_strides": FitSettings().features.coarse_strides,
        "heatmap.contrast": 1.5,
    }
)
IMAGES = [render_good(0, "train", index, size=64) for index in range(8)]


@pytest.fixture(scope="module")
def plain() -> AnomalyDetector:
    """A model of one category, one scale and one autoencoder."""
    return fit_untraced(IMAGES, settings=PLAIN)


@pytest.fixture(scope="module")
def whole() -> AnomalyDetector:
    """A model of two categories with all that an energy can have."""
    return fit_untraced(IMAGES, categories=["one", "two"] * 4, settings=WHOLE)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["plain", "whole"])
def test_an_assembled_model_has_the_stated_architecture_and_the_saved_tensors(
    name: str, request: pytest.FixtureRequest
) -> None:
    model: AnomalyDetector = request.getfixturevalue(name)
    stated = model.manifest.architecture
    head = assemble_scorer(model.manifest, model.contents).head
    same = {
        option: getattr(stated, option)
        for option in ("precision", "strides", "coarse_strides", "border_margin", "smoothing", "contrast")
    }
    assert architecture_of(head.patch_energy, **same) == stated
    saved = safetensors.torch.load(model.contents[HEAD_FILE])
    assembled = head.state_dict()
    assert assembled.keys() == saved.keys()
    assert all(torch.equal(assembled[key], tensor) for key, tensor in saved.items())


def test_a_fit_states_what_it_was_asked_for(plain: AnomalyDetector, whole: AnomalyDetector) -> None:
    (scale,) = plain.manifest.architecture.scales
    assert (scale.latent_dim, scale.width, scale.bottleneck) == (16, 16, 4)
    assert scale.memory_bank_size == scale.rerank_banks == scale.discriminator_width == 0
    stated = whole.manifest.architecture
    fine, coarse = stated.scales
    assert (fine.memory_bank_size, fine.memory_bank_directions, coarse.memory_bank_size) == (20, 10, 10)
    assert (fine.rerank_banks, coarse.rerank_banks, fine.discriminator_width) == (2, 2, 64)
    assert (stated.ensemble_size, stated.rerank_fraction, stated.contrast) == (2, 0.5, 1.5)


def fine_scale(**changes: Any) -> Callable[[Architecture], Architecture]:
    def changed(stated: Architecture) -> Architecture:
        first: ScaleArchitecture = replace(stated.scales[0], **changes)
        return replace(stated, scales=(first, *stated.scales[1:]))

    return changed


@pytest.mark.parametrize(
    "change",
    [
        fine_scale(latent_dim=99),
        fine_scale(width=99),
        fine_scale(bottleneck=99),
        fine_scale(discriminator_width=0),
        fine_scale(memory_bank_size=0),
        fine_scale(memory_bank_size=99),
        fine_scale(memory_bank_directions=9),
        fine_scale(rerank_banks=0),
        fine_scale(rerank_banks=3),
        fine_scale(rerank_bank_size=99),
        lambda stated: replace(stated, ensemble_size=1),
        fine_scale(channels=99),
        lambda stated: replace(stated, scales=stated.scales[:1]),
    ],
)
def test_tensors_of_another_architecture_are_refused_in_one_line(
    whole: AnomalyDetector, change: Callable[[Architecture], Architecture]
) -> None:
    manifest = whole.manifest.replace(architecture=change(whole.manifest.architecture))
    with pytest.raises(ModelError, match="its tensors do not fit the model's architecture") as refused:
        assemble_scorer(manifest, whole.contents)
    assert "\n" not in str(refused.value)


def test_reranking_is_of_the_stated_fraction(whole: AnomalyDetector) -> None:
    head = assemble_scorer(whole.manifest, whole.contents).head
    assert {module.fraction for module in head.modules() if isinstance(module, Reranker)} == {0.5}


def test_the_backbone_is_stored_once_and_comes_back_bit_for_bit(whole: AnomalyDetector) -> None:
    features = WHOLE.features
    original = load_extractor(features.backbone, image_size=(64, 64), coarse_strides=features.coarse_strides)
    tensors = original.backbone.state_dict()
    num_bytes = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    assert len(whole.contents[BACKBONE_FILE]) < num_bytes / 5
    assembled = assemble_scorer(whole.manifest, whole.contents).extractor.backbone.state_dict()
    assert assembled.keys() == tensors.keys()
    assert all(torch.equal(assembled[name], tensor) for name, tensor in tensors.items())


def test_a_graph_without_the_backbones_weights_is_refused(whole: AnomalyDetector) -> None:
    graph = onnx.load_model_from_string(whole.contents[GRAPH_FILE])
    del graph.graph.initializer[:]
    for content, fault in ((graph.SerializeToString(), BACKBONE_FILE), (b"half a graph", GRAPH_FILE)):
        with pytest.raises(ModelError, match=fault):
            assemble_scorer(whole.manifest, whole.contents | {GRAPH_FILE: content})
