"""Terms of transformers against loops over examples and tokens, padding left out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import common
from lib import models, objectives
from tests.objectives import samples
from tests.objectives.samples import MASK, STUDENT, TEACHER, TWIN

torch = pytest.importorskip("torch", reason="torch is not installed")
functional = torch.nn.functional

LENGTHS = MASK.sum(-1)


def over_tokens(distance, student, teacher):
    """Mean over each example's tokens, then over examples."""
    each = [
        np.mean([distance(a[t], b[t]) for t in range(n)])
        for a, b, n in zip(student, teacher, LENGTHS, strict=True)
    ]
    return samples.mean(each)


def unit(x):
    return x / np.linalg.norm(x)


DISTANCES = {
    "mse": lambda a, b: np.mean((a - b) ** 2),
    "unit": lambda a, b: np.sum((unit(a) - unit(b)) ** 2),
    "cosine": lambda a, b: float(
        functional.cosine_embedding_loss(
            torch.tensor(a[None]), torch.tensor(b[None]), torch.ones(1)
        )
    ),
}


@pytest.mark.parametrize("distance", DISTANCES)
def test_hidden_states_of_all_tokens(distance):
    made = samples.term("hidden", distance=distance)
    (heads,) = samples.heads_of(made)
    ours = samples.affine(heads["pair_0"], STUDENT[1]["block_0"])
    want = over_tokens(DISTANCES[distance], ours, TEACHER[1]["block_0"])
    np.testing.assert_allclose(samples.value(made), want, rtol=1e-5)


@pytest.mark.parametrize("distance", DISTANCES)
def test_hidden_states_of_the_first_token_as_they_are(distance):
    made = samples.term(
        "hidden", distance=distance, projection="identity", tokens="first"
    )
    each = [
        DISTANCES[distance](a[0], b[0])
        for a, b in zip(STUDENT[1]["block_0"], TWIN[1]["block_0"], strict=True)
    ]
    got = samples.value(made, teacher=TWIN)
    np.testing.assert_allclose(got, samples.mean(each), rtol=1e-5)


def test_states_of_whole_texts_have_no_tokens():
    made = samples.term("hidden", pairs=samples.POOLED, projection="identity")
    each = ((STUDENT[1]["pooled"] - TWIN[1]["pooled"]) ** 2).mean(-1)
    got = samples.value(made, teacher=TWIN)
    np.testing.assert_allclose(got, samples.mean(each), rtol=1e-5)


def test_embeddings():
    made = samples.term("embeddings")
    (heads,) = samples.heads_of(made)
    ours = samples.affine(heads["pair_0"], STUDENT[1]["embed"])
    want = over_tokens(DISTANCES["mse"], ours, TEACHER[1]["embed"])
    np.testing.assert_allclose(samples.value(made), want, rtol=1e-5)


def test_attention_scores():
    made = samples.term("attention_scores")
    each = [
        np.mean((a[:, :n, :n] - b[:, :n, :n]) ** 2)
        for a, b, n in zip(
            STUDENT[1]["scores_0"], TEACHER[1]["scores_1"], LENGTHS, strict=True
        )
    ]
    np.testing.assert_allclose(samples.value(made), samples.mean(each), rtol=1e-5)


def divergence(student, teacher, length):
    """Mean KL over heads and tokens of logits `[heads, L, L]`, by PyTorch."""
    a, b = (torch.tensor(x[:, :length, :length]) for x in (student, teacher))
    kl = functional.kl_div(a.log_softmax(-1), b.softmax(-1), reduction="none")
    return float(kl.sum(-1).mean())


def relation(x, heads):
    """Scaled products `[heads, L, L]` of `[old heads, L, D]`, the heads split anew."""
    joined = np.concatenate(list(x), axis=-1)  # [L, old heads * D]
    parts = np.split(joined, heads, axis=-1)
    return np.stack([p @ p.T / np.sqrt(p.shape[-1]) for p in parts])


