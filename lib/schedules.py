"""Schedules: step -> value. Wherever a strength is a number, a schedule may stand.

All are pure, jit-able functions of an int32 step that return float32; begin and end
are steps, and a `UserError` says so when they stand the wrong way round. Values may
be traced, so that one compiled run serves many settings.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from lib import errors

Schedule = Callable[[jax.Array], jax.Array]  # step, int32 scalar -> float32 scalar
Strength = float | jax.Array | Schedule


def _progress(step: jax.Array, begin: int, end: int) -> jax.Array:
    """Returns the share of `[begin, end]` that lies behind `step`, in [0, 1]."""
    if begin > end:
        raise errors.UserError(f"a schedule begins at {begin}, after its end at {end}")
    length = max(end - begin, 1)
    done = jnp.asarray(step) - begin
    share = jnp.clip(done / length, 0.0, 1.0).astype(jnp.float32)
    # XLA may multiply by 1 / length instead, and length * (1 / length) is not always 1.
    return jnp.where(done >= length, jnp.float32(1), share)


def _between(initial: float, final: float, left: jax.Array) -> jax.Array:
    """Returns `initial` where `left` is 1 and `final` where it is 0, in float32."""
    # Rounded before the difference is taken, so that numbers and traced values agree.
    initial, final = jnp.float32(initial), jnp.float32(final)
    return final + (initial - final) * left


def constant(*, value: float) -> Schedule:
    """Returns `value` at every step."""
    return lambda step: jnp.full(jnp.shape(step), value, jnp.float32)


def linear(*, initial: float, final: float, begin: int, end: int) -> Schedule:
    """Moves in a straight line from `initial` at `begin` to `final` at `end`."""
    return lambda step: _between(initial, final, 1 - _progress(step, begin, end))


def cubic(*, initial: float, final: float, begin: int, end: int) -> Schedule:
    """Prunes fast while much is redundant, slowly at the end.

    Zhu & Gupta 2017 (arXiv 1710.01878), eq. 1:
    `s_t = s_f + (s_i - s_f) * (1 - (t - t0) / (n * dt)) ** 3`.
    """

    def schedule(step: jax.Array) -> jax.Array:
        return _between(initial, final, (1 - _progress(step, begin, end)) ** 3)

    return schedule


def cosine(*, initial: float, final: float, begin: int, end: int) -> Schedule:
    """Moves from `initial` to `final` along half a cosine (arXiv 1608.03983, eq. 5)."""

    def schedule(step: jax.Array) -> jax.Array:
        angle = jnp.pi * _progress(step, begin, end)
        return _between(initial, final, (1 + jnp.cos(angle)) / 2)

    return schedule


def one_shot(*, initial: float, final: float, begin: int, end: int) -> Schedule:
    """Stays at `initial` before step `begin` and at `final` from there on."""
    del end
    return lambda step: jnp.where(jnp.asarray(step) < begin, initial, final).astype(
        jnp.float32
    )


def staircase(
    *, initial: float, final: float, begin: int, end: int, rate: float = 0.2
) -> Schedule:
    """Goes in even steps, each of which takes the share `rate` of what is left.

    The rounds of the lottery ticket (Frankle & Carbin 2019, arXiv 1803.03635, section
    2): `1 - s_r = (1 - s_0) * (1 - rate) ** r`, with as many rounds as it takes to
    reach `final`; the last one ends there. The first comes one round after `begin`,
    the last at `end`. Where `final` is below `initial`, what is left grows as fast.

    Args:
      initial: the value until the first round, in [0, 1].
      final: the value from `end` on, in [0, 1].
      begin: the step from which rounds are counted.
      end: the step of the last round; rounds times steps stay below 2**31.
      rate: share that each round takes, in (0, 1); 20 % in the paper.
    """
    if not 0 < rate < 1:
        raise errors.UserError(f"staircase: rate is between 0 and 1, got {rate}")
    # To 1e-7, beyond which float32 knows no smaller share; whatever is left goes last.
    longest = math.ceil(math.log(1e-7) / math.log(1 - rate))
    shares = (1 - rate) ** np.arange(longest + 1)
    falls, rises = jnp.float32(shares), jnp.float32(1 / shares)

    def schedule(step: jax.Array) -> jax.Array:
        done = _progress(step, begin, end)
        first, last = 1 - jnp.float32(initial), 1 - jnp.float32(final)
        down = first > last
        # As many rounds as leave something to take, and one more.
        unfinished = jnp.where(down, first * falls > last, first * rises < last)
        rounds = jnp.maximum(jnp.sum(unfinished), 1)
        # Products of whole numbers: a quotient may fall just short of its round.
        length = max(end - begin, 1)
        steps = jnp.clip(jnp.asarray(step) - begin, 0, length)
        taken = jnp.clip(jnp.floor_divide(steps * rounds, length), 0, longest)
        left = jnp.where(
            down,
            jnp.maximum(first * falls[taken], last),
            jnp.minimum(first * rises[taken], last),
        )
        value = jnp.where(taken == 0, jnp.float32(initial), 1 - left)
        return jnp.where(done >= 1, jnp.float32(final), value)

    return schedule


def periodic(schedule: Schedule, *, every: int) -> Schedule:
    """Holds `schedule` at its value of the last step that `every` divides."""
    if every < 1:
        raise errors.UserError(f"periodic: every is at least 1 step, got {every}")
    return lambda step: schedule(jnp.asarray(step) // every * every)


SCHEDULES = {
    "linear": linear,
    "cubic": cubic,
    "cosine": cosine,
    "one_shot": one_shot,
    "staircase": staircase,
}


def at(strength: Strength, step: jax.Array | int) -> jax.Array | float:
    """Returns the strength's value at `step`; a number is the same at every step."""
    return strength(jnp.asarray(step, jnp.int32)) if callable(strength) else strength
