"""Cases cut by half, and how the small program is compared with the large one."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lib import shrink, tree
from tests.shrink import models


class Cut(NamedTuple):
    """A case of which a random half of each group's units is removed."""

    case: models.Case
    groups: shrink.Groups
    removed: dict[str, Any]
    plan: shrink.Plan
    masked: Any
    weights: Any
    f: Any  # at the small sizes


def half(groups, seed=0):
    """Returns a random half of the units of each group."""
    rng = np.random.default_rng(seed)
    return {
        group.name: rng.choice(group.size, group.size // 2, replace=False)
        for group in groups.groups
    }


def halved(case):
    """Returns the cut of a case."""
    groups = shrink.groups(case.f)(case.weights, case.x)
    removed = half(groups)
    plan = shrink.make(groups, removed)
    masked, weights = masked_by(plan, case.weights), cut_by(plan, case.weights)
    f = shrink.resize(case.f, plan)
    return Cut(case, groups, removed, plan, masked, weights, f)


def _changed(plan, weights, how):
    flat = {k: np.array(w) for k, w in tree.flatten(weights).items()}
    for path, axes in plan.axes().items():
        for axis, keep in axes.items():
            flat[path] = how(flat[path], axis, np.asarray(keep))
    return tree.replace(weights, {k: jnp.asarray(w) for k, w in flat.items()})


def cut_by(plan, weights):
    """Returns what `shrink.cut` does, by NumPy; jitted slices compile for seconds."""
    return _changed(plan, weights, lambda w, axis, keep: w.compress(keep, axis))


def masked_by(plan, weights):
    """Returns what `shrink.mask` does, by NumPy."""

    def masked(w, axis, keep):
        np.moveaxis(w, axis, 0)[~keep] = 0
        return w

    return _changed(plan, weights, masked)


@functools.cache
def cut(name):
    """Returns the cut of a case of that name."""
    return halved(models.make(name))


def close(found, wanted, tolerance=1e-4):
    """Trees are equal, up to a share of the largest element of all."""
    found, wanted = (jax.device_get(jax.tree.leaves(t)) for t in (found, wanted))
    most = max((np.abs(x).max(initial=0) for x in wanted), default=0)
    assert np.isfinite(most) and most > 0
    for a, b in zip(found, wanted, strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * most)


def graded(f):
    """Returns a function of weights that gives the result and a loss's gradients."""

    def loss(w, *args):
        y = f(w, *args)
        by = jnp.cos(jnp.arange(y.size, dtype=y.dtype)).reshape(y.shape)
        return (y * by).sum(), y

    def both(w, *args):
        (_, y), grads = jax.value_and_grad(loss, has_aux=True)(w, *args)
        return y, grads

    return jax.jit(both)


def same(one, *args):
    """Results and gradients of the small program are those of the masked one."""
    large, grads = graded(one.case.f)(one.masked, *args)
    small, small_grads = graded(one.f)(one.weights, *args)
    close(small, large)
    close(small_grads, cut_by(one.plan, grads))
