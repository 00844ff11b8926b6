"""The text models compute what those of `transformers` do, on random weights.

No weights are fetched: the models are made here from their configs, and saved as their
users have them, a folder with `config.json`.
"""

import jax
import numpy as np
import pytest

from lib import errors, models
from lib.models import foreign
from lib.models.decoder import Decoder
from lib.models.encoder import Encoder
from tests.models import reference

pytestmark = pytest.mark.slow

torch = reference.package("torch")
transformers = reference.package("transformers")

L = 9
SMALL = dict(
    classes=3,
    layers=2,
    width=16,
    heads=4,
    intermediate=20,
    vocabulary=30,
    max_length=12,
)
KEYS = dict(
    vocab_size=30,
    hidden_size=16,
    num_hidden_layers=2,
    num_attention_heads=4,
    intermediate_size=20,
    max_position_embeddings=12,
    num_labels=3,
)
SEPARATOR = 7
CLASSIFIERS = {
    "bert": (
        lambda: transformers.BertForSequenceClassification(
            transformers.BertConfig(**KEYS)
        ),
        Encoder(**SMALL, separator=SEPARATOR),
    ),
    "distilbert": (
        lambda: transformers.DistilBertForSequenceClassification(
            transformers.DistilBertConfig(
                vocab_size=30,
                dim=16,
                n_layers=2,
                n_heads=4,
                hidden_dim=20,
                max_position_embeddings=12,
                num_labels=3,
            )
        ),
        Encoder(**SMALL, types=0, pooler="relu"),
    ),
    "albert": (
        lambda: transformers.AlbertForSequenceClassification(
            transformers.AlbertConfig(**KEYS, embedding_size=6)
        ),
        Encoder(**SMALL, separator=SEPARATOR, embedding=6, share=True, gelu="tanh"),
    ),
}


def made(make):
    """A model with weights that are neither 0, 1 nor small."""
    torch.manual_seed(0)
    net = make().eval()
    with torch.no_grad():
        for name, x in net.named_parameters():
            norm = "norm" in name.lower() or ".ln_" in name
            x.normal_(1.0 if norm and name.endswith("weight") else 0.0, 0.3)
    return net


def batch():
    """Ids `[4, L]`: texts of 9, 6, 4 and 2 tokens, each with a separator inside."""
    ids = np.random.default_rng(0).integers(8, 30, (4, L))
    lengths = np.array([9, 6, 4, 2])
    ids[:, 1] = SEPARATOR
    mask = np.arange(L)[None] < lengths[:, None]
    return np.where(mask, ids, 0).astype(np.int32), mask


def ours(module, folder, ids, **settings):
    params, variables = foreign.load(
        folder, module, (L,), dtype=np.int32, key=jax.random.key(0), **settings
    )
    apply = jax.jit(models.make_apply(module), static_argnames="train")
    (logits, features), _ = apply(params, variables, ids, train=False, key=None)
    return logits, features


def close(got, want):
    np.testing.assert_allclose(got, want, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_classifiers(tmp_path, name):
    make, module = CLASSIFIERS[name]
    net = made(make)
    net.save_pretrained(tmp_path)
    ids, mask = batch()
    given = {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(mask)}
    if name != "distilbert":
        types = (np.arange(L)[None] > 1) & mask
        given["token_type_ids"] = torch.tensor(types, dtype=torch.long)
    with torch.no_grad():
        want = net(**given, output_hidden_states=True)
    logits, features = ours(module, tmp_path, ids)
    close(logits, want.logits)
    assert np.ptp(want.logits.numpy(), axis=0).min() > 0.1  # texts do matter
    for i in range(module.layers):
        close(features[f"block_{i}"], want.hidden_states[i + 1])
    if not module.embedding:
        close(features["embed"], want.hidden_states[0])
    np.testing.assert_array_equal(features["mask"], mask)
    queries = features["query_1"] * features["query_1"].shape[-1] ** -0.5
    scores = np.einsum("bhqd,bhkd->bhqk", queries, features["key_1"])
    allowed = np.broadcast_to(mask[:, None, None], scores.shape)
    close(features["scores_1"], np.where(allowed, scores, -1e4))


def gpt2(cls, **more):
    return made(
        lambda: cls(
            transformers.GPT2Config(
                vocab_size=30, n_positions=12, n_embd=16, n_layer=2, n_head=4, **more
            )
        )
    )


DECODER = dict(SMALL, intermediate=64, pad=0)


def test_decoder_of_next_tokens(tmp_path):
    net = gpt2(transformers.GPT2LMHeadModel)
    net.save_pretrained(tmp_path)
    ids, mask = batch()
    with torch.no_grad():
        want = net(
            input_ids=torch.tensor(ids),
            attention_mask=torch.tensor(mask),
            output_hidden_states=True,
        )
    module = Decoder(**dict(DECODER, classes=30), task="next")
    logits, features = ours(module, tmp_path, ids)
    close(np.asarray(features["next"])[mask], want.logits.numpy()[mask])
    close(np.asarray(features["block_0"])[mask], want.hidden_states[1].numpy()[mask])
    close(np.asarray(features["hidden"])[mask], want.hidden_states[2].numpy()[mask])
    last = mask.sum(1) - 1
    close(logits, want.logits.numpy()[range(4), last])
    close(features["pooled"], want.hidden_states[2].numpy()[range(4), last])

    with pytest.raises(errors.UserError, match="heads: expected 4, .*got 8"):
        ours(module.clone(heads=8), tmp_path, ids)


def test_decoder_of_classes(tmp_path):
    net = gpt2(transformers.GPT2ForSequenceClassification, num_labels=3, pad_token_id=0)
    net.save_pretrained(tmp_path)
    ids, mask = batch()
    with torch.no_grad():
        want = net(input_ids=torch.tensor(ids), attention_mask=torch.tensor(mask))
    logits, _ = ours(Decoder(**DECODER), tmp_path, ids)
    close(logits, want.logits)