def minilm(relations, heads):
    total = 0
    for name in relations:
        read = (lambda x: x) if name == "scores" else (lambda x: relation(x, heads))
        each = [
            divergence(read(a), read(b), n)
            for a, b, n in zip(
                STUDENT[1][f"{name}_1"], TEACHER[1][f"{name}_1"], LENGTHS, strict=True
            )
        ]
        total += samples.mean(each)
    return total


@pytest.mark.parametrize(
    ("relations", "heads"),
    [(("scores", "value"), 0), (("query", "key", "value"), 4), (("value",), 1)],
)
def test_minilm(relations, heads):
    made = samples.term("minilm", relations=relations, heads=heads)
    want = minilm(relations, heads or 2)
    np.testing.assert_allclose(samples.value(made), want, rtol=1e-5)


def test_a_block_may_be_named_by_its_number():
    by_number = samples.term("minilm", student=1, teacher=1)
    last = samples.value(samples.term("minilm"))
    np.testing.assert_array_equal(samples.value(by_number), last)
    first = samples.term("minilm", student=0)
    assert samples.value(first) != last


def test_what_stands_at_padding_does_not_count():
    rng = np.random.default_rng(5)

    def noisy(outputs):
        logits, features = outputs
        new = {}
        for name, x in features.items():
            mask = MASK[:, :, None]
            if name.startswith(("query", "key", "value")):
                mask = MASK[:, None, :, None]
            elif name.startswith("scores"):  # rows of padding ask, too
                mask = MASK[:, None, :, None]
            elif x.ndim != 3:
                mask = np.True_
            new[name] = x if name == "mask" else np.where(mask, x, rng.normal(size=1))
        return logits, new

    for name in ("hidden", "embeddings", "attention_scores", "minilm"):
        made = samples.term(name)
        want = samples.value(made)
        got = samples.value(made, noisy(STUDENT), noisy(TEACHER))
        np.testing.assert_allclose(got, want, rtol=1e-6)


@pytest.mark.slow
def test_encoders_of_other_sizes_learn_alike_however_much_padding_there_is():
    """Real networks: more padding changes no loss, and gradients are finite."""
    sizes = dict(vocabulary=20, max_length=8, intermediate=8, heads=2, dropout=0.0)
    networks = {
        name: models.build("encoder", classes=3, layers=layers, width=width, **sizes)
        for name, layers, width in (("student", 1, 4), ("teacher", 2, 8))
    }
    ids = np.array([[3, 4, 5, 0], [6, 7, 0, 0]], np.int32)
    batch = {"label": jnp.zeros(2, jnp.int32), "weight": jnp.ones(2)}
    settings = common.base()
    settings.hidden.pairs = (("block_0", "block_1"),)
    settings.attention_scores.pairs = (("scores_0", "scores_1"),)
    names = ("hidden", "embeddings", "attention_scores", "minilm")
    objective = objectives.build(names, settings)
    key = jax.random.key(0)
    weights = {}
    for name, module in networks.items():
        params, _ = models.init(module, key, (4,), jnp.int32)
        weights[name] = {"params": params}

    def loss(weights, ids, heads=None):
        student, teacher = (
            networks[n].apply(weights[n], ids, train=False) for n in networks
        )
        if heads is None:
            heads = objective.init(key, student, teacher)
        return objective(student, batch, {}, teacher, heads)

    grads, short = jax.jit(jax.grad(loss, has_aux=True))(weights, ids)
    wide = np.pad(ids, ((0, 0), (0, 3)))
    _, long = jax.jit(loss)(weights, wide)
    for name in names:
        np.testing.assert_allclose(long[name], short[name], rtol=1e-4)
    for leaf in jax.tree.leaves(grads["student"]):
        assert np.isfinite(leaf).all()
    for leaf in jax.tree.leaves(grads["teacher"]):
        np.testing.assert_array_equal(leaf, 0)
