"""Weights on uneven grids against loops over single weights."""

import itertools

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from lib import errors, formats, representations
from lib import transforms as T
from lib.deploy import artifact, reader
from lib.report import layers
from lib.transforms import level_scales
from tests.transforms.test_quantize import scale_group

KEY = jax.random.key(0)
SHAPES = [(12, 5), (2, 3, 2, 4)]  # 12 inputs a channel in both


def kernels(seed=0, dtype=jnp.float32):
    """Returns kernels with outliers."""
    rng = np.random.default_rng(seed)
    return {
        str(len(shape)): {"kernel": jnp.asarray(rng.standard_t(4, shape), dtype)}
        for shape in SHAPES
    }


def groups_of(w, granularity, group):
    """Returns the places that share a scale, set by set."""
    members = {}
    for where in itertools.product(*map(range, w.shape)):
        name = scale_group(where, w.shape, granularity, group)
        members.setdefault(name, []).append(where)
    return members.values()


def scale_of(values, levels, scale):
    """The papers' formulas, in Python's floats; (scale, threshold or None)."""
    sizes = [abs(float(v)) for v in values]
    there = [s for s in sizes if s] or [0.0]
    mean = sum(there) / len(there)
    cover = max(sizes) / float(levels[-1])
    match scale:
        case "max":
            return cover or 1.0, None
        case "power":
            return 2.0 ** np.floor(np.log2(4 * cover / 3)), None
        case "mean":
            return mean, None
        case "twn":
            beyond = [s for s in sizes if s > 0.7 * mean]
            return sum(beyond) / len(beyond), 0.7 * mean
    best = None
    for share in np.arange(32, 0, -1) / 32:
        points = share * cover * levels.astype(np.float64)
        off = np.abs(np.subtract.outer(values, points)).min(axis=1)
        error = float(off @ off)
        if best is None or error < best[0] * (1 - 1e-9):
            best = error, share * cover
    return best[1], None


def nearest(x, levels):
    return min((float(v) for v in levels), key=lambda v: abs(v - x))


def naive(w, name, scale, granularity, group):
    levels, w = formats.FORMATS[name], np.asarray(w, np.float64)
    out = np.empty_like(w)
    for places in groups_of(w, granularity, group):
        values = [w[where] for where in places]
        step, threshold = scale_of(values, levels, scale)
        for where, value in zip(places, values, strict=True):
            if threshold is None:
                level = nearest(value / step, levels)
            else:
                level = np.sign(value) * (abs(value) > threshold)
            out[where] = level * step
    return out


QUICK = [("binary", "mean", "channel", 0), ("nf4", "max", "group", 4)]
CASES = [
    *QUICK,
    ("ternary", "twn", "tensor", 0),
    ("pow2_4", "power", "channel", 0),
    ("apot_4", "mse", "channel", 0),
    ("e4m3", "max", "tensor", 0),
]
MORE = [
    *CASES[2:],
    ("ternary", "mse", "group", 4),
    ("e5m2", "mse", "tensor", 0),
    ("apot_8", "power", "group", 4),
]


def make(case):
    name, scale, granularity, group = case
    return T.levels(format=name, scale=scale, granularity=granularity, group=group)


def same_bytes(a, b):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert np.asarray(x).tobytes() == np.asarray(y).tobytes()


def check(case, params, tmp_path):
    t = make(case)
    code, state = jax.jit(t.encode)(params)
    decode = jax.jit(t.decode)
    for name, leaf in decode(code, state).items():
        got = np.asarray(leaf["kernel"], np.float64)
        expected = naive(params[name]["kernel"], *case)
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-7)
    # The scales follow the weights; what was frozen is what is decoded.
    code = kernels(9)
    state = jax.jit(t.update)(code, state, T.Signals(code, jnp.int32(0), KEY))
    decoded, pull = jax.vjp(lambda c: decode(c, state), code)
    for name, leaf in decoded.items():
        expected = naive(code[name]["kernel"], *case)
        np.testing.assert_allclose(leaf["kernel"], expected, rtol=1e-5, atol=1e-7)
    frozen = t.freeze(code, state)
    same_bytes(representations.thaw(frozen), decoded)
    upstream = kernels(7)
    jax.tree.map(np.testing.assert_array_equal, pull(upstream)[0], upstream)
    # Through the file, and by the reader alone.
    artifact.save(tmp_path / "x", frozen)
    same_bytes(artifact.load(tmp_path / "x"), frozen)
    read = reader.load(tmp_path / "x")
    for name, leaf in decoded.items():
        assert read[f"{name}/kernel"].tobytes() == np.asarray(leaf["kernel"]).tobytes()


@pytest.mark.parametrize("case", QUICK, ids=str)
def test_is_the_loop(case, tmp_path):
    check(case, kernels(), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("case", MORE, ids=str)
def test_is_the_loop_in_every_mode(case, tmp_path):
    check(case, kernels(1), tmp_path)


@pytest.mark.parametrize(
    "name",
    [
        "nf4",
        "e4m3",
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in sorted(set(formats.FORMATS) - {"nf4", "e4m3"})
        ),
    ],
)
def test_every_border_is_where_the_nearest_level_changes(name):
    """Also a float above and below, where rounding would be seen first."""
    levels = formats.FORMATS[name]
    middle = ((levels[:-1].astype(np.float64) + levels[1:]) / 2).astype(np.float32)
    beside = [np.nextafter(middle, np.float32(s * np.inf)) for s in (-1, 1)]
    x = np.concatenate([levels, middle, *beside, levels * 3])
    got = levels[np.asarray(level_scales.nearest(jnp.asarray(x), levels))]
    distance = np.abs(levels.astype(np.float64)[None, :] - x[:, None].astype(float))
    best = distance.min(1)
    np.testing.assert_array_equal(np.abs(got.astype(np.float64) - x), best)
    dtypes = {"e4m3": ml_dtypes.float8_e4m3fn, "e5m2": ml_dtypes.float8_e5m2}
    if name in dtypes:  # ties and all, within the range
        inside = np.abs(x) <= levels[-1]
        wanted = x[inside].astype(dtypes[name]).astype(np.float32)
        np.testing.assert_array_equal(got[inside], wanted)


