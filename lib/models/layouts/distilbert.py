"""DistilBERT as `transformers` names it."""

from collections.abc import Mapping
from typing import Any

from flax import linen as nn

from lib.models.layouts import base, text

_OUTSIDE = {
    "tokens": "embeddings.word_embeddings",
    "positions": "embeddings.position_embeddings",
    "types": "embeddings.token_type_embeddings",  # which no file of it has
    "embed_norm": "embeddings.LayerNorm",
    "embed_project": "embeddings.embed_project",  # nor this
    "pooler": "pre_classifier",
    "logits": "classifier",
}
_INSIDE = {
    "attention/query": "attention.q_lin",
    "attention/key": "attention.k_lin",
    "attention/value": "attention.v_lin",
    "attention/out": "attention.out_lin",
    "norm_0": "sa_layer_norm",
    "dense_0": "ffn.lin1",
    "dense_1": "ffn.lin2",
    "norm_1": "output_layer_norm",
}
_FIELDS = {
    "heads": "n_heads",
    "gelu": "activation",
    "pad": "pad_token_id",
}


def place(path: str, module: nn.Module) -> str | base.Part:
    """Returns their name; see `text.place`."""
    return text.place(path, module, _OUTSIDE, _INSIDE, "transformer.layer.{}")


def fields(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the fields of an `Encoder` that a `config.json` tells."""
    return text.fields(config, "distilbert", _FIELDS) | {"epsilon": 1e-12}


LAYOUT = base.Layout(
    "DistilBERT of transformers",
    place,
    prefixes=("distilbert.",),
    buffers=text.BUFFERS,
    fields=fields,
)
