"""What the data say a weight is worth: scores for pruning, as pure functions.

Each returns `{path: array of the leaf's shape}`, float32, higher = keep, for the leaves
that a pattern matches; `prune(score="given", scores=...)` takes them. A `loss` is
`loss(params, batch) -> scalar`, the mean over a batch; of several batches, all of one
size, the mean is taken, so they count as one large batch.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from lib import errors, tree
from lib.transforms import base, fed, selection

Scores = dict[str, jax.Array]
Loss = Callable[[Any, Any], jax.Array]


def _leaves(params: Any, pattern: str) -> base.Leaves:
    flat = tree.flatten(params)
    return {path: flat[path] for path in tree.match([pattern], flat)}


def _aimed(loss: Loss, params: Any) -> Callable[[base.Leaves, Any], jax.Array]:
    """Returns the loss as a function of some leaves, the others held fixed."""
    return lambda leaves, batch: loss(tree.replace(params, leaves), batch)


def _mean(of: Callable[[Any], Any], batches: Iterable[Any]) -> Any:
    """Returns the mean of a function's results over the batches."""
    total, count = None, 0
    for batch in batches:
        found = of(batch)
        total = found if total is None else jax.tree.map(jnp.add, total, found)
        count += 1
    if not count:
        raise errors.UserError("scores: got no batches, expected at least one")
    return jax.tree.map(lambda x: x / count, total)


def _finite(scores: Scores, what: str) -> Scores:
    for path, score in scores.items():
        if not isinstance(score, jax.core.Tracer) and not jnp.isfinite(score).all():
            raise errors.UserError(f"{what}: the scores of {path} are not finite")
    return {path: score.astype(jnp.float32) for path, score in scores.items()}


def snip(
    loss: Loss, params: Any, batches: Iterable[Any], *, pattern: str = base.KERNELS
) -> Scores:
    """Returns `|dL/dw * w|`: what the loss would feel of the weight's removal.

    Lee et al. 2019, arXiv 1810.02340, eqs. 4 and 5, without the normalisation by the
    sum, which changes no ranking; one global ranking of all leaves is meant.

    Raises:
      UserError: no batches, a score that is not finite, or a pattern that matches
        nothing.
    """
    leaves = _leaves(params, pattern)
    gradient = jax.jit(jax.grad(_aimed(loss, params)))
    grads = _mean(lambda batch: gradient(leaves, batch), batches)
    return _finite({p: jnp.abs(grads[p] * w) for p, w in leaves.items()}, "snip")


def fisher(
    loss: Loss, params: Any, batches: Iterable[Any], *, pattern: str = base.KERNELS
) -> Scores:
    """Returns `w**2 / 2 * mean(g**2)`, the loss that the weight's removal adds.

    The diagonal of OBD (LeCun et al. 1990, eq. 5) with the empirical Fisher for the
    curvature (Theis et al. 2018, arXiv 1801.05787, eq. 6). The mean goes over batches,
    so it is theirs where each batch holds one example; the gradients within a larger
    batch are averaged before they are squared.

    Raises:
      UserError: as `snip`.
    """
    leaves = _leaves(params, pattern)
    gradient = jax.grad(_aimed(loss, params))

    @jax.jit
    def squares(leaves, batch):
        return jax.tree.map(jnp.square, gradient(leaves, batch))

    found = _mean(lambda batch: squares(leaves, batch), batches)
    return _finite({p: w**2 / 2 * found[p] for p, w in leaves.items()}, "fisher")


def grasp(
    loss: Loss, params: Any, batches: Iterable[Any], *, pattern: str = base.KERNELS
) -> Scores:
    """Returns `w * (H g)`: how much of the gradient's norm the weight carries.

    Removing a weight changes `g . g` by `2 S` to first order, `S = -w * (H g)` (Wang
    et al. 2020, arXiv 2002.07376, eqs. 7 and 8), and Algorithm 1 removes the weights
    of *highest* S, whose loss harms the gradient flow least. Higher = keep here, so
    this is -S. Signed: most weights lie around 0. Gradient and Hessian are those of
    the scored leaves. The authors also divide the logits by 200; the loss given here
    is taken as it is.

    Args:
      loss: twice differentiable.
      params: a nested dict of arrays.
      batches: kept while they are gone through twice.
      pattern: regular expression over paths of the leaves to score.

    Raises:
      UserError: as `snip`.
    """
    leaves, batches = _leaves(params, pattern), list(batches)
    gradient = jax.grad(_aimed(loss, params))
    first = jax.jit(gradient)
    grads = _mean(lambda batch: first(leaves, batch), batches)

    @jax.jit
    def product(leaves, grads, batch):
        return jax.jvp(lambda w: gradient(w, batch), (leaves,), (grads,))[1]

    curved = _mean(lambda batch: product(leaves, grads, batch), batches)
    return _finite({p: w * curved[p] for p, w in leaves.items()}, "grasp")


