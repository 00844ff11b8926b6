import functools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest
from jax import lax
from jax.experimental import io_callback
from jax.sharding import PartitionSpec as P

from lib.program import missed, sites

W = jax.ShapeDtypeStruct((4, 4), jnp.float32)
X = jax.ShapeDtypeStruct((2, 4), jnp.float32)


def by_name(f, *args, **kwargs):
    return {site.name: site for site in sites(f)(*args, **kwargs)}


def abstract(module, *shape, **kwargs):
    x = jax.ShapeDtypeStruct(shape, jnp.float32)
    return jax.eval_shape(lambda x: module.init(jax.random.key(0), x, **kwargs), x), x


@pytest.mark.slow
def test_names(case):
    found = sites(case.f)(case.params, case.x, *case.rest, **case.kwargs)
    assert tuple(site.name for site in found) == case.names
    assert missed(case.f)(case.params, case.x, *case.rest, **case.kwargs) == []


def test_nothing_is_computed_and_names_do_not_depend_on_the_caller():
    def f(w, x):
        return (x @ w).sum()

    def outer(w, x):
        names.append([site.name for site in sites(f)(w, x)])
        return f(w, x)

    names = []
    jax.eval_shape(outer, W, X)
    with jax.named_scope("caller"):
        jax.eval_shape(
            jax.vmap(jax.grad(outer), (None, 0)), W, X.update(shape=(5, 2, 4))
        )
    assert names == [["dot_general"]] * 2


def test_macs_of_an_mlp():
    module = nn.Sequential(
        [nn.Dense(300), nn.relu, nn.Dense(100), nn.relu, nn.Dense(10)]
    )
    params, x = abstract(module, 32, 784)
    found = sites(module.apply)(params, x)
    assert [s.macs for s in found] == [32 * 784 * 300, 32 * 300 * 100, 32 * 100 * 10]
    assert all(s.rhs_is_weight and not s.lhs_is_weight for s in found)
    assert found[0].out.shape == (32, 300) and found[0].repeats == 1


@pytest.mark.parametrize(
    ("settings", "out", "macs"),
    [
        ({"padding": "VALID"}, (2, 8, 7, 16), 2 * 8 * 7 * 16 * 3 * 4 * 12),
        ({"padding": "SAME"}, (2, 10, 10, 16), 2 * 100 * 16 * 3 * 4 * 12),
        ({"padding": "SAME", "strides": 2}, (2, 5, 5, 16), 2 * 25 * 16 * 12 * 12),
        ({"feature_group_count": 4}, (2, 10, 10, 16), 2 * 100 * 16 * 12 * 3),
        ({"kernel_dilation": 2}, (2, 10, 10, 16), 2 * 100 * 16 * 12 * 12),
    ],
)
def test_macs_of_convolutions(settings, out, macs):
    module = nn.Conv(16, (3, 4), **settings)
    params, x = abstract(module, 2, 10, 10, 12)
    (site,) = sites(module.apply)(params, x)
    assert (site.primitive, site.out.shape, site.macs) == (
        "conv_general_dilated",
        out,
        macs,
    )
    assert site.activations == ("lhs",)


def test_macs_of_depthwise_and_one_dimensional_convolutions():
    module = nn.Conv(24, (3, 3), feature_group_count=12)  # two filters a channel
    params, x = abstract(module, 2, 10, 10, 12)
    assert sites(module.apply)(params, x)[0].macs == 2 * 100 * 24 * 9
    module = nn.Conv(8, (5,), padding="VALID")
    params, x = abstract(module, 3, 20, 7)
    assert sites(module.apply)(params, x)[0].macs == 3 * 16 * 8 * 5 * 7


