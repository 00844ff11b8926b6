"""AdaRound, against every rounding there is, the paper's equations, and nearest."""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest

from lib import errors, representations
from lib import transforms as T
from lib.transforms.adaround import rise, start
from tests.transforms.test_gptq import PATH, problem
from tests.transforms.test_laws import check_laws

FAST = dict(steps=300, learning_rate=0.03, range="max")


def apply(w, **options):
    t = T.adaround(**{**FAST, **options})
    params = {"a": {"kernel": jnp.asarray(w)}}
    code, state = t.encode(params)
    frozen = t.freeze(code, state)
    thawed = representations.thaw(frozen)["a"]["kernel"]
    assert thawed.tobytes() == np.asarray(code["a"]["kernel"]).tobytes()
    return np.asarray(code["a"]["kernel"]), frozen["a"]["kernel"]


def nearest(w, **options):
    t = T.quantize(range="max", **options)
    params = {"a": {"kernel": jnp.asarray(w)}}
    return np.asarray(t.decode(*t.encode(params))["a"]["kernel"])


@pytest.mark.slow
def test_it_is_near_the_best_of_all_roundings():
    """No output is worse than rounded to the nearest, and the most are near the best.

    Also where a weight was pruned, and where an input is never seen.
    """
    x, w, _ = problem(width=8, outputs=24)
    w[3, ::2] = 0
    x[:, 6] = 0
    found, frozen = apply(w, bits=3, grams={PATH: np.float32(x.T @ x)})
    mask, scale = np.asarray(frozen.mask), np.float64(frozen.values.scale)
    np.testing.assert_array_equal(mask, w != 0)

    def error(q):
        return np.sum((x @ (q - w)) ** 2, axis=0)

    below = np.floor(np.float64(w) / scale)
    codes = frozen.values.codes
    off = codes - below
    assert set(np.unique(off[mask])) <= {0, 1} and np.abs(codes).max() == 3
    best = np.full(24, np.inf)
    for up in itertools.product((0, 1), repeat=8):
        q = (below + np.c_[np.float64(up)]) * scale
        best = np.minimum(
            best, error(np.where(mask, np.clip(q, -3 * scale, 3 * scale), 0))
        )
    ours, plain = error(np.float64(found)), error(nearest(w, bits=3))
    assert (ours >= best * 0.999 - 1e-3).all() and (ours <= plain * 1.001 + 1e-3).all()
    assert np.median(ours / best) < 1.3 and np.median(plain / best) > 2
    # An input that is never seen changes nothing: its weights go to the nearest.
    seen = mask[6] & (np.abs(w[6] / scale - below[6] - 0.5) > 0.01)[0]
    plain = np.where(mask, nearest(w, bits=3), 0)
    np.testing.assert_allclose(found[6][seen], plain[6][seen], rtol=1e-6)


def test_the_stretched_sigmoid():
    """Eq. 23, its ends reached at finite places; its inverse; the derivative."""
    v = np.linspace(-6, 6, 25, dtype=np.float32)
    expected = np.clip(1.2 / (1 + np.exp(-np.float64(v))) - 0.1, 0, 1)
    np.testing.assert_allclose(rise(v), expected, atol=1e-6)
    assert expected[0] == 0 and expected[-1] == 1
    rest = jnp.linspace(0, 1, 11)
    np.testing.assert_allclose(rise(start(rest)), rest, atol=1e-6)


@pytest.mark.slow
def test_it_starts_at_the_nearest():
    _, w, grams = problem()
    found, _ = apply(w, bits=4, grams=grams, steps=1, learning_rate=1e-6)
    np.testing.assert_allclose(found, nearest(w, bits=4), rtol=1e-6)


@pytest.mark.slow
def test_only_ratios_matter():
    _, w, grams = problem()
    w[:, 4] = 0  # an output of zeros alone
    once, _ = apply(w, bits=3, grams=grams)
    for power in (-60, 60):
        by = np.float32(2.0**power)
        found, _ = apply(w * by, bits=3, grams={PATH: grams[PATH] * by})
        np.testing.assert_allclose(found, once * by, rtol=1e-6)


@pytest.mark.slow
def test_groups_of_a_convolution_learn_alone():
    w = np.random.default_rng(0).normal(size=(2, 1, 3, 8)).astype(np.float32)
    grams = np.stack([problem(6, seed=i)[2][PATH] for i in range(4)])
    found, _ = apply(w, bits=3, grams={PATH: grams})
    for g in range(4):
        mine = slice(2 * g, 2 * g + 2)
        part = w[..., mine].reshape(6, 2)
        alone, _ = apply(part, bits=3, grams={PATH: grams[g]})
        np.testing.assert_allclose(found[..., mine].reshape(6, 2), alone, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize(
    "options",
    [
        {"bits": 2, "range": "mse"},
        {"bits": 8, "symmetric": False},
        {"bits": 4, "symmetric": False, "granularity": "group", "group": 4},
    ],
)
def test_laws(options, dtype):
    _, w, grams = problem()
    w[::3] = 0
    params = {"a": {"kernel": jnp.asarray(w, dtype), "bias": jnp.ones(2)}}
    t = T.adaround(**{**FAST, "steps": 20, "grams": grams, **options})
    check_laws(params, T.chain(t))


@pytest.mark.parametrize(
    "options, message",
    [
        ({"bits": 9}, "adaround: bits is a whole number from 2 to 8, got 9"),
        ({"bits": 4, "steps": 0}, "adaround: steps is at least 1, got 0"),
        ({"bits": 4, "learning_rate": 0}, "learning_rate is above 0, got 0"),
        ({"bits": 4, "strength": -1.0}, "strength is not negative, got -1.0"),
        ({"bits": 4, "beta": (20.0,)}, "beta is two numbers above 1, got (20.0,)"),
    ],
)
def test_mistakes_are_told_before_anything_is_encoded(options, message):
    with pytest.raises(errors.UserError) as e:
        T.adaround(grams={}, **options)
    assert message in str(e.value) and "\n" not in str(e.value)


def test_a_gram_that_is_missing():
    with pytest.raises(errors.UserError, match="did you mean 'a/kernal'"):
        apply(np.ones((2, 2)), bits=4, grams={"a/kernal": np.eye(2)})
