"""A saved model's tensors back into the scorer module, for PyTorch and for export."""

from __future__ import annotations

from collections.abc import Mapping

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from energyad.energy.categories import CategoryClassifier, CategoryMixture
from energyad.energy.discriminator import Discriminator, DiscriminatorEnergy
from energyad.energy.latent_energy import LatentEnergy, MeanEnergy
from energyad.energy.memory_bank import MemoryBank, MemoryBankEnergy
from energyad.energy.networks import AutoencoderEnergy
from energyad.energy.patch_energy import CategoryEnergy, ImageEnergy, PatchEnergy, combine_scales
from energyad.energy.reranking import BankColumns, Reranker
from energyad.energy.whitening import Whitening
from energyad.errors import ModelError
from energyad.features.backbones import BackboneWeights
from energyad.features.extractor import FeatureExtractor, empty_extractor
from energyad.model.folder import BACKBONE_FILE, HEAD_FILE
from energyad.model.manifest import Manifest
from energyad.scoring.scorer import EnergyHead, Scorer
from energyad.settings import FitSettings

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
    tiles, patch_energy = settings.input.tiling, _empty_image_energy(tensors, manifest, extractor, settings)
    even = manifest.schema_version >= FIRST_EVEN
    head = EnergyHead(
        patch_energy,
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


def _empty_image_energy(
    tensors: Mapping[str, Tensor], manifest: Manifest, extractor: FeatureExtractor, settings: FitSettings
) -> ImageEnergy:
    """The energy of one category, or of each of several."""
    if not manifest.categories:
        return _empty_category_energy(tensors, "patch_energy.", extractor, settings)
    names = [f"patch_energy.category_energies.{number}." for number in range(len(manifest.categories))]
    energies = [_empty_category_energy(tensors, name, extractor, settings) for name in names]
    channels = extractor.scales[-1].stop
    empty = torch.zeros(channels), torch.zeros(channels, len(names)), torch.zeros(len(names))
    return CategoryMixture(energies, CategoryClassifier(*empty))


def _empty_category_energy(
    tensors: Mapping[str, Tensor], prefix: str, extractor: FeatureExtractor, settings: FitSettings
) -> CategoryEnergy:
    """The energy of the saved scale, or of each of them."""
    scales = extractor.scales
    if len(scales) == 1:
        return _empty_patch_energy(tensors, prefix, settings)
    names = [f"{prefix}scale_energies.{number}." for number in range(len(scales))]
    energies = [_empty_patch_energy(tensors, name, settings) for name in names]
    return combine_scales(energies, scales, extractor.grid, settings.energy.coarse_weight)


def _empty_patch_energy(tensors: Mapping[str, Tensor], prefix: str, settings: FitSettings) -> PatchEnergy:
    """An energy of the saved one's shapes, which are read off its tensors."""
    projection = tensors.get(f"{prefix}whitening.projection")
    if projection is None:
        raise _misfit(HEAD_FILE)
    whitening = Whitening(*projection.shape)
    reranker = _empty_reranker(tensors, f"{prefix}reranker.", settings)
    if settings.energy.ensemble_size == 1:
        energy = _empty_latent_energy(tensors, f"{prefix}latent_energy", projection.shape[1], settings)
        return PatchEnergy(whitening, energy, reranker)
    names = [f"{prefix}latent_energy.members.{number}" for number in range(settings.energy.ensemble_size)]
    energies = [_empty_latent_energy(tensors, name, projection.shape[1], settings) for name in names]
    return PatchEnergy(whitening, MeanEnergy(energies), reranker)


def _empty_reranker(tensors: Mapping[str, Tensor], prefix: str, settings: FitSettings) -> Reranker | None:
    """A reranker of the saved one's shapes; models of an earlier energyad have none."""
    names = ("scale", "metric", "points", "inverse", "offset")
    saved = {name: tensors[f"{prefix}{name}"] for name in names if f"{prefix}{name}" in tensors}
    if not saved:
        return None
    num_banks = settings.memory_bank.rerank_banks
    if len(saved) < len(names) or num_banks == 0 or saved["points"].shape[-1] % num_banks != 0:
        raise _misfit(HEAD_FILE)
    scale, metric, *columns = (torch.empty_like(tensor) for tensor in saved.values())
    return Reranker(
        num_banks,
        settings.memory_bank.rerank_fraction,
        scale=scale,
        metric=metric,
        columns=BankColumns(*columns),
    )


def _empty_latent_energy(
    tensors: Mapping[str, Tensor], name: str, latents: int, settings: FitSettings
) -> LatentEnergy:
    inner = name if settings.memory_bank.size == 0 else f"{name}.learned"
    # Models of an earlier energyad have none.
    discriminated = f"{inner}.discriminator.first.weight" in tensors
    code = tensors.get(f"{inner}.energy.decoder.0.weight" if discriminated else f"{inner}.decoder.0.weight")
    if code is None:
        raise _misfit(HEAD_FILE)
    energy: LatentEnergy = AutoencoderEnergy(latents, width=settings.energy.width, bottleneck=code.shape[1])
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
    bank = MemoryBank(torch.zeros(count, latents), torch.ones(count))
    return MemoryBankEnergy(energy, bank, deviations=torch.zeros(latents), num_directions=terms - 2)


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
