"""The proof of a cut: what it lets pass, what it does not, and whom it names."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lib import errors, shrink

W = {
    name: jnp.asarray(np.random.default_rng(i).normal(size=shape), jnp.float32)
    for i, (name, shape) in enumerate({"a": (4, 6), "b": (6, 5), "c": (5, 2)}.items())
}
BATCHES = [
    (jnp.asarray(np.random.default_rng(seed).normal(size=(3, 4)), jnp.float32),)
    for seed in range(2)
]
KEY = jax.random.key(0, impl="unsafe_rbg")


def honest(w, x):
    return jnp.tanh(jax.nn.relu(x @ w["a"]) @ w["b"]) @ w["c"]


def dropping(w, x):
    """Drops units of the first layer by bits that are drawn at its width."""
    h = jnp.tanh(x @ w["a"])
    h = jnp.where(jax.random.bernoulli(KEY, 0.5, h.shape), h, 0)
    return jnp.tanh(h @ w["b"]) @ w["c"]


def plans(f, **removed):
    """Returns the plan of all that is removed, and {leaf: the plan of it alone}."""
    groups = shrink.groups(f)(W, *BATCHES[0])
    parts = {name: shrink.make(groups, {name: r}) for name, r in removed.items()}
    return shrink.make(groups, removed), parts


def test_an_honest_cut_passes():
    plan, parts = plans(honest, a=[0, 3], b=[1])
    worst, largest = shrink.difference(honest, plan, W, BATCHES)
    masked = shrink.mask(plan, W)
    wanted = [honest(masked, x) for (x,) in BATCHES]
    assert largest == pytest.approx(max(float(jnp.abs(y).max()) for y in wanted))
    assert 0 <= worst < 1e-6
    assert shrink.prove(honest, plan, W, BATCHES, parts=parts) == worst


def test_a_wrong_cut_names_the_leaf_through_which_it_is():
    """Random bits of another shape are other bits: the mask drops other units."""
    plan, parts = plans(dropping, b=[1], a=[0, 3])
    worst, largest = shrink.difference(dropping, plan, W, BATCHES)
    assert worst > 1e-2 * largest
    assert list(parts) == ["b", "a"]
    with pytest.raises(errors.RunError, match="through a$") as e:
        shrink.prove(dropping, plan, W, BATCHES, parts=parts)
    assert f"by {worst:.3g} where the largest is {largest:.3g}" in str(e.value)


@pytest.mark.parametrize("names", [(), ("b",)])
def test_where_no_part_alone_is_wrong_it_is_the_whole(names):
    plan, parts = plans(dropping, a=[0, 3], b=[1])
    some = {name: parts[name] for name in names}
    with pytest.raises(errors.RunError, match="through the cut as a whole"):
        shrink.prove(dropping, plan, W, BATCHES, parts=some)


def test_the_tolerance_is_a_share_of_the_largest_result():
    plan, _ = plans(dropping, a=[0, 3])
    worst, largest = shrink.difference(dropping, plan, W, BATCHES)
    above = 1.01 * worst / largest
    assert shrink.prove(dropping, plan, W, BATCHES, parts={}, tolerance=above) == worst
    with pytest.raises(errors.RunError):
        shrink.prove(dropping, plan, W, BATCHES, parts={}, tolerance=0.98 * above)


def test_the_worst_of_all_batches_counts():
    """Only the second batch differs, and only in one of two results."""

    def f(w, x):
        return {"same": honest(w, x), "not": jnp.where(x[0, 0] < 0, dropping(w, x), 0)}

    plan, _ = plans(f, a=[0, 3])
    x = jnp.abs(BATCHES[0][0])
    assert shrink.difference(f, plan, W, [(x,)])[0] < 1e-6
    assert shrink.difference(f, plan, W, [(x,), (-x,), (x,)])[0] > 1e-2


@pytest.mark.slow
@pytest.mark.parametrize("bad", [jnp.nan, jnp.inf, -jnp.inf])
@pytest.mark.parametrize("where", ["both", "one"])
def test_what_is_not_finite_is_infinitely_wrong(bad, where):
    """In both results, or where the one of large weights alone is over the edge."""

    def f(w, x):
        y = honest(w, x)
        off = y != 0 if where == "both" else dropping(w, x)[:, :1] > 0.1
        return jnp.where(off, bad, y)

    plan, parts = plans(f, a=[0, 3])
    assert shrink.difference(f, plan, W, BATCHES)[0] == np.inf
    with pytest.raises(errors.RunError, match="differ by inf"):
        shrink.prove(f, plan, W, BATCHES, parts=parts)


def test_results_that_are_all_0_are_equal():
    def f(w, x):
        return honest(w, x) * 0

    plan, parts = plans(f, a=[0, 3])
    assert shrink.prove(f, plan, W, BATCHES, parts=parts) == 0
