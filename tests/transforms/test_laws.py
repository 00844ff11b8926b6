"""What holds for every transform: laws over random trees and random chains."""

import re

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lib import representations, schedules, tree
from lib import transforms as T
from lib.transforms.distributions import DISTRIBUTIONS
from lib.transforms.scores import SCORES

KEY = jax.random.key(0)
# Groups of 2 divide the inputs of each. Few shapes: each one is compiled for.
SHAPES = [(4, 3), (2, 1), (2, 1, 3), (1, 2, 2, 4)]
NAMES = st.text("abX_0", min_size=1, max_size=3)
GRANULARITIES = [("tensor", 0), ("channel", 0), ("group", 1), ("group", 2)]
DTYPES = [jnp.float32, jnp.bfloat16]


@st.composite
def trees(draw, dtypes=DTYPES, ties=True):
    """Draws a nested dict of layers, each a kernel and perhaps a bias."""
    paths = draw(
        st.lists(
            st.lists(NAMES, min_size=1, max_size=3).map("/".join),
            min_size=1,
            max_size=4,
            unique=True,
        )
    )
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    flat = {}
    for path in paths:
        shape, dtype = draw(st.sampled_from(SHAPES)), draw(st.sampled_from(dtypes))
        values = rng.normal(size=shape)
        if ties:
            values = draw(st.sampled_from([np.asarray, np.round, np.zeros_like]))(
                values
            )
            values = values * 10.0 ** draw(st.sampled_from([-30, -3, 0, 30]))
        flat[f"{path}/kernel"] = jnp.asarray(values, dtype)
        if draw(st.booleans()):
            flat[f"{path}/bias"] = jnp.asarray(rng.normal(size=shape[-1:]), dtype)
    return tree.unflatten(flat)


SPARSITIES = st.sampled_from([0.0, 0.5, 0.9, 1.0]) | st.floats(0, 1)
MOVING = st.builds(
    schedules.cubic,
    initial=st.just(0.0),
    final=st.floats(0, 1),
    begin=st.just(0),
    end=st.integers(0, 3),
)
FIXED = st.builds(
    T.prune,
    sparsity=SPARSITIES,
    distribution=st.sampled_from(sorted(DISTRIBUTIONS)),
    every=st.integers(1, 2),
)
FOLLOWING = st.builds(
    T.prune,
    sparsity=MOVING,
    distribution=st.sampled_from(sorted(set(DISTRIBUTIONS) - {"lamp"})),
    score=st.sampled_from(sorted(set(SCORES) - {"given"})),
    every=st.integers(1, 2),
    rewind=st.booleans(),
)
PRUNES = st.just(T.keep()) | FIXED | FOLLOWING
FEWER_BITS = schedules.linear(initial=8.0, final=3.0, begin=0, end=2)


@st.composite
def quantizes(draw, symmetric=None):
    if symmetric is None:
        symmetric = draw(st.booleans())
    granularity, group = draw(st.sampled_from(GRANULARITIES))
    bits = draw(st.integers(2, 8) | st.just(FEWER_BITS))
    return T.quantize(
        bits=bits, symmetric=symmetric, granularity=granularity, group=group
    )


CHAINS = st.lists(PRUNES | quantizes(), min_size=1, max_size=3).map(
    lambda parts: T.chain(*parts)
)


@st.composite
def transforms(draw, params):
    """Draws a chain, or rules that aim one at a single kernel and one at the rest."""
    if draw(st.booleans()):
        return draw(CHAINS)
    kernels = [path for path in tree.flatten(params) if path.endswith("kernel")]
    aimed = draw(st.sampled_from(kernels))
    rules = [(f"^{re.escape(aimed)}$", draw(CHAINS))]
    if len(kernels) > 1 and draw(st.booleans()):
        rules.append(("kernel", draw(CHAINS)))
    return T.select(rules)


def same_bytes(a, b):
    a, b = tree.flatten(a), tree.flatten(b)
    assert set(a) == set(b)
    for path, x in a.items():
        assert np.asarray(x).tobytes() == np.asarray(b[path]).tobytes(), path


def signature(x):
    return jax.tree.structure(x), [(w.shape, w.dtype) for w in jax.tree.leaves(x)]


