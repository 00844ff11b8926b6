"""Magnitude pruning: exact counts, schedules and gradients."""

import math

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lib import errors, schedules
from lib import transforms as T
from lib.transforms.distributions import DISTRIBUTIONS, erk

SHAPES = {"a": (6, 4), "b": (3, 3, 2, 5), "c": (1, 8)}  # 24, 90 and 8 weights
SIZES = list(SHAPES.values())
KEY = jax.random.key(0)


def weights(seed=0, shapes=SHAPES):
    rng = np.random.default_rng(seed)
    return {
        name: {"kernel": jnp.asarray(rng.normal(size=shape), jnp.float32)}
        for name, shape in shapes.items()
    }


def removed(params):
    return [int((np.asarray(x["kernel"]) == 0).sum()) for x in params.values()]


def erk_oracle(sparsity, shapes):
    """Fractions to keep, as Evci et al. 2020 and their code find them.

    Density = epsilon * (sum of the axes / product of the axes); while the densest
    layer would pass 1 it is made dense and epsilon is solved for the others.
    """
    sizes = [math.prod(s) for s in shapes]
    raw = [sum(s) / math.prod(s) for s in shapes]
    dense: set[int] = set()
    while True:
        rest = [i for i in range(len(shapes)) if i not in dense]
        if not rest:
            return [1.0] * len(shapes)
        target = (1 - sparsity) * sum(sizes) - sum(sizes[i] for i in dense)
        epsilon = target / sum(raw[i] * sizes[i] for i in rest)
        densest = max(rest, key=lambda i: raw[i])
        if epsilon * raw[densest] <= 1:
            break
        dense.add(densest)
    return [1.0 if i in dense else epsilon * raw[i] for i in range(len(shapes))]


def test_literal_scores_and_masks():
    params = {"kernel": jnp.float32([[0.5, -0.1, 3.0], [-4.0, 0.2, -0.3]]), "bias": 1.0}
    t = T.prune(sparsity=0.5)
    code, state = t.encode(params)
    expected = [[0.5, 0, 3], [-4, 0, 0]]
    np.testing.assert_array_equal(t.decode(code, state)["kernel"], np.float32(expected))
    np.testing.assert_array_equal(state["kernel"], np.not_equal(expected, 0))
    # What went is 0 for later techniques, too, and the bias is not touched.
    np.testing.assert_array_equal(code["kernel"], np.float32(expected))
    assert t.decode(code, state)["bias"] is params["bias"]


def test_literal_global_masks_rank_all_leaves_together():
    params = {
        "z": {"kernel": jnp.float32([[1.0, 2.0], [3.0, 4.0]])},
        "a": {"kernel": jnp.float32([[0.1, 5.0]])},
    }
    t = T.prune(sparsity=0.5, distribution="global")
    _, state = t.encode(params)
    np.testing.assert_array_equal(state["z/kernel"], [[False, False], [True, True]])
    np.testing.assert_array_equal(state["a/kernel"], [[False, True]])


@pytest.mark.slow
@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_ties_are_the_same_for_any_order_of_the_keys(distribution):
    # jit sorts the keys of a dict; the weights that go must not change with it.
    params = {name: {"kernel": jnp.ones((2, 5))} for name in ("z", "a", "m")}
    t = T.prune(sparsity=0.5, distribution=distribution)
    _, eager = t.encode(params)
    _, jitted = jax.jit(t.encode)(params)
    for path, mask in eager.items():
        np.testing.assert_array_equal(mask, jitted[path])


def test_of_ties_the_first_stay():
    t = T.prune(sparsity=0.5)
    _, state = t.encode({"kernel": jnp.ones((2, 3))})
    np.testing.assert_array_equal(state["kernel"], [[1, 1, 1], [0, 0, 0]])
    t = T.prune(sparsity=0.5, distribution="global")
    _, state = t.encode(
        {"a": {"kernel": jnp.ones((1, 3))}, "kernel": -jnp.ones((1, 3))}
    )
    np.testing.assert_array_equal(state["a/kernel"], [[1, 1, 1]])
    np.testing.assert_array_equal(state["kernel"], [[0, 0, 0]])


