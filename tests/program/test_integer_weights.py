import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lib import formats, program
from lib import representations as reps
from lib.program.integer import nibbles
from tests.program.on_grids import ALL, both, data, dot, frozen_of, quantized


@pytest.mark.slow
@pytest.mark.parametrize("how", [{"bits": 4}, {"bits": 4, "affine": True}])
@pytest.mark.parametrize("group", [0, 3])
def test_packed_weights_and_groups(how, group):
    rep = quantized(data(12, 5, seed=1), group=group, exact=True, **how)
    packed = program.integer_params({"w": rep})["w"].codes
    assert isinstance(packed, nibbles.Nibbles) and packed.data.size == 30
    x = jnp.asarray(data(4, 12))
    scale = 2.0**-6
    ranges = {"dot_general": {"lhs": (-100 * scale, 155 * scale)}}
    expected, found, _, counted = both(dot, {"w": rep}, x, ranges=ranges)
    assert counted == (1, 0)
    np.testing.assert_array_equal(found, expected)
    run = program.run_integer(dot, ranges, ALL)
    held = jax.jit(lambda x: run(program.integer_params({"w": rep}), x))
    np.testing.assert_array_equal(held(x), found)
    codes = np.clip(np.rint(np.asarray(x, float) / scale), -100, 155)
    np.testing.assert_array_equal(found, codes @ reps.materialize(rep) * scale)


@pytest.mark.parametrize(("dtype", "low"), [(np.int8, -8), (np.uint8, 0)])
def test_packing_and_back(dtype, low):
    for shape in ((0,), (16,), (3, 5)):
        numbers = np.random.default_rng(1).permutation(np.arange(low, low + 16))
        numbers = numbers[: np.prod(shape)].reshape(shape).astype(dtype)
        packed = nibbles.pack(numbers)
        back = np.asarray(nibbles.unpack(packed))
        assert (back.dtype, packed.data.size) == (dtype, -(-numbers.size // 2))
        np.testing.assert_array_equal(back, numbers)


def test_what_does_not_fit_half_a_byte():
    with pytest.raises(ValueError, match="from 0 to 8 do not fit"):
        nibbles.pack(np.array([0, 8], np.int8))
    with pytest.raises(ValueError, match="int8 or uint8, not int32"):
        nibbles.pack(np.arange(3, dtype=np.int32))


@pytest.mark.slow
def test_a_mask_and_a_tie():
    """The embedding stands at both ends: looked up in float, contracted in integers."""

    class Tied(nn.Module):
        @nn.compact
        def __call__(self, ids):
            embed = nn.Embed(11, 6)
            return embed.attend(nn.Dense(6)(embed(ids)))

    ids = np.arange(11)
    params = jax.jit(Tied().init)(jax.random.key(0), ids)
    kernel = quantized(params["params"]["Dense_0"]["kernel"], affine=True, bits=6)
    mask = data(6, 6, seed=3) > 0
    frozen = frozen_of(params)
    frozen["params"]["Dense_0"]["kernel"] = reps.sparse(mask, kernel)
    frozen["params"]["Embed_0"]["embedding"] = quantized(
        params["params"]["Embed_0"]["embedding"].T
    )
    rep = frozen["params"]["Embed_0"]["embedding"]
    turned = reps.Quantized(rep.codes.T, rep.scale.T, None, 8)
    frozen["params"]["Embed_0"]["embedding"] = turned
    expected, found, rows, counted = both(Tied().apply, frozen, jnp.asarray(ids))
    assert counted == (2, 0) and all(row.integer for row in rows)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    two = program.integer_params({"a": kernel, "b": reps.Tied("a")})
    assert two["b"] is two["a"]


@pytest.mark.parametrize(
    ("name", "integer"),
    [("ternary", True), ("pow2_4", True), ("nf4", False)],
)
def test_formats_whose_levels_are_multiples_of_a_step(name, integer):
    levels = formats.FORMATS[name]
    codes = np.random.default_rng(0).integers(0, len(levels), (6, 4)).astype(np.uint8)
    scale = np.linspace(0.1, 0.4, 4, dtype=np.float32).reshape(1, 4)
    rep = reps.Levels(codes, scale, name)
    masked = reps.sparse(codes % 2 == 0, rep)
    for one in (rep, masked):
        found = program.integer_params({"w": one}, pack=False)["w"]
        assert isinstance(found, reps.Quantized) == integer
        dense = reps.materialize(reps.of(found))
        np.testing.assert_array_equal(dense, reps.materialize(one))
