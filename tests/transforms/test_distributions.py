"""LAMP, per-output and per-rule pruning against loops in NumPy."""

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lib import schedules
from lib import transforms as T
from lib.transforms.distributions import DISTRIBUTIONS, lamp

KEY = jax.random.key(0)
SHAPES = {"a": (6, 4), "b": (3, 1, 2, 5), "c": (1, 8)}


def draw(seed=0):
    rng = np.random.default_rng(seed)
    return {
        name: {"kernel": jnp.float32(rng.normal(size=shape) * 10.0**i)}
        for i, (name, shape) in enumerate(SHAPES.items())
    }


def lamp_oracle(w):
    """As the paper writes it: sort ascending, w[u]^2 / sum of w[v]^2 over v >= u."""
    flat = np.abs(np.ravel(w)).astype(np.float64)
    ascending = sorted(range(flat.size), key=lambda i: (flat[i], -i))
    score = np.zeros(flat.size)
    for place, i in enumerate(ascending):
        rest = sum(flat[j] ** 2 for j in ascending[place:])
        score[i] = flat[i] ** 2 / rest if rest else 0
    return score.reshape(np.shape(w))


@pytest.mark.slow
@hypothesis.settings(max_examples=15)
@hypothesis.given(
    st.lists(st.integers(-3, 3), min_size=8, max_size=8),
    st.sampled_from([1e-30, 1.0, 1e30]),
)
def test_lamp_is_the_papers_score(values, unit):
    w = np.float32(values).reshape(4, 2)
    found = lamp(jnp.abs(w * np.float32(unit)))
    np.testing.assert_allclose(found, lamp_oracle(w), rtol=1e-5)


@pytest.mark.slow
def test_lamp_ranks_all_leaves_and_leaves_none_empty():
    params = draw()
    t = T.prune(sparsity=0.7, distribution="lamp")
    _, state = jax.jit(t.encode)(params)
    scores = {n: lamp_oracle(x["kernel"]) for n, x in params.items()}
    together = np.sort(np.concatenate([s.ravel() for s in scores.values()]))
    gone = round(0.7 * together.size)
    for name, score in scores.items():
        mask = np.asarray(state[f"{name}/kernel"])
        np.testing.assert_array_equal(mask, score > together[gone - 1])
        assert mask.any()  # each leaf's largest has score 1
    # By plain magnitude the leaf of small weights would go whole.
    _, plain = T.prune(sparsity=0.7, distribution="global").encode(params)
    assert not plain["a/kernel"].any()


@pytest.mark.slow
@pytest.mark.parametrize("scheduled", [False, True])
def test_output_takes_the_same_fraction_of_each_column(scheduled):
    params = draw()
    sparsity = schedules.constant(value=0.5) if scheduled else 0.5
    t = T.prune(sparsity=sparsity, distribution="output")
    code, state = jax.jit(t.encode)(params)
    if scheduled:
        state = t.update(code, state, T.Signals(code, jnp.int32(0), KEY))
    for name, x in params.items():
        seen = np.abs(np.asarray(x["kernel"])).reshape(-1, x["kernel"].shape[-1])
        gone = round(0.5 * len(seen))  # half to even: nothing of a single input
        limit = np.sort(seen, axis=0)[gone - 1] if gone else np.full(8, -1.0)
        mask = np.asarray(state[f"{name}/kernel"]).reshape(seen.shape)
        np.testing.assert_array_equal(mask, seen > limit[None, :])


def test_of_equal_weights_of_an_output_the_first_stay():
    t = T.prune(sparsity=0.5, distribution="output")
    _, state = t.encode({"kernel": jnp.ones((4, 3))})
    np.testing.assert_array_equal(state["kernel"], [[1] * 3] * 2 + [[0] * 3] * 2)


@pytest.mark.slow
@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_masks_of_scores(distribution):
    """What other techniques use: {path: scores} and a sparsity, no more."""
    scores = {n: jnp.abs(x["kernel"]) for n, x in draw().items()}
    found = DISTRIBUTIONS[distribution].masks(scores, 0.5)
    _, state = T.prune(sparsity=0.5, distribution=distribution).encode(draw())
    for name, mask in found.items():
        np.testing.assert_array_equal(mask, state[f"{name}/kernel"])


def test_a_fraction_for_each_rule_is_select():
    t = T.select([("a/", T.prune(sparsity=0.25)), ("b|c", T.prune(sparsity=0.5))])
    decoded = t.decode(*t.encode(draw()))
    gone = [int((x["kernel"] == 0).sum()) for x in decoded.values()]
    assert gone == [6, 15, 4]
