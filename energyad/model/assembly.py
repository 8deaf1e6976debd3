"""A saved model's tensors back into the scorer module, for PyTorch and for export; its shapes are the manifest's."""

from __future__ import annotations

from collections.abc import Mapping

import onnx
import safetensors
import safetensors.torch
import torch
from google.protobuf.message import DecodeError
from torch import Tensor, nn

from energyad.energy.categories import CategoryClassifier, CategoryMixture
from energyad.energy.discriminator import Discriminator, DiscriminatorEnergy
from energyad.energy.latent_energy import LatentEnergy, MeanEnergy
from energyad.energy.memory_bank import MemoryBank, MemoryBankEnergy
from energyad.energy.networks import Affine, AutoencoderEnergy
from energyad.energy.patch_energy import CategoryEnergy, ImageEnergy, PatchEnergy, combine_scales
from energyad.energy.reranking import BankColumns, Reranker
from energyad.energy.taught import TaughtEnergy
from energyad.energy.whitening import Whitening
from energyad.errors import ModelError
from energyad.features.extractor import FeatureExtractor, empty_extractor
from energyad.graphs.inspection import check_graph
from energyad.graphs.weights import load_beside
from energyad.model.architecture import Architecture, ScaleArchitecture
from energyad.model.folder import BACKBONE_FILE, GRAPH_FILE, HEAD_FILE
from energyad.model.manifest import Manifest
from energyad.scoring.scorer import EnergyHead, Scorer

HALF = 0.5
"""Weight of an empty model's coarse scale; a saved one's is among its tensors."""


def assemble_scorer(manifest: Manifest, contents: Mapping[str, bytes]) -> Scorer:
    """Return the scorer of a model folder, frozen and in evaluation mode.

    Args:
        manifest: whose architecture, input and categories give all shapes.
        contents: of the folder's files, by name.

    Raises:
        ModelError: where the tensors do not fit the architecture, for a quantised backbone and for an imported model.
    """
    if manifest.is_quantised:
        raise ModelError(
            f"model '{manifest.name}': its backbone is in 8-bit integers, which only its ONNX graph holds; "
            "fit it in float32"
        )
    extractor = _load_extractor(manifest, contents)
    (_, architecture), tiles = manifest.networks(), manifest.input.tiles
    head = EnergyHead(
        _empty_energy(manifest, extractor),
        grid=extractor.grid,
        smoothing=architecture.smoothing,
        contrast=architecture.contrast,
        tiles=tiles,
        mask=_mask(manifest, contents),
    )
    _fill(head, _tensors(contents, HEAD_FILE), HEAD_FILE)
    return Scorer(extractor, head).eval().requires_grad_(False)


def architecture_of(
    energy: ImageEnergy,
    *,
    precision: str,
    strides: tuple[int, ...],
    coarse_strides: tuple[int, ...],
    border_margin: int,
    smoothing: float,
    contrast: float,
) -> Architecture:
    """Describe a fitted energy, so that `assemble_scorer` can make an empty one of its shapes.

    Args:
        energy: of one category, or of several.
        precision: of the backbone's arithmetic, "float32" or "int8".
        strides: of the backbone's stages that the features come from.
        coarse_strides: likewise of the image at half its size.
        border_margin: pixels at each side whose patches are left out.
        smoothing: standard deviation in pixels of the heatmap's Gaussian.
        contrast: power of a pixel's share of the score in the heatmap.
    """
    scales = energy.by_category()[0].by_scale()
    reranker = scales[0].reranker
    return Architecture(
        precision="int8" if precision == "int8" else "float32",
        strides=strides,
        coarse_strides=coarse_strides,
        border_margin=border_margin,
        scales=tuple(_scale_architecture(scale) for scale in scales),
        ensemble_size=scales[0].latent_energy.sizes().ensemble_size,
        rerank_fraction=1.0 if reranker is None else reranker.fraction,
        smoothing=smoothing,
        contrast=contrast,
    )


def _scale_architecture(patch_energy: PatchEnergy) -> ScaleArchitecture:
    channels, latent_dim = patch_energy.whitening.projection.shape
    sizes, reranker = patch_energy.latent_energy.sizes(), patch_energy.reranker
    return ScaleArchitecture(
        channels=channels,
        latent_dim=latent_dim,
        width=sizes.width,
        bottleneck=sizes.bottleneck,
        discriminator_width=sizes.discriminator_width,
        memory_bank_size=sizes.memory_bank_size,
        memory_bank_directions=sizes.memory_bank_directions,
        rerank_banks=0 if reranker is None else reranker.num_banks,
        rerank_bank_size=0 if reranker is None else reranker.size,
        is_taught=sizes.is_taught,
    )


def _load_extractor(manifest: Manifest, contents: Mapping[str, bytes]) -> FeatureExtractor:
    backbone, architecture = manifest.networks()
    extractor = empty_extractor(
        backbone,
        image_size=manifest.input.image_size,
        strides=architecture.strides,
        coarse_strides=architecture.coarse_strides,
        border=architecture.border_margin,
    )
    if [scale.num_channels for scale in extractor.scales] != [
        scale.channels for scale in architecture.scales
    ]:
        raise _misfit(BACKBONE_FILE)
    _fill(extractor.backbone, _backbone_tensors(contents), BACKBONE_FILE)
    return extractor


