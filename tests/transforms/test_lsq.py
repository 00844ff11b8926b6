"""Learned steps against the paper's formulas, in NumPy's float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lib import errors, representations
from lib import transforms as T
from lib.deploy import artifact
from lib.transforms.lsq import LEAST, first_step


def params(dtype=jnp.float32, seed=0):
    rng = np.random.default_rng(seed)
    kernel = rng.normal(size=(3, 4, 5)) * [0.01, 0.1, 1, 10, 1]
    bias = rng.normal(size=5)
    return {"d": {"kernel": jnp.asarray(kernel, dtype), "bias": jnp.asarray(bias)}}


def ends(bits, symmetric):
    high = 2 ** (bits - 1) - 1
    return (high if symmetric else high + 1), high


def oracle(w, step, upstream, q_n, q_p):
    """Returns decode and the derivatives to w and s (eqs. 1 to 3 and 5), unscaled.

    What rounds onto the outermost point counts as inside.
    """
    v = w / step
    below, above = v < -q_n - 0.5, v > q_p + 0.5
    rounded = np.clip(np.round(v), -q_n, q_p)
    to_step = np.where(below, -q_n, np.where(above, q_p, rounded - v))
    axes = tuple(a for a in range(w.ndim) if step.shape[a] == 1)
    return (
        rounded * step,
        upstream * ~(below | above),
        (upstream * to_step).sum(axis=axes, keepdims=True),
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("granularity", "symmetric"),
    [
        pytest.param("tensor", True, marks=pytest.mark.slow),
        pytest.param("channel", True, marks=pytest.mark.slow),
        ("channel", False),
    ],
)
def test_decode_and_its_derivatives_are_the_papers(granularity, symmetric):
    p, t = params(), T.lsq(bits=3, granularity=granularity, symmetric=symmetric)
    code, state = t.encode(p)
    w = np.asarray(p["d"]["kernel"], np.float64)
    q_n, q_p = ends(3, symmetric)
    axes = None if granularity == "tensor" else (0, 1)
    size = np.abs(w)
    begin = 2 * size.mean(axis=axes, keepdims=True) / np.sqrt(q_p)
    begin = np.minimum(begin, size.max(axis=axes, keepdims=True) / q_p)
    np.testing.assert_allclose(state["d/kernel"]["begin"], begin, rtol=1e-6)

    moved = jnp.asarray(0.5 * np.ones(begin.shape), jnp.float32)
    code["d"]["kernel"]["step"] = moved
    upstream = np.random.default_rng(1).normal(size=w.shape)
    out, pull = jax.vjp(lambda c: t.decode(c, state)["d"]["kernel"], code)
    (grads,) = pull(jnp.asarray(upstream, jnp.float32))
    decoded, to_w, to_step = oracle(w, 0.5 * begin, upstream, q_n, q_p)
    assert (np.abs(w / begin / 0.5) > q_n + 1).any()  # something lies outside
    np.testing.assert_allclose(out, decoded, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(grads["d"]["kernel"]["w"], to_w, rtol=1e-6)
    scale = 1 / np.sqrt(q_p * w.size / begin.size)
    expected = to_step * scale / begin  # of a multiple of the first step
    np.testing.assert_allclose(
        grads["d"]["kernel"]["step"], expected, rtol=1e-4, atol=1e-5
    )


@pytest.mark.slow
def test_sgd_moves_the_step_as_in_the_paper():
    t, rate, momentum = T.lsq(bits=3, granularity="tensor"), 0.05, 0.9
    code, state = t.encode(params())
    w = np.asarray(code["d"]["kernel"]["w"], np.float64)
    goal = w + 0.05
    q_n, q_p = ends(3, True)
    step = np.asarray(state["d/kernel"]["begin"], np.float64)
    first, speed, trace = step.copy(), np.zeros_like(step), 0.0

    @jax.jit
    def slope(multiple):
        changed = {"d": {**code["d"], "kernel": {**code["d"]["kernel"]}}}
        changed["d"]["kernel"]["step"] = multiple
        decoded = t.decode(changed, state)["d"]["kernel"]
        return jnp.sum((decoded - jnp.float32(goal)) ** 2) / 2

    multiple = code["d"]["kernel"]["step"]
    for _ in range(5):
        decoded, _, _ = oracle(w, step, np.ones_like(w), q_n, q_p)
        _, _, to_step = oracle(w, step, decoded - goal, q_n, q_p)
        speed = momentum * speed + to_step / np.sqrt(w.size * q_p)
        step = step - rate * speed
        trace = momentum * trace + jax.grad(slope)(multiple)
        multiple = multiple - rate * trace
        np.testing.assert_allclose(multiple * first, step, rtol=1e-4)
    assert abs(float(step[0, 0, 0] / first[0, 0, 0]) - 1) > 0.01


@pytest.mark.slow
def test_weights_that_are_zero_do_not_set_the_first_step():
    w = jnp.zeros((4, 3)).at[0, 0].set(3.0).at[1, 0].set(-0.1).at[:, 1].set(2.0)
    found = first_step(w, 3, (0,))
    # Of 3.1 / 2 and of 3 / 3 the less; all of one size; none at all.
    np.testing.assert_allclose(found[0], [1.0, 2 / 3, 1.0], rtol=1e-6)
    spread = jnp.asarray([[4.0], [1.0], [0.0], [1.0]])
    np.testing.assert_allclose(
        first_step(spread, 3, (0,)), [[min(2 * 2 / np.sqrt(3), 4 / 3)]], rtol=1e-6
    )
    np.testing.assert_allclose(
        first_step(spread, 2, (0,)), [[min(2 * 2 / 1, 4 / 1)]], rtol=1e-6
    )


@pytest.mark.slow
def test_a_step_stays_positive_and_comes_back():
    t = T.lsq(bits=4, granularity="tensor")
    code, state = t.encode({"kernel": jnp.linspace(-1, 1, 12).reshape(4, 3)})
    code["kernel"]["step"] -= 5.0

    def off(code):
        return jnp.sum((t.decode(code, state)["kernel"] - code["kernel"]["w"]) ** 2)

    grad = jax.grad(off)(code)["kernel"]["step"]
    decoded = t.decode(code, state)["kernel"]
    most = 7 * LEAST * float(state["kernel"]["begin"].item())
    np.testing.assert_allclose(jnp.abs(decoded).max(), most, rtol=1e-6)
    assert float(grad.item()) < 0  # downhill is up


@pytest.mark.slow
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_frozen_is_decoded_and_the_file_holds_it(symmetric, dtype, tmp_path):
    rng = np.random.default_rng(3)
    for bits in (2, 3, 8):
        t = T.lsq(bits=bits, symmetric=symmetric)
        code, state = jax.jit(t.encode)(params(dtype))
        step = code["d"]["kernel"]["step"]
        code["d"]["kernel"]["step"] = step * jnp.float32(
            rng.uniform(0.3, 2, step.shape)
        )
        decoded = np.asarray(jax.jit(t.decode)(code, state)["d"]["kernel"])
        frozen = t.freeze(jax.device_get(code), jax.device_get(state))
        kernel = frozen["d"]["kernel"]
        assert isinstance(kernel, representations.Quantized) and kernel.bits == bits
        q_n, q_p = ends(bits, symmetric)
        zero = 0 if symmetric else kernel.zero_point.astype(int)
        whole = kernel.codes.astype(int) - zero
        assert whole.min() >= -q_n and whole.max() <= q_p
        assert np.abs(whole).max() > q_p / 2
        assert representations.materialize(kernel).tobytes() == decoded.tobytes()
        artifact.save(tmp_path / "x.pare", frozen)
        loaded = artifact.materialize(artifact.load(tmp_path / "x.pare"))
        assert np.asarray(loaded["d"]["kernel"]).tobytes() == decoded.tobytes()


@pytest.mark.slow
def test_bits_may_be_traced():
    p = params()

    def run(bits):
        t = T.lsq(bits=bits)
        return t.decode(*t.encode(p))["d"]["kernel"]

    many = jax.jit(jax.vmap(run))(jnp.array([2, 4, 8]))
    for found, bits in zip(many, (2, 4, 8), strict=True):
        np.testing.assert_allclose(found, run(bits), rtol=1e-5, atol=1e-7)


@pytest.mark.slow
def test_pruned_weights_stay_pruned():
    t = T.chain(T.prune(sparsity=0.5), T.lsq(bits=2))
    code, state = t.encode(params())
    decoded = np.asarray(t.decode(code, state)["d"]["kernel"])
    assert (decoded == 0).sum() >= decoded.size / 2
    frozen = t.freeze(jax.device_get(code), jax.device_get(state))["d"]["kernel"]
    assert representations.materialize(frozen).tobytes() == decoded.tobytes()


def test_bad_settings_are_told():
    with pytest.raises(errors.UserError, match="lsq: bits is a whole number.*got 9"):
        T.lsq(bits=9)
    with pytest.raises(errors.UserError, match="granularity of lsq 'chanel'.*channel"):
        T.lsq(bits=4, granularity="chanel")
    with pytest.raises(errors.UserError, match="d/kernel is float16; expected float32"):
        T.lsq(bits=4).encode(params(jnp.float16))
    late = T.chain(T.lsq(bits=4), T.quantize(bits=4))
    with pytest.raises(errors.UserError, match="lsq's steps for weights"):
        late.encode(params())
