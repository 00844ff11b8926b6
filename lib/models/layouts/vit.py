"""Vision transformers as timm names them."""

from flax import linen as nn

from lib.models.layouts import base

_ALONE = {"token": "cls_token", "positions": "pos_embed"}
_OUTSIDE = {"embed": "patch_embed.proj", "norm": "norm", "logits": "head"}
_INSIDE = {
    "norm_0": "norm1",
    "norm_1": "norm2",
    "dense_0": "mlp.fc1",
    "dense_1": "mlp.fc2",
    "out": "attn.proj",
}
_TOGETHER = ("query", "key", "value")  # one dense layer of theirs, in this order


def place(path: str, module: nn.Module) -> str | base.Part:
    """Returns their name of a weight of `lib.models.vit.ViT`.

    `params/block_3/attention/out/kernel` is `blocks.3.attn.proj.weight`; query, key and
    value are thirds of `blocks.3.attn.qkv`.

    Args:
      path: of the weight.
      module: of no matter; the names tell all.
    """
    del module
    leaf = path.rpartition("/")[2]
    if leaf in _ALONE:
        return _ALONE[leaf]
    _, *scopes, layer, _ = path.split("/")
    named = base.weight_or_bias(path)
    if not scopes:
        return f"{_OUTSIDE[layer]}.{named}"
    block = f"blocks.{scopes[0].removeprefix('block_')}"
    if layer in _TOGETHER:
        third = base.piece(_TOGETHER.index(layer), 3, after=base.usual(path))
        return base.Part(f"{block}.attn.qkv.{named}", third)
    return f"{block}.{_INSIDE[layer]}.{named}"


LAYOUT = base.Layout("ViT of timm", place)
