"""The training step: the only place that knows how a technique meets a gradient."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

from lib import program, transforms
from lib.train import restart

Apply = Callable[..., Any]
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


class Network(NamedTuple):
    """A model and the rules by which its activations are rounded.

    Attributes:
      apply: `(params, variables, images, *, train, key) -> (outputs, variables)`.
      rules: for `program.fake_quantize`; () leaves the program as it is.
    """

    apply: Apply
    rules: tuple = ()

    def __call__(self, params, variables, ranges, images, *, train=False, key=None):
        """Returns ((logits, features), variables)."""
        apply = self.apply
        if self.rules:
            apply = program.fake_quantize(apply, ranges, self.rules)
        return apply(params, variables, images, train=train, key=key)


class Recipe(NamedTuple):
    """What a stage trains, and how; functions only.

    Attributes:
      network: the model that learns.
      transform: the chain of techniques on its weights.
      optimizer: an optax transformation over the code.
      objective: (outputs, batch, params, teacher's outputs) -> (loss, {term: value}).
      prepare: (key, raw batch, first) -> batch: augments and normalises.
      teacher: the network that teaches, or None.
      ema: decay of the moving average of the code, in [0, 1); 0 for none.
    """

    network: Network
    transform: transforms.Transform
    optimizer: optax.GradientTransformation
    objective: Callable[..., tuple[jax.Array, Metrics]]
    prepare: Callable[..., Any]
    teacher: Network | None = None
    ema: float = 0.0


def init(recipe: Recipe, params: Any, variables: Any, ranges: Any) -> State:
    """Returns the state before the first step, from dense weights.

    Can be jitted unless the transform's code has shapes that depend on values.
    """
    code, codec = recipe.transform.encode(params)
    return State(
        step=jnp.zeros((), jnp.int32),
        code=code,
        codec=codec,
        optimizer=recipe.optimizer.init(code),
        variables=variables,
        ranges=ranges,
        # A copy: the state's buffers are donated, and each only once.
        ema=jax.tree.map(jnp.copy, code) if recipe.ema else None,
    )


def trained(state: State) -> Any:
    """Returns the code that stands for the result: the average where one is kept."""
    return state.code if state.ema is None else state.ema


class Gradients(NamedTuple):
    """What one batch says about the weights."""

    metrics: Metrics  # "loss", each term, "accuracy": scalars of this batch
    variables: Any
    dense: Any  # the gradient at every decoded weight
    code: Any  # the gradient at what the optimiser trains


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
        taught, _ = recipe.teacher(*fixed.teacher, batch["image"])

    transform, sample_key = recipe.transform, jax.random.fold_in(update_key, 1)
    params, pull = jax.vjp(
        lambda code: transforms.sample(transform, code, state.codec, sample_key),
        state.code,
    )

    def loss_of(params):
        outputs, variables = recipe.network(
            params,
            state.variables,
            state.ranges,
            batch["image"],
            train=True,
            key=dropout_key,
        )
        loss, terms = recipe.objective(outputs, batch, params, taught)
        hits = jnp.argmax(outputs[0], axis=-1) == batch["label"]
        metrics = {"loss": loss, **terms, "accuracy": jnp.mean(hits, dtype=jnp.float32)}
        return loss, (metrics, variables)

    (_, (metrics, variables)), dense = jax.value_and_grad(loss_of, has_aux=True)(params)
    if axis is not None:
        metrics, variables, dense = lax.pmean((metrics, variables, dense), axis)
    (code,) = pull(dense)
    if transform.penalty:
        penalty, extra = jax.value_and_grad(transform.penalty)(state.code, state.codec)
        code = jax.tree.map(jnp.add, code, extra)
        metrics = {**metrics, "loss": metrics["loss"] + penalty, "penalty": penalty}
    return Gradients(metrics, variables, dense, code), update_key


def advance(
    recipe: Recipe, take: Callable, state: State, rows: Any, fixed: Fixed, axis=None
) -> tuple[State, Metrics]:
    """Takes one training step; returns the new state and this batch's metrics."""
    return apply(recipe, state, *gradients(recipe, take, state, rows, fixed, axis))


def apply(
    recipe: Recipe, state: State, grads: Gradients, key: jax.Array
) -> tuple[State, Metrics]:
    """Returns the state after a step along `gradients`, and the batch's metrics."""
    updates, optimizer = recipe.optimizer.update(
        grads.code, state.optimizer, state.code
    )
    code = optax.apply_updates(state.code, updates)
    signals = transforms.Signals(grads.dense, state.step, key)
    codec = recipe.transform.update(code, state.codec, signals)
    code, fresh = transforms.renew(recipe.transform, code, state.codec, codec)
    optimizer = restart.slots(recipe.optimizer, optimizer, code, fresh)
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
        ranges=state.ranges,
        ema=ema,
    )
    return new, grads.metrics