@pytest.mark.slow
@hypothesis.settings(max_examples=15)
@hypothesis.given(st.floats(0, 1), st.integers(0, 9))
def test_exact_counts(sparsity, seed):
    params = weights(seed)
    sizes = [math.prod(s) for s in SHAPES.values()]
    share = float(np.float32(sparsity))

    def counts(distribution):
        t = T.prune(sparsity=sparsity, distribution=distribution)
        decoded = t.decode(*t.encode(params))
        # By magnitude: nothing kept is smaller than what went.
        if distribution != "global":
            for name, leaf in params.items():
                w, kept = np.abs(leaf["kernel"]), np.asarray(decoded[name]["kernel"])
                least = w[kept != 0].min(initial=np.inf)
                assert w[kept == 0].max(initial=0.0) <= least
        return removed(decoded)

    # The product is float32, which may turn what is nearly a half into one.
    for n, size in zip(counts("layerwise"), sizes, strict=True):
        assert abs(n - share * size) <= 0.5 + 1e-6 * size
    assert abs(sum(counts("global")) - share * sum(sizes)) <= 0.5 + 1e-6 * sum(sizes)
    keep = erk_oracle(share, SIZES)
    for n, density, size in zip(counts("erk"), keep, sizes, strict=True):
        assert abs(n - (1 - density) * size) <= 1  # the whole and the leaf are rounded


def test_erk_literal():
    # LeNet-300-100 at 90 %: 266200 weights, sums of the axes 1084, 400 and 110.
    # epsilon = 26620 / 1594 = 16.70; 16.70 * 110 = 1837 > 1000, so the last is dense;
    # epsilon = 25620 / 1484 = 17.2642; keeps 18714.3 and 6905.7 of 235200 and 30000.
    shapes = [(784, 300), (300, 100), (100, 10)]
    assert [int(n) for n in erk(0.9, shapes)] == [216486, 23094, 0]


@pytest.mark.slow
@hypothesis.given(
    st.lists(
        st.lists(st.integers(1, 40), min_size=2, max_size=4), min_size=3, max_size=3
    ),
    st.floats(0, 1),
)
def test_erk_is_the_loop_of_the_paper(shapes, sparsity):
    counts = jax.jit(lambda s: erk(s, [tuple(x) for x in shapes]))(sparsity)
    keep = erk_oracle(float(np.float32(sparsity)), shapes)
    for n, density, shape in zip(counts, keep, shapes, strict=True):
        size = math.prod(shape)
        assert 0 <= n <= size
        # The whole is rounded to weights, then the leaf; float32 has 24 bits.
        assert abs(n - (1 - density) * size) <= 1 + size * 2.0**-22


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_traced_counts_are_untraced_counts(distribution):
    rng = np.random.default_rng(0)
    shapes = [(int(n), int(m)) for n, m in rng.integers(1, 1024, (12, 2))]
    shapes += [(1024, 1023), (1, 1), (3, 3, 64, 128)]
    spread = DISTRIBUTIONS[distribution]
    sparsities = np.r_[rng.uniform(0, 1, 300), np.linspace(0, 1, 101)]
    traced = jax.jit(jax.vmap(lambda s: spread(s, shapes)))(jnp.float32(sparsities))
    traced = np.stack(traced, 1)
    for s, counts in zip(sparsities, traced, strict=True):
        assert [int(n) for n in spread(float(s), shapes)] == counts.tolist()


@pytest.mark.slow
@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_none_and_all(distribution):
    params = weights()
    t = T.prune(sparsity=0.0, distribution=distribution)
    decoded = t.decode(*t.encode(params))
    jax.tree.map(np.testing.assert_array_equal, decoded, params)
    t = T.prune(sparsity=1.0, distribution=distribution)
    assert removed(t.decode(*t.encode(params))) == [24, 90, 8]


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
@pytest.mark.parametrize("every", [1, 7])
@pytest.mark.slow
def test_schedule_is_followed(distribution, every):
    schedule = schedules.cubic(initial=0.0, final=0.8, begin=5, end=40)
    t = T.prune(sparsity=schedule, distribution=distribution, every=every)

    @jax.jit
    def one_shot(params, sparsity):
        return T.prune(sparsity=sparsity, distribution=distribution).encode(params)[1]

    update = jax.jit(t.update)
    _, state = t.encode(weights())
    naive = {path: np.ones(mask.shape, bool) for path, mask in state.items()}
    came_back = 0
    for step in range(60):
        code = weights(step)  # they all change at every step
        before = naive
        state = update(code, state, T.Signals(code, jnp.int32(step), KEY))
        if step % every == 0:
            share = schedule(jnp.int32(step))
            counts = [int(n) for n in DISTRIBUTIONS[distribution](share, SIZES)]
            gone = [int((~mask).sum()) for mask in naive.values()]
            if counts != (gone if len(counts) == 3 else [sum(gone)]):
                naive = jax.tree.map(np.asarray, one_shot(code, share))
        jax.tree.map(np.testing.assert_array_equal, state, naive)
        came_back += sum(int((naive[p] & ~before[p]).sum()) for p in naive)
        if step > 42:  # the first multiple of 7 past the end is the last to move them
            assert naive is before
    assert came_back > 0
    total = sum(math.prod(shape) for shape in SIZES)
    gone = sum(int((~mask).sum()) for mask in naive.values())
    assert abs(gone - 0.8 * total) <= 1.5


