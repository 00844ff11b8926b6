"""The training step: the only place that knows how a technique meets a gradient."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

from lib import objectives, program, transforms
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
      heads: weights of the objective's own, trained beside the code and left behind
        with the optimiser; {} if it has none.
    """

    step: jax.Array
    code: Any
    codec: Any
    optimizer: Any
    variables: Any
    ranges: Any
    ema: Any
    heads: Any


class Fixed(NamedTuple):
    """What a step reads and never changes; passed, not closed over, so not compiled in.

    Attributes:
      seed: int32 scalar; the step's random keys depend on it and on the step only.
      resident: what the feed keeps on the device.
      teacher: the teacher's weights, as `Recipe.teacher` takes them; None without.
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
      objective: (outputs, batch, params, teacher's outputs) -> (loss, {term: value}),
        or `objectives.Headed` with weights of its own. The batch it sees has a PRNG
        key of this step's as `key`.
      prepare: (key, raw batch, first) -> batch: augments and normalises.
      teacher: (weights, batch) -> outputs: see `teachers`. None without a teacher.
      mean_teacher: whether the teacher's weights are the moving average of this
        stage's own, decoded, with its variables and ranges of the moment (Tarvainen &
        Valpola 2017, arXiv 1703.01780); needs `ema`.
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
    teacher: Callable[..., Any] | None = None
    mean_teacher: bool = False
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


def fresh_heads(
    recipe: Recipe, key: jax.Array, weights: Any, taught: Any, batch: Any
) -> Any:
    """Returns the first weights of the objective's own; {} if it has none.

    Args:
      recipe: what is trained.
      key: PRNG key.
      weights: (params, variables, ranges) of the network; only shapes are read.
      taught: the teacher's weights, as in `Fixed`; only shapes are read. Those of a
        mean teacher are the network's.
      batch: as `Recipe.prepare` returns it; only shapes are read.
    """
    if not isinstance(recipe.objective, objectives.Headed):
        return {}

    def seen(weights, taught, batch):
        outputs, _ = recipe.network(*weights, batch["input"])
        if recipe.teacher is None:
            return outputs, None
        return outputs, recipe.teacher(
            weights if recipe.mean_teacher else taught, batch
        )

    return recipe.objective.init(key, *jax.eval_shape(seen, weights, taught, batch))


def init(
    recipe: Recipe, params: Any, variables: Any, ranges: Any, heads: Any = None
) -> State:
    """Returns the state before the first step, from dense weights.

    Can be jitted unless the transform's code has shapes that depend on values. An
    objective with weights of its own needs them as `heads`: see `fresh_heads`.
    """
    heads = {} if heads is None else heads
    code, codec = recipe.transform.encode(params)
    rules = recipe.network.rules
    ranges = program.first_ranges(ranges, rules)
    return State(
        step=jnp.zeros((), jnp.int32),
        code=code,
        codec=codec,
        optimizer=recipe.optimizer.init(
            _joined(code, program.trained(ranges, rules), heads)
        ),
        variables=variables,
        ranges=ranges,
        # A copy: the state's buffers are donated, and each only once.
        ema=jax.tree.map(jnp.copy, code) if recipe.ema else None,
        heads=heads,
    )


def _joined(code: Any, ranges: program.Trained, heads: Any) -> Any:
    """Returns what the optimiser is given: the code, with what else is trained."""
    beside = {"ranges": ranges, "heads": heads}
    beside = {name: part for name, part in beside.items() if part}
    return {"code": code, **beside} if beside else code


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
    heads: Any  # the gradient at the weights of the objective's own
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


def _taught(recipe: Recipe, state: State, fixed: Fixed, batch: Any) -> Any:
    """Returns the teacher's outputs, or None."""
    if recipe.teacher is None:
        return None
    weights = fixed.teacher
    if recipe.mean_teacher:
        average = recipe.transform.decode(state.ema, state.codec)
        weights = (average, state.variables, state.ranges)
    return recipe.teacher(weights, batch)


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
    taught = _taught(recipe, state, fixed, batch)

    transform, sample_key = recipe.transform, jax.random.fold_in(update_key, 1)
    params, pull = jax.vjp(
        lambda code: transforms.sample(transform, code, state.codec, sample_key),
        state.code,
    )

    batch = {**batch, "key": jax.random.fold_in(dropout_key, 1)}

    def loss_of(params, ranges, heads):
        (outputs, variables), seen = _forward(
            recipe, state, params, ranges, batch["input"], dropout_key
        )
        own = (heads,) if heads else ()
        loss, terms = recipe.objective(outputs, batch, params, taught, *own)
        hits = jnp.argmax(outputs[0], axis=-1) == batch["label"]
        metrics = {"loss": loss, **terms, "accuracy": jnp.mean(hits, dtype=jnp.float32)}
        return loss, (metrics, variables, seen)

    bounds = program.trained(state.ranges, recipe.network.rules)
    slopes = jax.value_and_grad(loss_of, argnums=(0, 1, 2), has_aux=True)
    (_, (metrics, variables, seen)), found = slopes(params, bounds, state.heads)
    if axis is not None:
        metrics, variables, found = lax.pmean((metrics, variables, found), axis)
        seen = over_devices(axis, seen)
    dense, ranges, heads = found
    if recipe.rounding.shrink:
        # Not before they are rounded on: nothing else would hold them then.
        on = state.step >= recipe.rounding.begin
        ranges = shrunk(ranges, bounds, jnp.where(on, recipe.rounding.shrink, 0.0))
    (code,) = pull(dense)
    if transform.penalty:
        penalty, extra = jax.value_and_grad(transform.penalty)(state.code, state.codec)
        code = jax.tree.map(jnp.add, code, extra)
        metrics = {**metrics, "loss": metrics["loss"] + penalty, "penalty": penalty}
    return Gradients(metrics, variables, dense, code, ranges, heads, seen), update_key


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
    before = _joined(state.code, bounds, state.heads)
    updates, optimizer = recipe.optimizer.update(
        _joined(grads.code, grads.ranges, grads.heads), state.optimizer, before
    )
    after = optax.apply_updates(before, updates)
    alone = not bounds and not state.heads
    code = after if alone else after["code"]
    bounds = after["ranges"] if bounds else {}
    heads = after["heads"] if state.heads else {}
    signals = transforms.Signals(grads.dense, state.step, key)
    codec = recipe.transform.update(code, state.codec, signals)
    code, fresh = transforms.renew(recipe.transform, code, state.codec, codec)
    anew = fresh if alone else {f"code/{p}": mask for p, mask in fresh.items()}
    joined = _joined(code, bounds, heads)
    optimizer = restart.slots(recipe.optimizer, optimizer, joined, anew)
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
        heads=heads,
    )
    return new, grads.metrics
