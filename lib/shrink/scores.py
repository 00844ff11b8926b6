"""What each unit of a group is worth: `{group: float64 [units]}`, the least goes first.

A unit's weights stand in several leaves; which of them count is named by their roles:
"out" for those that make the unit, "in" for those that read it, "" for biases and
norms. Those that do "both" count as either; where a group has none of the roles that
are asked for, all of its leaves count.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lib import errors, tree
from lib.program.interpreter import execute
from lib.program.sites import read
from lib.shrink.groups import Groups

Scores = dict[str, np.ndarray]


def norm(
    groups: Groups,
    weights: Any,
    *,
    order: int = 1,
    pattern: str = ".",
    roles: Sequence[str] = ("out",),
) -> Scores:
    """Returns the norms of the weights of each unit.

    Over the members that count, taken together: `sum |w|` for order 1 (filters, Li et
    al. 2017, arXiv 1608.08710), `sqrt(sum w**2)` for order 2. With `pattern="scale$"`
    and all roles it is the scale of batch norm (Liu et al. 2017, arXiv 1708.06519).

    Args:
      groups: of the program.
      weights: nested dict.
      order: 1 or 2.
      pattern: regular expression over the paths of leaves that count.
      roles: of the members that count.

    Raises:
      UserError: another order, or a group with no leaf that counts.
    """
    if order not in (1, 2):
        raise errors.UserError(f"a norm is of order 1 or 2, got {order}")
    flat = tree.flatten(weights)
    powers = {
        path: np.abs(np.asarray(jnp.asarray(flat[path], jnp.float32), float)) ** order
        for path in {p for group in groups.groups for p in group.paths()}
    }
    found = _summed(groups, powers, pattern, roles)
    return {k: x if order == 1 else np.sqrt(x) for k, x in found.items()}


def _summed(
    groups: Groups, values: Mapping[str, np.ndarray], pattern: str, roles: Sequence[str]
) -> Scores:
    """Returns the sums of elementwise values over each unit's members that count."""
    compiled = tree.compile_pattern(pattern)
    found = {}
    for group in groups.groups:
        fit = [m for m in group.members if compiled.search(m.path)]
        both = [m for m in fit if m.role in roles or (m.role == "both" and any(roles))]
        if not fit:
            raise errors.UserError(
                f"group {group.name!r} has no leaf that counts for its score by the "
                f"pattern {pattern!r}; it has {', '.join(group.paths())}"
            )
        total = np.zeros(group.size)
        for member in both or fit:
            x = values[member.path]
            along = x.sum(axis=tuple(a for a in range(x.ndim) if a != member.axis))
            total += along[member.index].sum(axis=1)
        found[group.name] = total
    return found


def first_order(
    groups: Groups,
    loss: Callable[[Any, Any], jax.Array],
    weights: Any,
    batches: Iterable[Any],
) -> tuple[Scores, Scores]:
    """Returns (taylor, fisher): what removing a unit does to the loss, to first order.

    `t_b = sum of dL/dw * w` over the weights that read the unit is the derivative of
    the loss on batch b by a gate on the unit. Taylor: `|mean_b t_b|` (Molchanov et al.
    2017, arXiv 1611.06440, eq. 8, over batches); Fisher: `mean_b t_b**2` (Theis et al.
    2018, arXiv 1801.05787; Liu et al. 2021, arXiv 2108.00708, eq. 6).

    Args:
      groups: of the program.
      loss: (weights, batch) -> scalar.
      weights: nested dict.
      batches: at least one; read once.

    Raises:
      UserError: no batches, or NaN or infinity in a gradient.
    """

    @jax.jit
    def products(weights, batch):
        grads = jax.grad(loss)(weights, batch)
        return jax.tree.map(lambda w, g: w * g, weights, grads)

    mean: Scores = {group.name: np.zeros(group.size) for group in groups.groups}
    square: Scores = {group.name: np.zeros(group.size) for group in groups.groups}
    count = 0
    for batch in batches:
        count += 1
        flat = tree.flatten(products(weights, batch))
        values = {path: np.asarray(x, float) for path, x in flat.items()}
        for name, t in _summed(groups, values, ".", ("in",)).items():
            if not np.isfinite(t).all():
                raise errors.UserError(f"group {name!r} gets NaN or infinite gradients")
            mean[name] += t
            square[name] += t**2
    if not count:
        raise errors.UserError("scores of a loss need at least one batch")
    return (
        {name: np.abs(t / count) for name, t in mean.items()},
        {name: t / count for name, t in square.items()},
    )


