"""`chain`: techniques one after another, each on the code of the one before."""

import jax

from lib import errors, tree
from lib.transforms import base, orders


def _shapes(code: base.Code, path: str) -> dict[str, tuple[int, ...]]:
    """Returns the shapes of what is trained at and below a path."""
    leaves = tree.flatten(tree.get(code, path), path)
    return {p: x.shape for p, x in leaves.items()}


def chain(*transforms: base.Transform) -> base.Transform:
    """Composes left to right: each transform encodes the code of the one before.

    Decodes right to left. Each part's `update` sees its own code and the gradient at
    its own decoded output, pulled back through the parts before it. Its `renew` sees
    the code that is trained, so the parts after it must leave its leaves in place.

    Raises:
      UserError: at `encode` and `takes`, for an order of techniques on one leaf that
        has no meaning (`orders.REFUSED`), or that takes the leaves of a part that
        renews them out of the trained code.
    """

    def encode(params):
        states = []
        takes(params)  # refuses an order without a meaning, before any compute
        for t in transforms:
            params, state = t.encode(params)
            states.append(state)
        return params, tuple(states)

    def levels(code, states):
        """Returns each part's own code, first part first."""
        codes = []
        for t, state in zip(reversed(transforms), reversed(states), strict=True):
            codes.append(code)
            code = t.decode(code, state)
        return codes[::-1]

    def decode(code, states):
        for t, state in zip(reversed(transforms), reversed(states), strict=True):
            code = t.decode(code, state)
        return code

    def update(code, states, signals):
        codes, pulls = [], []
        for t, state in zip(reversed(transforms), reversed(states), strict=True):
            codes.append(code)
            # What nobody reads of this, the compiler drops.
            code, pull = jax.vjp(lambda c, t=t, s=state: t.decode(c, s), code)
            pulls.append(pull)
        new, grads = [], signals.grads
        keys = base.keys(signals.key, len(transforms))
        parts = zip(
            transforms, states, reversed(codes), reversed(pulls), keys, strict=True
        )
        for t, state, code, pull, key in parts:
            new.append(t.update(code, state, signals._replace(grads=grads, key=key)))
            (grads,) = pull(grads)
        return tuple(new)

    def freeze(frozen, states):
        for t, state in zip(reversed(transforms), reversed(states), strict=True):
            frozen = t.freeze(frozen, state)
        return frozen

    def takes(params):
        taken: dict[str, str] = {}
        steps = []
        for t in transforms:
            found = t.takes(params)
            for path, how in found.items():
                taken[path] = f"{taken[path]}, {how}" if path in taken else how
            params = base.outline(t, params)
            steps.append((t, found, params))
        orders.check([found for _, found, _ in steps])
        for t, found, code in steps:
            for path in found if t.renew else ():
                if _shapes(code, path) != _shapes(params, path):
                    raise errors.UserError(
                        f"{found[path]} sets the weights of {path} as it trains, but a "
                        "later technique of the chain stores them otherwise; put "
                        f"{orders.name(found[path])} after it"
                    )
        return taken

    def sample_all(code, states, key):
        keys = base.keys(key, len(transforms))
        parts = zip(reversed(transforms), reversed(states), keys, strict=True)
        for t, state, key in parts:
            code = base.sample(t, code, state, key)
        return code

    def penalty(code, states):
        parts = zip(transforms, states, levels(code, states), strict=True)
        return sum(t.penalty(c, s) for t, s, c in parts if t.penalty)

    def renew_all(code, before, after):
        fresh: base.Fresh = {}
        for t, b, a in zip(transforms, before, after, strict=True):
            code, found = base.renew(t, code, b, a)
            for path, anew in found.items():
                fresh[path] = fresh[path] | anew if path in fresh else anew
        return code, fresh

    def outline_all(params):
        for t in transforms:
            params = base.outline(t, params)
        return params

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
