"""Lottery tickets: what has gone stays gone, what stays starts over."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lib import errors, schedules
from lib import transforms as T
from lib.train import restart

KEY = jax.random.key(0)
ROUNDS = schedules.staircase(initial=0.0, final=0.75, begin=0, end=8, rate=0.5)
SHAPES = {"a": (4, 4), "b": (2, 2, 1, 2)}


def draw(seed=0):
    rng = np.random.default_rng(seed)
    return {
        name: {"kernel": jnp.float32(rng.normal(size=shape)), "bias": jnp.ones(2)}
        for name, shape in SHAPES.items()
    }


def follow(t, steps):
    """Trains towards new random weights at each step; yields what renew gives."""
    code, state = t.encode(draw())
    update = jax.jit(t.update)
    renew = jax.jit(lambda c, b, a: T.renew(t, c, b, a))
    for step in range(steps):
        code = draw(step + 1)
        before = state
        state = update(code, state, T.Signals(code, jnp.int32(step), KEY))
        yield step, code, before, state, *renew(code, before, state)
    assert max(update._cache_size(), renew._cache_size()) <= 1


def masks(state):
    return {p: np.asarray(s["mask"]) for p, s in state.items()}


def test_each_round_rewinds_to_the_start_and_prunes_what_is_left():
    t = T.prune(sparsity=ROUNDS, rewind=True)
    start, rounds = draw(), []
    for step, code, before, after, renewed, fresh in follow(t, 11):
        old, new = masks(before), masks(after)
        moved = any((old[p] != new[p]).any() for p in old)
        for name in SHAPES:
            path = f"{name}/kernel"
            assert not (new[path] & ~old[path]).any()
            # The smallest of those still there.
            gone = old[path] & ~new[path]
            w = np.abs(code[name]["kernel"])
            assert w[gone].max(initial=0) <= w[new[path]].min()
            assert np.asarray(fresh[path]).all() == moved
            expected = start if moved else code
            np.testing.assert_array_equal(
                renewed[name]["kernel"], expected[name]["kernel"]
            )
            np.testing.assert_array_equal(renewed[name]["bias"], code[name]["bias"])
        if moved:
            rounds.append((step, [int((~m).sum()) for m in new.values()]))
    assert rounds == [(4, [8, 4]), (8, [12, 6])]


def test_a_removed_weight_stays_so_however_large_its_start_was():
    t = T.prune(sparsity=ROUNDS, rewind=True, shape="1x2")
    params = {"kernel": jnp.float32([[9.0, 9.0], [1.0, 1.0], [2.0, 2.0], [3.0, 3.0]])}
    code, state = t.encode(params)
    update = jax.jit(t.update)

    def now(code, state, step):
        return update(code, state, T.Signals(code, jnp.int32(step), KEY))

    small = {"kernel": params["kernel"].at[0].set(0.1).at[1].set(0.2)}
    state = now(small, state, 4)
    np.testing.assert_array_equal(state["kernel"]["mask"][:, 0], [0, 0, 1, 1])
    state = now(params, state, 8)  # rewound: 9 is the largest, but it has gone
    np.testing.assert_array_equal(state["kernel"]["mask"][:, 0], [0, 0, 0, 1])


def test_rewinds_to_the_weights_after_some_steps():
    t = T.prune(sparsity=ROUNDS, rewind=True, rewind_step=3)
    for step, code, _, _, renewed, _ in follow(t, 5):
        if step == 2:  # the third step was taken
            kept = code
        if step == 4:
            for name in SHAPES:
                np.testing.assert_array_equal(
                    renewed[name]["kernel"], kept[name]["kernel"]
                )


def test_the_optimiser_starts_over_with_the_weights():
    t = T.chain(T.prune(sparsity=ROUNDS, rewind=True), T.quantize(bits=8))
    optimizer = optax.adam(0.1)
    code, state = t.encode(draw())
    slots = optimizer.init(code)

    @jax.jit
    def step(code, state, slots, i):
        updates, slots = optimizer.update(code, slots, code)
        code = optax.apply_updates(code, updates)
        after = t.update(code, state, T.Signals(code, i, KEY))
        code, fresh = T.renew(t, code, state, after)
        return code, after, restart.slots(optimizer, slots, code, fresh)

    for i in range(5):
        code, state, slots = step(code, state, slots, i)
    for name in SHAPES:
        np.testing.assert_array_equal(code[name]["kernel"], draw()[name]["kernel"])
        assert (slots[0].mu[name]["kernel"] == 0).all()
        assert (slots[0].mu[name]["bias"] != 0).all()


def test_a_one_shot_prune_hands_on_zeros():
    """Later techniques see what went as 0, and keep it there."""
    one_shot, moving = T.prune(sparsity=0.5), T.prune(sparsity=ROUNDS)
    code, state = one_shot.encode(draw())
    for name in SHAPES:
        mask = np.asarray(state[f"{name}/kernel"])
        assert (np.asarray(code[name]["kernel"])[~mask] == 0).all()
        assert (~mask).sum() == mask.size // 2
    jax.tree.map(np.testing.assert_array_equal, moving.encode(draw())[0], draw())
    code, states = T.chain(one_shot, T.keep(), T.quantize(bits=4)).encode(draw())
    jax.tree.map(np.testing.assert_array_equal, states[0], states[1])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rewind_step": 3}, "goes with rewind=True, got 3 and False"),
        ({"rewind": True, "rewind_step": -1}, "a number of steps from 0"),
        ({"rewind": True}, "rewind follows training: give sparsity a schedule"),
    ],
)
def test_mistakes(settings, message):
    with pytest.raises(errors.UserError) as e:
        T.prune(sparsity=0.5, **settings).encode(draw())
    assert message in str(e.value)
