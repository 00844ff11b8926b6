"""BinaryConnect: signs, chances and bounds against the paper's equations."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lib import errors, representations
from lib import transforms as T
from lib.deploy import artifact, reader

KEY = jax.random.key(0)
SHAPES = {"conv": (3, 3, 2, 4), "dense": (6, 5)}
HEIGHTS = {  # sqrt(1.5 / (inputs + outputs)), a convolution's times its places
    "conv": math.sqrt(1.5 / (3 * 3 * 2 + 3 * 3 * 4)),
    "dense": math.sqrt(1.5 / 11),
}


def kernels(seed=0, dtype=jnp.float32):
    rng = np.random.default_rng(seed)
    return {
        name: {"kernel": jnp.asarray(rng.normal(0, 0.2, shape), dtype)}
        for name, shape in SHAPES.items()
    }


@pytest.mark.parametrize("height", [0.0, pytest.param(0.25, marks=pytest.mark.slow)])
def test_decode_is_the_sign_and_codes_stay_within(height, tmp_path):
    t = T.binary_connect(stochastic=False, height=height)
    params = kernels()
    code, state = t.encode(params)
    decode = jax.jit(t.decode)
    decoded = decode(code, state)
    for name, leaf in params.items():
        bound, w = height or HEIGHTS[name], np.asarray(leaf["kernel"])
        latent = np.asarray(code[name]["kernel"])
        assert np.abs(latent).max() == pytest.approx(bound, rel=1e-6)
        # By one factor: all signs and proportions are as they were.
        np.testing.assert_allclose(latent, w * (bound / np.abs(w).max()), rtol=1e-5)
        np.testing.assert_allclose(decoded[name]["kernel"], bound * np.sign(w))

    moved = jax.tree.map(lambda w: 3 * w, code)
    kept, fresh = T.renew(t, moved, state, state)
    assert fresh == {}
    for name, leaf in moved.items():
        bound = height or HEIGHTS[name]
        expected = np.clip(leaf["kernel"], -bound, bound)
        np.testing.assert_allclose(kept[name]["kernel"], expected, rtol=1e-6)

    frozen = t.freeze(kept, state)
    artifact.save(tmp_path / "x", frozen)
    read = reader.load(tmp_path / "x")
    for name, leaf in decode(kept, state).items():
        rep, wanted = frozen[name]["kernel"], np.asarray(leaf["kernel"])
        assert isinstance(rep, representations.Levels) and rep.format == "binary"
        assert representations.materialize(rep).tobytes() == wanted.tobytes()
        assert read[f"{name}/kernel"].tobytes() == wanted.tobytes()


def test_drawn_weights_have_the_latent_weights_as_their_mean():
    height, draws = 0.5, 4000
    latent = np.linspace(-height, height, 11, dtype=np.float32)
    t = T.binary_connect(stochastic=True, height=height)
    code = {"kernel": jnp.asarray(latent).reshape(11, 1)}
    keys = jax.random.split(KEY, draws)
    state = t.encode(code)[1]
    drawn = jax.vmap(lambda k: t.sample(code, state, k)["kernel"])(keys)[..., 0]
    drawn = np.asarray(drawn)
    for place, w in enumerate(latent):
        if w == 0:  # it was removed
            assert not drawn[:, place].any()
            continue
        assert set(np.unique(drawn[:, place])) <= {-height, np.float32(height)}
        # A mean of +-H has a deviation of sqrt(H^2 - w^2); five of them.
        spread = 5 * math.sqrt(max(height**2 - w**2, 0) / draws)
        assert abs(drawn[:, place].mean() - w) <= spread + 1e-6
    assert (drawn[:, [0, -1]] == [-height, height]).all()


@pytest.mark.slow
def test_the_gradient_passes_straight_through():
    upstream = {"dense": kernels(7)["dense"]}
    for stochastic in (False, True):
        t = T.binary_connect(stochastic=stochastic)
        code, state = t.encode({"dense": kernels()["dense"]})
        _, pull = jax.vjp(lambda c, t=t, s=state: T.sample(t, c, s, KEY), code)
        jax.tree.map(np.testing.assert_array_equal, pull(upstream)[0], upstream)


@pytest.mark.slow
def test_what_is_pruned_stays_zero(dtype=jnp.bfloat16):
    binary = T.binary_connect(stochastic=True)
    prune = T.prune(sparsity=0.5)
    for t in (T.chain(prune, binary), T.chain(binary, prune)):
        code, state = t.encode(kernels(dtype=dtype))
        decoded = jax.jit(t.decode)(code, state)
        drawn = t.sample(code, state, KEY)
        frozen = t.freeze(code, state)
        thawed = representations.thaw(frozen)
        for name in SHAPES:
            w, x, y = (np.asarray(p[name]["kernel"]) for p in (decoded, drawn, thawed))
            assert np.count_nonzero(w) == w.size / 2
            np.testing.assert_array_equal(x == 0, w == 0)
            assert w.tobytes() == y.tobytes() and w.dtype == dtype
            assert isinstance(frozen[name]["kernel"], representations.Sparse)


@pytest.mark.slow
@pytest.mark.parametrize("stochastic", [False, True])
def test_real_weights_are_tested_and_signs_are_trained(stochastic):
    t = T.binary_connect(stochastic=stochastic, inference="real", height=0.1)
    code, state = t.encode(kernels())
    drawn = t.sample(code, state, KEY)
    frozen = representations.thaw(t.freeze(code, state))
    for name in SHAPES:
        w = np.asarray(code[name]["kernel"])
        for kept in (t.decode(code, state), frozen):
            assert np.asarray(kept[name]["kernel"]).tobytes() == w.tobytes()
        got = np.asarray(drawn[name]["kernel"])
        np.testing.assert_allclose(np.abs(got), 0.1, rtol=1e-6)
        assert stochastic or ((got > 0) == (w > 0)).all()


def test_an_unknown_inference():
    with pytest.raises(errors.UserError, match="inference of binary_connect 'reel'"):
        T.binary_connect(stochastic=True, inference="reel")


@pytest.mark.parametrize("height", [-1.0, math.inf, math.nan])
def test_a_height_out_of_range(height):
    with pytest.raises(errors.UserError, match="binary_connect: height is positive"):
        T.binary_connect(stochastic=False, height=height)
