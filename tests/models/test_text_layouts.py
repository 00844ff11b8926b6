"""Names and orders of axes of the text models' files, written out."""

import json

import flax.serialization
import jax
import numpy as np
import pytest

from lib import errors, models, tree
from lib.models import foreign
from lib.models.decoder import Decoder
from lib.models.encoder import Encoder

SMALL = dict(classes=3, layers=1, width=4, heads=2, intermediate=6, max_length=8)
BERT = Encoder(**SMALL, vocabulary=10)
LIKE = ((5,), np.int32)

# Shapes of BertForSequenceClassification of that size, as older files call its parts.
BLOCK = "bert.encoder.layer.0"
NAMES = {
    "bert.embeddings.word_embeddings.weight": (10, 4),
    "bert.embeddings.position_embeddings.weight": (8, 4),
    "bert.embeddings.token_type_embeddings.weight": (2, 4),
    "bert.embeddings.LayerNorm.gamma": (4,),
    "bert.embeddings.LayerNorm.beta": (4,),
    **{
        f"{BLOCK}.attention.{layer}.{leaf}": shape
        for layer in ("self.query", "self.key", "self.value", "output.dense")
        for leaf, shape in (("weight", (4, 4)), ("bias", (4,)))
    },
    f"{BLOCK}.attention.output.LayerNorm.gamma": (4,),
    f"{BLOCK}.attention.output.LayerNorm.beta": (4,),
    f"{BLOCK}.intermediate.dense.weight": (6, 4),
    f"{BLOCK}.intermediate.dense.bias": (6,),
    f"{BLOCK}.output.dense.weight": (4, 6),
    f"{BLOCK}.output.dense.bias": (4,),
    f"{BLOCK}.output.LayerNorm.gamma": (4,),
    f"{BLOCK}.output.LayerNorm.beta": (4,),
    "bert.pooler.dense.weight": (4, 4),
    "bert.pooler.dense.bias": (4,),
    "classifier.weight": (3, 4),
    "classifier.bias": (3,),
}


def drawn(names):
    rng = np.random.default_rng(0)
    return {k: rng.normal(size=v).astype(np.float32) for k, v in names.items()}


THEIRS = drawn(NAMES)


def saved(tmp_path, arrays, name="weights.npz"):
    np.savez(tmp_path / name, **arrays)
    return tmp_path / name


def test_each_array_of_an_old_bert_lands_where_it_belongs(tmp_path):
    buffers = {"bert.embeddings.position_ids": np.arange(8)[None]}
    path = saved(tmp_path, {f"module.{k}": v for k, v in (THEIRS | buffers).items()})
    params, variables = foreign.load(path, BERT, *LIKE)
    models.check(BERT, params, variables, *LIKE)
    block, attention = params["block_0"], params["block_0"]["attention"]
    query = THEIRS[f"{BLOCK}.attention.self.query.weight"]
    out = THEIRS[f"{BLOCK}.attention.output.dense.weight"]
    for w, head, d in np.ndindex(4, 2, 2):
        assert attention["query"]["kernel"][w, head, d] == query[2 * head + d, w]
        assert attention["out"]["kernel"][head, d, w] == out[w, 2 * head + d]
    np.testing.assert_array_equal(
        attention["value"]["bias"].ravel(),
        THEIRS[f"{BLOCK}.attention.self.value.bias"],
    )
    for ours, theirs in (
        (params["tokens"]["embedding"], "bert.embeddings.word_embeddings.weight"),
        (params["types"]["embedding"], "bert.embeddings.token_type_embeddings.weight"),
        (params["embed_norm"]["scale"], "bert.embeddings.LayerNorm.gamma"),
        (block["norm_0"]["bias"], f"{BLOCK}.attention.output.LayerNorm.beta"),
        (block["norm_1"]["scale"], f"{BLOCK}.output.LayerNorm.gamma"),
        (block["dense_0"]["kernel"].T, f"{BLOCK}.intermediate.dense.weight"),
        (block["dense_1"]["kernel"].T, f"{BLOCK}.output.dense.weight"),
        (params["pooler"]["kernel"].T, "bert.pooler.dense.weight"),
        (params["logits"]["kernel"].T, "classifier.weight"),
    ):
        np.testing.assert_array_equal(ours, THEIRS[theirs])