def masks_of(state):
    """Returns {path: what all masks of the state keep there}, found by their dtype."""
    if isinstance(state, tuple):
        kept = {}
        for part in map(masks_of, state):
            for path, mask in part.items():
                kept[path] = mask & kept.get(path, True)
        return kept
    found = {p: x["mask"] if isinstance(x, dict) else x for p, x in state.items()}
    arrays = {p: np.asarray(x) for p, x in found.items() if not isinstance(x, tuple)}
    return {path: x for path, x in arrays.items() if x.dtype.kind == "b"}


def check_laws(params, t):
    taken = {row.path for row in T.plan(t, params) if row.taken_by}
    assert taken <= {path for path in tree.flatten(params) if "kernel" in path}
    decode, update = jax.jit(t.decode), jax.jit(t.update)
    code, state = jax.jit(t.encode)(params)

    # What is zero stays zero, whatever comes after.
    decoded = tree.flatten(decode(code, state))
    for path, w in tree.flatten(params).items():
        assert (np.asarray(decoded[path])[np.asarray(w) == 0] == 0).all()

    # Training moves the code; the state keeps its form, and nothing compiles twice.
    rng = np.random.default_rng(0)
    start = signature(state)
    for step in range(3):
        code = jax.tree.map(
            lambda w: w * jnp.asarray(rng.uniform(0.5, 2, w.shape), w.dtype), code
        )
        state = update(code, state, T.Signals(code, jnp.int32(step), KEY))
        assert signature(state) == start
        decoded = decode(code, state)
        assert signature(decoded) == signature(params)
    assert max(decode._cache_size(), update._cache_size()) <= 1

    # Frozen is decoded, bit for bit; what no rule took is as it was.
    frozen = t.freeze(code, state)
    same_bytes(representations.thaw(frozen), decoded)
    for path in set(tree.flatten(params)) - taken:
        same_bytes(tree.get(decoded, path), tree.get(code, path))

    # Gradients: the masks', and straight through the rounding.
    upstream = jax.tree.map(
        lambda w: jnp.asarray(rng.normal(size=w.shape), w.dtype), params
    )
    _, pull = jax.vjp(lambda c: decode(c, state), code)
    masks = masks_of(state)
    for path, grad in tree.flatten(pull(upstream)[0]).items():
        g = np.asarray(tree.get(upstream, path))
        np.testing.assert_array_equal(grad, np.where(masks.get(path, True), g, 0))


@pytest.mark.slow
@hypothesis.settings(max_examples=8)
@hypothesis.given(st.data())
def test_laws(data):
    params = data.draw(trees())
    check_laws(params, data.draw(transforms(params)))


@pytest.mark.slow
@hypothesis.settings(max_examples=30)
@hypothesis.given(st.data())
def test_laws_at_length(data):
    params = data.draw(trees())
    check_laws(params, data.draw(transforms(params)))


@hypothesis.settings(max_examples=8)
@hypothesis.given(
    trees(dtypes=[jnp.float32], ties=False),
    st.floats(0, 1),
    st.sampled_from(sorted(DISTRIBUTIONS)),
    quantizes(symmetric=True),
    st.booleans(),
)
@pytest.mark.slow
def test_what_was_decoded_is_found_again(
    params, sparsity, distribution, quantize, quantize_first
):
    parts = [T.prune(sparsity=sparsity, distribution=distribution), quantize]
    t = T.chain(*(parts[::-1] if quantize_first else parts))

    @jax.jit
    def through(p):
        return t.decode(*t.encode(p))

    once = through(params)
    for a, b in zip(*map(jax.tree.leaves, (once, through(once))), strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-5, atol=1e-7)
    # And the next stage takes over the zeros it is given.
    keep = T.keep()
    same_bytes(keep.decode(*keep.encode(once)), once)


@pytest.mark.slow
@hypothesis.settings(max_examples=8)
@hypothesis.given(trees(), st.sampled_from(sorted(DISTRIBUTIONS)))
def test_no_strength_is_the_identity(params, distribution):
    t = T.prune(sparsity=0.0, distribution=distribution)
    same_bytes(t.decode(*t.encode(params)), params)
