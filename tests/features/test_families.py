"""Backbones of each family with random weights, in files as timm saves them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import timm
import torch
from timm.layers import resample_abs_pos_embed
from torch import Tensor, nn

from energyad.detector import AnomalyDetector
from energyad.errors import BackboneError, SettingsError
from energyad.features.extractor import FeatureExtractor, choose_stages, load_extractor
from tests.quick import TINY

FAMILIES = [
    ("resnet18", 64),
    ("convnext_atto", 64),
    pytest.param("swin_tiny_patch4_window7_224", 384, marks=pytest.mark.slow),  # maps of 96 x 96 x 96
    ("vit_tiny_patch16_224", 224),
    ("vit_tiny_patch16_224", 80),
    ("vit_small_patch14_dinov2", 98),
]


def plain_model(name: str, **options: object) -> nn.Module:
    torch.manual_seed(0)
    return timm.create_model(name, pretrained=False, **options).eval()


def save(model: nn.Module, path: Path, **others: object) -> Path:
    state = {key: value.contiguous() for key, value in model.state_dict().items()}
    if path.suffix == ".safetensors":
        safetensors.torch.save_file(state, path)
    else:
        torch.save({"state_dict": state, **others} if others else state, path)
    return path


def load(name: str, path: Path, image_size: int) -> FeatureExtractor:
    return load_extractor(name, image_size=(image_size, image_size), weights_file=path, border=0)


def reference(model: nn.Module, x: Tensor, indices: tuple[int, ...]) -> list[Tensor]:
    """The maps that timm's own interface gives."""
    with torch.no_grad():
        return model.forward_intermediates(
            x, indices=list(indices), norm=False, output_fmt="NCHW", intermediates_only=True
        )


def maps_of(extractor: FeatureExtractor, x: Tensor) -> list[Tensor]:
    with torch.no_grad():
        return extractor.maps_of(x)


def assert_same(maps: list[Tensor], expected: list[Tensor]) -> None:
    assert len(maps) == len(expected)
    for first, second in zip(maps, expected, strict=True):
        torch.testing.assert_close(first, second, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "image_size"), FAMILIES)
