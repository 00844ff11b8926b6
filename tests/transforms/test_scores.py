"""Scores against their formulas in NumPy, leaf by leaf and step by step."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lib import errors, representations, schedules
from lib import transforms as T
from lib.transforms.scores import SCORES

KEY = jax.random.key(0)
SHAPES = {"a": (4, 3), "b": (4, 3)}
GRADIENT = ["fisher", "movement", "taylor"]


def draw(seed):
    rng = np.random.default_rng(seed)
    return {
        name: {"kernel": rng.normal(size=shape).astype(np.float32)}
        for name, shape in SHAPES.items()
    }


def naive(score, decay, weights, grads):
    """The papers' formulas over a run: lists of arrays, one a step."""
    match score:
        case "movement":
            return -sum(w * g for w, g in zip(weights, grads, strict=True))
        case "taylor":
            signals = [np.abs(w * g) for w, g in zip(weights, grads, strict=True)]
            scale = 1
        case "fisher":
            signals = [g**2 for g in grads]
            scale = weights[-1] ** 2 / 2
    average = np.zeros_like(signals[0])
    for signal in signals:
        average = decay * average + (1 - decay) * signal
    return average * scale


def test_those_that_need_gradients():
    assert [name for name in sorted(SCORES) if SCORES[name].update] == GRADIENT


@pytest.mark.parametrize("name", GRADIENT)
def test_statistics_and_masks_follow_the_gradients(name):
    schedule = schedules.linear(initial=0.0, final=0.75, begin=0, end=6)
    t = T.prune(sparsity=schedule, score=name, decay=0.7, every=2)
    code, state = t.encode(draw(99))
    update, decode = jax.jit(t.update), jax.jit(t.decode)
    seen = {path: ([], []) for path in ("a", "b")}
    expected = {path: np.ones(SHAPES[path], bool) for path in seen}
    for step in range(9):
        weights, grads = draw(step), draw(100 + step)
        state = update(weights, state, T.Signals(grads, jnp.int32(step), KEY))
        gone = round(12 * min(step / 6, 1) * 0.75)
        for path, (ws, gs) in seen.items():
            ws.append(weights[path]["kernel"])
            gs.append(grads[path]["kernel"])
            score = naive(name, 0.7, ws, gs)
            ranked = SCORES[name].rank(
                state[f"{path}/kernel"]["statistic"], ws[-1], KEY
            )
            np.testing.assert_allclose(ranked, score, rtol=1e-4, atol=1e-6)
            # A mask moves at every other step and stands still after the end.
            if step % 2 == 0 and gone != (~expected[path]).sum():
                expected[path] = score > np.sort(score, axis=None)[gone - 1]
            mask = state[f"{path}/kernel"]["mask"]
            np.testing.assert_array_equal(mask, expected[path])
            np.testing.assert_array_equal(
                decode(weights, state)[path]["kernel"], np.where(mask, ws[-1], 0)
            )
    assert (~expected["a"]).sum() == 9
    assert max(update._cache_size(), decode._cache_size()) <= 1
    frozen = representations.thaw(t.freeze(weights, state))
    for path in SHAPES:
        np.testing.assert_array_equal(
            frozen[path]["kernel"], decode(weights, state)[path]["kernel"]
        )


def test_movement_keeps_small_weights_that_grow():
    """A weight that a step makes larger in magnitude beats one that shrinks."""
    t = T.prune(
        sparsity=schedules.one_shot(initial=0.0, final=0.5, begin=1, end=1),
        score="movement",
    )
    params = {"kernel": jnp.float32([[0.1, -0.1], [5.0, -5.0]])}
    code, state = t.encode(params)
    # Descent moves against the gradient: the small ones away from 0, the large to it.
    grads = {"kernel": jnp.float32([[-1.0, 1.0], [1.0, -1.0]])}
    update = jax.jit(t.update)
    for step in range(2):
        state = update(code, state, T.Signals(grads, jnp.int32(step), KEY))
    np.testing.assert_array_equal(state["kernel"]["mask"], [[1, 1], [0, 0]])


def test_random_is_the_seeds_and_the_paths_and_does_not_look_at_weights():
    def masks(seed, values):
        return T.prune(sparsity=0.5, score="random", seed=seed).encode(values)[1]

    once = masks(0, draw(0))
    assert [int(m.sum()) for m in once.values()] == [6, 6]
    for path, mask in masks(0, draw(1)).items():
        np.testing.assert_array_equal(mask, once[path])
    assert (once["a/kernel"] != once["b/kernel"]).any()
    assert any((m != once[p]).any() for p, m in masks(1, draw(0)).items())


def test_random_takes_ever_more_of_the_same():
    t = T.prune(
        sparsity=schedules.linear(initial=0.0, final=1.0, begin=0, end=4),
        score="random",
    )
    code, state = t.encode(draw(0))
    update = jax.jit(t.update)
    for step in range(5):
        before = state
        state = update(code, state, T.Signals(code, jnp.int32(step), KEY))
        for path, mask in state.items():
            assert not (mask & ~before[path]).any()
            assert (~mask).sum() == 3 * step


