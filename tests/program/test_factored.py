"""Programs run factor by factor: the numbers of the dense program, at fewer MACs."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from lib import models, program, tree
from lib import representations as R

RNG = np.random.default_rng(0)
PLAIN = dict(train=False, key=None)


def normal(*shape):
    return jnp.asarray(RNG.normal(size=shape) / np.sqrt(max(shape[-1], 1)), jnp.float32)


def low_rank(shape, rank):
    return R.LowRank(normal(*shape[:-1], rank), normal(rank, shape[-1]))


def tucker(shape, p, q):
    h, w, i, o = shape
    return R.Tucker(normal(i, p), normal(h, w, p, q), normal(q, o))


def cp(shape, rank):
    return R.CP(*(normal(n, rank) for n in shape[:3]), normal(rank, shape[3]))


def dense(params):
    """The weights multiplied out: what the program is to be compared with."""
    return jax.tree.map(jnp.asarray, R.thaw(wrapped(params)))


def wrapped(params):
    """The same params with the parts of products as representations."""

    def wrap(rep):
        if isinstance(rep, R.Sum):
            return R.Sum(wrap(rep.base), wrap(rep.extra))
        if isinstance(rep, R.LowRank | R.Tucker | R.CP):
            return jax.tree.map(lambda x: R.Dense(np.asarray(x)), rep)
        return rep

    return tree.replace(params, {p: wrap(x) for p, x in tree.flatten(params).items()})


def macs(f, *args, **kwargs):
    return sum(site.macs for site in program.sites(f)(*args, **kwargs))


def agree(f, params, *args, **kwargs):
    """Asserts that the factored program computes what the dense one does."""
    ours = program.run_factored(functools.partial(f, **kwargs))
    wanted = jax.jit(functools.partial(f, **kwargs))(dense(params), *args)
    found = jax.jit(ours)(params, *args)
    assert jax.tree.structure(found) == jax.tree.structure(wanted)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)
    return ours


def mlp():
    module = models.build("mlp", classes=4, widths=(24, 16))
    params, variables = models.init(module, jax.random.key(0), (6, 6, 1))
    flat = tree.flatten(params)
    products = {
        "dense_0/kernel": low_rank(flat["dense_0/kernel"].shape, 3),
        "dense_1/kernel": low_rank(flat["dense_1/kernel"].shape, 12),
    }
    return models.make_apply(module), tree.replace(params, products), variables


def test_mlp():
    apply, params, variables = mlp()
    x = normal(5, 6, 6, 1)
    ours = agree(apply, params, variables, x, **PLAIN)

    first, second = program.factored(apply)(params, variables, x, **PLAIN)
    assert (first.path, first.sites, first.factored, first.why) == (
        "dense_0/kernel",
        ("MLP/dense_0",),
        True,
        "",
    )
    assert (first.macs, first.dense_macs) == (5 * (36 * 3 + 3 * 24), 5 * 36 * 24)
    assert (second.path, second.factored, second.macs) == (
        "dense_1/kernel",
        False,
        5 * 24 * 16,
    )
    assert second.why == "its factors take 2,400 multiply-accumulates of 1,920"

    # What is not worth its factors is multiplied out once: 24 x 12 x 16.
    total = first.macs + second.macs + 5 * 16 * 4
    assert macs(ours, params, variables, x) == total + 24 * 12 * 16
    # Or beforehand, and then the program has none of it.
    kept = program.keep_factors(apply)(wrapped(params), variables, x, **PLAIN)
    assert isinstance(kept["dense_0"]["kernel"], R.LowRank)
    assert kept["dense_1"]["kernel"].shape == (24, 16)
    assert macs(ours, kept, variables, x) == total
    names = [site.name for site in program.sites(ours)(kept, variables, x)]
    assert names == ["MLP/dense_0", "MLP/dense_0#1", "MLP/dense_1", "MLP/logits"]


def test_nothing_is_computed_for_the_listing():
    apply, params, variables = mlp()
    x = normal(5, 6, 6, 1)
    shapes = jax.eval_shape(lambda: (wrapped(params), variables, x))
    assert program.factored(apply)(*shapes, **PLAIN) == program.factored(apply)(
        params, variables, x, **PLAIN
    )


def test_gradients_are_those_of_the_factors():
    apply, params, variables = mlp()
    x = normal(5, 6, 6, 1)
    ours = program.run_factored(apply)

    def loss(run, params):
        (logits, _), _ = run(params, variables, x, **PLAIN)
        return jnp.sum(jnp.sin(logits))

    def multiplied(params):
        def out(rep):
            return rep.u @ rep.v if isinstance(rep, R.LowRank) else rep

        new = {p: out(x) for p, x in tree.flatten(params).items()}
        return loss(apply, tree.replace(params, new))

    wanted = jax.jit(jax.grad(multiplied))(params)
    found = jax.jit(jax.grad(functools.partial(loss, ours)))(params)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
        found,
        wanted,
    )
    assert np.abs(found["dense_0"]["kernel"].u).max() > 0


@pytest.mark.slow
def test_vmap_over_examples_and_over_weights():
    apply, params, variables = mlp()
    x = normal(3, 2, 6, 6, 1)
    ours = program.run_factored(apply)

    def logits(params, x):
        return ours(params, variables, x, **PLAIN)[0][0]

    one_by_one = jnp.stack([logits(params, part) for part in x])
    found = jax.jit(jax.vmap(logits, (None, 0)))(params, x)
    np.testing.assert_allclose(found, one_by_one, rtol=1e-5, atol=1e-5)

    many = jax.tree.map(lambda w: jnp.stack([w, 2 * w, -w]), params)
    found = jax.vmap(logits)(many, x)
    parts = [jax.tree.map(lambda w, i=i: w[i], many) for i in range(3)]
    one_by_one = jnp.stack([logits(p, part) for p, part in zip(parts, x, strict=True)])
    np.testing.assert_allclose(found, one_by_one, rtol=1e-5, atol=1e-5)


def test_factors_as_the_code_of_a_technique_has_them():
    apply, params, variables = mlp()
    x = normal(5, 6, 6, 1)
    kernel = params["dense_0"]["kernel"]
    code = tree.replace(params, {"dense_0/kernel": {"v": kernel.v, "u": kernel.u}})
    ours = program.run_factored(apply)
    a = ours(params, variables, x, **PLAIN)[0][0]
    b = ours(code, variables, x, **PLAIN)[0][0]
    np.testing.assert_array_equal(a, b)


STRIDES = dict(window_strides=(2, 1), rhs_dilation=(1, 2), padding=((1, 2), (0, 1)))


def convolve(kernel, x, spec=("NHWC", "HWIO", "NHWC")):
    return lax.conv_general_dilated(x, kernel, **STRIDES, dimension_numbers=spec)


KERNEL = (3, 2, 6, 8)


@pytest.mark.parametrize(
    ("kernel", "by_hand"),
    [
        # Of 6x5 pixels, 4x4 after; 4x5 after the convolution along the height alone.
        (low_rank(KERNEL, 2), 16 * (3 * 2 * 6 * 2 + 2 * 8)),
        (tucker(KERNEL, 2, 3), 30 * 6 * 2 + 16 * (3 * 2 * 2 * 3 + 3 * 8)),
        (cp(KERNEL, 2), 30 * 6 * 2 + 20 * 3 * 2 + 16 * 2 * 2 + 16 * 2 * 8),
        (
            R.Sum(low_rank(KERNEL, 1), cp(KERNEL, 1)),
            16 * (3 * 2 * 6 + 8) + 30 * 6 + 20 * 3 + 16 * 2 + 16 * 8,
        ),
    ],
    ids=lambda x: type(x).__name__,
)
def test_convolutions_with_strides_padding_and_dilation(kernel, by_hand):
    x = normal(1, 6, 5, 6)
    params = {"kernel": kernel}
    assert convolve(dense(params)["kernel"], x).shape == (1, 4, 4, 8)
    ours = agree(lambda p, x: convolve(p["kernel"], x), params, x)
    (row,) = program.factored(lambda p, x: convolve(p["kernel"], x))(params, x)
    assert row.factored and row.macs == macs(ours, params, x) == by_hand
    assert row.dense_macs == 4 * 4 * 3 * 2 * 6 * 8


@pytest.mark.slow
def test_a_cnn():
    module = models.build("cnn", classes=4, widths=(8, 12), depth=1)
    params, variables = models.init(module, jax.random.key(0), (8, 8, 1))
    flat = tree.flatten(params)
    kernels = [p for p, x in flat.items() if x.ndim == 4]
    params = tree.replace(
        params,
        {
            kernels[0]: cp(flat[kernels[0]].shape, 2),
            kernels[1]: tucker(flat[kernels[1]].shape, 3, 4),
        },
    )
    apply, x = models.make_apply(module), normal(2, 8, 8, 1)
    ours = agree(apply, params, variables, x, **PLAIN)
    rows = program.factored(apply)(params, variables, x, **PLAIN)
    assert [row.path for row in rows if row.factored][-1] == kernels[1]
    whole = macs(functools.partial(apply, **PLAIN), dense(params), variables, x)
    kept = program.keep_factors(apply)(wrapped(params), variables, x, **PLAIN)
    saved = sum(row.dense_macs - row.macs for row in rows)
    assert saved > 0 and macs(ours, kept, variables, x) == whole - saved


@pytest.mark.slow
def test_attention_projections():
    module = models.build(
        "transformer", classes=3, layers=1, width=16, heads=2, patch=4, expansion=2
    )
    params, variables = models.init(module, jax.random.key(0), (8, 8, 1))
    kernels = {
        path: low_rank(x.shape, 2)
        for path, x in tree.flatten(params).items()
        if path.endswith("kernel") and "block" in path
    }
    params = tree.replace(params, kernels)
    apply, x = models.make_apply(module), normal(2, 8, 8, 1)
    agree(apply, params, variables, x, **PLAIN)
    rows = {r.path: r for r in program.factored(apply)(params, variables, x, **PLAIN)}
    assert set(rows) == set(kernels)
    # query: [16, 2, 8] = u [16, 2, 2] v [2, 8], of 2 x 4 tokens.
    query = rows["block_0/attention/query/kernel"]
    assert query.factored
    assert (query.macs, query.dense_macs) == (8 * (16 * 4 + 2 * 2 * 8), 8 * 16 * 16)
    out = rows["block_0/attention/out/kernel"]  # u [2, 8, 2], v [2, 16]
    assert (out.macs, out.dense_macs) == (8 * (16 * 2 + 2 * 16), 8 * 16 * 16)


def test_weights_on_the_left():
    w = low_rank((6, 5, 8), 2)

    def f(params, x):
        left = jnp.einsum("abk,nb->akn", params["w"], x)
        return left, jnp.einsum("na,abk->bnk", x[:, :1] @ jnp.ones((1, 6)), params["w"])

    ours = agree(f, {"w": w}, normal(4, 5))
    (row,) = program.factored(f)({"w": w}, normal(4, 5))
    assert row.factored and len(row.sites) == 2
    assert macs(ours, {"w": w}, normal(4, 5)) == row.macs + 4 * 6


def dot(params, x):
    return x @ params["w"]


SQUARE = low_rank((8, 8), 1)
X = normal(4, 8)


def elsewhere(params, x):
    return x @ params["w"], jnp.sum(params["w"] ** 2)


def returned(params, x):
    return dot(params, x), params["w"]


def transposed(params, x):
    return lax.dot_general(x, params["w"], (((1,), (1,)), ((), ())))


def each(params, x):
    return lax.dot_general(x, params["w"], (((1,), (1,)), ((0,), (0,))))


def carried(params, x):
    return lax.scan(lambda w, _: (0.5 * w, x @ w), params["w"], None, length=2)[1]


def sliced(params, x):
    return lax.scan(lambda x, w: (x @ w, None), x, params["w"])[0]


def grouped(params, x):
    return lax.conv_general_dilated(
        x,
        params["w"],
        (1, 1),
        "SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=2,
    )


def outputs_first(params, x):
    w = params["w"]
    return convolve(w, x, ("NHWC", "OHWI", "NHWC"))


def squared(params, x):
    return x @ (params["w"] @ params["w"])


@pytest.mark.parametrize(
    ("f", "w", "x", "why"),
    [
        (elsewhere, SQUARE, X, "uses it, which is no contraction"),
        (returned, SQUARE, X, "the result uses it, which is no contraction"),
        (transposed, SQUARE, X, "dot_general sums over its last axis"),
        (each, low_rank((4, 8, 8), 1), X, "dot_general has a weight for each example"),
        (carried, SQUARE, X, "scan uses it, which is no contraction"),
        (sliced, low_rank((3, 8, 8), 1), X, "scan uses it, which is no contraction"),
        (
            grouped,
            low_rank((3, 3, 4, 8), 1),
            normal(1, 4, 4, 8),
            "conv_general_dilated is a convolution in groups",
        ),
        (
            outputs_first,
            tucker((6, 3, 2, 4), 1, 1),
            normal(1, 6, 5, 4),
            "conv_general_dilated has its channels on other axes than Tucker",
        ),
        (
            lambda p, x: jnp.einsum("na,hwab->nhwb", x, p["w"]),
            cp((2, 2, 8, 8), 1),
            X,
            "CP is of a convolution",
        ),
        (squared, SQUARE, X, "both operands of dot_general are products"),
        (lambda p, x: x + 0, SQUARE, X, "nothing uses it"),
    ],
)
def test_what_is_multiplied_out_and_why(f, w, x, why):
    (row,) = program.factored(f)({"w": w}, x)
    assert not row.factored and why in row.why
    assert row.macs == row.dense_macs
    agree(f, {"w": w}, x)


def test_two_products_that_meet():
    params = {"a": SQUARE, "b": low_rank((8, 8), 1)}

    def f(params, x):
        return x @ (params["a"] @ params["b"])

    rows = program.factored(f)(params, X)
    assert [row.factored for row in rows] == [False, False]
    agree(f, params, X)


@pytest.mark.slow
def test_through_jit_remat_scan_cond_and_while():
    params = {"w": SQUARE}

    def f(params, x):
        w = params["w"]
        x = jax.jit(lambda w, x: jnp.tanh(x @ w))(w, x)
        x = jax.checkpoint(lambda w, x: jnp.tanh(x @ w))(w, x)
        x, _ = lax.scan(lambda x, _: (jnp.tanh(x @ w), None), x, None, length=3)
        x = lax.cond(x[0, 0] > 0, lambda x: x @ w, lambda x: (x @ w) * 2, x)
        turns = lambda s: (s[0] + 1, jnp.tanh(s[1] @ w))  # noqa: E731
        return lax.while_loop(lambda s: s[0] < 2, turns, (0, x))[1]

    ours = agree(f, params, X)
    (row,) = program.factored(f)(params, X)
    assert row.factored and len(row.sites) == 6
    # Three turns of the scan, both branches, one turn of the while.
    assert row.macs == macs(ours, params, X) == 8 * 4 * (8 + 8)

    def loss(run, params):
        return jnp.sum(run(params, X))

    def short(params, x):
        w = params["w"]
        x = jax.checkpoint(lambda w, x: jnp.tanh(x @ w))(w, x)
        return lax.scan(lambda x, _: (jnp.tanh(x @ w), None), x, None, length=3)[0]

    found = jax.grad(lambda p: loss(program.run_factored(short), p))(params)
    wanted = jax.grad(lambda p: loss(short, {"w": p["w"].u @ p["w"].v}))(params)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
        found,
        wanted,
    )


class Block(nn.Module):
    @nn.compact
    def __call__(self, x, _):
        return nn.tanh(nn.Dense(4, name="fc")(x)), None


@pytest.mark.slow
def test_scanned_layers_are_multiplied_out():
    stack = nn.scan(
        Block, variable_axes={"params": 0}, split_rngs={"params": True}, length=3
    )()
    x = normal(2, 4)
    params = stack.init(jax.random.key(0), x, None)["params"]
    params = tree.replace(params, {"fc/kernel": low_rank((3, 4, 4), 1)})

    def f(params, x):
        return stack.apply({"params": params}, x, None)[0]

    agree(f, params, x)
    (row,) = program.factored(f)(params, x)
    assert "scan uses it" in row.why


def test_activations_are_rounded_once_where_the_layer_begins():
    apply, params, variables = mlp()
    x = normal(5, 6, 6, 1)
    apply = functools.partial(apply, **PLAIN)
    rules = [(".", {"bits": 8, "symmetric": False})]
    ranges = program.calibrate(apply, dense(params), [(variables, x)], program.minmax())
    agree(program.fake_quantize(apply, ranges, rules), params, variables, x)


def test_other_representations_and_ties():
    w = np.asarray(normal(8, 8))
    mask = RNG.random((8, 8)) < 0.5
    params = {
        "a": R.LowRank(R.Dense(w[:, :1]), R.Dense(w[:1])),
        "b": R.Tied("a"),
        "c": R.sparse(mask, R.Dense(w)),
        "d": R.sparse(mask, R.LowRank(R.Dense(w[:, :1]), R.Dense(w[:1]))),
        "e": R.Sum(
            R.LowRank(R.Dense(w[:, :1]), R.Dense(w[:1])), R.sparse(mask, R.Dense(w))
        ),
        "f": w,
    }

    def f(params, x):
        return [x @ params[name] for name in params]

    rows = {row.path: row for row in program.factored(f)(params, X)}
    assert {p: row.factored for p, row in rows.items()} == {
        "a": True,
        "b": True,
        "e": False,
    }
    wanted = f(R.thaw(params), X)
    kept = program.keep_factors(f)(params, X)
    assert [type(kept[p]).__name__ for p in "abcde"][:2] == ["LowRank"] * 2
    for run in (program.run_factored(f)(params, X), program.run_factored(f)(kept, X)):
        for a, b in zip(run, wanted, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


def test_without_products_it_is_the_function_itself():
    params = {"w": normal(8, 8)}
    ours = program.run_factored(dot)
    np.testing.assert_array_equal(ours(params, X), dot(params, X))
    assert program.factored(dot)(params, X) == []
    # Params need not be a dict.
    np.testing.assert_array_equal(program.run_factored(jnp.dot)(X, X.T), X @ X.T)
    low = program.run_factored(lambda w, x: x @ w)(SQUARE, X)
    np.testing.assert_allclose(low, X @ (SQUARE.u @ SQUARE.v), rtol=1e-4, atol=1e-5)
