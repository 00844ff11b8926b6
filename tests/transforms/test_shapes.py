"""Groups, blocks and channels against loops over units in NumPy."""

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lib import errors, representations, schedules, tree
from lib import transforms as T
from lib.transforms import selection, shapes

KEY = jax.random.key(0)
LEAVES = {"conv": (2, 1, 4, 6), "dense": (8, 4)}  # 8 inputs each


def draw(seed=0, levels=None):
    """Whole numbers, whose means over blocks are exact in any order."""
    rng = np.random.default_rng(seed)
    flat = {f"{n}/kernel": rng.integers(-99, 99, s) for n, s in LEAVES.items()}
    if levels:
        flat = {p: w % levels for p, w in flat.items()}
    return tree.unflatten({p: jnp.asarray(w, jnp.float32) for p, w in flat.items()})


def lowest(scores, k):
    """Bool, True = keep: sorts (score, place from the end) and drops the first k."""
    flat = np.ravel(scores)
    drop = sorted(range(flat.size), key=lambda i: (flat[i], -i))[:k]
    keep = np.ones(flat.size, bool)
    keep[drop] = False
    return keep.reshape(np.shape(scores))


def n_of_m(w, n, m):
    seen = np.abs(w).reshape(-1, w.shape[-1])
    mask = np.ones(seen.shape, bool)
    for out in range(seen.shape[1]):
        for first in range(0, len(seen), m):
            mask[first : first + m, out] = lowest(seen[first : first + m, out], m - n)
    return mask.reshape(w.shape)


def blocks(w, height, width):
    seen = np.abs(w).reshape(-1, w.shape[-1])
    rows, outs = seen.shape[0] // height, seen.shape[1] // width
    sums = np.zeros((rows, outs))
    for i in range(rows):
        for j in range(outs):
            tile = seen[i * height : (i + 1) * height, j * width : (j + 1) * width]
            sums[i, j] = tile.sum()
    return sums


def unblock(mask, shape, height, width):
    return np.kron(mask, np.ones((height, width), bool)).reshape(shape)


@pytest.mark.slow
@pytest.mark.parametrize("shape", ["1:2", "2:4", "3:8"])
@pytest.mark.parametrize("levels", [None, 3])
def test_n_of_m_keeps_the_n_largest_of_every_m_inputs(shape, levels):
    n, m = map(int, shape.split(":"))
    t = T.prune(shape=shape)
    params = draw(1, levels)
    code, state = jax.jit(t.encode)(params)
    for path, w in tree.flatten(params).items():
        expected = n_of_m(np.asarray(w), n, m)
        np.testing.assert_array_equal(state[path], expected)
        np.testing.assert_array_equal(tree.get(code, path), np.where(expected, w, 0))
    # The sparsity it has by nature may be said, too.
    _, said = T.prune(shape=shape, sparsity=1 - n / m).encode(params)
    jax.tree.map(np.testing.assert_array_equal, said, state)


@pytest.mark.slow
@hypothesis.settings(max_examples=6)
@hypothesis.given(
    st.sampled_from([(1, 2), (2, 4), (3, 4)]),
    st.sampled_from([(4, 3), (2, 2, 1, 2)]),
    st.integers(0, 2**32 - 1),
)
def test_n_of_m_holds_for_any_leaf_and_through_quantize(ratio, shape, seed):
    n, m = ratio
    rng = np.random.default_rng(seed)
    params = {"kernel": jnp.float32(np.round(rng.normal(size=shape), 1))}
    t = T.chain(T.prune(shape=f"{n}:{m}"), T.quantize(bits=3))
    code, state = t.encode(params)
    groups = np.asarray(state[0]["kernel"]).reshape(-1, m, shape[-1])
    assert (groups.sum(1) == n).all()
    decoded = np.asarray(t.decode(code, state)["kernel"])
    assert ((decoded != 0).reshape(-1, m, shape[-1]).sum(1) <= n).all()
    thawed = representations.thaw(t.freeze(code, state))
    np.testing.assert_array_equal(thawed["kernel"], decoded)


def test_n_of_m_under_a_schedule_loses_one_of_each_group_after_the_other():
    t = T.prune(
        shape="1:4", sparsity=schedules.linear(initial=0.0, final=0.75, begin=0, end=5)
    )
    code, state = t.encode(draw())
    update = jax.jit(t.update)
    kept = []
    for step in range(8):
        state = update(code, state, T.Signals(code, jnp.int32(step), KEY))
        groups = np.asarray(state["dense/kernel"]).reshape(-1, 4, 4).sum(1)
        assert (groups == groups[0, 0]).all()
        kept.append(int(groups[0, 0]))
    # round(0.6 * step) of every four go, until 3 have.
    assert kept == [4, 3, 3, 2, 2, 1, 1, 1]
    np.testing.assert_array_equal(
        state["dense/kernel"], n_of_m(np.asarray(code["dense"]["kernel"]), 1, 4)
    )


