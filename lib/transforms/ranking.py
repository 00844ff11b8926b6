"""Which weights go: a score ranks the units of a shape, a distribution cuts."""

import zlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lib.transforms import base, distributions, scores, selection, shapes


class Ranking(NamedTuple):
    """What `prune` ranks by.

    Attributes:
      score: what a weight is worth.
      shape: what is removed at once.
      spread: how many go from where.
      seed: of random scores.
      for_good: what has gone does not come back.
    """

    score: scores.Score
    shape: shapes.Shape
    spread: distributions.Distribution
    seed: int
    for_good: bool

    def _units(self, w: Any) -> tuple[int, ...]:
        """Returns the shape of a leaf's units."""
        return jax.eval_shape(self.shape.units, w).shape

    def counts(self, weights: base.Leaves, sparsity) -> distributions.Counts:
        """Returns how many units go at a sparsity, of leaves in order of their paths.

        jit sorts the keys of dicts, and ties go by place: hence that order, here and
        below.
        """
        units = [self._units(weights[p]) for p in sorted(weights)]
        return self.spread(sparsity, units)

    def gone(self, masks: base.Leaves) -> list[jax.Array]:
        """Returns how many units of each leaf are removed, as int32."""
        found = []
        for path in sorted(masks):
            mask = masks[path]
            weights_a_unit = mask.size // int(np.prod(self._units(mask)))
            found.append(selection.count(~mask) // weights_a_unit)
        return found

    def _rank(self, path: str, w: jax.Array, statistic: Any, mask: jax.Array):
        """Returns what is ranked of a leaf: a float array, one score a unit."""
        if self.for_good:
            w = jnp.where(mask, w, jnp.zeros((), w.dtype))
        key = jax.random.fold_in(jax.random.key(self.seed), zlib.crc32(path.encode()))
        found = self.shape.units(self.score.rank(statistic, w, key))
        found = self.spread.scores(found)
        if not self.for_good:
            return found
        there = self.shape.units(mask.astype(jnp.float32)) > 0
        return jnp.where(there, found.astype(jnp.float32), -jnp.inf)

    def masks(
        self,
        weights: base.Leaves,
        statistics: base.Leaves,
        masks: base.Leaves,
        counts: distributions.Counts,
    ) -> base.Leaves:
        """Returns the masks that drop the `counts` units of lowest score.

        Args:
          weights: {path: array}.
          statistics: {path: the score's statistic}.
          masks: {path: bool of the weight's shape}, those until now.
          counts: as `counts` gives them.
        """
        paths = sorted(weights)
        ranked = [self._rank(p, weights[p], statistics[p], masks[p]) for p in paths]
        kept = self.spread.select(ranked, counts)
        return {
            p: self.shape.expand(k, weights[p].shape)
            for p, k in zip(paths, kept, strict=True)
        }