def synflow(
    apply: Callable[[Any, jax.Array], jax.Array],
    params: Any,
    shape: tuple[int, ...],
    *,
    sparsity: float,
    rounds: int = 100,
    pattern: str = base.KERNELS,
) -> Scores:
    """Returns `dR/dw * w` of the last of several rounds of pruning, without data.

    `R` is the sum of the outputs for an input of ones with the absolute values of all
    params (Tanaka et al. 2020, arXiv 2006.05467, eq. 2). Round k of n keeps
    `(1 - sparsity) ** (k / n)` of the weights (Algorithm 1), ranked globally. Scores
    are conserved: in a network without bias they add up to R in every layer, so no
    layer is removed whole before the others.

    Ranking the result globally, at this sparsity, gives the mask of the last round.

    Args:
      apply: `(params, x) -> outputs`; batch norm in evaluation.
      params: a nested dict of arrays.
      shape: of the input, as (1, height, width, channels).
      sparsity: fraction removed over all leaves together, in [0, 1).
      rounds: n, at least 1.
      pattern: regular expression over paths of the leaves to score.

    Returns:
      `{path: score}`, not negative; -1 for what earlier rounds removed.

    Raises:
      UserError: a sparsity or rounds out of range, a score that is not finite (deep
        and wide networks overflow float32), or a pattern that matches nothing.
    """
    if not 0 <= sparsity < 1:
        raise errors.UserError(
            f"synflow: sparsity is at least 0 and less than 1, got {sparsity}"
        )
    if rounds < 1:
        raise errors.UserError(f"synflow: rounds is at least 1, got {rounds}")
    leaves = _leaves(params, pattern)
    paths = sorted(leaves)  # as prune ranks them: ties go by place
    size = sum(math.prod(w.shape) for w in leaves.values())
    shares = 1 - (1 - sparsity) ** (np.arange(1, rounds + 1) / rounds)
    removed = jnp.asarray(np.rint(shares * size), jnp.int32)

    @jax.jit
    def rank(params, removed):
        positive = jax.tree.map(jnp.abs, params)
        flat = {p: tree.get(positive, p) for p in paths}

        def flow(kept):
            return jnp.sum(apply(tree.replace(positive, kept), jnp.ones(shape)))

        def masked(masks):
            return {p: jnp.where(masks[p], w, 0) for p, w in flat.items()}

        def scores(masks):
            kept = masked(masks)
            grads = jax.grad(flow)(kept)
            return {
                p: jnp.where(masks[p], (grads[p] * kept[p]).astype(jnp.float32), -1)
                for p in paths
            }

        def turn(k, masks):
            found = scores(masks)
            kept = selection.keep_all_but([found[p] for p in paths], removed[k])
            return dict(zip(paths, kept, strict=True))

        masks = {p: jnp.ones(w.shape, bool) for p, w in flat.items()}
        return scores(lax.fori_loop(0, rounds - 1, turn, masks))

    found = _finite(rank(params, removed), "synflow")
    return {path: found[path] for path in leaves}


def wanda(params: Any, square_norms: Mapping[str, jax.Array]) -> Scores:
    """Returns `|w| * ||x||`, x the inputs that meet the weight.

    Sun et al. 2023, arXiv 2306.11695, eq. 1; compared within each output:
    `prune(score="given", distribution="output", scores=...)`.

    Args:
      params: a nested dict of arrays.
      square_norms: {path: `||x||**2` of each input}, as `program.inputs` gives with
        `program.square_norm`: `[..., contraction]`, where the leaf is seen as
        `[..., contraction, outputs]` (`fed.matrices`).

    Raises:
      UserError: a path that is no leaf, or norms that do not fit it.
    """
    flat, scores = tree.flatten(params), {}
    for path, norms in square_norms.items():
        w = errors.lookup(flat, path, "weight with norms of inputs")
        view = fed.matrices(path, w, norms.shape, "wanda: norms")
        seen = view.split(w)
        norm = jnp.sqrt(jnp.asarray(norms, jnp.float32))[..., None]
        score = jnp.abs(seen).astype(jnp.float32) * jnp.broadcast_to(norm, seen.shape)
        scores[path] = view.join(score)
    return scores
