"""Fake-quantized weights against a loop over single weights."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lib import errors, representations, schedules
from lib import transforms as T
from tests.transforms.test_laws import check_laws

KEY = jax.random.key(0)
SHAPES = [(12, 5), (2, 3, 2, 4)]  # 12 inputs a channel in both
GRANULARITIES = [("tensor", 0), ("channel", 0), ("group", 1), ("group", 4)]
MODES = [(s, *g) for s in (True, False) for g in GRANULARITIES]


def kernels(seed=0, dtype=jnp.float32):
    rng = np.random.default_rng(seed)
    return {
        str(len(shape)): {"kernel": jnp.asarray(rng.normal(0.3, 1, shape), dtype)}
        for shape in SHAPES
    }


def scale_group(where, shape, granularity, group):
    """Returns a name for the set of weights that share a scale with the one there."""
    if granularity == "tensor":
        return ()
    row = 0  # place along the contraction: all axes but the last
    for index, length in zip(where[:-1], shape[:-1], strict=True):
        row = row * length + index
    return (where[-1],) if granularity == "channel" else (where[-1], row // group)


def naive(w, bits, symmetric, granularity, group, share=1.0):
    """Rounds each weight on its own, in Python's floats, to a share of the range."""
    w = np.asarray(w, np.float64)
    members = {}
    for where in itertools.product(*map(range, w.shape)):
        name = scale_group(where, w.shape, granularity, group)
        members.setdefault(name, []).append(where)
    out = np.empty_like(w)
    for places in members.values():
        values = [w[where] for where in places]
        if symmetric:
            most = 2 ** (bits - 1) - 1
            scale = share * max(map(abs, values)) / most or 1.0
            low, high = -most, most
        else:
            least, largest = share * min(0, *values), share * max(0, *values)
            scale = (largest - least) / (2**bits - 1) or 1.0
            low = -round(-least / scale)
            high = low + 2**bits - 1
        for where, value in zip(places, values, strict=True):
            out[where] = min(max(round(value / scale), low), high) * scale
    return out, members


@jax.jit
def decode_swept(params, bits):
    """Every mode at once: one compilation for the whole table below."""
    decoded = {}
    for mode in MODES:
        symmetric, granularity, group = mode
        t = T.quantize(
            bits=bits, symmetric=symmetric, granularity=granularity, group=group
        )
        decoded[str(mode)] = t.decode(*t.encode(params))
    return decoded


@pytest.mark.parametrize("bits", range(2, 9))
def test_is_the_loop(bits):
    params = kernels(bits)
    decoded = decode_swept(params, bits)
    for mode, (name, leaf) in itertools.product(MODES, params.items()):
        expected, members = naive(leaf["kernel"], bits, *mode)
        got = np.asarray(decoded[str(mode)][name]["kernel"])
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)
        for places in members.values():
            levels = {got[where] for where in places}
            assert len(levels) <= 2**bits - mode[0]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.slow
def test_bits_fixed_or_traced_is_the_same(mode):
    symmetric, granularity, group = mode
    params = kernels()
    for bits in (2, 5, 8):
        t = T.quantize(
            bits=bits, symmetric=symmetric, granularity=granularity, group=group
        )
        fixed = t.decode(*t.encode(params))
        swept = decode_swept(params, bits)[str(mode)]
        jax.tree.map(np.testing.assert_array_equal, fixed, swept)


def test_literal():
    kernel = jnp.float32([[-3.0, 0.3], [1.4, 0.1], [2.6, -0.2]])
    t = T.quantize(bits=3)
    # Channel 0 has scale 3 / 3, channel 1 scale 0.3 / 3.
    np.testing.assert_allclose(
        t.decode(*t.encode({"kernel": kernel}))["kernel"],
        [[-3, 0.3], [1, 0.1], [3, -0.2]],
        rtol=1e-6,
    )


@pytest.mark.parametrize("mode", MODES)
def test_twice_is_once_up_to_rounding(mode):
    params = kernels()
    once = decode_swept(params, 4)[str(mode)]
    twice = decode_swept(once, 4)[str(mode)]
    for name, leaf in once.items():
        np.testing.assert_allclose(
            twice[name]["kernel"], leaf["kernel"], rtol=1e-5, atol=1e-7
        )


