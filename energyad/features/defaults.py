"""Defaults of the features, which settings name without loading torch."""

from __future__ import annotations

DEFAULT_STRIDES = (4, 8, 16)


DEFAULT_COARSE_STRIDES = (8, 16, 32)


DEFAULT_BORDER_MARGIN = 16


DEFAULT_BACKBONE = "tf_efficientnet_lite0"