def test_groups_for_every_count_traced_or_not():
    score = jnp.float32(np.random.default_rng(0).integers(0, 4, (6, 2)))
    swept = jax.jit(jax.vmap(lambda k: selection.keep_in_groups(score, k, 3)))(
        jnp.arange(4)
    )
    for k in range(4):
        np.testing.assert_array_equal(swept[k], n_of_m(np.asarray(score), 3 - k, 3))


@pytest.mark.slow
@pytest.mark.parametrize("distribution", ["layerwise", "global", "output"], ids=str)
def test_blocks_go_by_the_sum_of_their_magnitudes(distribution):
    params, t = draw(), T.prune(shape="4x2", sparsity=0.5, distribution=distribution)
    _, state = t.encode(params)
    flat = tree.flatten(params)
    sums = {p: blocks(np.asarray(w), 4, 2) for p, w in flat.items()}
    if distribution == "global":  # 6 and 4 blocks
        kept = lowest(np.concatenate([sums[p].ravel() for p in sorted(sums)]), 5)
        pieces = np.split(kept, [6])
        kept = {
            p: piece.reshape(sums[p].shape)
            for p, piece in zip(sorted(sums), pieces, strict=True)
        }
    elif distribution == "output":  # 1 of 2 blocks a column of blocks
        kept = {p: np.stack([lowest(c, 1) for c in s.T], 1) for p, s in sums.items()}
    else:
        kept = {p: lowest(s, s.size // 2) for p, s in sums.items()}
    for path, w in flat.items():
        np.testing.assert_array_equal(state[path], unblock(kept[path], w.shape, 4, 2))


@pytest.mark.parametrize("scheduled", [False, True])
def test_channels_go_whole(scheduled):
    params = draw()
    sparsity = schedules.constant(value=0.5) if scheduled else 0.5
    t = T.prune(shape="channel", sparsity=sparsity)
    code, state = t.encode(params)
    if scheduled:
        state = t.update(code, state, T.Signals(code, jnp.int32(0), KEY))
    for path, w in tree.flatten(params).items():
        seen = np.abs(np.asarray(w)).reshape(-1, w.shape[-1])
        kept = lowest(seen.sum(0), w.shape[-1] // 2)
        np.testing.assert_array_equal(
            np.asarray(state[path]).reshape(seen.shape), np.tile(kept, (8, 1))
        )


def test_plan_names_the_shape():
    rows = T.plan(T.prune(shape="2:4"), draw())
    assert {r.taken_by for r in rows} == {"prune(sparsity=0.5, layerwise, 2:4)"}


@pytest.mark.parametrize(
    "shape", ["2:2", "0:4", "4:2", "block", "4x0", "2:4:8", "chanel", ""]
)
def test_unknown_shapes(shape):
    with pytest.raises(errors.UserError) as e:
        shapes.parse(shape)
    assert "unknown shape" in str(e.value) and "valid: unstructured" in str(e.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"shape": "3:16"},
            "groups of 16 do not divide the 8 inputs of conv/kernel with shape "
            "(2, 1, 4, 6)",
        ),
        (
            {"shape": "8x4", "sparsity": 0.5},
            "blocks of 8x4 do not divide the 8 inputs and 6 outputs of conv/kernel",
        ),
        (
            {"shape": "2:4", "sparsity": 0.9},
            "shape '2:4' removes 0.5; got sparsity 0.9",
        ),
        (
            {"shape": "2:4", "distribution": "global"},
            "shape '2:4' goes with distribution layerwise; got 'global'",
        ),
        (
            {"shape": "4x1", "distribution": "erk", "sparsity": 0.5},
            "goes with distribution layerwise, global, lamp, output; got 'erk'",
        ),
        ({"shape": "4x1"}, "give either a sparsity or keep=True"),
    ],
)
def test_mistakes(settings, message):
    with pytest.raises(errors.UserError) as e:
        T.prune(**settings).encode(draw())
    assert message in str(e.value)


@pytest.mark.parametrize("shape", ["channel", "1x1", "1:2"])
def test_a_vector_has_no_units(shape):
    t = T.prune(shape=shape, sparsity=0.5, pattern="bias")
    with pytest.raises(errors.UserError, match="needs inputs and outputs, got bias"):
        t.encode({"bias": jnp.ones(4)})