def test_macs_of_attention():
    batch, length, width, heads = 3, 7, 8, 2
    module = nn.MultiHeadDotProductAttention(num_heads=heads)
    params, x = abstract(module, batch, length, width)
    found = sites(module.apply)(params, x)
    projection = batch * length * width * width
    scores = batch * heads * length * length * (width // heads)
    assert [s.macs for s in found] == [projection] * 3 + [scores] * 2 + [projection]
    sides = [s.activations for s in found]
    both = ("lhs", "rhs")
    assert [sorted(s) for s in sides[3:5]] == [list(both)] * 2
    assert all(len(s) == 1 for s in (*sides[:3], sides[5]))


def test_macs_of_scans_count_every_turn():
    def f(w, x):
        def outer(x, _):
            return lax.scan(lambda x, _: (x @ w, None), x @ w, None, length=5)

        return lax.scan(outer, x @ w, None, length=3)[0]

    once, three, fifteen = sites(f)(W, X)
    assert [s.macs for s in (once, three, fifteen)] == [32, 3 * 32, 15 * 32]
    assert [s.scans for s in (once, three, fifteen)] == [(), (3,), (3, 5)]
    assert [s.repeats for s in (once, three, fifteen)] == [1, 3, 15]


def test_what_depends_on_weights_alone():
    table = jnp.ones((4, 4))

    def f(params, x, index):
        w, u = params["w"], params["u"]
        with jax.named_scope("factors"):
            merged = jnp.tanh(u @ w)
        with jax.named_scope("merged"):
            x = x @ merged
        with jax.named_scope("constant"):
            x = x @ table
        with jax.named_scope("gathered"):
            x = x @ w[index]  # which rows is data
        with jax.named_scope("swapped"):
            return w @ x.T

    args = {"w": W, "u": W}, X, jax.ShapeDtypeStruct((4,), jnp.int32)
    weights = {s.name: (s.lhs_is_weight, s.rhs_is_weight) for s in sites(f)(*args)}
    assert weights == {
        "factors": (True, True),
        "merged": (False, True),
        "constant": (False, True),
        "gathered": (False, False),
        "swapped": (True, False),
    }


def test_dependence_runs_round_the_loops():
    def f(params, x, flag):
        w, v = params

        def rotate(carry, row):
            a, b, c = carry  # data enters c, and reaches b, then a, turns later
            with jax.named_scope("turn"):
                _ = None
                out = (v @ a).sum()
            return (b, c, c + row.sum()), out

        carry, _ = lax.scan(rotate, (w, w, w), x)
        kept, _ = lax.scan(lambda c, _: (jnp.sin(c @ v), None), w, None, length=2)
        with jax.named_scope("kept"):
            y = x @ kept
        chosen = lax.cond(flag, lambda: w, lambda: v)
        with jax.named_scope("chosen"):
            y = y @ chosen
        counted = lax.while_loop(
            lambda c: c[0] < x.sum(), lambda c: (c[0] + 1, c[1] * 2), (0.0, w)
        )
        with jax.named_scope("counted"):
            y = y @ counted[1]
        fixed = lax.while_loop(
            lambda c: c[0] < v[0, 0], lambda c: (c[0] + 1, c[1] * 2), (0.0, w)
        )
        with jax.named_scope("fixed"):
            return y @ fixed[1]

    found = by_name(f, (W, W), X, jax.ShapeDtypeStruct((), jnp.bool))
    assert found["turn"].lhs_is_weight and not found["turn"].rhs_is_weight
    assert {n: s.rhs_is_weight for n, s in found.items() if n != "turn"} == {
        "dot_general": True,
        "kept": True,
        "chosen": False,
        "counted": False,
        "fixed": True,
    }


def test_keyword_arrays_are_data_and_params_may_be_anything():
    def f(params, *, x, flag):
        return x @ params if flag else params @ params

    (site,) = sites(f)(W, x=X, flag=True)
    assert site.activations == ("lhs",)
    (site,) = sites(f)(W, x=X, flag=False)
    assert site.activations == ()
    (site,) = sites(lambda params, x: x @ x.T)(None, X)
    assert site.activations == ("lhs", "rhs")


def test_what_a_callback_returns_is_data():
    def f(w):
        return w @ io_callback(lambda: None, W)

    (site,) = sites(f)(W)
    assert site.lhs_is_weight and not site.rhs_is_weight


def test_integers_are_no_activations():
    ids = jax.ShapeDtypeStruct((2, 4), jnp.int32)
    (site,) = sites(lambda w, x: x @ w)(ids.update(shape=(4, 4)), ids)
    assert not site.lhs_is_weight and site.activations == ()


def test_sites_say_what_is_around_them():
    def f(w, x):
        x = lax.while_loop(lambda x: x.sum() < 1, lambda x: x @ w, x)

        def turn(x, _):
            return lax.cond(x.sum() > 0, lambda x: x @ w, lambda x: x, x), None

        return lax.scan(turn, x, None, length=3)[0] @ w

    found = sites(f)(W, X)
    assert [s.around for s in found] == [("while",), ("scan", "cond"), ()]
    assert [s.recordable for s in found] == [False, False, True]


def test_what_is_left_whole_is_listed_with_its_reason():
    @jax.custom_vjp
    def square(w, x):
        return jnp.tanh(x @ w) @ w

    square.defvjp(lambda w, x: (square(w, x), w), lambda w, g: (w, g))

    @jax.custom_jvp
    def once(x):
        return x @ x.T

    once.defjvp(lambda p, t: (once(*p), once(*t)))
    mesh = jax.sharding.Mesh(jax.devices()[:1], ("d",))

    @functools.partial(jax.shard_map, mesh=mesh, in_specs=P("d"), out_specs=P("d"))
    def local(x):
        return x @ jnp.ones((4, 4))

    def f(w, x):
        with jax.named_scope("here"):
            x = square(w, x)
        x = lax.scan(lambda x, _: (local(x), None), x, None, length=2)[0]

        def until(x):
            return lax.while_loop(lambda x: x.sum() < 3, lambda x: x @ w, x)

        with jax.named_scope("until"):
            x = jax.vmap(until)(x)
        ragged = lax.ragged_dot(x, w[None], jnp.array([2]))
        with jax.named_scope("last"):
            return once(x) @ ragged

    found = missed(f)(W, X)
    assert [m.primitive for m in found] == [
        "custom_vjp_call",
        "shard_map",
        "while",
        "ragged_dot_general",
        "custom_jvp_call",
    ]
    names = [m.name for m in found]
    assert names[:2] == ["here", "shard_map"] and names[3:] == names[3:4] + ["last"]
    assert "until" in names[2]
    rule = "2 contractions inside, left whole to keep its own derivative rule"
    assert found[0].why == rule
    assert found[1].why.startswith("1 contraction inside, and no rule")
    assert "own number of turns" in found[2].why
    assert [s.name for s in sites(f)(W, X)] == ["last"]


def test_branches_chosen_by_platform_are_left_whole():
    def f(w, x):
        return lax.platform_dependent(
            x, cpu=lambda x: x @ w, default=lambda x: (x * 2) @ w
        )

    (part,) = missed(f)(W, X)
    assert (part.primitive, "by platform" in part.why) == ("cond", True)


def test_totals_of_a_known_network():
    # LeNet-5 as in Caffe, by hand: 20 and 50 filters of 5 x 5, then 500 and 10.
    class LeNet(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.max_pool(nn.Conv(20, (5, 5), padding="VALID")(x), (2, 2), (2, 2))
            x = nn.max_pool(nn.Conv(50, (5, 5), padding="VALID")(x), (2, 2), (2, 2))
            x = nn.relu(nn.Dense(500)(x.reshape(x.shape[0], -1)))
            return nn.Dense(10)(x)

    params, x = abstract(LeNet(), 1, 28, 28, 1)
    macs = [s.macs for s in sites(LeNet().apply)(params, x)]
    assert macs == [288_000, 1_600_000, 400_000, 5_000]
    assert sum(macs) == 2_293_000 == math.fsum(macs)
