"""The training step: the only place that knows how a technique meets a gradient."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

from lib import program, transforms
from lib.train import restart
from lib.train.network import Network, Rounding, followed, over_devices, shrunk

Metrics = dict[str, jax.Array]


class State(NamedTuple):
    """Everything a step needs and changes; one pytree of arrays, so one checkpoint.

    Attributes:
      step: int32 scalar, how many steps were taken.
      code: what the optimiser trains.
      codec: the transform's state: masks, bits, codebooks.
      optimizer: the optimiser's slots.
      variables: the model's other collections, such as batch statistics.
      ranges: of the activations that are rounded; {} if none are.
      ema: moving average of `code`; None if there is none.
    """

    step: jax.Array
    code: Any
    codec: Any
    optimizer: Any
    variables: Any
    ranges: Any
    ema: Any


class Fixed(NamedTuple):
    """What a step reads and never changes; passed, not closed over, so not compiled in.

    Attributes:
      seed: int32 scalar; the step's random keys depend on it and on the step only.
      resident: what the feed keeps on the device.
      teacher: (params, variables, ranges) of the teacher, or None.
    """

    seed: jax.Array
    resident: Any
    teacher: Any


class Recipe(NamedTuple):
    """What a stage trains, and how; functions only.

    Attributes:
      network: the model that learns.
      transform: the chain of techniques on its weights.
      optimizer: an optax transformation over the code.
      objective: (outputs, batch, params, teacher's outputs) -> (loss, {term: value}).
      prepare: (key, raw batch, first) -> batch: augments and normalises.
      teacher: the network that teaches, or None.
      ema: decay of the moving average of the code, in [0, 1); 0 for none. Ranges and
        variables are not averaged.
      rounding: when and on which ranges the network's activations are rounded.
      freeze_norm: the first step of those that leave the variables as they are and run
        the model with `train=False`, so that batch norm uses them (Krishnamoorthi
        2018, arXiv 1806.08342, section 3.2.2); see `after`. A model has one such
        switch: dropout stops, too. None: never.
      train: how the model is run.
    """

    network: Network
    transform: transforms.Transform
    optimizer: optax.GradientTransformation
    objective: Callable[..., tuple[jax.Array, Metrics]]
    prepare: Callable[..., Any]
    teacher: Network | None = None
    ema: float = 0.0
    rounding: Rounding = Rounding()
    freeze_norm: int | None = None
    train: bool = True


def after(recipe: Recipe, steps: int) -> Recipe:
    """Returns the recipe of the step that follows so many.

    Another program, not a branch of one: inside a branch, XLA's CPU convolutions are
    more than ten times slower.
    """
    rests = recipe.freeze_norm is not None and steps >= recipe.freeze_norm
    return recipe._replace(train=not rests)


def init(recipe: Recipe, params: Any, variables: Any, ranges: Any) -> State:
    """Returns the state before the first step, from dense weights.

    Can be jitted unless the transform's code has shapes that depend on values.
    """
    code, codec = recipe.transform.encode(params)
    rules = recipe.network.rules
    ranges = program.first_ranges(ranges, rules)
    return State(
        step=jnp.zeros((), jnp.int32),
        code=code,
        codec=codec,
        optimizer=recipe.optimizer.init(_joined(code, program.trained(ranges, rules))),
        variables=variables,
        ranges=ranges,
        # A copy: the state's buffers are donated, and each only once.
        ema=jax.tree.map(jnp.copy, code) if recipe.ema else None,
    )


def _joined(code: Any, ranges: program.Trained) -> Any:
    """Returns what the optimiser is given: the code, with ranges where any learns."""
    return {"code": code, "ranges": ranges} if ranges else code


def trained(state: State) -> Any:
    """Returns the code that stands for the result: the average where one is kept."""
    return state.code if state.ema is None else state.ema


class Gradients(NamedTuple):
    """What one batch says about the weights, and about the ranges of activations."""

    metrics: Metrics  # "loss", each term, "accuracy": scalars of this batch
    variables: Any
    dense: Any  # the gradient at every decoded weight
    code: Any  # the gradient at what the optimiser trains of the weights
    ranges: Any  # the gradient at what it trains of the ranges
    seen: Any  # the extremes of activations whose ranges are tracked


def _forward(
    recipe: Recipe,
    state: State,
    params: Any,
    ranges: program.Trained,
    images: jax.Array,
    key: jax.Array,
) -> tuple[tuple[Any, Any], Any]:
    """Returns ((outputs, variables), extremes seen) of the step's forward pass."""
    network, (begin, track, _) = recipe.network, recipe.rounding
    whole = program.with_trained(state.ranges, ranges, network.rules)
    args = (params, state.variables, whole, images)

    how = dict(train=recipe.train, key=key)
    if not network.rules or not (begin or track):
        return network(*args, **how), {}
    on = state.step >= begin if begin else True
    out, seen = network.tracked(*args, **how, on=on)
    return out, seen if track else {}


def gradients(
    recipe: Recipe, take: Callable, state: State, rows: Any, fixed: Fixed, axis=None
) -> tuple[Gradients, jax.Array]:
    """Returns the gradients of one batch, and a key for the transform's update.

    Args:
      recipe: what is trained.
      take: the feed's `(resident, rows) -> raw batch`.
      state: before the step.
      rows: what the feed gave for this step; this device's part under pmap.
      fixed: see `Fixed`.
      axis: name of the pmap axis to average over, or None.
    """
    key = jax.random.fold_in(jax.random.key(fixed.seed), state.step)
    augment_key, dropout_key, update_key = jax.random.split(key, 3)
    raw = take(fixed.resident, rows)
    first = 0
    if axis is not None:
        place = lax.axis_index(axis)
        first = place * raw["label"].shape[0]
        dropout_key = jax.random.fold_in(dropout_key, place)
    batch = recipe.prepare(augment_key, raw, first)
    taught = None
    if recipe.teacher is not None:
        taught, _ = recipe.teacher(*fixed.teacher, batch["input"])

    transform, sample_key = recipe.transform, jax.random.fold_in(update_key, 1)
    params, pull = jax.vjp(
        lambda code: transforms.sample(transform, code, state.codec, sample_key),
        state.code,
    )

    def loss_of(params, ranges):
        (outputs, variables), seen = _forward(
            recipe, state, params, ranges, batch["input"], dropout_key
        )
        loss, terms = recipe.objective(outputs, batch, params, taught)
        hits = jnp.argmax(outputs[0], axis=-1) == batch["label"]
        metrics = {"loss": loss, **terms, "accuracy": jnp.mean(hits, dtype=jnp.float32)}
        return loss, (metrics, variables, seen)

    bounds = program.trained(state.ranges, recipe.network.rules)
    both = jax.value_and_grad(loss_of, argnums=(0, 1), has_aux=True)
    (_, (metrics, variables, seen)), (dense, ranges) = both(params, bounds)
    if axis is not None:
        metrics, variables, dense, ranges = lax.pmean(
            (metrics, variables, dense, ranges), axis
        )
        seen = over_devices(axis, seen)
    if recipe.rounding.shrink:
        # Not before they are rounded on: nothing else would hold them then.
        on = state.step >= recipe.rounding.begin
        ranges = shrunk(ranges, bounds, jnp.where(on, recipe.rounding.shrink, 0.0))
    (code,) = pull(dense)
    if transform.penalty:
        penalty, extra = jax.value_and_grad(transform.penalty)(state.code, state.codec)
        code = jax.tree.map(jnp.add, code, extra)
        metrics = {**metrics, "loss": metrics["loss"] + penalty, "penalty": penalty}
    return Gradients(metrics, variables, dense, code, ranges, seen), update_key


def advance(
    recipe: Recipe, take: Callable, state: State, rows: Any, fixed: Fixed, axis=None
) -> tuple[State, Metrics]:
    """Takes one training step; returns the new state and this batch's metrics."""
    return apply(recipe, state, *gradients(recipe, take, state, rows, fixed, axis))


def apply(
    recipe: Recipe, state: State, grads: Gradients, key: jax.Array
) -> tuple[State, Metrics]:
    """Returns the state after a step along `gradients`, and the batch's metrics."""
    rules = recipe.network.rules
    bounds = program.trained(state.ranges, rules)
    before = _joined(state.code, bounds)
    updates, optimizer = recipe.optimizer.update(
        _joined(grads.code, grads.ranges), state.optimizer, before
    )
    after = optax.apply_updates(before, updates)
    code, bounds = (after["code"], after["ranges"]) if bounds else (after, {})
    signals = transforms.Signals(grads.dense, state.step, key)
    codec = recipe.transform.update(code, state.codec, signals)
    code, fresh = transforms.renew(recipe.transform, code, state.codec, codec)
    anew = {f"code/{path}": mask for path, mask in fresh.items()} if bounds else fresh
    optimizer = restart.slots(recipe.optimizer, optimizer, _joined(code, bounds), anew)
    ema = state.ema
    if ema is not None:
        ema = optax.incremental_update(code, ema, 1 - recipe.ema)
        ema = restart.leaves(ema, code, fresh)
    new = State(
        step=state.step + 1,
        code=code,
        codec=codec,
        optimizer=optimizer,
        variables=grads.variables,
        ranges=followed(
            program.next_ranges(state.ranges, bounds, rules),
            grads.seen,
            recipe.rounding.track,
        ),
        ema=ema,
    )
    return new, grads.metrics
