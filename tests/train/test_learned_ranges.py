"""Steps and ranges that are trained, against a loop written by hand from the papers."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import lax

from lib import program
from lib import transforms as T
from lib.train import optimizer, parallel, step
from tests.train import jobs
from tests.train.test_step import plain_batches

LSQ = {"bits": 4, "symmetric": True, "learn": "lsq"}
PACT = {"bits": 3, "symmetric": False, "learn": "pact"}
PLUS = {"bits": 3, "symmetric": False, "learn": "lsq+"}
RULES = (("dense_0", LSQ), ("logits", PACT))


def ranges(first=(-1.0, 2.0), last=(0.0, 0.5)):
    found = {"MLP/dense_0": {"lhs": first}, "MLP/logits": {"lhs": last}}
    return jax.tree.map(jnp.float32, found)


def make(rules=RULES, transform=None, given=None, **settings):
    settings = {"optimize": optax.sgd(0.05, momentum=0.9), **settings}
    return jobs.make(
        settings.pop("module", None) or jobs.mlp(),
        transform=transform or T.identity(),
        rules=rules,
        ranges=ranges() if given is None else given,
        **settings,
    )


def changed(job, **recipe):
    return job._replace(recipe=job.recipe._replace(**recipe))


def learned_step(v, step, q, count):
    """The paper's own code (appendix A of 1902.08153): q on both sides."""
    scale = 1 / np.sqrt(count * q)
    step = lax.stop_gradient(step - step * scale) + step * scale
    v = v / step
    # What rounds onto the outermost point counts as inside.
    inside = jnp.abs(v) <= q + 0.5
    v = jnp.where(inside, v, lax.stop_gradient(jnp.clip(v, -q, q)))
    whole = jnp.clip(jnp.round(v), -q, q)
    return (v + lax.stop_gradient(whole - v)) * step


def clipped(x, alpha, steps):
    """PACT's equations 1 and 2, straight through the rounding."""
    y = 0.5 * (jnp.abs(x) - jnp.abs(x - alpha) + alpha)
    scale = alpha / steps
    return y + lax.stop_gradient(jnp.round(y / scale) * scale - y)


@pytest.mark.slow
def test_steps_are_the_loop_written_by_hand():
    job = make(transform=T.lsq(bits=3))
    code, codec = job.state.code, job.state.codec
    begin = {k: codec[f"{k}/kernel"]["begin"] for k in code}
    mine = {
        "weights": {k: code[k]["kernel"]["w"] for k in code},
        "biases": {k: code[k]["bias"] for k in code},
        "steps": begin,
        "step of images": jnp.float32(2 / 7),
        "alpha": jnp.float32(0.5),
    }
    optimize = optax.sgd(0.05, momentum=0.9)
    slots = optimize.init(mine)

    def loss_of(p, images, labels):
        w = {
            k: learned_step(v, p["steps"][k], 3, v.shape[0])
            for k, v in p["weights"].items()
        }
        x = images.reshape(len(images), -1)
        x = learned_step(x, p["step of images"], 7, x.shape[1])
        x = jax.nn.relu(x @ w["dense_0"] + p["biases"]["dense_0"][None])
        x = clipped(x, p["alpha"], 7)
        logits = x @ w["logits"] + p["biases"]["logits"][None]
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    @jax.jit
    def plain_step(p, slots, images, labels):
        loss, grads = jax.value_and_grad(loss_of)(p, images, labels)
        updates, slots = optimize.update(grads, slots)
        return optax.apply_updates(p, updates), slots, loss

    run = list(job.steps(6))
    for (_, metrics), batch in zip(run, plain_batches(16), strict=False):
        mine, slots, loss = plain_step(mine, slots, *batch)
        np.testing.assert_allclose(metrics["loss"], loss, rtol=1e-4)
    state, _ = run[-1]
    for k in code:
        kernel = state.code[k]["kernel"]
        jobs.close(kernel["w"], mine["weights"][k], 1e-4)
        jobs.close(kernel["step"] * begin[k], mine["steps"][k], 1e-5)
        assert np.abs(kernel["step"] - 1).max() > 1e-3
    low, high = state.ranges["MLP/dense_0"]["lhs"]
    np.testing.assert_allclose(high, 7 * mine["step of images"], rtol=1e-4)
    assert low == -high and abs(float(high) - 2) > 1e-3
    low, high = state.ranges["MLP/logits"]["lhs"]
    np.testing.assert_allclose(high, mine["alpha"], rtol=1e-4)
    assert low == 0 and abs(float(high) - 0.5) > 1e-2


