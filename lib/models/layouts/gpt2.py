"""GPT-2 as `transformers` names it.

Its dense kernels are `[in, out]` like ours, and query, key and value are one.
"""

from collections.abc import Mapping
from typing import Any

from flax import linen as nn

from lib.models.layouts import base, text

_OUTSIDE = {"tokens": "wte", "positions": "wpe", "norm": "ln_f", "logits": "score"}
_INSIDE = {
    "attention/out": "attn.c_proj",
    "norm_0": "ln_1",
    "norm_1": "ln_2",
    "dense_0": "mlp.c_fc",
    "dense_1": "mlp.c_proj",
}
_FUSED = ("attention/query", "attention/key", "attention/value")


def place(path: str, module: nn.Module) -> str | base.Part:
    """Returns their name; `score`, the classifier, is an ordinary dense layer."""
    block, layer, leaf = text.apart(path)
    named = base.weight_or_bias(path)
    if block is None:
        return f"{_OUTSIDE[layer]}.{named}"
    with_heads = text.with_heads(layer, leaf, module.heads)
    if layer in _FUSED:
        part = base.piece(_FUSED.index(layer), 3, axis=-1, after=with_heads)
        return base.Part(f"h.{block}.attn.c_attn.{named}", part)
    return base.Part(f"h.{block}.{_INSIDE[layer]}.{named}", with_heads)


def fields(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the fields of a `Decoder` that a `config.json` tells."""
    names = {
        "heads": "n_head",
        "gelu": "activation_function",
        "epsilon": "layer_norm_epsilon",
    }
    return text.fields(config, "gpt2", names)


LAYOUT = base.Layout(
    "GPT-2 of transformers",
    place,
    prefixes=("transformer.",),
    # Masks, which are no weights, of files before 2023.
    buffers=r"\.attn\.(masked_)?bias$",
    copies={"lm_head.weight": "wte.weight"},
    fields=fields,
)