def test_every_value_on_the_grid_stays_where_it_is():
    codes = np.r_[-127:128].reshape(-1, 1).astype(np.float32)
    t = T.quantize(bits=8)
    kernel = t.decode(*t.encode({"kernel": jnp.asarray(codes)}))["kernel"]
    np.testing.assert_array_equal(kernel, codes)


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
def test_gradient_is_exactly_the_identity(mode):
    symmetric, granularity, group = mode
    t = T.quantize(bits=2, symmetric=symmetric, granularity=granularity, group=group)
    code, state = t.encode(kernels())
    upstream = kernels(7)
    _, pull = jax.vjp(lambda c: t.decode(c, state), code)
    jax.tree.map(np.testing.assert_array_equal, pull(upstream)[0], upstream)


def test_kernels_that_hold_only_zeros():
    for symmetric in (True, False):
        t = T.quantize(bits=4, symmetric=symmetric)
        kernel = t.decode(*t.encode({"kernel": jnp.zeros((2, 3))}))["kernel"]
        assert kernel.tobytes() == bytes(24)


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_frozen_is_what_the_type_promises(symmetric, dtype):
    t = T.quantize(bits=3, symmetric=symmetric, granularity="group", group=4)
    frozen = t.freeze(*t.encode(kernels(dtype=dtype)))
    for leaf in frozen.values():
        rep = leaf["kernel"]
        assert isinstance(rep, representations.Quantized)
        assert (rep.bits, rep.group) == (3, 4)
        assert rep.scale.dtype == dtype
        assert rep.codes.dtype == (np.int8 if symmetric else np.uint8)
        low, high = (-3, 3) if symmetric else (0, 7)
        assert low <= rep.codes.min() and rep.codes.max() <= high
        assert (rep.zero_point is None) == symmetric


def test_bits_follow_a_schedule():
    schedule = schedules.linear(initial=8.0, final=2.0, begin=0, end=6)
    t = T.quantize(bits=schedule)
    params = kernels()
    code, state = t.encode(params)
    update, decode = jax.jit(t.update), jax.jit(t.decode)
    # A rounded float: 8, 7, 6, ... 2, 2, 2.
    for step in range(9):
        state = update(code, state, T.Signals(code, jnp.int32(step), KEY))
        bits = max(8 - step, 2)
        assert {int(b) for b in state.values()} == {bits}
        decoded = decode(code, state)
        for name, leaf in params.items():
            expected, _ = naive(leaf["kernel"], bits, True, "channel", 0)
            got = decoded[name]["kernel"]
            np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)
    assert t.freeze(code, state)["2"]["kernel"].bits == 2
    assert max(update._cache_size(), decode._cache_size()) <= 1


def test_fixed_bits_are_not_moved():
    t = T.quantize(bits=4)
    code, state = t.encode(kernels())
    assert t.update(code, state, T.Signals(code, jnp.int32(3), KEY)) is state


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"bits": 1}, "quantize: bits is a whole number from 2 to 8, got 1"),
        ({"bits": 16}, "quantize: bits is a whole number from 2 to 8, got 16"),
        ({"bits": 4.5}, "quantize: bits is a whole number from 2 to 8, got 4.5"),
        (
            {"bits": 4, "granularity": "chanel"},
            "quantize: unknown granularity 'chanel'; did you mean 'channel'?",
        ),
        ({"bits": 4, "range": "mes"}, "range of quantize 'mes'; did you mean 'mse'?"),
        (
            {"bits": 4, "rounding": "stochastics"},
            "unknown rounding of quantize 'stochastics'; did you mean 'stochastic'?",
        ),
        ({"bits": 4, "group": 8}, "got group=8 and granularity='channel'"),
        ({"bits": 4, "granularity": "group"}, "got group=0 and granularity='group'"),
        (
            {"bits": 4, "granularity": "group", "group": -2},
            "got group=-2 and granularity='group'",
        ),
    ],
)
def test_mistakes_are_told_before_anything_is_encoded(settings, message):
    with pytest.raises(errors.UserError) as e:
        T.quantize(**settings)
    assert message in str(e.value)
    assert "\n" not in str(e.value)