def test_where_nothing_learns_the_optimiser_knows_of_no_ranges():
    still = tuple((p, {k: s[k] for k in ("bits", "symmetric")}) for p, s in RULES)
    job = make(rules=still, optimize=jobs.adam())
    jobs.same(job.state.optimizer, job.recipe.optimizer.init(job.state.code))
    assert job.state.ranges["MLP/dense_0"]["lhs"][0] == -1  # as it was calibrated


@pytest.mark.slow
def test_weight_decay_is_of_weights():
    transform = T.lsq(bits=4)
    job = make(transform=transform, optimize=jobs.adam(weight_decay=0.5))
    trained = {
        "code": job.state.code,
        "ranges": program.trained(job.state.ranges, RULES),
    }
    decay = optimizer.build(
        "sgd", learning_rate=lambda step: 1.0, weight_decay=0.5, momentum=0.0, clip=0.0
    )
    still = jax.tree.map(jnp.zeros_like, trained)
    moves, _ = decay.update(still, decay.init(trained), trained)
    for place, move in jax.tree_util.tree_flatten_with_path(moves)[0]:
        moved = jax.tree_util.keystr(place).endswith("['w']")
        assert bool(np.any(move != 0)) == moved, place


@pytest.mark.slow
def test_a_renewed_weight_begins_anew_beside_ranges():
    mask = jnp.ones((36, 8), bool).at[0].set(False)
    renewing = T.identity()._replace(
        renew=lambda code, before, after: (code, {"dense_0/kernel": mask})
    )
    plain = make(transform=renewing, rules=(), given={})
    beside = make(transform=renewing)
    for job, place in ((plain, lambda t: t), (beside, lambda t: t["code"])):
        ((state, _),) = job.steps(1)
        traces = place(state.optimizer[0].trace)
        assert (np.asarray(traces["dense_0"]["kernel"][1:]) == 0).all()
        assert np.any(traces["dense_0"]["kernel"][0] != 0)
        assert np.any(traces["logits"]["kernel"] != 0)


@pytest.mark.slow
def test_a_penalty_pulls_alpha_down():
    free, held = make(), changed(make(), rounding=step.Rounding(shrink=0.5))
    ((one, _),), ((other, _),) = free.steps(1), held.steps(1)
    for site, alpha in (("MLP/logits", 0.5), ("MLP/dense_0", 2.0)):
        pulled = one.ranges[site]["lhs"][1] - other.ranges[site]["lhs"][1]
        np.testing.assert_allclose(pulled, 0.05 * 0.5 * alpha, rtol=1e-3)
    jobs.same(one.code, other.code)


@pytest.mark.slow
def test_the_penalty_waits_until_there_is_rounding():
    """Before, the loss does not hold a range, and Adam would shrink it in strides."""
    late = step.Rounding(begin=2, shrink=0.5)
    job = changed(make(optimize=optax.adam(0.1)), rounding=late)
    first, second, third = (state.ranges for state, _ in job.steps(3))
    jobs.same(first, job.state.ranges)
    jobs.same(second, first)
    assert third["MLP/logits"]["lhs"][1] != second["MLP/logits"]["lhs"][1]


TRACKED = tuple((p, {"bits": s["bits"], "symmetric": False}) for p, s in RULES)