@pytest.mark.slow
def test_traced_final_sparsity():
    params = weights()

    @jax.jit
    @jax.vmap
    def swept(final):
        schedule = schedules.cubic(initial=0.0, final=final, begin=0, end=4)
        t = T.prune(sparsity=schedule)
        code, state = t.encode(params)

        def follow(step, state):
            return t.update(code, state, T.Signals(code, step, KEY))

        return t.decode(code, jax.lax.fori_loop(0, 6, follow, state))

    pruned = swept(jnp.float32([0.0, 0.5, 0.75, 1.0]))
    gone = [[int((w == 0).sum()) for w in x["kernel"]] for x in pruned.values()]
    assert gone == [[0, 12, 18, 24], [0, 45, 68, 90], [0, 4, 6, 8]]


@pytest.mark.parametrize("t", [T.prune(keep=True), T.keep()])
def test_keep_takes_the_zeros_as_its_mask(t):
    params = {"kernel": jnp.float32([[0.0, 2.0], [-0.0, -3.0]]), "bias": jnp.zeros(2)}
    code, state = t.encode(params)
    assert list(state) == ["kernel"]
    np.testing.assert_array_equal(state["kernel"], [[False, True], [False, True]])
    moved = jax.tree.map(lambda w: w + 5, code)
    state = t.update(moved, state, T.Signals(moved, jnp.int32(0), KEY))
    np.testing.assert_array_equal(t.decode(moved, state)["kernel"], [[0, 7], [0, 2]])
    np.testing.assert_array_equal(t.decode(moved, state)["bias"], [5, 5])


def test_no_negative_zeros():
    t = T.prune(sparsity=1.0)
    kernel = t.decode(*t.encode({"kernel": -jnp.ones((2, 2))}))["kernel"]
    assert kernel.tobytes() == bytes(16)


def test_removed_weights_that_are_not_finite_do_not_leak():
    # A product with the mask would: nan * 0 is nan.
    t = T.prune(sparsity=0.5)
    _, state = t.encode({"kernel": jnp.float32([[1.0, 2.0]])})
    decoded = t.decode({"kernel": jnp.float32([[np.nan, 3.0]])}, state)
    np.testing.assert_array_equal(decoded["kernel"], [[0, 3]])


@pytest.mark.slow
def test_gradient_is_the_masked_gradient():
    params = weights()
    t = T.prune(sparsity=0.6)
    code, state = t.encode(params)
    target = weights(1)

    def loss(p):
        return sum(jnp.sum((p[n]["kernel"] - target[n]["kernel"]) ** 2) for n in p)

    grads = jax.jit(jax.grad(lambda c: loss(t.decode(c, state))))(code)
    for name in params:
        w, goal = np.asarray(params[name]["kernel"]), target[name]["kernel"]
        mask = np.asarray(state[f"{name}/kernel"]).astype(np.float32)
        naive = 2 * (w * mask - goal) * mask
        np.testing.assert_allclose(grads[name]["kernel"], naive, rtol=1e-6)
        assert (np.asarray(grads[name]["kernel"])[mask == 0] == 0).all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sparsity": 1.5}, "sparsity is the fraction removed, from 0 to 1, got 1.5"),
        ({"sparsity": -0.1}, "from 0 to 1, got -0.1"),
        ({"sparsity": math.nan}, "from 0 to 1, got nan"),
        ({"sparsity": 90}, "from 0 to 1, got 90"),
        (
            {"sparsity": 0.5, "distribution": "layer_wise"},
            "unknown distribution of sparsity 'layer_wise'; did you mean 'layerwise'? "
            "valid: erk, global, lamp, layerwise, output",
        ),
        ({"sparsity": 0.5, "every": 0}, "every is at least 1 step, got 0"),
        ({}, "either a sparsity or keep=True, got None and False"),
        ({"sparsity": 0.5, "keep": True}, "either a sparsity or keep=True, got 0.5"),
    ],
)
def test_mistakes_are_told_before_anything_is_encoded(settings, message):
    with pytest.raises(errors.UserError) as e:
        T.prune(**settings)
    assert message in str(e.value)
    assert "\n" not in str(e.value)


def test_pattern_without_a_match_names_the_nearest():
    t = T.prune(sparsity=0.5, pattern="kernal")
    for mistake in (t.encode, lambda params: T.plan(t, params)):
        with pytest.raises(errors.UserError) as e:
            mistake(weights())
        assert str(e.value).startswith("rule 'kernal' matches nothing; nearest of 3: ")
        assert "a/kernel" in str(e.value)
