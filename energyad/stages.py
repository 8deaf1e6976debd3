"""Feature maps of EfficientNets, the coarsest taken where it still tells of places."""

from __future__ import annotations

from jaxtyping import Float
from timm.models import FeatureInfo
from timm.models.efficientnet import EfficientNetFeatures
from torch import Tensor, nn


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
        for place, block in enumerate(self.blocks):
            x = block(x)
            if place in self.places:
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