def test_group_that_does_not_divide_names_the_leaf():
    t = T.quantize(bits=4, granularity="group", group=5)
    params = {
        "fine": {"kernel": jnp.ones((10, 2))},
        "not": {"kernel": jnp.ones((12, 2))},
    }
    for mistake in (t.encode, jax.eval_shape):
        with pytest.raises(errors.UserError) as e:
            mistake(params) if mistake is t.encode else mistake(t.encode, params)
        assert str(e.value) == (
            "quantize: groups of 5 do not divide the 12 inputs of not/kernel "
            "with shape (12, 2)"
        )


def test_pattern_without_a_match():
    with pytest.raises(errors.UserError, match="rule 'bias' matches nothing"):
        T.quantize(bits=4, pattern="bias").encode(kernels())


def test_bits_that_no_code_can_hold_are_found_when_freezing():
    # Traced bits cannot be checked before they have a value.
    @jax.jit
    def encode(params, bits):
        return T.quantize(bits=bits).encode(params)

    code, state = encode(kernels(), 12)
    with pytest.raises(errors.UserError, match="quantize: 2/kernel: .* to 8, got 12"):
        T.quantize(bits=4).freeze(code, state)


def test_float16_is_refused_because_its_scales_underflow():
    params = {"layer": {"kernel": jnp.full((4, 2), 1e-3, jnp.float16)}}
    with pytest.raises(errors.UserError, match="layer/kernel is float16"):
        T.quantize(bits=8).encode(params)


# Rounding up by chance.


@pytest.mark.slow
@pytest.mark.parametrize("symmetric", [True, False])
def test_stochastic_rounding_has_the_weight_as_its_mean(symmetric):
    draws = 4000
    w = np.float32([[-3.0], [-1.2], [-0.01], [0.0], [0.4], [1.5], [2.99]])
    t = T.quantize(bits=3, symmetric=symmetric, rounding="stochastic")
    code, state = t.encode({"kernel": jnp.asarray(w)})
    keys = jax.random.split(KEY, draws)
    drawn = jax.vmap(lambda k: t.sample(code, state, k)["kernel"])(keys)
    drawn = np.asarray(drawn, np.float64)[..., 0]
    step = 1.0 if symmetric else (2.99 + 3.0) / 7
    places = drawn / step
    np.testing.assert_allclose(places, np.rint(places), atol=1e-5)
    assert (np.abs(drawn - w[:, 0]) < step + 1e-5).all()
    assert not drawn[:, 3].any()
    # The ends of an affine grid are rounded, so that they may lie a little inside.
    inside = slice(None) if symmetric else slice(1, -1)
    # A deviation is half a step at most; five of their means.
    far = 5 * (step / 2) / draws**0.5
    np.testing.assert_allclose(drawn.mean(0)[inside], w[inside, 0], atol=far)
    # Decoding does not draw.
    nearest = T.quantize(bits=3, symmetric=symmetric)
    decoded = nearest.decode(code, state)["kernel"]
    np.testing.assert_array_equal(t.decode(code, state)["kernel"], decoded)
    assert nearest.sample is None


@pytest.mark.slow
def test_stochastic_rounding_passes_the_gradient_and_leaves_the_neighbours():
    t = T.quantize(bits=4, granularity="group", group=4, rounding="stochastic")
    code, state = t.encode(kernels())
    upstream = kernels(7)
    sampled, pull = jax.vjp(lambda c: t.sample(c, state, KEY), code)
    jax.tree.map(np.testing.assert_array_equal, pull(upstream)[0], upstream)
    for name, leaf in sampled.items():
        w, got = np.asarray(code[name]["kernel"]), np.asarray(leaf["kernel"])
        view, found = (x.reshape(3, 4, -1) for x in (w, got))
        scale = np.abs(view).max(1, keepdims=True) / 7
        assert (np.abs(found - view) < scale * 1.0001).all()
        assert len(np.unique(np.rint(found / scale))) > 3


# The range that rounds best.


def tailed(seed=0, dtype=jnp.float32):
    """Returns kernels with outliers, zeros, and a channel of zeros."""
    rng = np.random.default_rng(seed)
    found = {}
    for shape in SHAPES:
        w = rng.standard_t(3, shape)
        w.flat[::7] = 0
        w[..., -1] = 0
        found[str(len(shape))] = {"kernel": jnp.asarray(w, dtype)}
    return found


