"""Many runs of one stage on different examples, side by side in one program.

Each starts from fresh weights and ends in what it says of every example of the pool, so
whoever asks judges it on the part that it did not learn from.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments import recipe
from lib import errors, models, objectives
from lib.data import dataset, pipeline, subsets
from lib.train import population, step


class Run(NamedTuple):
    """What a run of a population has for its own.

    Attributes:
      members: int indices `[n]` into the pool, what it learns from.
      seed: of its weights, the order of its examples and what its steps draw.
    """

    members: np.ndarray
    seed: int


def check(config: Any, name: str, together: int, what: str) -> None:
    """Raises a `UserError` for a stage that a population cannot train.

    Args:
      config: the whole config.
      name: of the stage.
      together: how many runs are to go side by side.
      what: who asks, for messages.
    """
    if together < 1:
        raise errors.UserError(f"{what}: together is at least 1, got {together}")
    errors.lookup(dict.fromkeys(config.stages), name, f"stage of {what}")
    stage = config[name]
    beyond = stage.weights or stage.prepare or stage.freeze_norm != 1
    if stage.teacher or stage.start or stage.program or beyond:
        raise errors.UserError(
            f"{what}: {name} starts afresh, without a teacher and without rounding "
            "activations; clear its start, teacher, program, weights, prepare and "
            "freeze_norm"
        )
    if stage.steps < 1:
        raise errors.UserError(f"{what}: {name}.steps is at least 1, got {stage.steps}")
    recipe.build_chain(config, stage)
    recipe.build_model(stage.model, 2)  # whatever the number of classes
    objectives.build(stage.objective, config)


class Population:
    """A stage as one program over (members, seed); compiled at the first call."""

    def __init__(
        self, config: Any, name: str, data: dataset.Dataset, pool: subsets.Pool
    ):
        """Puts the pool on the device.

        Args:
          config: the whole config.
          name: of the stage; see `check`.
          data: the set that the pool is of.
          pool: what may be learnt from and judged on.
        """
        self._stage = stage = config[name]
        self._size, self._count = config.eval_batch_size, len(pool.label)
        self._resident = jax.device_put(pool.fields)
        # Filled up with copies of the last example, which are cut off again.
        place = np.arange(-(-self._count // self._size) * self._size)
        shown = pool.fields["input"][np.minimum(place, self._count - 1)]
        self._shown = jax.device_put(shown.reshape(-1, self._size, *shown.shape[1:]))
        module = recipe.build_model(stage.model, data.classes)
        network = step.Network(models.make_apply(module))
        made, _ = recipe.build(config, stage, network, None, data.inputs, data.classes)

        def init(key):
            return models.init(module, key, data.shape, data.inputs.DTYPE)

        run = population.logits_of(
            lambda _: made,
            init,
            pipeline.OnDevice.take,
            pipeline.preparation(data.inputs, None),
        )
        self._one = jax.jit(run)
        self._many = jax.jit(jax.vmap(run, in_axes=(0, None, None)))

    def logits(self, runs: Sequence[Run], together: int) -> np.ndarray:
        """Trains the runs; returns float32 `[runs, N, classes]`, all of the pool.

        Args:
          runs: at least one.
          together: how many go side by side; 1: one after another.
        """
        members = [self._member(one) for one in runs]
        found = []
        if together == 1:
            for one in members:
                found.append(self._one(one, self._resident, self._shown)[1])
        else:
            together = min(together, len(members))
            for start in range(0, len(members), together):
                group = members[start : start + together]
                # One shape, one program: the last group is filled up.
                full = group + group[:1] * (together - len(group))
                stacked = jax.tree.map(lambda *x: jnp.stack(x), *full)
                said = self._many(stacked, self._resident, self._shown)[1]
                found += list(said[: len(group)])
        return np.stack(
            [np.asarray(x).reshape(-1, x.shape[-1])[: self._count] for x in found]
        )

    def _member(self, run: Run) -> population.Member:
        rows = subsets.rows(
            run.members,
            steps=self._stage.steps,
            batch_size=self._stage.batch_size,
            seed=run.seed,
        )
        return population.Member({}, jnp.int32(run.seed), rows)


def judged(logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Returns accuracy and mean cross-entropy, in nats, of `[n, classes]` logits."""
    wide = logits.astype(np.float64)
    wide = wide - wide.max(-1, keepdims=True)
    log_shares = wide - np.log(np.exp(wide).sum(-1, keepdims=True))
    own = np.take_along_axis(log_shares, labels[:, None].astype(int), -1)
    return {
        "accuracy": float((logits.argmax(-1) == labels).mean()),
        "loss": float(-own.mean()),
    }
