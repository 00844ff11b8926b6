"""Chain, select and plan, with toy transforms whose algebra can be done by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lib import errors, representations, tree
from lib import transforms as T

KEY = jax.random.key(0)


def toy(how, pattern, encode, decode, update=None):
    """A transform that freezes by decoding what the code below materializes to."""

    def freeze(frozen, states):
        dense = jax.tree.map(
            representations.materialize,
            frozen,
            is_leaf=lambda x: isinstance(x, representations.Representation),
        )
        return decode(dense, states)

    return T.on_leaves(how, pattern, encode, decode, freeze, update)


def scaled(factor, pattern=T.KERNELS):
    """decode = code * factor; the state remembers the last gradient it was shown."""

    def encode(leaves):
        codes = {p: w / factor for p, w in leaves.items()}
        return codes, {p: jnp.zeros_like(w) for p, w in leaves.items()}

    def decode(codes, states):
        return {p: c * factor for p, c in codes.items()}

    def update(codes, states, signals):
        return dict(signals.grads)

    return toy(f"scaled({factor})", pattern, encode, decode, update)


def shifted(offset, pattern=T.KERNELS):
    """decode = code + offset."""

    def encode(leaves):
        return {p: w - offset for p, w in leaves.items()}, dict.fromkeys(leaves, ())

    def decode(codes, states):
        return {p: c + offset for p, c in codes.items()}

    return toy(f"shifted({offset})", pattern, encode, decode)


def squared():
    """decode = code ** 2, so that gradients depend on the code."""

    def encode(leaves):
        return (
            {p: jnp.sqrt(w) for p, w in leaves.items()},
            {p: (jnp.zeros_like(w), jnp.zeros_like(w)) for p, w in leaves.items()},
        )

    def decode(codes, states):
        return {p: c**2 for p, c in codes.items()}

    def update(codes, states, signals):
        return {p: (codes[p], signals.grads[p]) for p in states}

    return toy("squared", T.KERNELS, encode, decode, update)


def halves(pattern=T.KERNELS):
    """Splits a leaf along its first axis into {top, bottom}: a restructuring code."""

    def encode(leaves):
        codes = {}
        for path, w in leaves.items():
            middle = w.shape[0] // 2
            codes[path] = {"top": w[:middle], "bottom": w[middle:]}
        return codes, dict.fromkeys(leaves, ())

    def decode(codes, states):
        return {p: jnp.concatenate([c["top"], c["bottom"]]) for p, c in codes.items()}

    return toy("halves", pattern, encode, decode)


def params():
    return {
        "enc": {"kernel": jnp.float32([[4.0], [16.0]]), "bias": jnp.float32([1.0])},
        "head": {"kernel": jnp.float32([[64.0], [256.0]])},
    }


def same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_chain_encodes_left_to_right_and_decodes_right_to_left():
    code, state = T.chain(scaled(2.0), shifted(1.0)).encode(params())
    same(code["enc"]["kernel"], [[1.0], [7.0]])  # w / 2 - 1
    code, state = T.chain(shifted(1.0), scaled(2.0)).encode(params())
    same(code["enc"]["kernel"], [[1.5], [7.5]])  # (w - 1) / 2
    same(T.chain(shifted(1.0), scaled(2.0)).decode(code, state), params())
    assert len(state) == 2


def test_freeze_runs_as_decode_does():
    order = []

    def spy(name, t):
        def freeze(frozen, state):
            order.append(name)
            return t.freeze(frozen, state)

        return t._replace(freeze=freeze)

    a, b = T.prune(sparsity=0.5), T.quantize(bits=8)
    t = T.chain(spy("a", a), spy("b", b))
    t.freeze(*t.encode(params()))
    assert order == ["b", "a"]


def test_restructured_leaves_freeze_to_what_they_decode_to():
    t = T.chain(halves(), T.prune(sparsity=0.5), T.quantize(bits=8), scaled(2.0))
    code, state = t.encode(params())
    same(t.freeze(code, state), t.decode(code, state))


def test_chain_is_associative():
    a, b, c = scaled(2.0), shifted(3.0), squared()
    code, state = T.chain(a, b, c).encode(params())
    left, left_state = T.chain(T.chain(a, b), c).encode(params())
    right, right_state = T.chain(a, T.chain(b, c)).encode(params())
    same(code, left)
    same(code, right)
    same(jax.tree.leaves(state), jax.tree.leaves(left_state))
    same(jax.tree.leaves(state), jax.tree.leaves(right_state))


@pytest.mark.parametrize(
    "t", [T.identity(), T.chain(), T.chain(T.identity()), T.select([])]
)
def test_identity(t):
    p = params()
    code, state = t.encode(p)
    assert jax.tree.leaves(state) == []
    same(code, p)
    same(t.decode(code, state), p)
    same(t.freeze(code, state), p)
    assert t.update(code, state, T.Signals(p, jnp.int32(0), KEY)) == state
    assert {row.taken_by for row in T.plan(t, p)} == {""}


def test_each_part_is_shown_the_gradient_at_its_own_output():
    parts = squared(), scaled(3.0), squared()
    t = T.chain(*parts)
    code, state = t.encode(params())
    grads = jax.tree.map(lambda w: w + 0.5, params())
    new = jax.jit(t.update)(code, state, T.Signals(grads, jnp.int32(0), KEY))

    # By hand: y2 = c ** 2, y1 = 3 * y2, y0 = y1 ** 2, and <grads, y0> differentiated
    # at each of them.
    for path, state_at in (("enc/kernel", new), ("head/kernel", new)):
        c = tree.get(code, path)
        g0 = tree.get(grads, path)
        y2 = c**2
        y1 = 3 * y2

        def from_y1(y1, g0=g0):
            return jnp.sum(g0 * y1**2)

        def from_y2(y2, g0=g0):
            return jnp.sum(g0 * (3 * y2) ** 2)

        seen_code, seen_grad = state_at[0][path]
        np.testing.assert_allclose(seen_code, y1, rtol=1e-6)
        same(seen_grad, g0)
        np.testing.assert_allclose(state_at[1][path], jax.grad(from_y1)(y1), rtol=1e-5)
        seen_code, seen_grad = state_at[2][path]
        same(seen_code, c)
        np.testing.assert_allclose(seen_grad, jax.grad(from_y2)(y2), rtol=1e-5)


def test_select_inside_a_chain_shows_gradients_at_its_own_output_too():
    t = T.chain(scaled(2.0), T.select("head", scaled(5.0)))
    code, state = t.encode(params())
    grads = jax.tree.map(jnp.ones_like, params())
    outer, ((_, inner),) = t.update(code, state, T.Signals(grads, jnp.int32(0), KEY))
    same(outer["head/kernel"], [[1.0], [1.0]])
    assert list(inner) == ["head/kernel"]
    same(inner["head/kernel"], [[2.0], [2.0]])  # pulled back through * 2


def test_first_rule_wins_and_the_rest_is_not_touched():
    t = T.select([("enc", scaled(2.0)), ("kernel", shifted(4.0))])
    p = params()
    code, state = t.encode(p)
    same(code["enc"]["kernel"], [[2.0], [8.0]])
    same(code["head"]["kernel"], [[60.0], [252.0]])
    assert code["enc"]["bias"] is p["enc"]["bias"]
    assert list(code) == list(p)
    same(t.decode(code, state), p)
    same(t.freeze(code, state), p)
    # Under jit the state's paths come back in another order, and nothing changes.
    code, state = jax.jit(t.encode)(p)
    same(jax.jit(t.decode)(code, state), p)


def test_select_of_one_pattern_is_one_rule():
    a, _ = T.select("head", scaled(2.0)).encode(params())
    b, _ = T.select([("head", scaled(2.0))]).encode(params())
    same(a, b)
    same(a["enc"], params()["enc"])


def test_select_reaches_what_an_earlier_part_made():
    t = T.chain(halves("head"), T.select("head/kernel/top", shifted(4.0)))
    code, state = t.encode(params())
    same(code["head"]["kernel"], {"top": [[60.0]], "bottom": [[256.0]]})
    same(t.decode(code, state), params())


def test_select_around_a_chain_that_restructures():
    t = T.select("head", T.chain(halves(), scaled(2.0)))
    code, state = t.encode(params())
    same(code["head"]["kernel"], {"top": [[32.0]], "bottom": [[128.0]]})
    same(code["enc"], params()["enc"])
    same(t.decode(code, state), params())


@pytest.mark.parametrize(
    ("t", "message"),
    [
        (T.select("hed", scaled(2.0)), "rule 'hed' matches nothing; nearest of 3: "),
        (
            T.select([("kernel", scaled(2.0)), ("head", shifted(1.0))]),
            "rule 'head' only matches what earlier rules took",
        ),
        (T.select("head", scaled(2.0, "bias")), "rule 'bias' matches nothing"),
        (T.chain(halves(), shifted(1.0, "kernel$")), "rule 'kernel$' matches nothing"),
        (scaled(2.0, "("), "pattern '(' is no regular expression"),
    ],
)
def test_rules_that_match_nothing(t, message):
    for mistake in (t.encode, lambda p: T.plan(t, p)):
        with pytest.raises(errors.UserError) as e:
            mistake(params())
        assert str(e.value).startswith(message)


def taken(t):
    shapes = jax.eval_shape(params)
    rows = T.plan(t, shapes)
    flat = tree.flatten(shapes)
    # Every leaf of the model, once, as it is before any technique.
    assert [(r.path, r.shape, r.dtype) for r in rows] == [
        (path, x.shape, "float32") for path, x in flat.items()
    ]
    return {r.path: r.taken_by for r in rows}


def test_plan_lists_every_leaf_and_who_took_it():
    t = T.chain(T.prune(sparsity=0.5), T.select("head", T.quantize(bits=4)))
    assert taken(t) == {
        "enc/kernel": "prune(sparsity=0.5, layerwise)",
        "enc/bias": "",
        "head/kernel": "prune(sparsity=0.5, layerwise), "
        "quantize(bits=4, symmetric, per channel)",
    }


def test_plan_of_rules_and_other_settings():
    t = T.select(
        [
            ("enc", T.prune(sparsity=lambda step: 0.5, distribution="erk")),
            (
                "head",
                T.quantize(bits=4, symmetric=False, granularity="group", group=2),
            ),
        ]
    )
    assert taken(t) == {
        "enc/kernel": "prune(schedule, erk)",
        "enc/bias": "",
        "head/kernel": "quantize(bits=4, affine, per group 2)",
    }
    assert taken(T.select("enc/kernel", T.keep()))["enc/kernel"] == "prune(keep)"


def test_plan_counts_the_parts_of_a_split_leaf_to_the_leaf():
    t = T.chain(halves(), scaled(2.0), T.select("head/kernel/top", shifted(1.0)))
    assert taken(t) == {
        "enc/kernel": "halves, scaled(2.0)",
        "enc/bias": "",
        "head/kernel": "halves, scaled(2.0), scaled(2.0), shifted(1.0)",
    }