def _backbone_tensors(contents: Mapping[str, bytes]) -> dict[str, Tensor]:
    """The backbone's tensors, most of which are in the graph."""
    check_graph(contents[GRAPH_FILE], name=GRAPH_FILE)
    try:
        return load_beside(onnx.load_model_from_string(contents[GRAPH_FILE]), contents[BACKBONE_FILE])
    except DecodeError as error:
        raise ModelError(f"{GRAPH_FILE}: not a readable ONNX file; fit the model again") from error
    except safetensors.SafetensorError as error:
        raise _unreadable(BACKBONE_FILE) from error
    except KeyError as error:
        raise _misfit(BACKBONE_FILE) from error


def _empty_energy(manifest: Manifest, extractor: FeatureExtractor) -> ImageEnergy:
    """The energy of one category, or those of several, with weights yet to fill in."""
    _, architecture = manifest.networks()
    if not manifest.categories:
        return _empty_multiscale_energy(architecture, extractor)
    count = len(manifest.categories)
    energies = [_empty_multiscale_energy(architecture, extractor) for _ in range(count)]
    channels = extractor.scales[-1].stop
    classifier = CategoryClassifier(torch.zeros(channels), torch.zeros(channels, count), torch.zeros(count))
    return CategoryMixture(energies, classifier)


def _empty_multiscale_energy(architecture: Architecture, extractor: FeatureExtractor) -> CategoryEnergy:
    energies = [_empty_patch_energy(scale, architecture) for scale in architecture.scales]
    return combine_scales(energies, extractor.scales, extractor.grid, HALF)


def _empty_patch_energy(scale: ScaleArchitecture, architecture: Architecture) -> PatchEnergy:
    energies = [_empty_latent_energy(scale) for _ in range(architecture.ensemble_size)]
    energy = energies[0] if len(energies) == 1 else MeanEnergy(energies)
    reranker = _empty_reranker(scale, architecture.rerank_fraction) if scale.rerank_banks > 0 else None
    return PatchEnergy(Whitening(scale.channels, scale.latent_dim), energy, reranker)


def _empty_latent_energy(scale: ScaleArchitecture) -> LatentEnergy:
    energy: LatentEnergy = AutoencoderEnergy(scale.latent_dim, width=scale.width, bottleneck=scale.bottleneck)
    if scale.discriminator_width > 0:
        energy = DiscriminatorEnergy(energy, Discriminator(scale.latent_dim, width=scale.discriminator_width))
    if scale.is_taught:
        energy = TaughtEnergy(energy, Affine(scale.latent_dim, 1))
    if scale.memory_bank_size == 0:
        return energy
    points = torch.zeros(scale.memory_bank_size, scale.latent_dim)
    return MemoryBankEnergy(
        energy,
        MemoryBank(points, torch.ones(scale.memory_bank_size)),
        deviations=torch.zeros(scale.latent_dim),
        num_directions=scale.memory_bank_directions,
    )


def _empty_reranker(scale: ScaleArchitecture, fraction: float) -> Reranker:
    columns = scale.rerank_banks * scale.rerank_bank_size
    return Reranker(
        scale.rerank_banks,
        fraction,
        scale=torch.zeros(scale.latent_dim),
        metric=torch.zeros(scale.latent_dim),
        columns=BankColumns(
            torch.zeros(scale.latent_dim, columns, dtype=torch.int8),
            torch.zeros(1, columns),
            torch.zeros(1, columns),
        ),
    )


def _mask(manifest: Manifest, contents: Mapping[str, bytes]) -> Tensor | None:
    """The mask of the region of interest, which the patches that count are derived from."""
    if manifest.roi is None:
        return None
    mask = _tensors(contents, HEAD_FILE).get("mask")
    if mask is None or mask.dtype != torch.bool or tuple(mask.shape) != manifest.input.shape:
        raise _misfit(HEAD_FILE)
    return mask


def _tensors(contents: Mapping[str, bytes], name: str) -> dict[str, Tensor]:
    try:
        return safetensors.torch.load(contents[name])
    except KeyError as error:
        raise ModelError(f"{name}: not in the model's manifest; fit the model again") from error
    except safetensors.SafetensorError as error:
        raise _unreadable(name) from error


def _fill(module: nn.Module, tensors: Mapping[str, Tensor], name: str) -> None:
    try:
        with torch.no_grad():
            module.load_state_dict(tensors)
    except RuntimeError as error:
        raise _misfit(name) from error


def _unreadable(name: str) -> ModelError:
    return ModelError(f"{name}: not a readable safetensors file; fit the model again")


def _misfit(name: str) -> ModelError:
    return ModelError(f"{name}: its tensors do not fit the model's architecture; fit the model again")
