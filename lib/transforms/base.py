"""The algebra of weights: a technique is a trainable codec over a params tree.

`encode` turns dense weights into what is trained (code) and what is fixed (state),
`decode` gives the weights the model sees. Techniques compose with `chain` (chain.py)
and are aimed at leaves with `select` (select.py).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax

from lib import representations, tree

Params = Any  # a nested dict of arrays
Code = Any  # a nested dict of float arrays, what the optimiser trains
State = Any  # arrays only: it passes through jit, vmap and a checkpoint
Frozen = Any  # a nested dict of representations; arrays count as Dense
Fresh = dict[
    str, jax.Array
]  # code path -> bool of the leaf's shape, True = begins anew

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

    A leaf that a technique takes out of what is trained (tied to another, or fixed)
    leaves an empty dict at its path in the code.

    Attributes:
      encode: params -> (code, state).
      decode: (code, state) -> params; differentiable in code.
      update: (code, state, signals) -> state, after each training step; jit-able.
      freeze: (frozen, state) -> frozen: `decode` over representations. For a code c,
        `materialize(freeze(c, state)) == decode(c, state)` bit for bit.
      takes: params -> {path: how it is treated}; what `plan` lists. Needs only shapes.

    The rest is None where a technique has no use for it; call the functions of the
    same names in this module, which fill in.

    Attributes:
      sample: (code, state, key) -> params: `decode` for training, where it is random.
      penalty: (code, state) -> float32 scalar, added to the loss.
      renew: (code, state before, state after) -> (code, fresh), after `update`: sets
        code directly, as where a weight grows back at 0. The optimiser's slots restart
        where `fresh` says so.
      outline: params -> the code's `jax.ShapeDtypeStruct`s, where its shapes depend on
        values (a rank chosen by energy): from above. Such an `encode` cannot be jitted.
    """

    encode: Callable[[Params], tuple[Code, State]]
    decode: Callable[[Code, State], Params]
    update: Callable[[Code, State, Signals], State]
    freeze: Callable[[Frozen, State], Frozen]
    takes: Callable[[Params], dict[str, str]] = lambda params: {}
    sample: Callable[[Code, State, jax.Array], Params] | None = None
    penalty: Callable[[Code, State], jax.Array] | None = None
    renew: Callable[[Code, State, State], tuple[Code, Fresh]] | None = None
    outline: Callable[[Params], Code] | None = None


def sample(t: Transform, code: Code, state: State, key: jax.Array) -> Params:
    """Returns the weights of one training step; `decode`'s unless `t` is random."""
    return t.sample(code, state, key) if t.sample else t.decode(code, state)


def renew(t: Transform, code: Code, before: State, after: State) -> tuple[Code, Fresh]:
    """Returns the code after `update`, and where it begins anew; {} is nowhere."""
    return t.renew(code, before, after) if t.renew else (code, {})


def outline(t: Transform, params: Params) -> Code:
    """Returns the shapes of the code of `params`; nothing is computed."""
    if t.outline:
        return t.outline(params)
    return jax.eval_shape(lambda p: t.encode(p)[0], params)


def identity() -> Transform:
    """Returns the transform that trains the weights as they are."""
    return Transform(
        encode=lambda params: (params, ()),
        decode=lambda code, state: code,
        update=_keep_state,
        freeze=lambda frozen, state: frozen,
    )


def wherever(field: str, transforms: Sequence[Transform], function: Callable):
    """Returns `function` if any of the transforms has the optional field, else None."""
    return function if any(getattr(t, field) for t in transforms) else None


def keys(key: jax.Array, count: int) -> list[jax.Array]:
    """Returns a key for each of `count` parts."""
    return [jax.random.fold_in(key, i) for i in range(count)]


Leaves = Mapping[str, Any]  # path -> leaf


def on_leaves(
    how: str,
    pattern: str,
    encode: Callable[[Leaves], tuple[Leaves, Leaves]],
    decode: Callable[[Leaves, Leaves], Leaves],
    freeze: Callable[[Leaves, Leaves], Leaves],
    update: Callable[[Leaves, Leaves, Signals], Leaves] | None = None,
    *,
    sample: Callable[[Leaves, Leaves, jax.Array], Leaves] | None = None,
    penalty: Callable[[Leaves, Leaves], jax.Array] | None = None,
    renew: Callable[[Leaves, Leaves, Leaves], tuple[Leaves, Fresh]] | None = None,
    outline: Callable[[Leaves], Leaves] | None = None,
) -> Transform:
    """Lifts functions over `{path: leaf}` to a transform of trees.

    A leaf's code may be an array, a dict of arrays, or {} where nothing of it is
    trained. Every path that `encode` is given has an entry in the codes and states.

    Args:
      how: what the transform does, for `plan`, as "prune(sparsity=0.9)": the name of
        the technique comes before the parenthesis.
      pattern: regular expression that picks the leaves; the rest pass untouched.
      encode: weights -> (codes, states), dicts with the same paths.
      decode: (codes, states) -> weights.
      freeze: (frozen codes, states) -> representations.
      update: (codes, states, signals) -> states; `signals.grads` is `{path: grad}`.
      sample: (codes, states, key) -> weights; see `Transform`, as for what follows.
      penalty: (codes, states) -> scalar.
      renew: (codes, states before, states after) -> (codes, fresh).
      outline: weights, of which only shapes and dtypes are read -> codes' shapes.

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

    def sample_tree(code, states, key):
        return tree.replace(code, sample(at(code, states), states, key))

    def penalty_tree(code, states):
        return penalty(at(code, states), states)

    def renew_tree(code, before, after):
        codes, fresh = renew(at(code, before), before, after)
        return tree.replace(code, codes), fresh

    def outline_tree(params):
        return tree.replace(params, outline(taken(params)))

    return Transform(
        encode_tree,
        decode_tree,
        update_tree if update else _keep_state,
        freeze_tree,
        lambda params: dict.fromkeys(taken(params), how),
        sample_tree if sample else None,
        penalty_tree if penalty else None,
        renew_tree if renew else None,
        outline_tree if outline else None,
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
