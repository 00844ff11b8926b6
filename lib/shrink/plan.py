"""A plan: which positions of which axes are cut; it travels with the small weights."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lib import errors, tree
from lib.shrink.follow import paths_of
from lib.shrink.groups import Groups

Shape = tuple[int, ...]


class Cut(NamedTuple):
    """What is kept along axes that are cut alike.

    Attributes:
      keep: bool `[n]`, True = keep; n is the length before the cut.
      axes: pairs (path of a leaf, its axis).
    """

    keep: np.ndarray
    axes: tuple[tuple[str, int], ...]


class Plan(NamedTuple):
    """How large weights become small ones.

    Attributes:
      cuts: of axes, each axis in at most one of them.
      dropped: path -> (shape, dtype) of leaves that are removed as a whole.
    """

    cuts: tuple[Cut, ...] = ()
    dropped: Mapping[str, tuple[Shape, str]] = {}

    def axes(self) -> dict[str, dict[int, np.ndarray]]:
        """Returns {path: {axis: keep}}."""
        found: dict[str, dict[int, np.ndarray]] = {}
        for cut in self.cuts:
            for path, axis in cut.axes:
                found.setdefault(path, {})[axis] = cut.keep
        return found

    def plain(self) -> dict[str, Any]:
        """Returns it as JSON holds it: masks as hexadecimal bits, first bit first."""
        return {
            "cuts": [
                {
                    "of": len(cut.keep),
                    "keep": np.packbits(cut.keep).tobytes().hex(),
                    "axes": [list(place) for place in cut.axes],
                }
                for cut in self.cuts
            ],
            "dropped": {p: [list(s), dtype] for p, (s, dtype) in self.dropped.items()},
        }


def from_plain(plain: Mapping[str, Any]) -> Plan:
    """Returns the plan that `Plan.plain` wrote.

    Raises:
      UserError: it is no plan.
    """
    try:
        cuts = tuple(
            Cut(
                _mask(str(cut["keep"]), int(cut["of"])),
                tuple((str(path), int(axis)) for path, axis in cut["axes"]),
            )
            for cut in plain["cuts"]
        )
        dropped = {
            str(path): (tuple(int(n) for n in shape), str(np.dtype(dtype)))
            for path, (shape, dtype) in plain["dropped"].items()
        }
    except (KeyError, TypeError, ValueError, AttributeError) as e:
        raise errors.UserError(f"this is no plan of a cut: {e!r}") from e
    return Plan(cuts, dropped)


def _mask(text: str, count: int) -> np.ndarray:
    packed = np.frombuffer(bytes.fromhex(text), np.uint8)
    if len(packed) != -(-count // 8):
        raise ValueError(f"{len(packed)} bytes do not hold {count} bits")
    return np.unpackbits(packed, count=count).astype(bool)


def make(groups: Groups, removed: Mapping[str, Sequence[int]]) -> Plan:
    """Returns the plan that removes units of groups.

    Args:
      groups: of the program.
      removed: group's name -> numbers of its units; at least one of each is left.

    Raises:
      UserError: an unknown group, or one of which all would go.
    """
    known = {group.name: group for group in groups.groups}
    gone: dict[tuple[str, int], np.ndarray] = {}
    for name, units in removed.items():
        group = errors.lookup(known, name, "group of units")
        units = np.unique(np.asarray(units, np.int64))
        if units.size and (units[0] < 0 or units[-1] >= group.size):
            raise errors.UserError(
                f"group {name!r} has units 0 to {group.size - 1}, got {units.tolist()}"
            )
        if len(units) == group.size:
            raise errors.UserError(
                f"all {group.size} units of group {name!r} would be removed; keep one"
            )
        for member in group.members if units.size else ():
            place = member.path, member.axis
            n = len(groups.followed.leaves[member.path].axes[member.axis])
            mask = gone.setdefault(place, np.zeros(n, bool))
            mask[member.index[units].ravel()] = True
    return Plan(_cuts({place: ~mask for place, mask in gone.items()}))


def _cuts(keeps: Mapping[tuple[str, int], np.ndarray]) -> tuple[Cut, ...]:
    """Returns cuts of axes, those that are cut alike in one."""
    alike: dict[tuple[int, bytes], list[tuple[str, int]]] = {}
    for place, keep in keeps.items():
        alike.setdefault((len(keep), keep.tobytes()), []).append(place)
    return tuple(Cut(keeps[places[0]], tuple(places)) for places in alike.values())


def cut(plan: Plan, weights: Any) -> Any:
    """Returns the small weights.

    Raises:
      UserError: a leaf that the plan names is missing, or has another shape.
    """
    flat, axes = _checked(plan, weights), plan.axes()
    small = {}
    for path, leaf in flat.items():
        if path in plan.dropped:
            continue
        for axis, keep in axes.get(path, {}).items():
            leaf = jnp.take(jnp.asarray(leaf), np.flatnonzero(keep), axis=axis)
        small[path] = leaf
    return _like(weights, small)


def mask(plan: Plan, weights: Any) -> Any:
    """Returns the weights with 0 wherever the plan removes something."""
    flat = _checked(plan, weights)
    masked = dict(flat)
    for path in plan.dropped:
        masked[path] = jnp.zeros_like(flat[path])
    for path, axes in plan.axes().items():
        for axis, keep in axes.items():
            along = [1] * np.ndim(masked[path])
            along[axis] = len(keep)
            masked[path] = jnp.where(keep.reshape(along), masked[path], 0)
    return _like(weights, masked)


def _like(weights: Any, flat: dict[str, Any]) -> Any:
    """Returns a nested dict of leaves, with the empty dicts of other weights."""
    made = tree.unflatten(flat)

    def grow(model: Any, node: Any) -> None:
        for key, child in model.items():
            if isinstance(child, Mapping):
                grow(child, node.setdefault(key, {}))

    grow(weights, made)
    return made


def _checked(plan: Plan, weights: Any) -> dict[str, Any]:
    flat = tree.flatten(weights)
    for path in (*plan.axes(), *plan.dropped):
        if path not in flat:
            raise errors.UserError(
                f"the plan cuts {path!r}, which these weights lack; "
                f"{errors.hint(path, flat)}"
            )
    for path, axes in plan.axes().items():
        shape = np.shape(flat[path])
        for axis, keep in axes.items():
            if axis >= len(shape) or shape[axis] != len(keep):
                raise errors.UserError(
                    f"the plan cuts axis {axis} of {path!r} of length {len(keep)}, "
                    f"got a leaf of shape {shape}"
                )
    return flat


def full(plan: Plan, small: Any) -> Any:
    """Returns the shapes and dtypes of the weights before the cut.

    Args:
      plan: the cut.
      small: the small weights, or their shapes and dtypes.

    Raises:
      UserError: a leaf is not of the shape that the plan leaves of it.
    """
    axes, flat = plan.axes(), tree.flatten(small)
    found = {}
    for path in axes:
        if path not in flat:
            raise errors.UserError(
                f"the plan cuts {path!r}, which these weights lack; "
                f"{errors.hint(path, flat)}"
            )
    for path, leaf in flat.items():
        shape = list(np.shape(leaf))
        for axis, keep in axes.get(path, {}).items():
            left = int(keep.sum())
            if axis >= len(shape) or shape[axis] != left:
                raise errors.UserError(
                    f"the plan leaves {left} of {len(keep)} along axis {axis} of "
                    f"{path!r}, got a leaf of shape {tuple(shape)}"
                )
            shape[axis] = len(keep)
        found[path] = jax.ShapeDtypeStruct(tuple(shape), jnp.result_type(leaf))
    for path, (shape, dtype) in plan.dropped.items():
        found[path] = jax.ShapeDtypeStruct(shape, np.dtype(dtype))
    return _like(small, found)


def compose(first: Plan, second: Plan) -> Plan:
    """Returns the plan that does both cuts, `second` being of what `first` leaves."""
    axes = first.axes()
    for path, more in second.axes().items():
        for axis, keep in more.items():
            before = axes.setdefault(path, {}).get(axis)
            if before is not None:
                both = before.copy()
                both[np.flatnonzero(before)] = keep
                keep = both
            axes[path][axis] = keep
    dropped = dict(first.dropped)
    for path, (shape, dtype) in second.dropped.items():
        whole = list(shape)
        for axis, keep in axes.pop(path, {}).items():
            whole[axis] = len(keep)
        dropped[path] = (tuple(whole), dtype)
    keeps = {(p, axis): keep for p, cuts in axes.items() for axis, keep in cuts.items()}
    return Plan(_cuts(keeps), dropped)


def cut_state(plan: Plan, weights: Any, state: Any, *, root: str = "") -> Any:
    """Returns an optimiser's state cut along with the weights, so that it goes on.

    Every leaf of the state whose path ends with that of a weight, and which has its
    shape, is cut as the weight is (the moments of Adam, momentum, averages).

    Args:
      plan: the cut.
      weights: before the cut.
      state: any pytree, such as an optax state of `weights[root]`.
      root: the key of `weights` whose subtree the optimiser trains; "" for all.
    """
    axes, flat = plan.axes(), tree.flatten(weights)
    inside = {
        path.removeprefix(f"{root}/") if root else path: path
        for path in flat
        if not root or path.startswith(f"{root}/")
    }
    leaves, structure = jax.tree.flatten(state)
    new = []
    for name, leaf in zip(paths_of(state), leaves, strict=True):
        parts = name.split("/")
        ends = ("/".join(parts[i:]) for i in range(len(parts)))
        path = next((inside[end] for end in ends if end in inside), None)
        if path and np.shape(leaf) == np.shape(flat[path]):
            if path in plan.dropped:
                raise errors.UserError(f"{path!r} is dropped: start the optimiser anew")
            for axis, keep in axes.get(path, {}).items():
                leaf = jnp.take(leaf, np.flatnonzero(keep), axis=axis)
        new.append(leaf)
    return jax.tree.unflatten(structure, new)
