"""DoReFa's weights against equation 9 of the paper, in NumPy's float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lib import errors, representations
from lib import transforms as T
from lib.deploy import artifact


def kernel(dtype=jnp.float32):
    return jnp.asarray(np.random.default_rng(0).normal(size=(6, 7)), dtype)


def oracle(w, bits):
    most = 2**bits - 1
    x = np.tanh(w) / (2 * np.abs(np.tanh(w)).max()) + 0.5
    return 2 * np.round(most * x) / most - 1


@pytest.mark.slow
@pytest.mark.parametrize("bits", [2, 3, 8])
def test_weights_are_those_of_equation_9(bits):
    w, t = kernel(), T.dorefa(bits=bits)
    decoded = t.decode(*t.encode({"kernel": w}))["kernel"]
    np.testing.assert_allclose(decoded, oracle(np.float64(w), bits), atol=1e-6)
    assert np.abs(decoded).max() == 1 and (np.asarray(decoded) != 0).all()


def test_the_derivative_goes_straight_through_the_rounding():
    w, t = kernel(), T.dorefa(bits=3)
    code, state = t.encode({"kernel": w})
    upstream = np.random.default_rng(1).normal(size=w.shape)
    _, pull = jax.vjp(lambda c: t.decode(c, state)["kernel"], code)
    got = pull(jnp.asarray(upstream, jnp.float32))[0]["kernel"]
    # Of tanh(w) / m with m = |tanh| of the largest weight, which m moves with, too.
    tanh = np.tanh(np.float64(w))
    largest = np.unravel_index(np.abs(tanh).argmax(), tanh.shape)
    m = np.abs(tanh[largest])
    slope = upstream / m
    slope[largest] -= np.sign(tanh[largest]) * (upstream * tanh).sum() / m**2
    np.testing.assert_allclose(got, slope * (1 - tanh**2), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_frozen_is_decoded_and_the_file_holds_it(dtype, tmp_path):
    for t in (T.dorefa(bits=3), T.chain(T.prune(sparsity=0.5), T.dorefa(bits=2))):
        code, state = jax.jit(t.encode)({"kernel": kernel(dtype)})
        decoded = np.asarray(jax.jit(t.decode)(code, state)["kernel"])
        frozen = t.freeze(jax.device_get(code), jax.device_get(state))
        found = representations.materialize(frozen["kernel"])
        assert found.dtype == decoded.dtype and found.tobytes() == decoded.tobytes()
        artifact.save(tmp_path / "x.pare", frozen)
        loaded = artifact.materialize(artifact.load(tmp_path / "x.pare"))
        assert np.asarray(loaded["kernel"]).tobytes() == decoded.tobytes()


@pytest.mark.slow
def test_zeros_alone_are_no_division_by_zero():
    t = T.dorefa(bits=2)
    decoded = t.decode(*t.encode({"kernel": jnp.zeros((2, 2))}))["kernel"]
    np.testing.assert_allclose(np.abs(decoded), 1 / 3, rtol=1e-6)


def test_bad_settings_are_told():
    with pytest.raises(errors.UserError, match="dorefa: bits is.*from 2 to 8, got 1"):
        T.dorefa(bits=1)
    with pytest.raises(
        errors.UserError, match="no 0 among its levels.*put prune first"
    ):
        T.chain(T.dorefa(bits=2), T.prune(sparsity=0.5)).encode({"kernel": kernel()})