def activations(
    f: Callable[..., Any],
    groups: Groups,
    weights: Any,
    batches: Iterable[tuple[Any, ...]],
) -> tuple[Scores, Scores]:
    """Returns (mean |x|, share of x that is not 0) of what contractions read of a unit.

    The second is 1 - APoZ, the average percentage of zeros behind a relu (Hu et al.
    2016, arXiv 1607.03250).

    Args:
      f: pure, `f(weights, *args)`, in evaluation.
      groups: of that program.
      weights: nested dict.
      batches: tuples of `args`, at least one; read once.

    Raises:
      UserError: no batches, or a group that is read in a while or cond alone.
    """
    wanted = {c.name: c.data for c in groups.contractions if c.name and c.data}

    def step(site, lhs, rhs, bind, feed):
        del feed
        record = None
        if site.name in wanted and site.recordable:
            record = []
            for side, axes in wanted[site.name]:
                x = jnp.abs((lhs if side == "lhs" else rhs).astype(jnp.float32))
                for axis in axes:
                    others = tuple(a for a in range(x.ndim) if a != axis)
                    record.append((x.mean(others), (x > 0).mean(others)))
        return bind(lhs, rhs), record

    observed = jax.jit(lambda w, *args: execute(read(f, (w, *args), {}), step, {})[1])
    total: dict[str, list[Any]] = {}
    count = 0
    for batch in batches:
        count += 1
        for name, record in observed(weights, *batch).items():
            # Scans put axes of their turns in front.
            flat = [[np.asarray(x, float) for x in pair] for pair in record]
            flat = [[x.reshape(-1, x.shape[-1]).mean(0) for x in pair] for pair in flat]
            if name in total:
                flat = [
                    [a + b for a, b in zip(*pairs, strict=True)]
                    for pairs in zip(total[name], flat, strict=True)
                ]
            total[name] = flat
    if not count:
        raise errors.UserError("scores of activations need at least one batch")
    mean, active = _by_unit(groups, total, count)
    return mean, active


def _by_unit(groups: Groups, total: Mapping[str, Any], count: int) -> list[Scores]:
    units = groups.followed.units
    sums: dict[int, np.ndarray] = {}
    for contraction in groups.contractions:
        if contraction.name not in total:
            continue
        over = contraction.over * len(contraction.data)
        for axis, pair in zip(over, total[contraction.name], strict=True):
            for i, bases in enumerate(units.bases(axis)):
                for base in bases:
                    here = np.array([pair[0][i] / count, pair[1][i] / count, 1])
                    sums[base] = sums.get(base, 0) + here
    found: list[Scores] = [{}, {}]
    for group in groups.groups:
        seen = [sums.get(int(c)) for c in group.classes]
        if any(x is None for x in seen):
            raise errors.UserError(
                f"group {group.name!r} is read by no contraction that can be seen"
            )
        table = np.array(seen)
        for scores, column in zip(found, (0, 1), strict=True):
            scores[group.name] = table[:, column] / table[:, 2]
    return found


def random(groups: Groups, seed: int) -> Scores:
    """Returns uniform numbers: the control that any other score has to beat."""
    rng = np.random.default_rng(seed)
    return {group.name: rng.random(group.size) for group in groups.groups}


def normalised(scores: Scores) -> Scores:
    """Returns scores divided by their mean over the group, so that groups compare."""
    return {name: x / max(x.mean(), 1e-30) for name, x in scores.items()}
