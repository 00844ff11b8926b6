import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.extend.core import primitives
from jax.sharding import PartitionSpec as P

from lib.program import missed, rewrite, sites


def identity(site, lhs, rhs, bind):
    return bind(lhs, rhs)


def total(f):
    """Returns a scalar function: the weighted sum of all real outputs."""

    def scalar(*args):
        leaves = jax.tree.leaves(f(*args))
        real = [x for x in leaves if jnp.issubdtype(x.dtype, jnp.floating)]
        return sum(
            (x * jnp.cos(jnp.arange(x.size)).reshape(x.shape)).sum() for x in real
        )

    return scalar


def equal(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert x.dtype == y.dtype and x.shape == y.shape
        np.testing.assert_array_equal(np.asarray(x), np.asarray(y))


def test_identity_is_the_plain_function_bit_for_bit(case):
    plain, ours = case.call(case.f), case.call(rewrite(case.f, identity))
    equal(jax.jit(plain)(case.params, case.x), jax.jit(ours)(case.params, case.x))


@pytest.mark.slow
def test_identity_has_the_plain_gradients_bit_for_bit(case):
    plain, ours = case.call(case.f), case.call(rewrite(case.f, identity))
    args = case.params, case.x
    if case.reverse:
        plain = jax.grad(total(plain), argnums=(0, 1))
        ours = jax.grad(total(ours), argnums=(0, 1))
        equal(jax.jit(plain)(*args), jax.jit(ours)(*args))
    else:
        expected = jax.jit(lambda *a: jax.jvp(plain, a, a))(*args)
        equal(expected, jax.jit(lambda *a: jax.jvp(ours, a, a))(*args))


@pytest.mark.slow
def test_identity_is_the_plain_function_under_vmap(case):
    plain, ours = case.call(case.f), case.call(rewrite(case.f, identity))
    xs = jnp.stack([case.x, case.x * 0.5, -case.x])
    over = {"in_axes": (None, 0)}
    equal(
        jax.jit(jax.vmap(plain, **over))(case.params, xs),
        jax.jit(jax.vmap(ours, **over))(case.params, xs),
    )


def test_every_site_is_handed_over_once_under_its_name(case):
    seen = []

    def note(site, lhs, rhs, bind):
        assert (lhs.shape, rhs.shape) == (site.lhs.shape, site.rhs.shape)
        seen.append(site.name)
        return bind(lhs, rhs)

    f = case.call(rewrite(case.f, note))
    jax.eval_shape(f, case.params, case.x)
    # Control flow may trace its body more than once; a site is the same each time.
    assert tuple(dict.fromkeys(seen)) == case.names
    seen.clear()
    if case.reverse:
        jax.eval_shape(jax.grad(total(f)), case.params, case.x)
        assert tuple(dict.fromkeys(seen)) == case.names


def test_names_survive_a_rewrite(case):
    f = rewrite(rewrite(case.f, identity), identity)
    found = sites(f)(case.params, case.x, *case.rest, **case.kwargs)
    assert tuple(site.name for site in found) == case.names


def test_a_second_jitted_call_traces_nothing(case):
    count = []

    def counted(*args, **kwargs):
        count.append("f")
        return case.f(*args, **kwargs)

    def handler(site, lhs, rhs, bind):
        count.append(site.name)
        return bind(lhs, rhs)

    f = jax.jit(case.call(rewrite(counted, handler)))
    f(case.params, case.x)
    first = len(count)
    f(case.params, case.x * 2)
    assert len(count) == first
    assert f._cache_size() <= 1


def test_the_handler_decides_what_comes_out():
    w, v = jnp.full((3, 4), 0.5), jnp.full((4, 2), -1.0)

    def f(params, x):
        with jax.named_scope("first"):
            x = x @ params[0]
        with jax.named_scope("second"):
            return x @ params[1]

    def handler(site, lhs, rhs, bind):
        return bind(lhs + 1, rhs) if site.name == "second" else bind(lhs, rhs) * 3

    x = np.arange(6.0, dtype=np.float32).reshape(2, 3)
    got = jax.jit(rewrite(f, handler))((w, v), x)
    np.testing.assert_allclose(got, (x @ np.asarray(w) * 3 + 1) @ np.asarray(v))


def test_the_handler_reaches_loops_and_branches():
    def f(w, x, n):
        x = lax.fori_loop(0, n, lambda i, x: x @ w, x)  # a while: n is traced
        x = lax.cond(n > 2, lambda x: x @ w, lambda x: x, x)
        return lax.scan(lambda x, _: (x @ w, None), x, None, length=2)[0]

    def double(site, lhs, rhs, bind):
        return 2 * bind(lhs, rhs)

    w, x = jnp.eye(2), jnp.ones((1, 2))
    g = jax.jit(rewrite(f, double))
    np.testing.assert_array_equal(g(w, x, jnp.int32(3)), np.full((1, 2), 2.0**6))
    np.testing.assert_array_equal(g(w, x, jnp.int32(1)), np.full((1, 2), 2.0**3))


def test_a_wrong_result_names_the_site():
    def f(w, x):
        with jax.named_scope("layer"):
            return x @ w

    with pytest.raises(TypeError, match=r"'layer'.*float32\[2\].*float32\[2, 4\]"):
        rewrite(f, lambda s, lhs, rhs, bind: bind(lhs, rhs)[:, 0])(
            jnp.ones((3, 4)), jnp.ones((2, 3))
        )


def test_rules_of_custom_derivatives_stay():
    @jax.custom_jvp
    def odd(x):
        return jnp.abs(x)

    odd.defjvp(lambda primals, tangents: (odd(*primals), 100 * tangents[0]))

    @jax.custom_vjp
    def stranger(x):
        return x

    stranger.defvjp(lambda x: (x, None), lambda _, g: (7 * g,))

    def f(w, x):
        return stranger(odd(x @ w)).sum()

    w, x = jnp.ones((3, 1)), -jnp.ones((1, 3))
    got = jax.jit(jax.grad(rewrite(f, identity)))(w, x)
    np.testing.assert_array_equal(got, np.full((3, 1), -700.0))
    assert missed(f)(w, x) == []


def test_relu_keeps_its_derivative_at_zero():
    # The plain derivative of max(x, 0) at 0 would be one half.
    def f(w, x):
        return jax.nn.relu(x @ w).sum()

    w, x = jnp.zeros((3, 1)), jnp.ones((1, 3))
    np.testing.assert_array_equal(jax.grad(rewrite(f, identity))(w, x), 0 * w)


def test_remat_still_saves_what_its_policy_says():
    def f(w, x):
        policy = jax.checkpoint_policies.nothing_saveable
        inner = jax.checkpoint(lambda w, x: jnp.sin(x @ w) @ w, policy=policy)
        return inner(w, x).sum()

    def dots(f):
        return str(jax.make_jaxpr(jax.grad(f))(w, x)).count("dot_general")

    w, x = jnp.ones((3, 3)), jnp.ones((2, 3))

    def saving(w, x):
        return (jnp.sin(x @ w) @ w).sum()

    assert dots(rewrite(f, identity)) == dots(f) > dots(saving)


def test_a_closure_over_a_tracer_of_the_caller():
    def ours(x, w):
        return rewrite(lambda w, y: jnp.sin(y @ w) * x.sum(), identity)(w, x).sum()

    def plain(x, w):
        return (jnp.sin(x @ w) * x.sum()).sum()

    w, x = jnp.ones((3, 3)), jnp.arange(6.0).reshape(2, 3)
    equal(jax.jit(jax.grad(plain))(x, w), jax.jit(jax.grad(ours))(x, w))


def test_shardings_of_an_inner_jit_stay():
    mesh = jax.sharding.Mesh(np.array(jax.devices()), ("d",))
    split = jax.NamedSharding(mesh, P("d"))

    def f(w, x):
        return jax.jit(lambda x: x @ w, in_shardings=split, out_shardings=split)(x) * 2

    w, x = jnp.ones((3, 3)), jnp.arange(24.0).reshape(8, 3)
    ours, plain = jax.jit(rewrite(f, identity))(w, x), jax.jit(f)(w, x)
    equal(ours, plain)
    assert ours.sharding.is_equivalent_to(plain.sharding, 2)
    assert len(ours.sharding.device_set) == len(jax.devices())


def test_jit_of_static_arguments_and_numpy_float64():
    def f(params, x, mode, *, train, scale):
        assert mode == "sum" and train is True and isinstance(scale, float)
        return (x @ params).sum() * scale

    x = np.ones((2, 3))  # float64, which JAX takes as float32
    got = rewrite(f, identity)(jnp.ones((3, 3)), x, "sum", train=True, scale=0.5)
    assert got == 9.0 and got.dtype == jnp.float32


@pytest.mark.parametrize("make", [jax.random.key, jax.random.PRNGKey])
def test_keys_typed_and_raw(make):
    def f(w, x, *, key):
        def turn(carry, key):
            return carry @ w + jax.random.uniform(key, carry.shape), None

        return lax.scan(turn, x, jax.random.split(key, 3))[0]

    w, x, key = jnp.eye(3), jnp.ones((2, 3)), make(5)
    plain = jax.jit(f)(w, x, key=key)
    equal(plain, jax.jit(rewrite(f, identity))(w, x, key=key))
    # A key may be closed over, too.
    equal(plain, jax.jit(lambda w, x: rewrite(f, identity)(w, x, key=key))(w, x))


def test_a_closed_call_is_entered():
    def f(w, x):
        inner = jax.make_jaxpr(lambda w, x: jnp.tanh(x @ w))(w, x)
        call = primitives.closed_call_p
        with jax.named_scope("outside"):
            params = call.get_bind_params({"call_jaxpr": inner})
            return call.bind(w, x, **params)[0]

    w, x = jnp.eye(3), jnp.ones((2, 3))
    assert [site.name for site in sites(f)(w, x)] == ["outside"]
    equal(jax.jit(f)(w, x), jax.jit(rewrite(f, identity))(w, x))


def test_a_function_that_differentiates_itself():
    def loss(w, x):
        step = jax.checkpoint(lambda x, w: (jnp.tanh(x @ w), x.sum()))
        x, sums = lax.scan(step, x, w)
        return (x**2).sum() + sums.sum()

    w = jax.random.normal(jax.random.key(0), (3, 4, 4))
    x = jax.random.normal(jax.random.key(1), (5, 4))
    for f in (
        jax.grad(loss, argnums=(0, 1)),
        lambda w, x: jax.jvp(lambda w: jax.grad(loss)(w, x), (w,), (w,)),
    ):
        assert len(sites(f)(w, x)) > 1 and missed(f)(w, x) == []
        equal(jax.jit(f)(w, x), jax.jit(rewrite(f, identity))(w, x))


def test_inside_named_axes():
    def f(w, x):
        return lax.psum((x @ w).sum(0), "d")

    def shards(f):
        mesh = jax.sharding.Mesh(np.array(jax.devices()), ("d",))
        specs = {"in_specs": (P(), P("d")), "out_specs": P()}
        return jax.shard_map(lambda w, x: f(w, x[0]), mesh=mesh, **specs)

    ours, w = rewrite(f, identity), jnp.eye(4)
    xs = jax.random.normal(jax.random.key(1), (len(jax.devices()), 2, 4))
    over = {"axis_name": "d", "in_axes": (None, 0)}
    equal(jax.vmap(f, **over)(w, xs), jax.vmap(ours, **over)(w, xs))
    equal(jax.pmap(f, **over)(w, xs), jax.pmap(ours, **over)(w, xs))
    equal(jax.jit(shards(f))(w, xs), jax.jit(shards(ours))(w, xs))
