"""Simple rules on energyad's own features, grid and upsampling, so that only the rule differs.

They are given all of train/good: without a threshold they need hold nothing out. Their maps are smoothed as PatchCore's
are, whatever energyad's default is, since an opponent should not lose by our settings.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float16, UInt8
from torch import Tensor

from benchmarks.detection.method import Fitted, input_shape, read_batches, side_of
from energyad.energy.coreset import greedy_coreset
from energyad.energy.whitening import fit_whitening
from energyad.features.extractor import load_extractor
from energyad.features.grids import Grid, Scale
from energyad.fitting.augmented import rotated_copies
from energyad.fitting.context import FitContext
from energyad.fitting.extraction import GoodFeatures
from energyad.fitting.feature_store import MemoryFeatureStore
from energyad.graphs.cache import extractor_graph
from energyad.images.augmentation import photometric_jitter
from energyad.runtimes import RawScores
from energyad.runtimes.onnx import OnnxFeatures
from energyad.scoring.heatmaps import upsampling_matrix
from energyad.scoring.scorer import Scores
from energyad.settings import FitSettings

CORESET_SIZE = 4000
PROJECTED_CHANNELS = 128  # as in patchcore-inspection's approximate greedy coreset
SMOOTHING = 4.0  # pixels; PatchCore's and PaDiM's own
QUERY_CHUNK = 2048

UNSMOOTHED = "-unsmoothed"
JITTERED, ROTATED = "-jittered", "-rotated"
HALF = "-half"
"""After a name: features of the image at half its size beside those of the image, of each patch."""

Rule = Callable[[Float[Tensor, "n c"]], Float[Tensor, " n"]]


class Traced(NamedTuple):
    """A backbone. scales: of its features."""

    grid: Grid
    scales: tuple[Scale, ...]
    graph: bytes


@dataclass(frozen=True)
class FeatureRule:
    """A rule that gives a distance to each patch. fit_settings: energyad's, for the features."""

    name: str
    fit_settings: FitSettings

    @property
    def smoothing(self) -> float:
        """Standard deviation in pixels of the heatmap's Gaussian."""
        return 0.0 if self.name.endswith(UNSMOOTHED) else SMOOTHING

    @property
    def rule(self) -> str:
        """Its name in `RULES`."""
        return self.name.removesuffix(UNSMOOTHED)

    @property
    def image_size(self) -> int:
        """Pixels a side of a square as large as what it scores."""
        return side_of(self.fit_settings)

    @property
    def settings(self) -> dict[str, Any]:
        """What features, rule and heatmap depend on."""
        features = self.fit_settings.features
        settings: dict[str, Any] = {
            "backbone": features.backbone,
            "strides": features.strides,
            "image_size": self.image_size,
        }
        if features.coarse_strides:
            settings["coarse_strides"] = features.coarse_strides
        settings["smoothing"] = self.smoothing
        if self.rule.endswith(JITTERED):
            settings["photometric_jitter"] = self.fit_settings.augmentation.photometric_jitter
        if not self.rule.startswith("knn") or self.rule == "knn-whitened":
            settings["latent_dim"] = self.fit_settings.energy.latent_dim
        if self.rule != "mahalanobis":
            settings |= {"coreset_size": CORESET_SIZE, "projected_channels": PROJECTED_CHANNELS}
        return settings

    def backbone(self) -> Traced:
        """The backbone's graph, and how its features lie."""
        settings = self.fit_settings
        return traced(
            settings.features.backbone,
            settings.input.network_shape,
            strides=settings.features.strides,
            coarse_strides=settings.features.coarse_strides,
            border=settings.features.border_margin,
        )

    def fit(self, good: Sequence[Path], *, seed: int, threads: int) -> Fitted:
        """Fit the rule on all patches of the good images."""
        shape = input_shape(good, self.image_size)
        shaped = self.fit_settings.with_values({"input.image_size": shape})
        return replace(self, fit_settings=shaped)._fit(good, seed=seed, threads=threads)

    def _fit(self, good: Sequence[Path], *, seed: int, threads: int) -> Fitted:
        """The same, at the settings' own shape."""
        grid, scales, graph = self.backbone()
        shape = grid.image_size
        session = OnnxFeatures(graph, threads=threads)
        batches = [_channel_last(session.run(p)).half() for p in read_batches(good, shape)]
        if self.rule.endswith(JITTERED):
            batches += self._jittered(good, session, seed=seed)
        own = torch.cat(batches)
        patches = side_by_side(own, scales).flatten(0, 2)
        if self.rule.endswith(ROTATED):
            patches = torch.cat([patches, self._rotated(good, own, session, seed=seed)])
        generator = torch.Generator().manual_seed(seed)
        rule, num_bytes = RULES[self.rule](patches, generator, self.fit_settings)
        score_features = self.head(rule, grid)

        def score(pixels: UInt8[np.ndarray, "b h w 3"]) -> RawScores:
            scores = score_features(torch.from_numpy(session.run(pixels)))
            return RawScores(scores.score.numpy(), scores.heatmap.numpy())

        return Fitted(score, shape, num_bytes)

    def head(self, rule: Rule, grid: Grid) -> Callable[[Float[Tensor, "b c g1 g2"]], Scores]:
        """Feature grids to scores, by a fitted rule."""
        scales = self.backbone().scales
        down, across = (
            upsampling_matrix(axis, smoothing=self.smoothing) for axis in (grid.rows, grid.columns)
        )

        @torch.inference_mode()
        def score_features(features: Float[Tensor, "b c g1 g2"]) -> Scores:
            patches = side_by_side(features.permute(0, 2, 3, 1), scales)
            distances = rule(patches.flatten(0, 2)).view(patches.shape[:3])
            heatmap = down @ distances @ across.T
            return Scores(heatmap.amax(dim=(1, 2)), heatmap)

        return score_features

    def _jittered(
        self, good: Sequence[Path], session: OnnxFeatures, *, seed: int
    ) -> list[Float[Tensor, "b g1 g2 c"]]:
        """The same images as often again, under the light that energyad's training sees."""
        rng = np.random.default_rng(seed)
        strength = self.fit_settings.augmentation.photometric_jitter
        lit = (
            np.stack([photometric_jitter(image, strength=strength, rng=rng) for image in batch])
            for batch in read_batches(good, self.fit_settings.input.network_shape)
        )
        return [_channel_last(session.run(batch)).half() for batch in lit]

    def _rotated(
        self, good: Sequence[Path], own: Float16[Tensor, "b g1 g2 c"], session: OnnxFeatures, *, seed: int
    ) -> Float16[Tensor, "n c"]:
        """Patches of rotated copies, where energyad's fit would make some, and as many."""
        grid, scales, _ = self.backbone()
        context = FitContext(
            settings=self.fit_settings.with_values({"seed": seed}), session=session, grid=grid, scales=scales
        )
        features = GoodFeatures(own.numpy()[:, None], tuple(range(len(good))), MemoryFeatureStore())
        rotated = rotated_copies(features, good, context, num_fitted=len(good))
        return rotated.patches.flatten(0, 1)


