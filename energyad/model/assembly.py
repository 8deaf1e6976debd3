"""A saved model's tensors back into the scorer module, for PyTorch and for export."""

from __future__ import annotations

from collections.abc import Mapping

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from energyad.energy.categories import CategoryClassifier, CategoryMixture
from energyad.energy.coreset import Coreset
from energyad.energy.discriminator import Discriminator, DiscriminatorEnergy
from energyad.energy.networks import AutoencoderEnergy, MeanEnergy, MemoryBank, MemoryBankEnergy
from energyad.energy.patch_energy import PatchEnergy, PatchEnergyLike, combine_scales
from energyad.energy.reranking import Reranker
from energyad.energy.whitening import Whitening
from energyad.errors import ModelError
from energyad.features.backbones import BackboneWeights
from energyad.features.extractor import FeatureExtractor, empty_extractor
from energyad.model.folder import BACKBONE_FILE, HEAD_FILE
from energyad.model.manifest import Manifest
from energyad.scoring.scorer import EnergyHead, Scorer
from energyad.settings import FitSettings

FIRST_WITH_EXPERTS = 8
"""Of models whose head holds an expert or experts; before, it held their modules itself."""

FIRST_EVEN = 11
"""Of models whose patches weigh as much at the border as in the middle."""

FIRST_SCHEMA = 6
"""Of models whose network is today's; before, distances to prototypes, if any, were not squared."""


def assemble_scorer(manifest: Manifest, contents: Mapping[str, bytes]) -> Scorer:
    """The scorer of a model folder, in evaluation mode.

    Raises ModelError where the tensors do not fit, for a quantised backbone, and for models of an earlier energyad:
    their saved graph still gives the scores that their threshold was made from, and today's modules would give others.
    """
    if manifest.is_quantised:
        raise ModelError(
            f"model '{manifest.name}': its backbone is in 8-bit integers, which only its ONNX graph holds; "
            "fit it in float32"
        )
    if manifest.schema_version < FIRST_SCHEMA:
        raise ModelError(
            f"model '{manifest.name}' is of an earlier energyad, whose network differs: score it with "
            "--runtime onnxruntime, or fit it again"
        )
    settings = FitSettings.from_dict(manifest.settings)
    extractor = _filled_extractor(manifest, contents, settings)
    tensors = _tensors(contents, HEAD_FILE)
    if manifest.schema_version < FIRST_WITH_EXPERTS:
        tensors = _renamed(tensors, several=bool(manifest.categories))
    tiles, expert = settings.input.tiling, _empty_expert_or_experts(tensors, manifest, extractor, settings)
    even = manifest.schema_version >= FIRST_EVEN
    head = EnergyHead(
        expert,
        grid=extractor.grid,
        smoothing=settings.heatmap.smoothing,
        contrast=settings.heatmap.contrast,
        tiles=tiles,
        mask=tensors.get("mask"),
        even=even,
    )
    _fill(head, tensors, HEAD_FILE)
    return Scorer(extractor, head).eval().requires_grad_(False)


def _filled_extractor(
    manifest: Manifest, contents: Mapping[str, bytes], settings: FitSettings
) -> FeatureExtractor:
    extractor = empty_extractor(
        BackboneWeights(**manifest.backbone.model_dump()),
        image_size=manifest.input.image_size,
        strides=settings.features.strides,
        coarse_strides=settings.features.coarse_strides,
        border=settings.features.border_margin,
    )
    _fill(extractor.backbone, _tensors(contents, BACKBONE_FILE), BACKBONE_FILE)
    return extractor


def _empty_expert_or_experts(
    tensors: Mapping[str, Tensor], manifest: Manifest, extractor: FeatureExtractor, settings: FitSettings
) -> PatchEnergyLike | CategoryMixture:
    """What judges patches: of a model of one category its judge, of several their experts."""
    if not manifest.categories:
        return _empty_judge(tensors, "expert.", extractor, settings)
    names = [f"expert.experts.{number}." for number in range(len(manifest.categories))]
    experts = [_empty_judge(tensors, name, extractor, settings) for name in names]
    channels = extractor.scales[-1].stop
    empty = torch.zeros(channels), torch.zeros(channels, len(names)), torch.zeros(len(names))
    return CategoryMixture(experts, CategoryClassifier(*empty), tiles=settings.input.tiling.count)


