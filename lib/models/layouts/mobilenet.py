"""PyTorch's mobile networks: torchvision's names of MobileNetV2, and timm's of all."""

from collections.abc import Sequence

from flax import linen as nn

from lib.models.layouts import base


def _parts(path: str) -> tuple[int | None, str, str]:
    """Returns (number of the block, layer, leaf in their words); None outside one."""
    _, *scopes, layer, _ = path.split("/")
    block = int(scopes[0].removeprefix("block_")) if scopes else None
    return block, layer, base.weight_or_bias(path)


def torchvision(path: str, module: nn.Module) -> str:
    """Returns torchvision's name of a weight of `MobileNetV2`.

    `params/block_3/conv_depth/kernel` is `features.4.conv.1.0.weight`.
    """
    block, layer, leaf = _parts(path)
    last = sum(module.stages) + 1
    if block is None:
        outside = {
            "conv": "features.0.0",
            "norm": "features.0.1",
            "conv_head": f"features.{last}.0",
            "norm_head": f"features.{last}.1",
            "logits": "classifier.1",
        }
        return f"{outside[layer]}.{leaf}"
    # Without widening, all that follows comes one place earlier.
    first = 1 if block >= module.stages[0] else 0
    places = {
        "conv_expand": "0.0",
        "norm_expand": "0.1",
        "conv_depth": f"{first}.0",
        "norm_depth": f"{first}.1",
        "conv_project": f"{first + 1}",
        "norm_project": f"{first + 2}",
    }
    return f"features.{block + 1}.conv.{places[layer]}.{leaf}"


_OUTSIDE = {
    "conv": "conv_stem",
    "norm": "bn1",
    "conv_head": "conv_head",
    "norm_head": "bn2",
    "logits": "classifier",
}
_SEPARABLE = {
    "conv_depth": "conv_dw",
    "norm_depth": "bn1",
    "conv_point": "conv_pw",
    "norm_point": "bn2",
    "conv_project": "conv_pw",
    "norm_project": "bn2",
}
_INVERTED = {
    "conv_expand": "conv_pw",
    "norm_expand": "bn1",
    "conv_depth": "conv_dw",
    "norm_depth": "bn2",
    "conv_project": "conv_pwl",
    "norm_project": "bn3",
}


def timm_separable(path: str, module: nn.Module) -> str:
    """Returns timm's name of a weight of `MobileNetV1`.

    `params/block_3/conv_depth/kernel` is `blocks.2.0.conv_dw.weight`.
    """
    block, layer, leaf = _parts(path)
    if block is None:
        return f"{_OUTSIDE[layer]}.{leaf}"
    stage, number = _of_stage(block, module.stages)
    return f"blocks.{stage}.{number}.{_SEPARABLE[layer]}.{leaf}"


def timm_inverted(path: str, module: nn.Module) -> str:
    """Returns timm's name of a weight of `MobileNetV2` or `EfficientNetLite`.

    `params/block_3/conv_depth/kernel` is `blocks.2.0.conv_dw.weight`.
    """
    block, layer, leaf = _parts(path)
    if block is None:
        return f"{_OUTSIDE[layer]}.{leaf}"
    stage, number = _of_stage(block, module.stages)
    named = _INVERTED if stage else _SEPARABLE  # the first stage does not widen
    return f"blocks.{stage}.{number}.{named[layer]}.{leaf}"


def _of_stage(block: int, stages: Sequence[int]) -> tuple[int, int]:
    """Returns (stage, number in it) of a block, of `stages` blocks each."""
    for stage, blocks in enumerate(stages):
        if block < blocks:
            return stage, block
        block -= blocks
    raise ValueError(f"no block {block} after stages of {stages}")


TORCHVISION_V2 = base.Layout("MobileNetV2 of torchvision", torchvision)
TIMM_V1 = base.Layout("MobileNet of timm", timm_separable)
TIMM_INVERTED = base.Layout("MobileNetV2 and EfficientNet-Lite of timm", timm_inverted)