@pytest.mark.slow
@pytest.mark.parametrize(
    "case, dtype",
    [
        (CASES[0], jnp.bfloat16),
        (CASES[1], jnp.float32),
        (CASES[2], jnp.float32),
    ],
    ids=str,
)
def test_zeros_stay_zeros(case, dtype):
    params = {"2": kernels(3, dtype)["2"]}
    zeroed = jax.tree.map(lambda w: w.at[0].set(0), params)
    t = make(case)
    prune = T.prune(sparsity=0.5)
    for chained, start in (
        (t, zeroed),
        (T.chain(prune, t), params),
        (T.chain(t, prune), params),
    ):
        code, state = chained.encode(start)
        decode = jax.jit(chained.decode)
        decoded = decode(code, state)
        frozen = chained.freeze(code, state)
        same_bytes(representations.thaw(frozen), decoded)
        for leaf, w in zip(*map(jax.tree.leaves, (decoded, start)), strict=True):
            assert leaf.dtype == dtype
            assert (np.asarray(leaf)[np.asarray(w) == 0] == 0).all()
            if chained is not t:
                assert np.count_nonzero(leaf) <= w.size / 2
        kinds = {type(leaf["kernel"]) for leaf in frozen.values()}
        if chained is not t:
            assert kinds == {representations.Sparse}


def test_a_binary_weight_that_was_removed_counts_in_no_mean():
    kernel = jnp.float32([[0.0, -3.0], [2.0, 1.0], [-4.0, 0.5], [6.0, 0.5]])
    t = T.levels(format="binary", scale="mean")
    code, state = t.encode({"kernel": kernel})
    expected = [[0, -1.25], [4, 1.25], [-4, 1.25], [4, 1.25]]
    np.testing.assert_array_equal(t.decode(code, state)["kernel"], expected)
    rep = t.freeze(code, state)["kernel"]
    assert isinstance(rep, representations.Sparse)
    np.testing.assert_array_equal(rep.mask, np.asarray(kernel) != 0)
    np.testing.assert_array_equal(representations.materialize(rep), expected)


def test_twn_literal():
    # The mean magnitude is 2, so what exceeds 1.4 stays: their mean is 3.
    kernel = jnp.float32([[1.0], [-1.0], [3.5], [-2.5]])
    t = T.levels(format="ternary", scale="twn", granularity="tensor")
    decoded = t.decode(*t.encode({"kernel": kernel}))["kernel"]
    np.testing.assert_array_equal(decoded, [[0], [0], [3], [-3]])


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES[1:3], ids=str)
def test_zeros_and_huge_and_tiny_weights(case):
    t = make(case)
    through = jax.jit(lambda p: t.decode(*t.encode(p)))
    w = kernels()["2"]["kernel"]
    expected = np.asarray(through({"kernel": w})["kernel"])
    for power in (-80, 90):
        factor = np.float32(2.0**power)
        got = through({"kernel": w * factor})["kernel"]
        np.testing.assert_allclose(got, expected * factor, rtol=1e-6)
    assert not np.asarray(through({"kernel": jnp.zeros_like(w)})["kernel"]).any()
    whole = through({"kernel": jnp.full_like(w, 1e-39)})["kernel"]
    assert np.isfinite(whole).all()


def test_codes_take_the_formats_bits():
    w = np.random.default_rng(0).choice([-1.0, 1.0], (64, 64)).astype(np.float32)
    t = T.levels(format="binary", scale="mean", granularity="tensor")
    frozen = t.freeze(*t.encode({"kernel": jnp.asarray(w)}))
    (row,) = reader.parse(artifact.pack(frozen), "")[2]
    assert 64 * 64 / 8 <= row.nbytes <= 64 * 64 / 8 + 16  # levels and a scale
    assert row.representation == "Levels binary"
    rep = frozen["kernel"]
    assert (layers.bits(rep), layers.spell(rep)) == (1, "Levels binary")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"format": "nf5"}, "unknown format 'nf5'; did you mean 'nf4'?"),
        ({"format": "nf4", "scale": "maxx"}, "unknown scale of levels 'maxx'; did"),
        (
            {"format": "nf4", "scale": "twn"},
            "levels: scale 'twn' is of format 'ternary', got 'nf4'",
        ),
        ({"format": "nf4", "granularity": "row"}, "levels: unknown granularity 'row'"),
        ({"format": "nf4", "group": 8}, "got group=8 and granularity='channel'"),
    ],
)
def test_mistakes_are_told_before_anything_is_encoded(settings, message):
    with pytest.raises(errors.UserError) as e:
        T.levels(**settings)
    assert message in str(e.value) and "\n" not in str(e.value)


def test_a_leaf_that_does_not_fit_is_named():
    t = T.levels(format="nf4", granularity="group", group=5)
    with pytest.raises(errors.UserError, match="levels: groups of 5 .* 2/kernel"):
        t.encode(kernels())
    half = {"layer": {"kernel": jnp.ones((4, 2), jnp.float16)}}
    with pytest.raises(errors.UserError, match="levels: layer/kernel is float16"):
        T.levels(format="nf4").encode(half)
