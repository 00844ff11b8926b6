"""Small training jobs: data that can be learnt, and all that `loop.fit` is given."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lib import models, objectives
from lib import transforms as T
from lib.data import examples, normalise, pipeline, splits
from lib.train import checkpoint, evaluate, loop, optimizer, step

CLASSES = 4
SHAPE = (6, 6, 1)
EXAMPLE = jax.ShapeDtypeStruct((1, *SHAPE), jnp.float32)
EXAMPLES = 72
NORMALISATION = normalise.Normalisation((80.0,), (50.0,))
SETTINGS = {
    "cross_entropy": dict(weight=1.0, label_smoothing=0.0),
    "l2": dict(weight=0.5, pattern="kernel"),
}


def split(kind=splits.Train, count=EXAMPLES, seed=0):
    """Images of noise in which row c is bright for class c."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(CLASSES, size=count).astype(np.int32)
    images = rng.integers(0, 120, (count, *SHAPE), np.uint8)
    images[np.arange(count), labels] += 100
    return kind(
        "toy", examples.Arrays({"input": images, "label": labels}), CLASSES, SHAPE
    )


def mlp(**fields):
    return models.build("mlp", classes=CLASSES, **{"widths": (8,), **fields})


def cnn():
    return models.build("cnn", classes=CLASSES, widths=(4, 8))


def adam(peak=1e-2, **settings):
    rate = optimizer.learning_rate(peak=peak, decay="cosine", warmup=0.1, steps=20)
    kept = dict(weight_decay=0.01, momentum=0.9, clip=1.0)
    return optimizer.build("adamw", learning_rate=rate, **{**kept, **settings})


class Job(NamedTuple):
    recipe: step.Recipe
    state: step.State
    feed: pipeline.Feed
    fixed: step.Fixed

    def steps(self, count):
        """Takes steps one by one on one device; yields (state, metrics)."""
        advance = jax.jit(lambda s, r, f: step.advance(self.recipe, take, s, r, f))
        take, state = self.feed.take, self.state
        for _ in range(count):
            rows = jax.tree.map(lambda r: r[0], self.feed.next(1))
            state, metrics = advance(state, rows, self.fixed)
            yield state, metrics


def make(
    module=None,
    *,
    transform=None,
    rules=(),
    ranges=None,
    terms=("cross_entropy",),
    optimize: optax.GradientTransformation | None = None,
    augmentation=None,
    mixing=None,
    ema=0.0,
    seed=0,
    batch_size=16,
    train: Any = None,
    streamed=False,
    axis=None,
) -> Job:
    module = module or mlp()
    train = train or split()
    params, variables = models.init(module, jax.random.key(seed), SHAPE)
    recipe = step.Recipe(
        network=step.Network(
            models.make_apply(models.bind_axis(module, axis)), tuple(rules)
        ),
        transform=transform or T.identity(),
        optimizer=optimize or adam(),
        objective=objectives.build(terms, SETTINGS),
        prepare=pipeline.preparation(NORMALISATION, augmentation, mixing),
        ema=ema,
    )
    kind = pipeline.Loader if streamed else pipeline.OnDevice
    options = dict(threads=2, ahead=2) if streamed else dict(sharding=None)
    feed = kind(train, batch_size=batch_size, seed=seed, **options)
    state = step.init(recipe, params, variables, ranges or {})
    fixed = step.Fixed(jnp.asarray(seed, jnp.int32), feed.resident, None)
    return Job(recipe, state, feed, fixed)


class Log(list):
    """Keeps what the loop logs, and calls `then(steps taken)` after each record."""

    def __init__(self, then=lambda done: None):
        super().__init__()
        self._then = then

    def __call__(self, done, values):
        self.append((done, values))
        self._then(done)

    def of(self, name):
        return {done: values[name] for done, values in self if name in values}


def fit(job, directory, *, steps=20, log=None, say=print, **changes):
    """Runs `loop.fit` as an experiment would, from the newest checkpoint."""
    plain = pipeline.preparation(NORMALISATION, None)
    measure = evaluate.make(job.recipe.network, plain, 32)
    held_out = split(splits.Validation, 40, seed=9)

    def validate(now):
        params = job.recipe.transform.decode(step.trained(now), now.codec)
        return measure(params, now.variables, now.ranges, held_out)

    checkpoints = checkpoint.Checkpoints(directory, say)
    settings = dict(
        recipe=job.recipe,
        state=job.state,
        restored=checkpoints.restore(job.state),
        feed=job.feed,
        fixed=job.fixed,
        pace=loop.Pace(steps=steps, call=5, log=5, save=5),
        parallel_by="jit",
        validate=validate,
        eligible=0,
        patience=0,
        checkpoints=checkpoints,
        log=Log() if log is None else log,
        stop=lambda: False,
    )
    try:
        return loop.fit(**{**settings, **changes})
    finally:
        checkpoints.close()


def same(a, b):
    """Asserts that two trees are equal in structure, dtypes and every bit."""
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        x, y = np.asarray(x), np.asarray(y)
        assert (x.dtype, x.shape) == (y.dtype, y.shape)
        assert x.tobytes() == y.tobytes()


def close(a, b, tolerance):
    """Asserts that two trees of numbers agree to an absolute tolerance."""
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=0, atol=tolerance), a, b
    )
