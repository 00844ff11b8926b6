"""ALBERT as `transformers` names it.

Its one block stands for each of ours, so that weights come into an encoder with
`share=True`, and as well into one whose blocks are tied by the technique `tie`.
"""

from collections.abc import Mapping
from typing import Any

from flax import linen as nn

from lib.models.layouts import base, text

_OUTSIDE = {
    "tokens": "embeddings.word_embeddings",
    "positions": "embeddings.position_embeddings",
    "types": "embeddings.token_type_embeddings",
    "embed_norm": "embeddings.LayerNorm",
    "embed_project": "encoder.embedding_hidden_mapping_in",
    "pooler": "pooler",
    "logits": "classifier",
}
_INSIDE = {
    "attention/query": "attention.query",
    "attention/key": "attention.key",
    "attention/value": "attention.value",
    "attention/out": "attention.dense",
    "norm_0": "attention.LayerNorm",
    "dense_0": "ffn",
    "dense_1": "ffn_output",
    "norm_1": "full_layer_layer_norm",
}
_BLOCK = "encoder.albert_layer_groups.0.albert_layers.0"


def place(path: str, module: nn.Module) -> str | base.Part:
    """Returns their name; see `text.place`."""
    return text.place(path, module, _OUTSIDE, _INSIDE, _BLOCK)


def fields(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the fields of an `Encoder` that a `config.json` tells."""
    told = text.BERT | {"layers": "num_hidden_layers"}  # its names do not tell
    return text.fields(config, "albert", told)


LAYOUT = base.Layout(
    "ALBERT of transformers",
    place,
    prefixes=("albert.",),
    buffers=text.BUFFERS,
    fields=fields,
)