@pytest.mark.slow
def test_ranges_follow_the_batches_and_rounding_begins_late():
    """Float until step 2, as in Jacob et al.; the ranges move from the first step."""
    job = changed(make(TRACKED), rounding=step.Rounding(begin=2, track=0.75))
    plain = make((), given={})
    found = ranges()["MLP/dense_0"]["lhs"]
    pairs = zip(job.steps(3), plain.steps(3), plain_batches(16), strict=False)
    losses = []
    for (state, metrics), (_, float_metrics), (images, _) in pairs:
        ends = images.min(), images.max()
        found = [0.75 * a + 0.25 * b for a, b in zip(found, ends, strict=True)]
        np.testing.assert_allclose(state.ranges["MLP/dense_0"]["lhs"], found, rtol=1e-5)
        losses.append((float(metrics["loss"]), float(float_metrics["loss"])))
    off = [abs(ours - plain) for ours, plain in losses]
    assert max(off[:2]) < 1e-6 and off[2] > 1e-4
    # Those that are learned are not tracked.
    both = changed(make(RULES[1:] + TRACKED[:1]), rounding=step.Rounding(track=0.75))
    ((state, _),) = both.steps(1)
    assert state.ranges["MLP/logits"]["lhs"][0] == 0
    assert state.ranges["MLP/dense_0"]["lhs"][0] != -1


@pytest.mark.slow
def test_batch_norm_comes_to_rest():
    job = changed(jobs.make(jobs.mlp(norm=True)), freeze_norm=2)
    state = [state for state, _ in job.steps(2)][-1]
    resting = step.after(job.recipe, 2)
    assert step.after(job.recipe, 1) == job.recipe != resting
    ((last, _),) = job._replace(recipe=resting, state=state).steps(1)
    jobs.same(last.variables, state.variables)
    # A step of evaluation: batch norm with its running statistics.
    module, (images, labels) = jobs.mlp(norm=True), list(plain_batches(16))[2]

    def loss(params):
        logits, _ = module.apply(
            {"params": params, **state.variables}, images, train=False
        )
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    grads = jax.jit(jax.grad(loss))(state.code)
    updates, _ = job.recipe.optimizer.update(grads, state.optimizer, state.code)
    jobs.close(last.code, optax.apply_updates(state.code, updates), 1e-5)


@pytest.mark.slow
def test_the_loop_changes_recipes_between_two_calls(tmp_path):
    """At step 12, in the middle of a call of 5; dropout stops with batch norm."""

    def made():
        return changed(jobs.make(jobs.mlp(dropout=0.5)), freeze_norm=12)

    log = jobs.Log()
    state = jobs.fit(made(), tmp_path, log=log)
    job = made()
    *_, (middle, _) = job.steps(12)
    rest = job._replace(recipe=step.after(job.recipe, 12), state=middle)
    *_, (last, _) = rest.steps(8)
    jobs.close(state.code, last.code, 1e-5)
    assert list(log.of("loss")) == [5, 10, 15, 20]


def everything(axis=None):
    """A job that learns one range, tracks the other and averages the weights."""
    rules = (("dense_0", {"bits": 4, "symmetric": False}), ("logits", PLUS))
    job = make(rules, T.lsq(bits=4), optimize=jobs.adam(), ema=0.9, axis=axis)
    return changed(job, rounding=step.Rounding(begin=2, track=0.75), freeze_norm=12)


class Killed(BaseException):
    """Stands for the end of a process: nobody catches it."""


@pytest.mark.slow
def test_killed_and_resumed_it_ends_the_same(tmp_path):
    def kill(done):
        if done == 15:
            raise Killed

    whole = jobs.fit(everything(), tmp_path / "whole")
    with pytest.raises(Killed):
        jobs.fit(everything(), tmp_path / "killed", log=jobs.Log(kill))
    jobs.same(jobs.fit(everything(), tmp_path / "killed"), whole)
    assert whole.ranges["MLP/logits"]["lhs"][1] != 0.5


@pytest.mark.slow
def test_replicas_give_the_numbers_of_one():
    """Their gradients are averaged, and what they see of a batch is put together."""
    *_, (alone, _) = everything().steps(5)
    job = everything("data")
    advance = functools.partial(step.advance, job.recipe, job.feed.take)
    runner = parallel.pmap(advance)
    state, fixed = runner.put(job.state), runner.put(job.fixed)
    state, _ = runner.run(state, job.feed.next(5), fixed)
    found = runner.get(state)
    jobs.close(found.ranges, alone.ranges, 1e-4)
    jobs.close(found.code, alone.code, 1e-4)
