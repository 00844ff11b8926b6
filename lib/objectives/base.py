"""What terms are made of: functions, weights of their own, a teacher's features."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from lib import errors

Term = Callable[..., jax.Array]  # (outputs, batch, params, teacher) -> scalar
Pairs = Sequence[Sequence[str]]  # (student's feature, teacher's feature), ...
Features = dict[str, jax.Array]


class Headed(NamedTuple):
    """A term, or an objective, with weights of its own, which training throws away.

    They learn beside the model's: the regressor of a hint, projections into a common
    space, classifiers at exits.

    Attributes:
      init: (PRNG key, outputs, teacher's outputs) -> heads, a nested dict of arrays.
        Of both outputs only shapes are read; without a teacher the last is None.
      apply: (outputs, batch, params, teacher, heads) -> what the term gives.
    """

    init: Callable[[jax.Array, Any, Any], Any]
    apply: Callable[..., Any]

    def __call__(
        self, outputs: Any, batch: Any, params: Any, teacher: Any, heads: Any
    ) -> Any:
        """Returns `apply` of the same."""
        return self.apply(outputs, batch, params, teacher, heads)


def required(term: str, teacher: Any) -> Any:
    """Returns the teacher's outputs; raises a `UserError` if there are none."""
    if teacher is None:
        raise errors.UserError(
            f"term {term!r} needs a teacher, and this stage has none"
        )
    return teacher


def taught(term: str, outputs: Any, teacher: Any) -> tuple[jax.Array, jax.Array]:
    """Returns the student's logits and the teacher's, which no gradient reaches.

    Raises:
      UserError: there is no teacher, or its logits have another shape.
    """
    student, target = outputs[0], required(term, teacher)[0]
    if student.shape != target.shape:
        raise errors.UserError(
            f"term {term!r}: the teacher's logits {target.shape} "
            f"and the student's {student.shape} differ in shape"
        )
    return student, lax.stop_gradient(target)


def label(term: str, batch: Mapping[str, jax.Array]) -> jax.Array:
    """Returns int labels `[B]`; raises a `UserError` where labels were mixed."""
    if "target" in batch:
        raise errors.UserError(
            f"term {term!r} needs one label an example, and an augmentation mixes them"
        )
    return batch["label"]


def check_pairs(term: str, pairs: Pairs) -> None:
    """Raises a `UserError` unless `pairs` is pairs of names, at least one."""
    sequence = isinstance(pairs, list | tuple) and len(pairs) > 0
    if not sequence or not all(
        isinstance(p, list | tuple) and len(p) == 2 and all(type(n) is str for n in p)
        for p in pairs
    ):
        raise errors.UserError(
            f"{term}.pairs: expected pairs (student's feature, teacher's feature), "
            f"got {pairs!r}"
        )


def feature(term: str, whose: str, outputs: Any, name: str) -> Any:
    """Returns a feature by name, "logits" among them; `whose` is for the message."""
    features = {"logits": outputs[0], **outputs[1]}
    if name not in features:
        raise errors.UserError(
            f"term {term!r}: the {whose} has no feature {name!r}; "
            f"{errors.hint(name, features)}"
        )
    return features[name]


def paired(
    term: str, pairs: Pairs, outputs: Any, teacher: Any, axes: Sequence[int] = ()
) -> list[tuple[Any, Any]]:
    """Returns (student's array, teacher's array) of each pair.

    No gradient reaches the teacher's. Shapes may stand for arrays.

    Args:
      term: its name, for messages.
      pairs: names of features.
      outputs: the student's (logits, features).
      teacher: the teacher's, or None.
      axes: how many axes a feature may have; () for any number, but equally many.

    Raises:
      UserError: there is no teacher, a name is unknown, or axes do not fit.
    """
    required(term, teacher)
    found = []
    for ours, theirs in pairs:
        a = feature(term, "student", outputs, ours)
        b = feature(term, "teacher", teacher, theirs)
        if isinstance(b, jax.Array):
            b = lax.stop_gradient(b)
        if len(a.shape) != len(b.shape) or (axes and len(a.shape) not in axes):
            many = f"{' or '.join(map(str, axes))} axes" if axes else "as many axes"
            unfit(term, (ours, theirs), a, b, f"expected {many} of both")
        found.append((a, b))
    return found


def unfit(term: str, pair: Sequence[str], student: Any, teacher: Any, why: str) -> None:
    """Raises the `UserError` of a pair of features whose shapes do not fit."""
    raise errors.UserError(
        f"term {term!r}: the student's {pair[0]!r} {tuple(student.shape)} and the "
        f"teacher's {pair[1]!r} {tuple(teacher.shape)} do not fit: {why}"
    )


def dense(key: jax.Array, inputs: int, outputs: int) -> dict[str, jax.Array]:
    """Returns a fresh affine map, `{"kernel": [inputs, outputs], "bias": [outputs]}`.

    The kernel is drawn with variance 1 / inputs (LeCun 1998), the bias is 0.
    """
    draw = jax.nn.initializers.lecun_normal()
    return {"kernel": draw(key, (inputs, outputs)), "bias": jnp.zeros(outputs)}


def mapped(head: Mapping[str, jax.Array], x: jax.Array) -> jax.Array:
    """Returns `x @ kernel + bias` over the last axis of `x`."""
    return jnp.matmul(x, head["kernel"]) + head["bias"].reshape(
        (1,) * (x.ndim - 1) + (-1,)
    )


def normalised(x: jax.Array, axis: int | tuple[int, ...] = -1) -> jax.Array:
    """Returns `x` divided by its length along `axis`; zeros stay zeros."""
    square = jnp.sum(jnp.square(x), axis=axis, keepdims=True)
    # Below it, the length's slope would be infinite.
    return x * lax.rsqrt(jnp.maximum(square, 1e-12))


def flat(x: jax.Array) -> jax.Array:
    """Returns `[B, ...]` as `[B, n]`."""
    return x.reshape((x.shape[0], -1))
