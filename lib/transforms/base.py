"""The algebra of weights: a technique is a trainable codec over a params tree.

`encode` turns dense weights into what is trained (code) and what is fixed (state),
`decode` gives the weights the model sees. Techniques compose with `chain` and are
aimed at leaves with `select`.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax

from lib import representations, tree

Params = Any  # a nested dict of arrays
Code = Any  # a nested dict of float arrays, what the optimiser trains
State = Any  # arrays only: it passes through jit, vmap and a checkpoint
Frozen = Any  # a nested dict of representations; arrays count as Dense

KERNELS = tree.KERNELS


class Signals(NamedTuple):
    """What training tells a transform after each step.

    Attributes:
      grads: the gradient at every weight that the transform's `decode` returns: dense,
        not masked by the transform itself.
      step: int32 scalar, the number of the step just taken; the first is 0.
      key: a JAX PRNG key for this step.
    """

    grads: Params
    step: jax.Array
    key: jax.Array


def _keep_state(code: Code, state: State, signals: Signals) -> State:
    del code, signals
    return state


class Transform(NamedTuple):
    """A trainable codec.

    Attributes:
      encode: params -> (code, state).
      decode: (code, state) -> params; differentiable in code.
      update: (code, state, signals) -> state, after each training step; jit-able.
      freeze: (frozen, state) -> frozen: `decode` over representations. For a code c,
        `materialize(freeze(c, state)) == decode(c, state)` bit for bit.
      takes: params -> {path: how it is treated}; what `plan` lists. Needs only shapes.
    """

    encode: Callable[[Params], tuple[Code, State]]
    decode: Callable[[Code, State], Params]
    update: Callable[[Code, State, Signals], State]
    freeze: Callable[[Frozen, State], Frozen]
    takes: Callable[[Params], dict[str, str]] = lambda params: {}


def identity() -> Transform:
    """Returns the transform that trains the weights as they are."""
    return Transform(
        encode=lambda params: (params, ()),
        decode=lambda code, state: code,
        update=_keep_state,
        freeze=lambda frozen, state: frozen,
    )


def chain(*transforms: Transform) -> Transform:
    """Composes left to right: each transform encodes the code of the one before.

    Decodes right to left. Each part's `update` sees its own code and the gradient at
    its own decoded output, pulled back through the parts before it.
    """

    def encode(params):
        states = []
        for t in transforms:
            params, state = t.encode(params)
            states.append(state)
        return params, tuple(states)

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
        levels = zip(transforms, states, reversed(codes), reversed(pulls), strict=True)
        for t, state, code, pull in levels:
            new.append(t.update(code, state, signals._replace(grads=grads)))
            (grads,) = pull(grads)
        return tuple(new)

    def freeze(frozen, states):
        for t, state in zip(reversed(transforms), reversed(states), strict=True):
            frozen = t.freeze(frozen, state)
        return frozen

    def takes(params):
        taken: dict[str, str] = {}
        for t in transforms:
            for path, how in t.takes(params).items():
                taken[path] = f"{taken[path]}, {how}" if path in taken else how
            params = jax.eval_shape(lambda p, t=t: t.encode(p)[0], params)
        return taken

    return Transform(encode, decode, update, freeze, takes)


def select(
    rules: str | Sequence[tuple[str, Transform]], transform: Transform | None = None
) -> Transform:
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

    def update(code, states, signals):
        new = []
        for t, (paths, state) in zip(transforms, states, strict=True):
            part, grads = (
                tree.unflatten({p: tree.get(whole, p) for p in paths})
                for whole in (code, signals.grads)
            )
            new.append((paths, t.update(part, state, signals._replace(grads=grads))))
        return tuple(new)

    def freeze(frozen, states):
        return over_parts(frozen, states, lambda t, part, s: t.freeze(part, s))

    def takes(params):
        taken = {}
        for t, part in zip(transforms, split(params), strict=True):
            taken.update(t.takes(tree.unflatten(part)))
        return taken

    return Transform(encode, decode, update, freeze, takes)


Leaves = Mapping[str, Any]  # path -> leaf


def on_leaves(
    how: str,
    pattern: str,
    encode: Callable[[Leaves], tuple[Leaves, Leaves]],
    decode: Callable[[Leaves, Leaves], Leaves],
    freeze: Callable[[Leaves, Leaves], Leaves],
    update: Callable[[Leaves, Leaves, Signals], Leaves] | None = None,
) -> Transform:
    """Lifts functions over `{path: leaf}` to a transform of trees.

    Args:
      how: what the transform does, for `plan`, as "prune(sparsity=0.9)".
      pattern: regular expression that picks the leaves; the rest pass untouched.
      encode: weights -> (codes, states), dicts with the same paths.
      decode: (codes, states) -> weights.
      freeze: (frozen codes, states) -> representations.
      update: (codes, states, signals) -> states; `signals.grads` is `{path: grad}`.

    Raises:
      UserError: at `encode`, when the pattern matches no leaf.
    """

    def taken(params) -> dict[str, Any]:
        flat = tree.flatten(params)
        return {path: flat[path] for path in tree.match([pattern], flat)}

    def at(whole, states) -> dict[str, Any]:
        return {path: tree.get(whole, path) for path in states}

    def encode_tree(params):
        codes, states = encode(taken(params))
        return tree.replace(params, codes), states

    def decode_tree(code, states):
        return tree.replace(code, decode(at(code, states), states))

    def update_tree(code, states, signals):
        signals = signals._replace(grads=at(signals.grads, states))
        return update(at(code, states), states, signals)

    def freeze_tree(frozen, states):
        leaves = jax.tree.map(  # a leaf's code may be a subtree
            representations.of,
            at(frozen, states),
            is_leaf=lambda x: isinstance(x, representations.Representation),
        )
        return tree.replace(frozen, freeze(leaves, states))

    return Transform(
        encode_tree,
        decode_tree,
        update_tree if update else _keep_state,
        freeze_tree,
        lambda params: dict.fromkeys(taken(params), how),
    )


class Row(NamedTuple):
    """One leaf in a plan; `taken_by` is empty for a leaf that no rule took."""

    path: str
    shape: tuple[int, ...]
    dtype: str
    taken_by: str


def plan(transform: Transform, params: Params) -> list[Row]:
    """Lists each leaf with the techniques that took it, and those that none took.

    Args:
      transform: what will be applied.
      params: the tree, arrays or `jax.ShapeDtypeStruct`s: nothing is computed.

    Raises:
      UserError: a rule matches nothing.
    """
    taken = transform.takes(params)

    def techniques(path: str) -> str:
        # A technique may have split the leaf: its parts stand below its path.
        below = f"{path}/"
        parts = [how for p, how in taken.items() if p == path or p.startswith(below)]
        return ", ".join(dict.fromkeys(parts))

    return [
        Row(path, tuple(x.shape), str(x.dtype), techniques(path))
        for path, x in tree.flatten(params).items()
    ]
