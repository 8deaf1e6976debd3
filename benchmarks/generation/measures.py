"""Measures of samples: in the features of a small classifier, and in pixels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.linalg
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

NEIGHBOURS = 3
CLASSIFIER_STEPS = 800
NUM_DIRECTIONS = 256


@dataclass(frozen=True)
class LabelledImages:
    """Images in [-1, 1], and their digits; a split that never changes."""

    train: Float[Tensor, "n *event"]
    train_digits: Int[Tensor, " n"]
    test: Float[Tensor, "b *event"]
    test_digits: Int[Tensor, " b"]

    @classmethod
    def split(
        cls, images: Float[Tensor, "n *event"], labels: Int[Tensor, " n"], *, num_test: int
    ) -> LabelledImages:
        """A split by a fixed permutation."""
        order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
        test, train = order[:num_test], order[num_test:]
        return cls(images[train], labels[train], images[test], labels[test])


class Classifier(nn.Module):
    """A small classifier of digits.

    Args:
        features: [n, *event] -> [n, width], its last hidden layer.
        width: Of the features.
    """

    def __init__(self, features: nn.Module, width: int) -> None:
        super().__init__()
        self.features = features
        self.logits = nn.Linear(width, 10)

    def forward(self, x: Float[Tensor, "n *event"]) -> Float[Tensor, "n 10"]:
        """Logits."""
        return self.logits(self.features(x))


@dataclass(frozen=True)
class Ruler:
    """What measures samples; the same for every run.

    Attributes:
        data: The images.
        classifier: Trained on the training images.
        accuracy: On the test images.
    """

    data: LabelledImages
    classifier: Classifier
    accuracy: float


def make_ruler(data: LabelledImages, classifier: Classifier) -> Ruler:
    """Train a classifier in place; batches are drawn from a fixed seed."""
    generator = torch.Generator().manual_seed(0)
    optimizer = torch.optim.AdamW(classifier.parameters(), lr=2e-3, weight_decay=1e-2)
    for _ in range(CLASSIFIER_STEPS):
        rows = torch.randint(len(data.train), (128,), generator=generator)
        loss = nn.functional.cross_entropy(classifier(data.train[rows]), data.train_digits[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    classifier.requires_grad_(False)
    right = classifier(data.test).argmax(dim=1) == data.test_digits
    return Ruler(data, classifier, float(right.float().mean()))


@dataclass(frozen=True)
class SampleQuality:
    """How near samples are to the training digits.

    Attributes:
        frechet: Frechet distance of Gaussians in the classifier's features.
        precision: Share of samples within the training digits' manifold (arXiv 1904.06991).
        recall: Share of the training digits within the samples' manifold.
        sliced_wasserstein: Mean over directions of the 2-Wasserstein distance of pixels, the root.
        nearest: Mean distance of a sample to the nearest training digit, in pixels' units.
    """

    frechet: float
    precision: float
    recall: float
    sliced_wasserstein: float
    nearest: float


def measure_samples(samples: Float[Tensor, "n *event"], ruler: Ruler) -> SampleQuality:
    """Measure samples against the training digits."""
    real = ruler.data.train
    of_samples, of_real = ruler.classifier.features(samples), ruler.classifier.features(real)
    samples, real = samples.flatten(1), real.flatten(1)
    return SampleQuality(
        frechet=frechet_distance(of_samples, of_real),
        precision=covered(of_samples, of_real),
        recall=covered(of_real, of_samples),
        sliced_wasserstein=sliced_wasserstein(samples, real),
        nearest=float(torch.cdist(samples, real).min(dim=1).values.mean()),
    )


def frechet_distance(a: Float[Tensor, "n k"], b: Float[Tensor, "m k"]) -> float:
    """Frechet distance of the Gaussians of two sets."""
    x, y = a.double().numpy(), b.double().numpy()
    covariances = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    root = scipy.linalg.sqrtm(covariances[0] @ covariances[1])
    means = np.square(x.mean(axis=0) - y.mean(axis=0)).sum()
    return float(means + np.trace(covariances[0] + covariances[1] - 2 * root.real))


def covered(points: Float[Tensor, "n k"], by: Float[Tensor, "m k"]) -> float:
    """Share of points that lie nearer to some member of a set than its third neighbour in the set does."""
    radii = torch.cdist(by, by).kthvalue(NEIGHBOURS + 1, dim=1).values
    return float((torch.cdist(points, by) <= radii).any(dim=1).float().mean())


def sliced_wasserstein(a: Float[Tensor, "n k"], b: Float[Tensor, "m k"]) -> float:
    """Root of the mean over directions of the squared 2-Wasserstein distance of two sets."""
    generator = torch.Generator().manual_seed(0)
    directions = torch.randn(a.shape[1], NUM_DIRECTIONS, generator=generator)
    directions /= directions.norm(dim=0)
    levels = (torch.arange(500) + 0.5) / 500
    quantiles = [torch.quantile(points @ directions, levels, dim=0) for points in (a, b)]
    return float((quantiles[0] - quantiles[1]).square().mean().sqrt())
