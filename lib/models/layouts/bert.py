"""BERT, TinyBERT and MiniLM as `transformers` names them, and its older spelling."""

from collections.abc import Mapping
from typing import Any

from flax import linen as nn

from lib.models.layouts import base, text

# Layer of ours -> of theirs; outside and inside of blocks.
_OUTSIDE = {
    "tokens": "embeddings.word_embeddings",
    "positions": "embeddings.position_embeddings",
    "types": "embeddings.token_type_embeddings",
    "embed_norm": "embeddings.LayerNorm",
    "embed_project": "embeddings.embed_project",  # which no file of BERT's has
    "pooler": "pooler.dense",
    "logits": "classifier",
}
_INSIDE = {
    "attention/query": "attention.self.query",
    "attention/key": "attention.self.key",
    "attention/value": "attention.self.value",
    "attention/out": "attention.output.dense",
    "norm_0": "attention.output.LayerNorm",
    "dense_0": "intermediate.dense",
    "dense_1": "output.dense",
    "norm_1": "output.LayerNorm",
}


def place(path: str, module: nn.Module) -> str | base.Part:
    """Returns their name; see `text.place`."""
    return text.place(path, module, _OUTSIDE, _INSIDE, "encoder.layer.{}")


def fields(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the fields of an `Encoder` that a `config.json` tells."""
    return text.fields(config, "bert", text.BERT)


LAYOUT = base.Layout(
    "BERT of transformers",
    place,
    prefixes=("bert.",),
    buffers=text.BUFFERS,
    endings={".gamma": ".weight", ".beta": ".bias"},
    fields=fields,
)
