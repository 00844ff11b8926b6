"""What the layouts of the text models share: blocks, heads, `config.json`."""

from collections.abc import Mapping
from typing import Any

from flax import linen as nn

from lib.models.layouts import base

# Counters of places and of types, which old files hold.
BUFFERS = r"^embeddings\.(position_ids|token_type_ids)$"

# Field of an `Encoder` that shapes do not tell -> key of BERT's and ALBERT's
# `config.json`.
BERT = {
    "heads": "num_attention_heads",
    "gelu": "hidden_act",
    "epsilon": "layer_norm_eps",
    "pad": "pad_token_id",
}

_GELUS = {
    "gelu": "exact",
    "gelu_python": "exact",
    "gelu_new": "tanh",
    "gelu_pytorch_tanh": "tanh",
}


def apart(path: str) -> tuple[int | None, str, str]:
    """Returns (number of the block or None, layer, leaf) of a weight's path.

    `params/block_1/attention/query/kernel` is (1, "attention/query", "kernel").
    """
    _, *scopes, leaf = path.split("/")
    block = None
    if scopes[0].startswith("block_"):
        block = int(scopes.pop(0).removeprefix("block_"))
    return block, "/".join(scopes), leaf


def with_heads(layer: str, leaf: str, heads: int) -> base.Convert:
    """Returns what gives a weight of attention, axes in our order, an axis of heads.

    Weights of other layers stay as they are.
    """
    if layer == "attention/out" and leaf == "kernel":
        return lambda value: value.reshape((heads, -1, value.shape[-1]))
    if layer.startswith("attention/") and layer != "attention/out":
        if leaf == "kernel":
            return lambda value: value.reshape((value.shape[0], heads, -1))
        return lambda value: value.reshape((heads, -1))
    return base.same


def place(
    path: str,
    module: nn.Module,
    outside: Mapping[str, str],
    inside: Mapping[str, str],
    scope: str,
) -> str | base.Part:
    """Returns the name in PyTorch of a weight of an `Encoder`.

    Args:
      path: of the weight.
      module: has `heads`.
      outside: layer of ours -> of theirs.
      inside: the same for the layers of blocks.
      scope: of a block, with {} for its number.
    """
    block, layer, leaf = apart(path)
    named = base.weight_or_bias(path)
    if block is None:
        return f"{outside[layer]}.{named}"
    usual, apart_by = base.usual(path), with_heads(layer, leaf, module.heads)
    return base.Part(
        f"{scope.format(block)}.{inside[layer]}.{named}",
        lambda value: apart_by(usual(value)),
    )


def fields(
    config: Mapping[str, Any], kind: str, names: Mapping[str, str]
) -> dict[str, Any]:
    """Returns the fields of a model, of those in `names`, that a `config.json` tells.

    Args:
      config: the table in it; what it does not tell is left out.
      kind: its "model_type".
      names: field of ours -> key of theirs.

    Raises:
      KeyError: it is of another kind.
    """
    if config.get("model_type", kind) != kind:
        raise KeyError(f"model_type {kind!r}")
    told = {ours: config[key] for ours, key in names.items() if key in config}
    if told.get("pad", 0) is None:  # there is no padding in such texts
        told["pad"] = -1
    if "gelu" in told:
        told["gelu"] = _GELUS.get(told["gelu"], told["gelu"])
    return told
