"""`select`: techniques aimed at the leaves whose path matches a rule."""

from collections.abc import Sequence
from typing import Any

from lib import tree
from lib.transforms import base


def select(
    rules: str | Sequence[tuple[str, base.Transform]],
    transform: base.Transform | None = None,
) -> base.Transform:
    """Aims transforms at the leaves whose path matches; the first match wins.

    `select(pattern, transform)` is short for `select([(pattern, transform)])`. Each
    transform sees the tree of its own leaves only, under their full paths, and still
    picks among them by its own pattern.

    Args:
      rules: ordered (regular expression, transform) pairs, searched for in paths
        such as `encoder/Dense_0/kernel`.
      transform: the transform, where `rules` is one pattern.

    Raises:
      UserError: at `encode`, for a rule that matches no leaf.
    """
    if isinstance(rules, str):
        rules = [(rules, transform)]
    patterns = [pattern for pattern, _ in rules]
    transforms = [t for _, t in rules]

    def split(params) -> list[dict[str, Any]]:
        flat = tree.flatten(params)
        took = tree.match(patterns, flat)
        parts: list[dict[str, Any]] = [{} for _ in rules]
        for path, i in took.items():
            parts[i][path] = flat[path]
        return parts

    def over_parts(whole, states, apply):
        """Replaces each part's leaves of `whole` by `apply(transform, part, state)`."""
        new = {}
        for t, (paths, state) in zip(transforms, states, strict=True):
            part = tree.unflatten({p: tree.get(whole, p) for p in paths})
            part = apply(t, part, state)
            new.update({p: tree.get(part, p) for p in paths})
        return tree.replace(whole, new)

    def encode(params):
        new, states = {}, []
        for t, part in zip(transforms, split(params), strict=True):
            code, state = t.encode(tree.unflatten(part))
            new.update({p: tree.get(code, p) for p in part})
            # The keys remember which leaves were taken; () holds no array.
            states.append((dict.fromkeys(part, ()), state))
        return tree.replace(params, new), tuple(states)

    def decode(code, states):
        return over_parts(code, states, lambda t, part, s: t.decode(part, s))

    def parts_of(whole, states) -> list[Any]:
        return [tree.unflatten({p: tree.get(whole, p) for p in s[0]}) for s in states]

    def update(code, states, signals):
        new = []
        both = zip(parts_of(code, states), parts_of(signals.grads, states), strict=True)
        keys = base.keys(signals.key, len(transforms))
        for t, (paths, state), (part, grads), key in zip(
            transforms, states, both, keys, strict=True
        ):
            told = signals._replace(grads=grads, key=key)
            new.append((paths, t.update(part, state, told)))
        return tuple(new)

    def freeze(frozen, states):
        return over_parts(frozen, states, lambda t, part, s: t.freeze(part, s))

    def takes(params):
        taken = {}
        for t, part in zip(transforms, split(params), strict=True):
            taken.update(t.takes(tree.unflatten(part)))
        return taken

    def sample_all(code, states, key):
        keys = iter(base.keys(key, len(transforms)))
        return over_parts(
            code, states, lambda t, part, s: base.sample(t, part, s, next(keys))
        )

    def penalty(code, states):
        parts = zip(transforms, states, parts_of(code, states), strict=True)
        return sum(t.penalty(part, s) for t, (_, s), part in parts if t.penalty)

    def renew_all(code, before, after):
        fresh: base.Fresh = {}
        parts = zip(transforms, before, after, parts_of(code, before), strict=True)
        for t, (paths, b), (_, a), part in parts:
            part, found = base.renew(t, part, b, a)
            code = tree.replace(code, {p: tree.get(part, p) for p in paths})
            fresh.update(found)
        return code, fresh

    def outline_all(params):
        new = {}
        for t, part in zip(transforms, split(params), strict=True):
            code = base.outline(t, tree.unflatten(part))
            new.update({p: tree.get(code, p) for p in part})
        return tree.replace(params, new)

    return base.Transform(
        encode,
        decode,
        update,
        freeze,
        takes,
        base.wherever("sample", transforms, sample_all),
        base.wherever("penalty", transforms, penalty),
        base.wherever("renew", transforms, renew_all),
        base.wherever("outline", transforms, outline_all),
    )
