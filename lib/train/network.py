"""A model with the rules by which its activations are rounded, and how that trains."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from jax import lax

from lib import program

Apply = Callable[..., Any]


class Network(NamedTuple):
    """A model and the rules by which its activations are rounded.

    Attributes:
      apply: `(params, variables, images, *, train, key) -> (outputs, variables)`.
      rules: for `program.fake_quantize`; () leaves the program as it is.
      points: of `program.POLICIES`, which operands the rules may round.
    """

    apply: Apply
    rules: tuple = ()
    points: str = "inputs"

    def __call__(self, params, variables, ranges, images, *, train=False, key=None):
        """Returns ((logits, features), variables)."""
        apply = self.apply
        if self.rules:
            apply = program.fake_quantize(apply, ranges, self.rules, points=self.points)
        return apply(params, variables, images, train=train, key=key)

    def tracked(self, params, variables, ranges, images, *, train, key, on):
        """Returns (as of a call, the extremes seen), rounded only where `on`.

        Args:
          params: as are `variables`, `ranges`, `images`, `train` and `key`, of a call.
          on: bool scalar, may be traced.
        """
        apply = program.tracked(
            self.apply, ranges, self.rules, on=on, points=self.points
        )
        return apply(params, variables, images, train=train, key=key)


class Rounding(NamedTuple):
    """How the rounding of activations comes about in training.

    Attributes:
      begin: the first step that rounds; before it, they are in float (delayed start,
        Jacob et al. 2018, arXiv 1712.05877, section 3.1).
      track: decay of the moving averages of the ranges over the training batches, in
        (0, 1), for ranges that are static and not learned; 0 leaves them as they are.
      shrink: lambda of the penalty `lambda / 2 * largest**2` on every learned range, as
        PACT has on its alpha (Choi et al. 2018, arXiv 1805.06085, section 3).
    """

    begin: int = 0
    track: float = 0.0
    shrink: float = 0.0


def over_devices(axis: str, seen: Any) -> Any:
    """Returns the extremes over all devices."""
    return {
        site: {
            side: (lax.pmin(a, axis), lax.pmax(b, axis)) for side, (a, b) in s.items()
        }
        for site, s in seen.items()
    }


def followed(ranges: program.Ranges, seen: program.Ranges, decay: float):
    """Returns the ranges with the moving averages of what was seen of them."""

    def average(old: jax.Array, new: jax.Array) -> jax.Array:
        return decay * old + (1 - decay) * new

    return {
        site: {
            side: jax.tree.map(average, bounds, seen[site][side])
            if side in seen.get(site, {})
            else bounds
            for side, bounds in sides.items()
        }
        for site, sides in ranges.items()
    }


def shrunk(grads: Any, ranges: program.Trained, strength: float) -> Any:
    """Returns the gradients with that of the penalty on the largest values added."""

    def one(place: tuple[Any, ...], grad: jax.Array, bound: jax.Array) -> jax.Array:
        return grad + strength * bound if place[-1].key == "largest" else grad

    return jax.tree_util.tree_map_with_path(one, grads, ranges)