def test_a_flax_file_of_bert_is_the_same(tmp_path):
    """There kernels are `[in, out]`, norms have scales, and names are paths."""
    flat = {}
    for name, value in THEIRS.items():
        scope, _, leaf = name.replace(".", "/").rpartition("/")
        leaf = {"gamma": "scale", "beta": "bias"}.get(leaf, leaf)
        if leaf == "weight":
            leaf = "embedding" if "embeddings" in scope else "kernel"
            value = value.T if leaf == "kernel" else value
        flat[f"{scope}/{leaf}"] = value
    path = tmp_path / "flax_model.msgpack"
    path.write_bytes(flax.serialization.msgpack_serialize(tree.unflatten(flat)))
    found = foreign.load(path, BERT, *LIKE)
    want = foreign.load(saved(tmp_path, THEIRS), BERT, *LIKE)
    jax.tree.map(np.testing.assert_array_equal, found, want)


def test_what_shapes_do_not_tell_is_compared_with_the_config(tmp_path):
    path = saved(tmp_path, THEIRS)
    # A folder's weights have names of their own; the config stands beside.
    flat = tree.unflatten({k.replace(".", "/"): v for k, v in THEIRS.items()})
    path = tmp_path / "flax_model.msgpack"
    path.write_bytes(flax.serialization.msgpack_serialize(flat))
    config = {
        "model_type": "bert",
        "num_attention_heads": 2,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-12,
        "pad_token_id": 0,
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    foreign.fit(tmp_path, BERT, *LIKE)
    for key, value, message in (
        ("num_attention_heads", 4, "Encoder.heads: expected 4"),
        ("hidden_act", "gelu_new", "Encoder.gelu: expected 'tanh'"),
        ("hidden_act", "silu", "Encoder.gelu: expected 'silu'"),
        ("layer_norm_eps", 1e-5, "Encoder.epsilon: expected 1e-05"),
        ("pad_token_id", 1, "Encoder.pad: expected 1"),
        ("model_type", "roberta", "none of BERT of transformers: .*model_type 'bert'"),
    ):
        (tmp_path / "config.json").write_text(json.dumps({**config, key: value}))
        with pytest.raises(errors.UserError, match=message):
            foreign.fit(tmp_path, BERT, *LIKE)


def test_another_number_of_heads_or_places_is_another_shape(tmp_path):
    path = saved(tmp_path, THEIRS)
    with pytest.raises(errors.UserError, match="expected 'bert.embeddings.position"):
        foreign.fit(path, BERT.clone(max_length=9), *LIKE)
    odd = {**THEIRS, f"{BLOCK}.attention.self.key.weight": np.ones((3, 4), np.float32)}
    with pytest.raises(errors.UserError, match="got none of an array of shape .3, 4"):
        foreign.fit(saved(tmp_path, odd), BERT, *LIKE)


def test_a_decoder_reads_out_by_its_embedding(tmp_path):
    shapes = {
        "wte.weight": (10, 4),
        "wpe.weight": (8, 4),
        "h.0.attn.bias": (1, 1, 8, 8),  # a mask
        "h.0.attn.c_attn.weight": (4, 12),
        "h.0.attn.c_attn.bias": (12,),
        "h.0.attn.c_proj.weight": (4, 4),
        "h.0.attn.c_proj.bias": (4,),
        "h.0.mlp.c_fc.weight": (4, 6),
        "h.0.mlp.c_fc.bias": (6,),
        "h.0.mlp.c_proj.weight": (6, 4),
        "h.0.mlp.c_proj.bias": (4,),
        **{
            f"{norm}.{leaf}": (4,)
            for norm in ("h.0.ln_1", "h.0.ln_2", "ln_f")
            for leaf in ("weight", "bias")
        },
    }
    theirs = drawn(shapes)
    module = Decoder(**{**SMALL, "classes": 10}, vocabulary=10, task="next")
    named = {f"transformer.{name}": value for name, value in theirs.items()}
    tied = {**named, "lm_head.weight": theirs["wte.weight"]}
    params, _ = foreign.load(saved(tmp_path, tied), module, *LIKE)
    fused = theirs["h.0.attn.c_attn.weight"]
    for i, part in enumerate(("query", "key", "value")):
        kernel = params["block_0"]["attention"][part]["kernel"]
        np.testing.assert_array_equal(kernel.reshape(4, 4), fused[:, 4 * i : 4 * i + 4])
    np.testing.assert_array_equal(
        params["block_0"]["dense_1"]["kernel"], theirs["h.0.mlp.c_proj.weight"]
    )
    own = {**named, "lm_head.weight": theirs["wte.weight"] + 1}
    with pytest.raises(errors.UserError, match="'lm_head.weight' to be equal to 'tra"):
        foreign.load(saved(tmp_path, own), module, *LIKE)
