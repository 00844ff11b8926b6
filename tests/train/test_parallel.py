"""One step on 8 simulated devices: jitted or pmapped, the numbers of one device."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lib import errors, models, program, schedules
from lib import transforms as T
from lib.data import augment
from lib.train import parallel, step
from tests.train import jobs

STEPS = 20
RULES = ((".", {"bits": 8, "symmetric": False}),)


def both():
    """Prunes along a schedule, then quantizes."""
    rising = schedules.cubic(initial=0.0, final=0.8, begin=0, end=12)
    return T.chain(T.prune(sparsity=rising, every=4), T.quantize(bits=4))


@functools.cache
def ranges(module):
    params, variables = models.init(module, jax.random.key(0), jobs.SHAPE)
    apply = models.make_apply(module)
    images = (jobs.split().source.fields["input"][:32].astype(np.float32) - 80) / 50
    batches = [(variables, jnp.asarray(images))]
    return program.calibrate(
        apply, params, batches, program.minmax(), train=False, key=None
    )


def compressed(module, axis=None, **settings):
    """A job with every kind of technique in it, and an augmentation."""
    return jobs.make(
        module,
        transform=both(),
        rules=RULES,
        ranges=ranges(module),
        terms=("cross_entropy", "l2"),
        augmentation=augment.shift(pixels=1, fill="zero"),
        ema=0.9,
        axis=axis,
        **settings,
    )


MODULES = {"mlp": jobs.mlp, "cnn": jobs.cnn}


@functools.cache
def alone(name):
    """The metrics and the last state of a run on one device."""
    states, metrics = zip(*compressed(MODULES[name]()).steps(STEPS), strict=True)
    return jax.tree.map(lambda *x: np.stack(x), *metrics), states[-1]


def runs(mode, job, call, steps=STEPS):
    """Runs a job on all devices; returns all its metrics and its last state."""
    advance = functools.partial(step.advance, job.recipe, job.feed.take)
    runner = parallel.PARALLEL[mode](advance)
    state, fixed = runner.put(job.state), runner.put(job.fixed)
    parts = []
    for _ in range(steps // call):
        state, metrics = runner.run(state, job.feed.next(call), fixed)
        parts.append(jax.device_get(metrics))
    return jax.tree.map(lambda *x: np.concatenate(x), *parts), runner.get(state)


@pytest.mark.slow
@pytest.mark.parametrize("call", [1, 5])
@pytest.mark.parametrize("mode", parallel.PARALLEL)
@pytest.mark.parametrize("name", MODULES)
def test_all_devices_give_the_numbers_of_one(name, mode, call):
    assert jax.local_device_count() == 8
    axis = parallel.AXIS if mode == "pmap" else None
    metrics, state = runs(mode, compressed(MODULES[name](), axis), call)
    expected, last = alone(name)
    assert expected["loss"][-1] < expected["loss"][0]
    jobs.close(metrics, expected, 1e-5)
    assert int(state.step) == STEPS
    jobs.close(
        (state.code, state.variables, state.ema),
        (last.code, last.variables, last.ema),
        1e-4,
    )
    masks = [np.asarray(m) for m in jax.tree.leaves(state.codec[0])]
    for mask, other in zip(masks, jax.tree.leaves(last.codec[0]), strict=True):
        np.testing.assert_array_equal(mask, other)


@pytest.mark.slow
@pytest.mark.parametrize("mode", parallel.PARALLEL)
def test_steps_per_call_change_nothing(mode):
    one, state = runs(mode, jobs.make(), 1)
    five, other = runs(mode, jobs.make(), 5)
    jobs.close(five, one, 1e-6)
    jobs.close(other.code, state.code, 1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("mode", parallel.PARALLEL)
def test_the_state_is_donated_and_the_callers_own_is_not(mode):
    job = jobs.make()
    runner = parallel.PARALLEL[mode](
        functools.partial(step.advance, job.recipe, job.feed.take)
    )
    before = runner.put(job.state)
    fixed = runner.put(job.fixed)
    after, _ = runner.run(before, job.feed.next(1), fixed)
    assert all(x.is_deleted() for x in jax.tree.leaves(before.code))
    kept = jax.tree.leaves((after, fixed, job.state, job.fixed))
    assert not any(x.is_deleted() for x in kept)
    jobs.same(runner.get(runner.put(job.state)), job.state)


@pytest.mark.slow
@pytest.mark.parametrize("mode", parallel.PARALLEL)
def test_only_the_first_call_compiles(mode):
    job = jobs.make(transform=both())
    traced, compiled = itertools.count(), []

    def advance(*args):
        next(traced)
        return step.advance(job.recipe, job.feed.take, *args)

    def listen(event, duration, **kwargs):
        if event == "/jax/core/compile/backend_compile_duration":
            compiled.append(kwargs)

    runner = parallel.PARALLEL[mode](advance)
    state, fixed = runner.put(job.state), runner.put(job.fixed)
    state, _ = runner.run(state, job.feed.next(2), fixed)
    once = next(traced)
    assert once >= 1
    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        for _ in range(3):
            state, _ = runner.run(state, job.feed.next(2), fixed)
        assert next(traced) == once + 1 and not compiled
        jax.jit(lambda x: x * 3.25 + 1)(jnp.ones(7))
        assert compiled  # the listener listens
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


def test_replicas_drop_out_differently():
    def apply(params, variables, images, *, train, key):
        noise = jax.random.uniform(key, ())
        return (images.reshape(len(images), -1) @ params["w"], {"n": noise}), variables

    def objective(outputs, batch, params, teacher):
        noise = outputs[1]["n"]
        return jnp.sum(outputs[0]), {"noise": noise, "square": noise**2}

    job = jobs.make()
    recipe = job.recipe._replace(network=step.Network(apply), objective=objective)
    state = step.init(recipe, {"w": jnp.ones((36, 4))}, {}, {})
    metrics, _ = runs("pmap", job._replace(recipe=recipe, state=state), 1, steps=3)
    variance = metrics["square"] - metrics["noise"] ** 2  # over the replicas
    assert (variance > 1e-3).all()
    assert len(set(metrics["noise"].tolist())) == 3


@pytest.mark.parametrize("size", [0, -8, 4, 12])
def test_a_batch_that_the_devices_do_not_share_evenly(size):
    with pytest.raises(errors.UserError, match=f"batch_size {size} .* 8 devices"):
        parallel.check_batch(size)


@pytest.mark.parametrize("size", [8, 64])
def test_a_batch_that_the_devices_share(size):
    assert parallel.check_batch(size) is None
