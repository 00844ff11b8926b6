"""Many runs of one stage on different examples, side by side in one program.

Each starts from fresh weights and ends in what it says of every example of the pool, so
whoever asks judges it on the part that it did not learn from.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments import programs
from lib import errors, objectives
from lib.data import dataset, pipeline, subsets
from lib.train import forms, population


class Run(NamedTuple):
    """What a run of a population has for its own.

    Attributes:
      members: int indices `[n]` into the pool, what it learns from.
      seed: of its weights, the order of its examples and what its steps draw.
      settings: {path of a field: number}, the same fields in all runs; traced.
    """

    members: np.ndarray
    seed: int
    settings: Mapping[str, float] = {}


def check(config: Any, settings: Any, what: str) -> None:
    """Raises a `UserError` for a stage that a population cannot train.

    Args:
      config: the whole config.
      settings: `stage`, its name; `form` and `together`, as `Population.logits` has.
      what: who asks, for messages.
    """
    if settings.together < 1:
        raise errors.UserError(
            f"{what}: together is at least 1, got {settings.together}"
        )
    known = dict.fromkeys((forms.AUTO, *forms.FORMS))
    errors.lookup(known, settings.form, f"form of {what}")
    name = settings.stage
    errors.lookup(dict.fromkeys(config.stages), name, f"stage of {what}")
    stage = config[name]
    programs.check(what, name, stage)
    if stage.steps < 1:
        raise errors.UserError(f"{what}: {name}.steps is at least 1, got {stage.steps}")
    if stage.use != "last":
        raise errors.UserError(
            f"{what}: a run is judged on all that it did not learn from, so nothing is "
            f"left to choose its best checkpoint on; set {name}.use='last'"
        )
    programs.check_values(config, name, {})
    objectives.build(stage.objective, config)


class Population:
    """A stage as one program over `Run`s; each form is compiled at its first call."""

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
        self._stage = config[name]
        self._size, self._count = config.eval_batch_size, len(pool.label)
        self._resident = jax.device_put(pool.fields)
        # Filled up with copies of the last example, which are cut off again.
        place = np.arange(-(-self._count // self._size) * self._size)
        shown = pool.fields["input"][np.minimum(place, self._count - 1)]
        self._shown = jax.device_put(shown.reshape(-1, self._size, *shown.shape[1:]))
        parts = programs.parts(config, name, data)
        run = population.logits_of(
            parts.recipe_of, parts.init, pipeline.OnDevice.take, parts.plain
        )
        self._forms = {name: form(run) for name, form in forms.FORMS.items()}

    def chosen(self, form: str, runs: Sequence[Run], together: int) -> str:
        """Returns a form; for "auto" what is fastest in a twentieth of the steps.

        Args:
          form: of `forms.FORMS`, or "auto".
          runs: as to come; `together` of them are tried.
          together: as in `logits`.
        """
        if form != forms.AUTO:
            return form
        some = [self._member(one) for one in runs[:together]]
        tried = {name: self._forms[name] for name in forms.possible()}
        shared = self._resident, self._shown[:1]
        seconds = forms.pilot(tried, population.beginnings(some), *shared)
        return programs.fastest(seconds, len(some))

    def logits(self, runs: Sequence[Run], together: int, form: str) -> np.ndarray:
        """Trains the runs; returns float32 `[runs, N, classes]`, all of the pool.

        Args:
          runs: at least one.
          together: how many are in a call.
          form: of `forms.FORMS`: how those of a call go.
        """
        members = [self._member(one) for one in runs]
        together, found = min(together, len(members)), []
        for start in range(0, len(members), together):
            group = members[start : start + together]
            full = group
            if form != "sequential":  # one shape, one program
                full = group + group[:1] * (together - len(group))
            ran = self._forms[form](full, self._resident, self._shown)
            found += [said for _, said in ran[: len(group)]]
        return np.stack([x.reshape(-1, x.shape[-1])[: self._count] for x in found])

    def _member(self, run: Run) -> population.Member:
        rows = subsets.rows(
            run.members,
            steps=self._stage.steps,
            batch_size=self._stage.batch_size,
            seed=run.seed,
        )
        numbers = {k: jnp.float32(v) for k, v in run.settings.items()}
        return population.Member(numbers, jnp.int32(run.seed), rows)


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