def is_rule(name: str) -> bool:
    """Whether that is a rule's name, smoothed or not."""
    return name.removesuffix(UNSMOOTHED) in RULES


def rule_named(name: str, *, image_size: int) -> FeatureRule:
    """The rule of that name."""
    return FeatureRule(name, settings_for(name, FitSettings().with_values({"input.image_size": image_size})))


def settings_for(name: str, settings: FitSettings) -> FitSettings:
    """These settings with what features a rule of that name is given."""
    return settings if name.endswith(HALF) else settings.with_values({"features.coarse_strides": ()})


@functools.cache
def traced(name: str, image_size: tuple[int, int], **options: Any) -> Traced:
    """Tracing takes seconds and is no part of the rules."""
    extractor = load_extractor(name, image_size=image_size, **options)
    return Traced(extractor.grid, extractor.scales, extractor_graph(extractor).SerializeToString())


def side_by_side(grids: Float[Tensor, "b g1 g2 c"], scales: Sequence[Scale]) -> Float[Tensor, "b g1 g2 k"]:
    """Features of all scales of each patch; a coarser one's are those of the patch that it lies in."""
    own = (
        scale.of(grids).repeat_interleave(scale.factor, 1).repeat_interleave(scale.factor, 2)
        for scale in scales
    )
    return torch.cat([*own], dim=-1)


def _channel_last(features: np.ndarray) -> Float[Tensor, "b g1 g2 c"]:
    return torch.from_numpy(features.transpose(0, 2, 3, 1))


def _fit_nearest(
    patches: Float[Tensor, "n c"], generator: torch.Generator, settings: FitSettings
) -> tuple[Rule, int]:
    """PatchCore's rule on raw features: the distance to the nearest patch of a coreset (CVPR 2022, eq. 6)."""
    bank = patches[
        greedy_coreset(patches, CORESET_SIZE, generator, num_projections=PROJECTED_CHANNELS)
    ].float()
    return lambda queries: nearest_distance(queries, bank), num_tensor_bytes([bank])


def _fit_nearest_latent(
    patches: Float[Tensor, "n c"], generator: torch.Generator, settings: FitSettings
) -> tuple[Rule, int]:
    """The same rule on the whitened latents, which energyad's energy sees."""
    whitening = fit_whitening(patches, latent_dim=settings.energy.latent_dim)
    latents = torch.cat([whitening(chunk.float()) for chunk in patches.split(65536)])
    bank = latents[greedy_coreset(latents, CORESET_SIZE, generator, num_projections=PROJECTED_CHANNELS)]
    num_bytes = num_tensor_bytes([bank, *whitening.buffers()])
    return lambda queries: nearest_distance(whitening(queries), bank), num_bytes


def _fit_mahalanobis(
    patches: Float[Tensor, "n c"], generator: torch.Generator, settings: FitSettings
) -> tuple[Rule, int]:
    """The distance from the mean of the whitened latents."""
    whitening = fit_whitening(patches, latent_dim=settings.energy.latent_dim)
    return lambda queries: whitening(queries).norm(dim=1), num_tensor_bytes(whitening.buffers())


def num_tensor_bytes(tensors: Iterable[Tensor]) -> int:
    """What tensors take in a file."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


RULES = {
    "knn": _fit_nearest,
    "knn-jittered": _fit_nearest,
    "knn-rotated": _fit_nearest,
    "knn-half": _fit_nearest,
    "knn-whitened": _fit_nearest_latent,
    "mahalanobis": _fit_mahalanobis,
}


def nearest_distance(queries: Float[Tensor, "n c"], bank: Float[Tensor, "m c"]) -> Float[Tensor, " n"]:
    """Euclidean distance to the nearest of the bank, exact search."""
    half_squares = bank.square().sum(dim=1) / 2
    nearest = []
    for chunk in queries.split(QUERY_CHUNK):
        closest = torch.addmm(half_squares, chunk, bank.T, alpha=-1).amin(dim=1)
        nearest.append((chunk.square().sum(dim=1) + 2 * closest).clamp_min(0).sqrt())
    return torch.cat(nearest)
