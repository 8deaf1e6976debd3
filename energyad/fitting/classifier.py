"""The fit of the classifier that tells categories apart."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from torch import Tensor

from energyad.energy.categories import CategoryClassifier


def fit_category_classifier(embeddings: Sequence[Float[Tensor, "_ c"]]) -> CategoryClassifier:
    """Fit linear discriminants to the mean patches of each category's images.

    No category is likelier for having more images. The covariance within categories is shrunk (Ledoit & Wolf 2004), so
    that a few images of each are enough.

    Args:
        embeddings: Mean patches of each category's images.

    Returns:
        A classifier in the order of the categories.
    """
    stacked = torch.cat([*embeddings])
    centre = stacked.mean(dim=0)
    labels = [number for number, of_category in enumerate(embeddings) for _ in of_category]
    priors = [1 / len(embeddings)] * len(embeddings)
    discriminants = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto", priors=priors)
    discriminants.fit((stacked - centre).double().numpy(), labels)
    axes = torch.from_numpy(discriminants.coef_).float().T.contiguous()
    offsets = torch.from_numpy(discriminants.intercept_).float()
    if len(embeddings) == 2:  # of two, scikit-learn has the difference alone
        axes, offsets = torch.cat([-axes, axes], dim=1) / 2, torch.cat([-offsets, offsets]) / 2
    return CategoryClassifier(centre, axes, offsets)
