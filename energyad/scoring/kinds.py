"""Which kind of defect a region is likeliest, once people have named a few: nearest class means on its features.

A region is described by the mean features of its patches, x. Its squared distance to the mean of kind k is
d_k = ‖A (x − m_k)‖², where AᵀA is the inverse of the covariance within the kinds, shrunk towards a multiple of the
identity (Chen et al., "Shrinkage algorithms for MMSE covariance estimation", IEEE TSP 2010). Its probability is
exp(−d_k / 2t) / Σ_j exp(−d_j / 2t). A region that is farther from the likeliest kind than examples of that kind usually
are, or that two kinds are nearly as likely for, has no name.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import cv2
import numpy as np
import safetensors
import safetensors.numpy
from jaxtyping import Bool, Float, Float32

from energyad.errors import ModelError
from energyad.images.tiling import Tiles
from energyad.scoring.coverage import patch_coverage
from energyad.scoring.regions import UNKNOWN, Region

KINDS_FILE: Final = "kinds.safetensors"
MIN_PROBABILITY: Final = 0.5
"""Of the likeliest kind, for a region to be called so."""
MAX_NAMED: Final = 20
"""Regions of one image that are named."""
MAX_CHANNELS: Final = 1 << 14
_TENSORS: Final = ("centres", "metric")


@dataclass(frozen=True, eq=False)
class KindClassifier:
    """Names kinds of regions.

    Attributes:
        names: Of the kinds.
        centres: m_k, the mean features of each kind.
        metric: A.
        limits: Of each kind, the squared distance beyond which a region is not of it.
        temperature: t.
        patches: Rows and columns of patches that lie over a tile.
        margins: Of these, the outermost that are not used.
    """

    names: tuple[str, ...]
    centres: Float32[np.ndarray, "k c"]
    metric: Float32[np.ndarray, "r c"]
    limits: Float[np.ndarray, " k"]
    temperature: float
    patches: tuple[int, int]
    margins: tuple[int, int]

    def classify(self, features: Float[np.ndarray, "n c"]) -> list[tuple[str, float]]:
        """Return the likeliest kind of each region and its probability; `UNKNOWN` where it is like none.

        The probability of `UNKNOWN` is that of the kind that is likeliest all the same.
        """
        distances = self.distances(features)
        odds = np.exp(-(distances - distances.min(axis=1, keepdims=True)) / (2 * self.temperature))
        probabilities = odds / odds.sum(axis=1, keepdims=True)
        best = probabilities.argmax(axis=1)
        rows = np.arange(len(best))
        is_known = (distances[rows, best] <= self.limits[best]) & (
            probabilities[rows, best] >= MIN_PROBABILITY
        )
        return [
            (self.names[kind] if known else UNKNOWN, float(probability))
            for kind, known, probability in zip(best, is_known, probabilities[rows, best], strict=True)
        ]

    def distances(self, features: Float[np.ndarray, "n c"]) -> Float[np.ndarray, "n k"]:
        """Return the squared distance of each region to each kind."""
        centres = self.centres @ self.metric.T
        return np.square((features @ self.metric.T)[:, None] - centres).sum(axis=-1)

    def name_regions(
        self,
        regions: Sequence[Region],
        features: Float32[np.ndarray, "tiles c g1 g2"],
        *,
        shape: tuple[int, int],
        tiles: Tiles,
        tile_size: tuple[int, int],
    ) -> tuple[Region, ...]:
        """Return regions with their kinds: the first `MAX_NAMED`, those of the highest peaks.

        Args:
            regions: Of one image.
            features: Of its patches.
            shape: Height and width of the image, pixels.
            tiles: How the image is cut.
            tile_size: Height and width of a tile, pixels.
        """
        named = regions[:MAX_NAMED]
        if not named:
            return tuple(regions)
        places = {"tiles": tiles, "tile_size": tile_size, "patches": self.patches, "margins": self.margins}
        masks = [region_mask(region, shape, tiles.shape(tile_size)) for region in named]
        covered = [patch_coverage(mask, **places) for mask in masks]  # type: ignore[arg-type]
        described = [describe(features, coverage, self.centres.shape[1]) for coverage in covered]
        kinds = self.classify(np.stack(described))
        return (
            *(
                replace(region, kind=kind, kind_probability=probability)
                for region, (kind, probability) in zip(named, kinds, strict=True)
            ),
            *regions[MAX_NAMED:],
        )

    def to_bytes(self) -> bytes:
        """Return the file of the model folder."""
        values = {
            "names": list(self.names), "limits": self.limits.tolist(), "temperature": self.temperature,
            "patches": self.patches, "margins": self.margins,
        }  # fmt: skip
        tensors = {"centres": self.centres, "metric": self.metric}
        return safetensors.numpy.save(tensors, metadata={"kinds": json.dumps(values, ensure_ascii=False)})

    @classmethod
    def from_bytes(cls, content: bytes) -> KindClassifier:
        """Read the file of a model folder.

        Raises:
            ModelError: It is not what `to_bytes` writes.
        """
        try:
            length = int.from_bytes(content[:8], "little")
            values = json.loads(json.loads(content[8 : 8 + length])["__metadata__"]["kinds"])
            tensors = safetensors.numpy.load(content)
            centres, metric = (tensors[name] for name in _TENSORS)
            limits = values["limits"] if "limits" in values else [values["limit"]] * len(values["names"])
            made = cls(
                names=tuple(map(str, values["names"])),
                centres=centres,
                metric=metric,
                limits=np.array(limits, float),
                temperature=float(values["temperature"]),
                patches=(int(values["patches"][0]), int(values["patches"][1])),
                margins=(int(values["margins"][0]), int(values["margins"][1])),
            )
        except (ValueError, TypeError, KeyError, IndexError, safetensors.SafetensorError) as error:
            raise ModelError(
                f"{KINDS_FILE}: no kinds of defects ({type(error).__name__}); teach again"
            ) from error
        made.require_sound()
        return made

    def require_sound(self) -> None:
        """Raise ModelError for shapes that do not belong together, and for what is not finite."""
        (kinds, channels), numbers = self.centres.shape, np.append(self.limits, self.temperature)
        shapes_fit = self.metric.ndim == 2 and self.metric.shape[1] == channels <= MAX_CHANNELS
        shapes_fit = shapes_fit and self.limits.shape == (kinds,)
        is_finite = all(np.isfinite(array).all() for array in (self.centres, self.metric, numbers))
        grid_fits = all(
            0 <= 2 * margin < count <= 8192 for count, margin in zip(self.patches, self.margins, strict=True)
        )
        if not (shapes_fit and is_finite and grid_fits and len(self.names) == kinds > 0 < self.temperature):
            raise ModelError(f"{KINDS_FILE}: its values do not belong together; teach again")


def describe(
    features: Float32[np.ndarray, "tiles c g1 g2"],
    coverage: Float32[np.ndarray, "tiles g1 g2"],
    channels: int,
) -> Float32[np.ndarray, " c"]:
    """Return the mean features of the patches that a mask covers, weighted by how much of each it covers.

    Args:
        features: Of the patches.
        coverage: Of the patches; where it is 0 everywhere, all count alike.
        channels: Leading ones that count: the finest scale.
    """
    weights = coverage / coverage.sum() if coverage.max() > 0 else np.full_like(coverage, 1 / coverage.size)
    return np.einsum("tcij,tij->c", features[:, :channels], weights).astype(np.float32)


def region_mask(region: Region, shape: tuple[int, int], target: tuple[int, int]) -> Bool[np.ndarray, "h w"]:
    """Return a region's pixels at another size of the image; at least one.

    Args:
        region: Of an image.
        shape: Height and width of the image, pixels.
        target: (h, w), pixels.
    """
    factors = np.array([target[1] / shape[1], target[0] / shape[0]])
    corners = (np.array(region.polygon) + 0.5) * factors - 0.5
    mask = np.zeros(target, np.uint8)
    cv2.fillPoly(mask, [np.rint(corners).clip(0, np.array(target[::-1]) - 1).astype(np.int32)], 1)
    return mask.astype(bool)