def test_a_saved_model_gives_the_maps_of_timms_own_interface(
    name: str, image_size: int, tmp_path: Path
) -> None:
    sized = {"img_size": image_size} if timm.get_pretrained_cfg(name).fixed_input_size else {}
    model = plain_model(name, **sized)
    extractor = load(name, save(model, tmp_path / "model.safetensors"), image_size)
    x = torch.randn(1, 3, image_size, image_size, generator=torch.Generator().manual_seed(1))
    assert_same(maps_of(extractor, x), reference(model, x, extractor.stages.indices))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "saved_at", "image_size"),
    [
        ("vit_tiny_patch16_224", 224, 128),
        ("vit_tiny_patch16_224", 224, 256),
        ("vit_small_patch14_dinov2", 518, 140),
    ],
)
def test_position_tables_are_resampled_to_the_image_size(
    name: str, saved_at: int, image_size: int, tmp_path: Path
) -> None:
    path = save(plain_model(name, img_size=saved_at), tmp_path / "model.safetensors")
    extractor = load(name, path, image_size)
    expected = timm.create_model(
        name, pretrained=True, pretrained_cfg_overlay={"file": str(path)}, img_size=image_size
    ).eval()
    saved = safetensors.torch.load_file(path)["pos_embed"]
    patch = extractor.stages.multiple
    table = resample_abs_pos_embed(saved, new_size=[image_size // patch] * 2, num_prefix_tokens=1)
    torch.testing.assert_close(extractor.backbone.state_dict()["model.pos_embed"], table)
    x = torch.randn(1, 3, image_size, image_size, generator=torch.Generator().manual_seed(1))
    assert_same(maps_of(extractor, x), reference(expected, x, extractor.stages.indices))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin", "checkpoint.pth"])
def test_files_of_every_kind_that_timm_saves_are_read(name: str, tmp_path: Path) -> None:
    model = plain_model("convnext_atto")
    others = {"epoch": 3} if name == "checkpoint.pth" else {}
    path = save(model, tmp_path / name, **others)
    for place in (path, tmp_path) if name != "checkpoint.pth" else (path,):  # also a folder of the hub
        extractor = load("convnext_atto", place, 64)
        torch.testing.assert_close(
            extractor.backbone.state_dict()["stem_0.weight"], model.state_dict()["stem.0.weight"]
        )


@pytest.mark.slow
@pytest.mark.parametrize("name", ["convnext_atto", "vit_tiny_patch16_224", "tf_efficientnet_lite0"])
@pytest.mark.parametrize("num_classes", [0, 7])
def test_a_model_trained_for_other_classes_or_none_is_read(
    name: str, num_classes: int, tmp_path: Path
) -> None:
    path = save(plain_model(name, num_classes=num_classes), tmp_path / "model.safetensors")
    assert load(name, path, 64 if name != "vit_tiny_patch16_224" else 80).grid.num_patches > 0


@pytest.mark.slow
def test_a_file_that_lacks_a_tensor_or_is_of_another_network_is_refused(tmp_path: Path) -> None:
    path = save(plain_model("convnext_atto"), tmp_path / "model.safetensors")
    for name in ("resnet18", "convnext_femto", "vit_tiny_patch16_224", "swin_tiny_patch4_window7_224"):
        with pytest.raises(BackboneError, match=r"model\.safetensors.*another network"):
            load(name, path, 224)
    state = safetensors.torch.load_file(path)
    del state["stages.1.blocks.0.norm.weight"]
    safetensors.torch.save_file(state, path)
    with pytest.raises(BackboneError, match=r"lacks 1 tensors.*stages\.1\.blocks\.0\.norm\.weight"):
        load("convnext_atto", path, 64)


def test_a_weights_file_that_would_run_code_is_refused(tmp_path: Path) -> None:
    ran = tmp_path / "ran"

    class Hostile:
        def __reduce__(self) -> tuple[object, tuple[Path]]:
            return Path.touch, (ran,)

    torch.save({"state_dict": Hostile()}, tmp_path / "model.pth")
    with pytest.raises(BackboneError, match=r"model\.pth"):
        load("resnet18", tmp_path / "model.pth", 64)
    assert not ran.exists()


def test_a_plain_transformer_gives_blocks_of_its_later_half() -> None:
    for name, stride in (("vit_tiny_patch16_224", 16), ("vit_small_patch14_dinov2", 14)):
        for strides in ((4, 8, 16), (stride,)):
            stages = choose_stages(name, strides, (8, 16, 32))
            assert stages.indices == (5, 8, 11) and stages.half == ()
            assert stages.stride == stages.multiple == stride


@pytest.mark.slow
def test_image_sizes_are_multiples_of_the_patch(tmp_path: Path) -> None:
    path = save(plain_model("vit_small_patch14_dinov2", img_size=98), tmp_path / "model.safetensors")
    with pytest.raises(SettingsError, match="multiple of 14, at least 64; try 98"):
        load("vit_small_patch14_dinov2", path, 96)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "image_size"), [("test_convnext", 64), ("test_vit", 80)])
def test_a_fit_with_weights_of_ones_own_scores_alike_in_every_runtime(
    name: str, image_size: int, tmp_path: Path
) -> None:
    weights = save(plain_model(name), tmp_path / "model.safetensors")
    rng = np.random.default_rng(0)
    images = [rng.integers(100, 130, (90, 90, 3)).astype(np.uint8) for _ in range(8)]
    settings = TINY.with_values(
        {
            "features.backbone": name,
            "features.coarse_strides": (),
            "input.image_size": image_size,
            "energy.pretrain_steps": 50,
            "memory_bank.rerank_banks": 0,
            "synthetic_defects.per_image": 0,
        }
    )
    detector = AnomalyDetector.fit(images, name="part", settings=settings, backbone_weights=weights)
    detector.save(tmp_path / "model")
    defect = images[0].copy()
    defect[30:50, 30:50] = 255
    scores = {}
    for runtime in ("onnxruntime", "openvino", "torch"):
        loaded = AnomalyDetector.load(tmp_path / "model", runtime=runtime)
        scores[runtime] = [
            loaded.score_image(image).require().prediction.score for image in (images[0], defect)
        ]
        assert scores[runtime][1] > scores[runtime][0]
    for runtime in ("openvino", "torch"):
        np.testing.assert_allclose(scores[runtime], scores["onnxruntime"], rtol=2e-3)