@pytest.mark.parametrize("scheduled", [False, True])
def test_given_scores_rank(scheduled):
    scores = {
        "a/kernel": np.arange(12.0).reshape(4, 3),
        "b/kernel": -np.arange(12.0).reshape(4, 3),
        "elsewhere": np.zeros(1),
    }
    sparsity = schedules.constant(value=0.5) if scheduled else 0.5
    t = T.prune(sparsity=sparsity, score="given", scores=scores)
    code, state = t.encode(draw(0))
    if scheduled:
        state = t.update(code, state, T.Signals(code, jnp.int32(0), KEY))
    for path in ("a/kernel", "b/kernel"):
        mask = state[path]["mask"] if scheduled else state[path]
        np.testing.assert_array_equal(mask, scores[path] > np.median(scores[path]))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"score": "magnitud"}, "unknown score 'magnitud'; did you mean 'magnitude'?"),
        (
            {"score": "given"},
            "goes with score='given', got no scores and score='given'",
        ),
        ({"scores": {}}, "goes with score='given', got scores and score='magnitude'"),
        ({"decay": 1.0}, "decay is in [0, 1), got 1.0"),
        ({"score": "random", "distribution": "lamp"}, "lamp ranks squared weights"),
    ],
)
def test_mistakes(settings, message):
    with pytest.raises(errors.UserError) as e:
        T.prune(**{"sparsity": 0.5, **settings})
    assert message in str(e.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"score": "taylor"},
            "score 'taylor' follows training: give sparsity a schedule",
        ),
        (
            {"score": "given", "scores": {"a/kernel": np.ones((4, 3)), "b/kernl": 0}},
            "unknown path of given scores 'b/kernel'; did you mean 'b/kernl'?",
        ),
        (
            {"score": "given", "scores": {"a/kernel": np.ones(3), "b/kernel": 0}},
            "scores of a/kernel have shape (3,), its weight has (4, 3)",
        ),
    ],
)
def test_mistakes_that_show_at_encode(settings, message):
    with pytest.raises(errors.UserError) as e:
        T.prune(**{"sparsity": 0.5, **settings}).encode(draw(0))
    assert message in str(e.value)


# Soft movement: a threshold instead of a count.


def soft(**changes):
    return T.soft_movement(**{"threshold": 0.4, "rate": 2.0, "strength": 3.0} | changes)


def test_soft_movement_is_the_papers_rule():
    t = soft(threshold=schedules.linear(initial=0.3, final=0.45, begin=0, end=5))
    code, state = t.encode(draw(0))
    assert all(s["mask"].all() for s in state.values())
    update = jax.jit(t.update)
    scores = {path: np.zeros(shape) for path, shape in SHAPES.items()}
    came_back = 0
    for step in range(7):
        weights, grads = draw(step), draw(100 + step)
        before = state
        state = update(weights, state, T.Signals(grads, jnp.int32(step), KEY))
        least = 0.3 + 0.15 * min(step / 5, 1)
        for path, score in scores.items():
            share = 1 / (1 + np.exp(-score))
            w, g = weights[path]["kernel"], grads[path]["kernel"]
            # The penalty is the mean over both leaves.
            score -= 2.0 * (w * g + 3.0 * share * (1 - share) / 24)
            found = state[f"{path}/kernel"]
            np.testing.assert_allclose(found["score"], score, rtol=1e-4, atol=1e-5)
            kept = 1 / (1 + np.exp(-score)) > least
            np.testing.assert_array_equal(found["mask"], kept)
            came_back += (kept & ~np.asarray(before[f"{path}/kernel"]["mask"])).sum()
            np.testing.assert_array_equal(
                t.decode(weights, state)[path]["kernel"], np.where(kept, w, 0)
            )
    assert came_back > 0 and update._cache_size() <= 1
    frozen = representations.thaw(t.freeze(weights, state))
    jax.tree.map(np.testing.assert_array_equal, frozen, t.decode(weights, state))
    ones = jax.tree.map(jnp.ones_like, code)
    _, pull = jax.vjp(lambda c: t.decode(c, state), weights)
    for path, mask in ((p, state[f"{p}/kernel"]["mask"]) for p in SHAPES):
        np.testing.assert_array_equal(pull(ones)[0][path]["kernel"], mask)


def test_soft_movement_without_gradient_or_penalty_keeps_everything():
    t = soft(strength=0.0)
    code, state = t.encode(draw(0))
    zeros = jax.tree.map(jnp.zeros_like, code)
    state = t.update(code, state, T.Signals(zeros, jnp.int32(0), KEY))
    jax.tree.map(np.testing.assert_array_equal, t.decode(code, state), code)


def test_soft_movement_around_quantize_keeps_its_zeros():
    for order in (1, -1):
        parts = [soft(), T.quantize(bits=4)][::order]
        t = T.chain(*parts)
        code, state = t.encode(draw(0))
        state = t.update(code, state, T.Signals(draw(1), jnp.int32(0), KEY))
        decoded = t.decode(code, state)
        for path, s in state[0 if order == 1 else 1].items():
            assert not s["mask"].all()
            w = np.asarray(decoded[path.split("/")[0]]["kernel"])
            assert (w[~np.asarray(s["mask"])] == 0).all()
        thawed = representations.thaw(t.freeze(code, state))
        jax.tree.map(
            np.testing.assert_array_equal, thawed, jax.jit(t.decode)(code, state)
        )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"threshold": 0.5}, "threshold is in [0, 0.5), got 0.5"),
        ({"rate": -1.0}, "rate is at least 0, got -1.0"),
        ({"strength": float("nan")}, "strength is at least 0, got nan"),
    ],
)
def test_mistakes_of_soft_movement(settings, message):
    with pytest.raises(errors.UserError) as e:
        soft(**settings)
    assert message in str(e.value)
