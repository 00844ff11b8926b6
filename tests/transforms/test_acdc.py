"""AC/DC: which steps are sparse, what is removed, what comes back and how."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lib import errors, representations
from lib import transforms as T
from lib.transforms.acdc import compressed
from tests.train import jobs

KEY = jax.random.key(0)


def weights(seed=0):
    rng = np.random.default_rng(seed)
    return {
        "a": {"kernel": jnp.asarray(rng.normal(size=(8, 3)), jnp.float32)},
        "b": {
            "kernel": jnp.asarray(rng.normal(size=(3, 3, 2, 4)), jnp.float32),
            "bias": jnp.asarray(rng.normal(size=4), jnp.float32),
        },
    }


def made(**changes):
    return T.acdc(**{**dict(sparsity=0.6, begin=2, period=3, end=13), **changes})


@pytest.mark.parametrize(
    ("begin", "period", "end", "phases"),
    [
        (2, 3, 13, "--###---###--######"),  # the end cuts the last dense phase
        (2, 3, 12, "--###---###-#######"),
        (0, 2, 3, "##-################"),
        (4, 1, 4, "----###############"),
        (0, 5, 0, "###################"),
    ],
)
def test_literal_phases(begin, period, end, phases):
    found = [compressed(t, begin=begin, period=period, end=end) for t in range(19)]
    assert "".join("-#"[bool(f)] for f in found) == phases


@pytest.mark.parametrize(
    "distribution", [pytest.param("layerwise", marks=pytest.mark.slow), "global"]
)
def test_a_run_is_the_naive_one(distribution):
    t = made(distribution=distribution)
    prune = T.prune(sparsity=0.6, distribution=distribution)
    code, state = t.encode(weights())
    update = jax.jit(t.update)
    naive = {k: np.asarray(x["kernel"]) for k, x in weights().items()}
    masks = {k: np.ones(w.shape, bool) for k, w in naive.items()}
    for step in range(18):
        # What trains moves; in a sparse phase only what is kept.
        moves = weights(step + 1)
        code = {
            k: {**x, "kernel": x["kernel"] + moves[k]["kernel"] * state[f"{k}/kernel"]}
            for k, x in code.items()
        }
        naive = {k: w + moves[k]["kernel"] * masks[k] for k, w in naive.items()}
        new = update(code, state, T.Signals(moves, jnp.int32(step), KEY))
        code, fresh = T.renew(t, code, state, new)
        before = masks
        if step + 1 in (2, 8, 13):  # sparse from there on
            tree = {k: {"kernel": jnp.asarray(w)} for k, w in naive.items()}
            found = prune.decode(*prune.encode(tree))
            naive = {k: np.asarray(x["kernel"]) for k, x in found.items()}
            masks = {k: w != 0 for k, w in naive.items()}
        elif step + 1 in (5, 11):
            masks = {k: np.ones(w.shape, bool) for k, w in naive.items()}
        for k, w in naive.items():
            np.testing.assert_array_equal(code[k]["kernel"], w)
            np.testing.assert_array_equal(new[f"{k}/kernel"], masks[k])
            np.testing.assert_array_equal(fresh[f"{k}/kernel"], masks[k] != before[k])
        state = new
    assert update._cache_size() <= 1


def test_it_may_begin_sparse_and_zero_sparsity_is_the_identity():
    params = weights()
    sparse = made(begin=0)
    code, state = sparse.encode(params)
    assert int((~state["a/kernel"]).sum()) == round(0.6 * 24)
    decoded = jax.jit(sparse.decode)(code, state)
    thawed = representations.thaw(sparse.freeze(code, state))
    for a, b in zip(jax.tree.leaves(decoded), jax.tree.leaves(thawed), strict=True):
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()
    dense = made(begin=0, sparsity=0.0)
    decoded = dense.decode(*dense.encode(params))
    jax.tree.map(np.testing.assert_array_equal, decoded, params)


def test_gradient_is_masked_in_sparse_phases_only():
    params = weights()
    for t, sparse in ((made(begin=0), True), (made(), False)):
        code, state = t.encode(params)
        _, pull = jax.vjp(lambda c, t=t, s=state: t.decode(c, s), code)
        g = np.asarray(weights(1)["a"]["kernel"])
        wanted = np.where(state["a/kernel"], g, 0)
        np.testing.assert_array_equal(pull(weights(1))[0]["a"]["kernel"], wanted)
        assert (wanted == 0).any() == sparse


@pytest.mark.slow
def test_traced_sparsity_is_untraced_sparsity():
    swept = jax.jit(jax.vmap(lambda s: made(begin=0, sparsity=s).encode(weights())[1]))
    masks = swept(jnp.float32([0.3, 0.9]))
    for i, sparsity in enumerate((0.3, 0.9)):
        _, alone = made(begin=0, sparsity=sparsity).encode(weights())
        for path, mask in alone.items():
            np.testing.assert_array_equal(masks[path][i], mask)


@pytest.mark.slow
def test_it_trains_and_ends_sparse():
    t = T.chain(made(begin=4, period=4, end=16, sparsity=0.5), T.quantize(bits=6))
    job = jobs.make(transform=t, optimize=optax.adam(2e-2))
    losses, kept = [], []
    for state, metrics in job.steps(20):
        losses.append(float(metrics["loss"]))
        mask = np.asarray(state.codec[0]["logits/kernel"])
        kept.append(mask.mean())
        for slots in (state.code, state.optimizer[0].mu, state.optimizer[0].nu):
            assert (np.asarray(slots["logits"]["kernel"])[~mask] == 0).all()
    assert kept == [1.0] * 3 + [0.5] * 4 + [1.0] * 4 + [0.5] * 4 + [0.5] * 5
    assert np.mean(losses[-4:]) < 0.8 * np.mean(losses[:4])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sparsity": 1.5}, "acdc: sparsity is the fraction removed, from 0 to 1"),
        ({"sparsity": lambda step: 0.5}, "acdc: sparsity stays as it is"),
        ({"period": 0}, "acdc: period is at least 1 step, got 0"),
        ({"begin": 20}, "0 <= begin <= end, got 20, 13"),
        ({"distribution": "erc"}, "did you mean 'erk'?"),
    ],
)
def test_mistakes_are_told_before_anything_is_encoded(settings, message):
    with pytest.raises(errors.UserError) as e:
        made(**settings)
    assert message in str(e.value)


def test_a_later_technique_must_not_remove_what_comes_back():
    with pytest.raises(errors.UserError, match="acdc before prune: what comes back"):
        T.chain(made(), T.prune(sparsity=0.5)).encode(weights())
