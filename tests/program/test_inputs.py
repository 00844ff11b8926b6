"""The inputs that meet each weight, against activations computed by hand."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from lib import errors, models
from lib.program import accumulate, gram, inputs, sites, square_norm, unfed


def normal(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape)


def both(x):
    return {"gram": gram(x), "norm": square_norm(x)}


def check(found, x):
    """The statistics are those of the rows `x`, computed in float64."""
    x = np.asarray(x, np.float64)
    x = x.reshape(-1, x.shape[-1])
    np.testing.assert_allclose(found["gram"], x.T @ x, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(found["norm"], (x**2).sum(0), rtol=1e-4, atol=1e-5)


def patches(x, window, strides, padding, dilation=(1, 1)):
    """Naive im2col: [B, H, W, C] -> [rows, h * w * C], zeros outside."""
    x = np.pad(np.asarray(x), ((0, 0), *padding, (0, 0)))
    kh, kw = window
    span = [(k - 1) * d + 1 for k, d in zip(window, dilation, strict=True)]
    rows = []
    for image in x:
        for i in range(0, x.shape[1] - span[0] + 1, strides[0]):
            for j in range(0, x.shape[2] - span[1] + 1, strides[1]):
                taps = [
                    image[i + a * dilation[0], j + b * dilation[1]]
                    for a in range(kh)
                    for b in range(kw)
                ]
                rows.append(np.concatenate(taps))
    return np.stack(rows)


def test_mlp():
    module = models.build("mlp", classes=3, widths=(5, 4))
    params, variables = models.init(module, jax.random.key(0), (2, 3, 1))
    images = normal(1, 7, 2, 3, 1)
    apply = models.make_apply(module)
    options = dict(train=False, key=None)
    (_, features), _ = apply(params, variables, images, **options)
    found = jax.jit(lambda p, x: inputs(apply, both)(p, variables, x, **options))(
        params, images
    )
    assert set(found) == {"dense_0/kernel", "dense_1/kernel", "logits/kernel"}
    check(found["dense_0/kernel"], images.reshape(7, -1))
    check(found["dense_1/kernel"], features["dense_0"])
    check(found["logits/kernel"], features["dense_1"])
    left = unfed(apply)(params, variables, images, **options)
    assert {m.name for m in left} == {f"{n}/bias" for n in params}
    assert {m.why for m in left} == {"enters no contraction as it is"}

    # Added up over batches it is the whole.
    halves = ((variables, images[:3]), (variables, images[3:]))
    total = accumulate(apply, both, params, halves, pattern="dense_1", **options)
    assert list(total) == ["dense_1/kernel"]
    check(total["dense_1/kernel"], features["dense_0"])


CONVOLUTIONS = [
    ("SAME", (1, 1), (1, 1), ((1, 1), (0, 1))),
    ("SAME", (2, 2), (1, 1), ((1, 1), (0, 0))),
    ("VALID", (1, 2), (1, 1), ((0, 0), (0, 0))),
    ("VALID", (1, 1), (2, 1), ((0, 0), (0, 0))),
    (((2, 0), (1, 3)), (2, 1), (1, 2), ((2, 0), (1, 3))),
]


@pytest.mark.slow
@pytest.mark.parametrize("padding, strides, dilation, pads", CONVOLUTIONS)
def test_convolution(padding, strides, dilation, pads):
    conv = nn.Conv(
        4, (3, 2), strides=strides, padding=padding, kernel_dilation=dilation
    )
    x = normal(0, 2, 5, 6, 3)
    params = conv.init(jax.random.key(1), x)["params"]

    def f(params, x):
        return conv.apply({"params": params}, x)

    found = inputs(f, both)(params, x)
    rows = patches(x, (3, 2), strides, pads, dilation)
    check(found["kernel"], rows)
    # The order is the kernel's: rows @ kernel is what the layer computes.
    product = rows @ np.asarray(params["kernel"]).reshape(-1, 4)
    out = np.asarray(f(params, x) - params["bias"][None, None, None, :])
    np.testing.assert_allclose(product.reshape(out.shape), out, atol=1e-5)


@pytest.mark.parametrize(
    "groups, outputs", [(2, 4), pytest.param(6, 3, marks=pytest.mark.slow)]
)
def test_a_convolution_in_groups_has_one_statistic_a_group(groups, outputs):
    """Depthwise or not, in each turn of a scan: as if each group were alone."""
    width = 2 * 3  # features
    x = normal(0, 2, 5, 4, width)
    kernels = normal(1, 2, 3, 2, width // groups, groups * outputs)

    def f(params, x):
        def turn(total, w):
            out = lax.conv_general_dilated(
                x,
                w,
                (2, 1),
                ((1, 1), (0, 1)),
                dimension_numbers=("NHWC", "HWIO", "NHWC"),
                feature_group_count=groups,
            )
            return total + jnp.mean(out), out

        return lax.scan(turn, 0.0, params["w"])

    found = inputs(f, both)({"w": kernels}, x)["w"]
    assert found["norm"].shape == (2, groups, 3 * 2 * width // groups)
    _, outs = f({"w": kernels}, x)
    for g in range(groups):
        mine = slice(g * width // groups, (g + 1) * width // groups)
        rows = patches(x[..., mine], (3, 2), (2, 1), ((1, 1), (0, 1)))
        for turn in range(2):
            check(jax.tree.map(lambda s, t=turn, g=g: s[t, g], found), rows)
            own = slice(g * outputs, (g + 1) * outputs)
            w = np.asarray(kernels)[turn, ..., own].reshape(-1, outputs)
            out = np.asarray(outs)[turn, ..., own].reshape(-1, outputs)
            np.testing.assert_allclose(rows @ w, out, atol=1e-4)


@pytest.mark.slow
def test_any_layout_of_a_convolution():
    """Channels first, the input dilated, as in a transposed convolution."""
    w, x = normal(0, 2, 3, 3, 4), normal(1, 2, 3, 4, 4)  # HWIO, NCHW

    def f(params, x):
        return lax.conv_general_dilated(
            x,
            params["w"].transpose((3, 2, 0, 1)),
            (1, 1),
            ((0, 0), (0, 0)),
            lhs_dilation=(2, 1),
        )

    found = inputs(f, both)({"w": w}, x)
    wide = np.zeros((2, 7, 4, 3))
    wide[:, ::2] = np.asarray(x).transpose(0, 2, 3, 1)
    check(found["w"], patches(wide, (2, 3), (1, 1), ((0, 0), (0, 0))))


@pytest.mark.slow
def test_attention():
    """A projection's contraction is one axis of three, the output's is two."""
    layer = nn.MultiHeadDotProductAttention(num_heads=2)
    x = normal(0, 3, 5, 4)
    variables = layer.init(jax.random.key(1), x)
    _, seen = layer.apply(
        variables,
        x,
        capture_intermediates=True,
        mutable=["intermediates"],
    )
    params = variables["params"]

    def f(params, x):
        return layer.apply({"params": params}, x)

    found = inputs(f, both, pattern="kernel")(params, x)
    assert set(found) == {f"{n}/kernel" for n in ("query", "key", "value", "out")}
    for name in ("query", "key", "value"):
        check(found[f"{name}/kernel"], x)
    q, k, v = (
        np.asarray(seen["intermediates"][n]["__call__"][0])
        for n in ("query", "key", "value")
    )
    scores = np.einsum("bqhd,bkhd->bhqk", q, k) / np.sqrt(2)
    scores = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
    mixed = np.einsum("bhqk,bkhd->bqhd", scores, v)
    check(found["out/kernel"], mixed.reshape(3, 5, 4))


def test_a_weight_is_followed_through_what_only_moves_it():
    """Cast, reshaped, transposed, in a call: each row keeps its place."""
    w, x = normal(0, 2, 3, 4), normal(1, 5, 6)

    @jax.jit
    def turned(w):
        return w.astype(jnp.bfloat16).reshape(6, 4).T

    def f(params, x):
        seen = jnp.flip(x, 1).reshape(5, 3, 2)  # of other axes, in another order
        moved = turned(params["w"]).reshape(4, 2, 3).transpose(2, 0, 1)
        return jnp.einsum("bji,jki->bk", seen.astype(jnp.bfloat16), moved)

    found = inputs(f, both)({"w": w}, x)["w"]
    seen = np.flip(np.asarray(x.astype(jnp.bfloat16), np.float64), 1).reshape(5, 3, 2)
    check(found, seen.transpose(0, 2, 1).reshape(5, 6))


def test_shared_and_scanned_weights():
    """Places and turns add up; of slices there is one statistic each."""
    params = {"shared": normal(0, 3, 3), "each": normal(1, 4, 3, 3)}
    x = normal(2, 2, 3)

    def scanned(params, x):
        def turn(x, w):
            return jnp.tanh(jnp.tanh(x @ params["shared"]) @ w), None

        return lax.scan(turn, x, params["each"], reverse=True)[0] @ params["shared"]

    found = jax.jit(inputs(scanned, both))(params, x)
    shared, each = [], []
    now = np.asarray(x)
    for w in np.asarray(params["each"])[::-1]:
        shared.append(now)
        now = np.tanh(now @ np.asarray(params["shared"]))
        each.append(now)
        now = np.tanh(now @ w)
    check(found["shared"], np.concatenate([*shared, now]))
    for i, seen in enumerate(each[::-1]):
        check(jax.tree.map(lambda s, i=i: s[i], found["each"]), seen)
    assert found["each"]["gram"].shape == (4, 3, 3)


@pytest.mark.slow
def test_what_cannot_be_observed_is_listed_with_the_reason():
    names = "tied turned both other whole pruned branch plain grouped"
    params = {name: normal(i, 4, 4) for i, name in enumerate(names.split())}
    params["grouped"] = normal(20, 2, 2, 4, 4)
    params["whole"] = normal(22, 2, 4, 4)

    def f(params, x):
        out = x @ params["plain"] + x @ params["turned"].T
        out += x @ (params["both"] @ params["pruned"])
        out += x @ jnp.where(params["pruned"] > 0, params["pruned"], 0)
        out += lax.cond(x.sum() > 0, lambda x: x @ params["branch"], lambda x: x, x)
        # It can be read in one place, but not in another.
        out += (x @ params["tied"]) @ params["tied"].T
        images = jnp.stack([x] * 4, 1)[:, :, None, :]
        out += lax.conv_general_dilated(
            images,
            params["grouped"],
            (1, 1),
            "SAME",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            batch_group_count=2,
        )[:, 0, 0]
        out, _ = lax.scan(lambda x, w: (x @ w, None), out, params["whole"])
        return out + jnp.tile(x, 2) @ params["whole"].reshape(8, 4)

    x = normal(9, 2, 4)
    assert set(inputs(f, square_norm)(params, x)) == {"plain"}
    left = {m.name: m.why for m in unfed(f)(params, x)}
    assert set(left) == set(params) - {"plain"}
    other = "it is contracted over other than its leading axes"
    for name, why in {
        "turned": other,
        "tied": other,
        "whole": "it is used both whole and in the slices of a scan",
        "both": "it meets no data: both operands are weights",
        "branch": "inside a while or cond, which no statistics can leave",
        "grouped": "a convolution whose batch is in 2 groups, one a kernel",
    }.items():
        assert left[name].endswith(why), (name, left[name])
    assert left["other"] == "enters no contraction as it is"


def test_a_batched_kernel_is_refused():
    def f(params, x):
        return jax.vmap(jnp.matmul)(x, params["w"])

    params, x = {"w": normal(0, 3, 4, 2)}, normal(1, 3, 5, 4)
    assert inputs(f, square_norm)(params, x) == {}
    (left,) = unfed(f)(params, x)
    assert "each of its kernels has an input of its own" in left.why


@pytest.mark.slow
def test_the_program_is_only_read(case):
    """Whatever the program, what is observed has the weight's rows."""
    if "loops" in case.f.__name__ or not case.params:
        pytest.skip("its weights meet data in branches alone")
    found = jax.eval_shape(case.call(inputs(case.f, square_norm)), case.params, case.x)
    args = (case.params, case.x, *case.rest)
    assert found or not sites(case.f)(*args, **case.kwargs)
    shapes = {
        jax.tree_util.keystr(p, simple=True, separator="/"): w.shape
        for p, w in jax.tree_util.tree_leaves_with_path(case.params)
    }
    for path, norm in found.items():
        if norm.ndim == 1:
            assert int(np.prod(shapes[path])) % norm.shape[0] == 0
        else:  # a turn of a scan each, or a group of a convolution
            turns, groups = shapes[path][0], norm.shape[0]
            assert groups == turns or shapes[path][-1] % groups == 0
    listed = {m.name for m in unfed(case.f)(*args, **case.kwargs)}
    assert listed == set(shapes) - set(found)


def test_mistakes():
    def f(params, x):
        return x @ params["kernel"]

    params, x = {"kernel": jnp.ones((2, 2))}, jnp.ones((3, 2))
    with pytest.raises(errors.UserError, match="rule 'kernal' matches nothing"):
        inputs(f, gram, pattern="kernal")(params, x)
    with pytest.raises(errors.UserError, match="got no batches"):
        accumulate(f, gram, params, [])
    with pytest.raises(errors.UserError, match="input of kernel holds NaN"):
        accumulate(f, gram, params, [(x.at[0, 0].set(jnp.nan),)])