def _empty_judge(
    tensors: Mapping[str, Tensor], prefix: str, extractor: FeatureExtractor, settings: FitSettings
) -> PatchEnergyLike:
    """An expert, or those of the saved scales."""
    scales = extractor.scales
    if len(scales) == 1:
        return _empty_expert(tensors, prefix, settings)
    names = [f"{prefix}experts.{number}." for number in range(len(scales))]
    experts = [_empty_expert(tensors, name, settings) for name in names]
    return combine_scales(experts, scales, extractor.grid, settings.energy.coarse_weight)


def _empty_expert(tensors: Mapping[str, Tensor], prefix: str, settings: FitSettings) -> PatchEnergy:
    """An expert of the saved one's shapes, which are read off its tensors."""
    projection = tensors.get(f"{prefix}whitening.projection")
    if projection is None:
        raise _misfit(HEAD_FILE)
    whitening = Whitening(*projection.shape)
    look = _empty_look(tensors, f"{prefix}closer_look.", settings)
    if settings.energy.ensemble_size == 1:
        return PatchEnergy(
            whitening, _empty_energy(tensors, f"{prefix}energy", projection.shape[1], settings), look
        )
    names = [f"{prefix}energy.energies.{number}" for number in range(settings.energy.ensemble_size)]
    energies = [_empty_energy(tensors, name, projection.shape[1], settings) for name in names]
    return PatchEnergy(whitening, MeanEnergy(energies), look)


def _empty_look(tensors: Mapping[str, Tensor], prefix: str, settings: FitSettings) -> Reranker | None:
    """A closer look of the saved one's shapes; models of an earlier energyad have none."""
    names = ("scale", "metric", "points", "inverse", "offset")
    own = {name: tensors[f"{prefix}{name}"] for name in names if f"{prefix}{name}" in tensors}
    if not own:
        return None
    looks = settings.memory_bank.rerank_banks
    if len(own) < len(names) or looks == 0 or own["points"].shape[-1] % looks != 0:
        raise _misfit(HEAD_FILE)
    return Reranker(
        looks,
        settings.memory_bank.rerank_fraction,
        **{name: torch.empty_like(each) for name, each in own.items()},
    )


def _renamed(tensors: Mapping[str, Tensor], *, several: bool) -> dict[str, Tensor]:
    """The tensors of a head that had its expert's modules, or its experts under «energy», by today's names."""
    return {
        name if name == "mask" else f"expert.{name.removeprefix('energy.') if several else name}": each
        for name, each in tensors.items()
    }


def _empty_energy(tensors: Mapping[str, Tensor], name: str, latents: int, settings: FitSettings) -> nn.Module:
    inner = name if settings.memory_bank.size == 0 else f"{name}.energy"
    # Models of an earlier energyad have none.
    discriminated = f"{inner}.discriminator.first.weight" in tensors
    code = tensors.get(f"{inner}.energy.decoder.0.weight" if discriminated else f"{inner}.decoder.0.weight")
    if code is None:
        raise _misfit(HEAD_FILE)
    energy: nn.Module = AutoencoderEnergy(latents, width=settings.energy.width, bottleneck=code.shape[1])
    if discriminated:
        energy = DiscriminatorEnergy(
            energy, Discriminator(latents, width=settings.synthetic_defects.discriminator_width)
        )
    if settings.memory_bank.size == 0:
        return energy
    weight = tensors.get(f"{name}.weight")
    if weight is None:
        raise _misfit(HEAD_FILE)
    terms, count = weight.shape
    empty = Coreset(torch.zeros(count, latents), torch.ones(count))
    return MemoryBankEnergy(energy, MemoryBank(torch.zeros(latents), empty, num_directions=terms - 2))


def _tensors(contents: Mapping[str, bytes], name: str) -> dict[str, Tensor]:
    try:
        return safetensors.torch.load(contents[name])
    except KeyError as error:
        raise ModelError(f"{name}: not in the model's manifest; fit the model again") from error
    except safetensors.SafetensorError as error:
        raise ModelError(f"{name}: not a readable safetensors file; fit the model again") from error


def _fill(module: nn.Module, tensors: Mapping[str, Tensor], name: str) -> None:
    try:
        with torch.no_grad():
            module.load_state_dict(tensors)
    except RuntimeError as error:
        raise _misfit(name) from error


def _misfit(name: str) -> ModelError:
    return ModelError(f"{name}: its tensors do not fit the model's settings; fit the model again")
