"""Objectives: weighted sums of named terms.

A term is `(outputs, batch, params, teacher) -> scalar`: outputs = (logits, features),
params the dense weights that the model saw, teacher its (logits, features) or None.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax

from lib import errors
from lib.objectives import checks
from lib.objectives.distillation import distill
from lib.objectives.group_lasso import group_lasso
from lib.objectives.penalties import elastic_net, l1, l2
from lib.objectives.task import cross_entropy, squared_hinge

Term = Callable[..., jax.Array]
# (outputs, batch, params, teacher) -> (loss, {name: the term's value, unweighted})
Objective = Callable[..., tuple[jax.Array, dict[str, jax.Array]]]

TERMS: dict[str, Callable[..., Term]] = {
    "cross_entropy": cross_entropy,
    "distill": distill,
    "elastic_net": elastic_net,
    "group_lasso": group_lasso,
    "l1": l1,
    "l2": l2,
    "squared_hinge": squared_hinge,
}

# The terms that a stage without a teacher cannot have.
NEEDS_TEACHER = frozenset({"distill"})


def combine(terms: Mapping[str, tuple[float | jax.Array, Term]]) -> Objective:
    """Returns the objective `sum weight * term`, in the mapping's order.

    Args:
      terms: `{name: (weight, term)}`. A weight may be traced.

    Raises:
      UserError: there are no terms, or a weight is negative.
    """
    if not terms:
        raise errors.UserError("an objective needs at least one term; got none")
    for name, (weight, _) in terms.items():
        checks.number(f"{name}.weight", weight, low=0)

    def objective(
        outputs: Any, batch: Any, params: Any, teacher: Any
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        values = {
            name: term(outputs, batch, params, teacher)
            for name, (_, term) in terms.items()
        }
        loss = sum(weight * values[name] for name, (weight, _) in terms.items())
        return loss, values

    return objective


def build(names: Sequence[str], settings: Any) -> Objective:
    """Returns the objective of the named terms, in that order.

    Args:
      names: keys of `TERMS`, each once.
      settings: a mapping or `ConfigDict`; `settings[name]` holds the term's `weight`
        and its factory's options. Entries of other names are not read.

    Raises:
      UserError: an unknown, repeated or missing name or option, or a value out of
        its range.
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
        terms[name] = (weight, factory(**options))
    return combine(terms)


def _check_options(name: str, factory: Callable, options: Mapping[str, Any]) -> None:
    """Raises a `UserError` unless `options` is what the factory takes, and a weight."""
    parameters = inspect.signature(factory).parameters
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