def best_share(w, bits, mode):
    """Tries every share of every scale's range in a loop; the widest of equals wins."""
    best = {}
    for share in np.arange(32, 0, -1) / 32:
        rounded, members = naive(w, bits, *mode, share=share)
        for name, places in members.items():
            error = sum((rounded[where] - w[where]) ** 2 for where in places)
            if name not in best or error < best[name][0] * (1 - 1e-9):
                best[name] = error, {where: rounded[where] for where in places}
    out = np.empty_like(w)
    for _, rounded in best.values():
        for where, value in rounded.items():
            out[where] = value
    return out


SEARCHED = [(True, "channel", 0), (False, "group", 4)]


@jax.jit
def decode_searched(params, bits):
    found = {}
    for mode in SEARCHED:
        symmetric, granularity, group = mode
        t = T.quantize(
            bits=bits,
            symmetric=symmetric,
            granularity=granularity,
            group=group,
            range="mse",
        )
        found[str(mode)] = t.decode(*t.encode(params))
    return found


@pytest.mark.parametrize("bits", [2, 3, 8])
def test_the_searched_range_is_the_loops(bits):
    params = tailed(bits)
    decoded = decode_searched(params, bits)
    for mode, (name, leaf) in itertools.product(SEARCHED, params.items()):
        w = np.asarray(leaf["kernel"], np.float64)
        got = np.asarray(decoded[str(mode)][name]["kernel"], np.float64)
        np.testing.assert_allclose(got, best_share(w, bits, mode), rtol=1e-5, atol=1e-6)
        assert (got[w == 0] == 0).all()
        full, _ = naive(w, bits, *mode)
        assert np.sum((got - w) ** 2) <= np.sum((full - w) ** 2) * 1.0001 + 1e-9


def test_the_searched_range_follows_the_weights_and_passes_the_gradient():
    t = T.quantize(bits=2, range="mse")
    assert t.takes(tailed())["2/kernel"].endswith("per channel, range mse)")
    code, state = t.encode(tailed())
    update, decode = jax.jit(t.update), jax.jit(t.decode)
    for step in range(2):
        code = tailed(step + 5)
        state = update(code, state, T.Signals(code, jnp.int32(step), KEY))
    for name, leaf in decode(code, state).items():
        w = np.asarray(code[name]["kernel"], np.float64)
        expected = best_share(w, 2, (True, "channel", 0))
        np.testing.assert_allclose(leaf["kernel"], expected, rtol=1e-5, atol=1e-6)
        assert np.abs(w).max() > np.abs(expected).max()  # so some are clipped
    thawed = representations.thaw(t.freeze(code, state))
    decoded, pull = jax.vjp(lambda c: decode(c, state), code)
    for name in code:
        a, b = (np.asarray(x[name]["kernel"]) for x in (thawed, decoded))
        assert a.tobytes() == b.tobytes()
    upstream = kernels(7)
    jax.tree.map(np.testing.assert_array_equal, pull(upstream)[0], upstream)
    assert max(update._cache_size(), decode._cache_size()) <= 1


@pytest.mark.slow
@pytest.mark.parametrize(
    "symmetric, dtype", [(True, jnp.float32), (False, jnp.bfloat16)]
)
def test_the_laws_hold_with_a_searched_range(symmetric, dtype):
    moving = schedules.linear(initial=5.0, final=2.0, begin=0, end=2)
    t = T.quantize(bits=moving, symmetric=symmetric, range="mse")
    prune = T.prune(sparsity=0.5)
    params = {"layer": {"kernel": tailed(dtype=dtype)["2"]["kernel"]}}
    check_laws(params, T.chain(prune, t) if symmetric else T.chain(t, prune))


def test_a_searched_range_of_zeros_and_of_huge_and_tiny_weights():
    t = T.quantize(bits=3, range="mse")
    through = jax.jit(lambda p: t.decode(*t.encode(p)))
    w = np.asarray(tailed()["2"]["kernel"])
    expected = np.asarray(through({"kernel": jnp.asarray(w)})["kernel"])
    for power in (-80, 0, 90):
        factor = np.float32(2.0**power)
        got = through({"kernel": jnp.asarray(w * factor)})["kernel"]
        np.testing.assert_allclose(got, expected * factor, rtol=1e-6)
    zeros = through({"kernel": jnp.zeros_like(w)})["kernel"]
    assert not np.asarray(zeros).any()
