"""Who is timed: the hand-written loop, Pare's own step, and peers in that loop."""

import functools
import importlib.util
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from experiments.benchmarks import peers, plain
from lib import models, objectives, program, schedules
from lib import transforms as T
from lib.data import normalise, pipeline
from lib.train import optimizer, parallel, step

MEAN, STD = 127.5, 73.9  # of pixels drawn evenly from 0 to 255
ACTIVATIONS = ((".", {"bits": 8, "symmetric": False}),)


class Job(NamedTuple):
    """What all contenders do alike, on one model.

    Attributes:
      module: the Linen module.
      params: its weights before the first step.
      variables: its other collections.
      data: `{"input": uint8 [N, H, W, C], "label": int32 [N]}` on the device.
      settings: the config.
      steps: of the whole measurement.
      convolves: whether the model has a convolution.
    """

    module: nn.Module
    params: Any
    variables: Any
    data: dict[str, jax.Array]
    settings: Any
    steps: int
    convolves: bool


class Contender(NamedTuple):
    """A training run that can be advanced.

    Attributes:
      run: (state, index [steps, batch]) -> (state, metrics); donates the state.
      state: before the first step.
    """

    run: Callable[[Any, np.ndarray], tuple[Any, dict[str, jax.Array]]]
    state: Any


class Absent(Exception):  # noqa: N818  it is no error: the table says so
    """A peer that takes no part; the message says why."""


def _by_hand(job: Job, apply: plain.Apply) -> Contender:
    tx = plain.optimizer(job.settings.learning_rate, job.settings.weight_decay)
    run = plain.make(apply, tx, MEAN, STD)
    return Contender(
        lambda state, index: run(state, index, job.data),
        plain.start(tx, job.params, job.variables),
    )


def _module_apply(module: nn.Module) -> plain.Apply:
    def apply(params, variables, images):
        collections = {"params": params, **variables}
        (logits, _), variables = module.apply(
            collections, images, train=True, mutable=list(variables)
        )
        return logits, variables

    return apply


def hand_written(job: Job) -> Contender:
    """Returns the yardstick."""
    return _by_hand(job, _module_apply(job.module))


def hand_written_stepwise(job: Job) -> Contender:
    """Returns the yardstick as most people run it: each step a call from Python."""
    whole = hand_written(job)

    def run(state, index):
        metrics = []
        for rows in index:
            state, found = whole.run(state, rows[None])
            metrics.append(found)
        return state, metrics[-1]

    return Contender(run, whole.state)


def _ours(job: Job, transform: T.Transform, rules: tuple = ()) -> Contender:
    """Returns Pare's step over Pare's mesh, with the settings of the yardstick."""
    settings = job.settings
    channels = job.data["input"].shape[-1]
    pixels = normalise.Normalisation((MEAN,) * channels, (STD,) * channels)
    prepare = pipeline.preparation(pixels, None)
    network = step.Network(models.make_apply(job.module), rules)
    ranges = {}
    if rules:
        ranges = _calibrate(job, network, prepare)
    recipe = step.Recipe(
        network=network,
        transform=transform,
        optimizer=optimizer.build(
            "adamw",
            learning_rate=optimizer.learning_rate(
                peak=settings.learning_rate, decay="constant", warmup=0, steps=job.steps
            ),
            weight_decay=settings.weight_decay,
            momentum=0.9,
            clip=0,
        ),
        objective=objectives.combine(
            {"cross_entropy": (1.0, objectives.cross_entropy(label_smoothing=0.0))}
        ),
        prepare=prepare,
    )
    runner = parallel.jit(
        functools.partial(step.advance, recipe, pipeline.OnDevice.take)
    )
    fixed = step.Fixed(jnp.asarray(settings.seed, jnp.int32), job.data, None)
    fixed = runner.put(fixed)
    return Contender(
        lambda state, index: runner.run(state, {"index": index}, fixed),
        runner.put(step.init(recipe, job.params, job.variables, ranges)),
    )


def _calibrate(job: Job, network: step.Network, prepare: Callable) -> program.Ranges:
    """Returns the ranges of the activations over the first four batches."""
    images = prepare(None, job.data)["input"]
    size = job.settings.batch_size
    batches = (
        (job.variables, images[i * size : (i + 1) * size])
        for i in range(min(4, len(images) // size))
    )
    return program.calibrate(
        network.apply, job.params, batches, program.minmax(), train=True, key=None
    )


def dense(job: Job) -> Contender:
    """Returns Pare without a technique."""
    return _ours(job, T.chain())


def pruned(job: Job) -> Contender:
    """Returns Pare under a cubic schedule that moves at every update of the masks."""
    sparsity = schedules.cubic(
        initial=0.0, final=job.settings.sparsity, begin=0, end=2 * job.steps
    )
    every = job.settings.every
    return _ours(job, T.chain(T.prune(sparsity=sparsity, every=every)))


def quantized(job: Job) -> Contender:
    """Returns Pare with 8-bit weights and activations."""
    return _ours(job, T.chain(T.quantize(bits=8)), ACTIVATIONS)


def qwix(job: Job) -> Contender:
    """Returns qwix in the hand-written loop."""
    _need("qwix")
    return _by_hand(job, peers.qwix(job.module))


def aqt(job: Job) -> Contender:
    """Returns AQT in the hand-written loop."""
    _need("aqt")
    if job.convolves:
        raise Absent("no convolution")
    return _by_hand(job, peers.aqt(job.module))


def _need(package: str) -> None:
    if importlib.util.find_spec(package) is None:
        raise Absent("not installed")


CONTENDERS: dict[str, Callable[[Job], Contender]] = {
    "plain": hand_written,
    "stepwise": hand_written_stepwise,
    "dense": dense,
    "prune": pruned,
    "quantize": quantized,
    "qwix": qwix,
    "aqt": aqt,
}
