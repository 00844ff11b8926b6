"""Objectives: weighted sums of named terms.

A term is `(outputs, batch, params, teacher) -> scalar`: outputs = (logits, features),
params the dense weights that the model saw, teacher its (logits, features) or None. A
term with weights of its own is `Headed`: it takes them as a fifth argument.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax

from lib import errors
from lib.objectives import checks
from lib.objectives.attention import attention_scores, minilm
from lib.objectives.attention_transfer import attention_transfer
from lib.objectives.base import Headed, Term
from lib.objectives.born_again import born_again
from lib.objectives.contrastive import crd
from lib.objectives.correlation import correlation
from lib.objectives.decoupled import dkd
from lib.objectives.dist import dist
from lib.objectives.distillation import distill
from lib.objectives.group_lasso import group_lasso
from lib.objectives.hidden import embeddings, hidden
from lib.objectives.hint import hint
from lib.objectives.penalties import elastic_net, l1, l2
from lib.objectives.relations import rkd_angle, rkd_distance
from lib.objectives.self_distillation import self_distill
from lib.objectives.similarity import similarity
from lib.objectives.task import cross_entropy, squared_hinge

# (outputs, batch, params, teacher) -> (loss, {name: the term's value, unweighted}), or
# `Headed` with the same
Objective = Callable[..., tuple[jax.Array, dict[str, jax.Array]]] | Headed

TERMS: dict[str, Callable[..., Term | Headed]] = {
    "attention_scores": attention_scores,
    "attention_transfer": attention_transfer,
    "born_again": born_again,
    "correlation": correlation,
    "crd": crd,
    "cross_entropy": cross_entropy,
    "dist": dist,
    "distill": distill,
    "dkd": dkd,
    "elastic_net": elastic_net,
    "embeddings": embeddings,
    "group_lasso": group_lasso,
    "hidden": hidden,
    "hint": hint,
    "l1": l1,
    "l2": l2,
    "minilm": minilm,
    "rkd_angle": rkd_angle,
    "rkd_distance": rkd_distance,
    "self_distill": self_distill,
    "similarity": similarity,
    "squared_hinge": squared_hinge,
}

# The terms that read a teacher's features, which no cache of logits can stand for.
NEEDS_FEATURES = frozenset(
    {
        "attention_scores",
        "attention_transfer",
        "correlation",
        "crd",
        "embeddings",
        "hidden",
        "hint",
        "minilm",
        "rkd_angle",
        "rkd_distance",
        "similarity",
    }
)

# The argument of terms that is no setting: how many examples are trained on.
COUNT = "examples"

# The terms that a stage without a teacher cannot have.
NEEDS_TEACHER = NEEDS_FEATURES | {"born_again", "dist", "distill", "dkd"}


def combine(terms: Mapping[str, tuple[float | jax.Array, Term | Headed]]) -> Objective:
    """Returns the objective `sum weight * term`, in the mapping's order.

    It is `Headed` if a term is, with heads `{name: the term's}`; otherwise a plain
    function.

    Args:
      terms: `{name: (weight, term)}`. A weight may be traced.

    Raises:
      UserError: there are no terms, or a weight is negative.
    """
    if not terms:
        raise errors.UserError("an objective needs at least one term; got none")
    for name, (weight, _) in terms.items():
        checks.number(f"{name}.weight", weight, low=0)

    headed = {n: t for n, (_, t) in terms.items() if isinstance(t, Headed)}

    def objective(
        outputs: Any, batch: Any, params: Any, teacher: Any, heads: Any = None
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        values = {
            name: term(outputs, batch, params, teacher, heads[name])
            if name in headed
            else term(outputs, batch, params, teacher)
            for name, (_, term) in terms.items()
        }
        loss = sum(weight * values[name] for name, (weight, _) in terms.items())
        return loss, values

    def init(key: jax.Array, outputs: Any, teacher: Any) -> dict[str, Any]:
        keys = jax.random.split(key, len(headed))
        return {
            name: term.init(one, outputs, teacher)
            for one, (name, term) in zip(keys, headed.items(), strict=True)
        }

    if headed:
        return Headed(init, objective)
    return objective


def build(
    names: Sequence[str], settings: Any, *, examples: int | None = None
) -> Objective:
    """Returns the objective of the named terms, in that order.

    Args:
      names: keys of `TERMS`, each once.
      settings: a mapping or `ConfigDict`; `settings[name]` holds the term's `weight`
        and its factory's options. Entries of other names are not read.
      examples: of the training split, for terms that count them (`crd`); None where
        there is none, as before the data are known.

    Raises:
      UserError: an unknown, repeated or missing name or option, a value out of its
        range, or a term that counts examples without them.
    """
    terms = {}
    for name in names:
        factory = errors.lookup(TERMS, name, "term")
        if name in terms:
            raise errors.UserError(f"term {name!r} is named twice")
        if name not in settings:
            raise errors.UserError(f"term {name!r} has no settings")
        options = dict(settings[name])
        _check_options(name, factory, options)
        weight = options.pop("weight")
        if COUNT in inspect.signature(factory).parameters:
            if examples is None:
                raise errors.UserError(
                    f"term {name!r} counts the examples it is trained on; got none"
                )
            options[COUNT] = examples
        terms[name] = (weight, factory(**options))
    return combine(terms)


def _check_options(name: str, factory: Callable, options: Mapping[str, Any]) -> None:
    """Raises a `UserError` unless `options` is what the factory takes, and a weight."""
    parameters = dict(inspect.signature(factory).parameters)
    parameters.pop(COUNT, None)
    valid = ("weight", *parameters)
    for option in options:
        if option not in valid:
            raise errors.UserError(
                f"unknown option {option!r} of term {name!r}; "
                f"{errors.hint(option, valid)}"
            )
    for option in valid:
        needed = (
            option == "weight" or parameters[option].default is inspect.Parameter.empty
        )
        if needed and option not in options:
            raise errors.UserError(f"term {name!r} needs the option {option!r}")
