"""The walk from a traced program to a graph, equation by equation."""

import collections
import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.extend import core

from lib import errors
from lib.deploy.onnx_export import (
    constants,
    elementwise,
    graph,
    means,
    reshaped,
    rounding,
    sums,
    tables,
    windows,
)
from lib.deploy.onnx_export.contraction import Contraction
from lib.deploy.onnx_export.contractions import Contract
from lib.deploy.onnx_export.values import Const, Tensor, Value, known, tensor
from lib.program import flow
from lib.program.points import MEANS
from lib.program.sites import Block, Site, read

# primitive -> rule(graph, params, values, out); contractions stand apart.
RULES: dict[str, Callable[..., Any]] = {
    **elementwise.RULES,
    **reshaped.RULES,
    **rounding.RULES,
    **windows.RULES,
    **tables.RULES,
}
INPUT, OUTPUT = "input", "output"


class Walked(NamedTuple):
    """A graph with the values that it takes and gives."""

    graph: graph.Graph
    inputs: list[Tensor]
    outputs: list[tuple[str, Value]]


def batched(example: Any) -> jax.ShapeDtypeStruct:
    """Returns the shape of an input whose first axis may have any length."""
    return jax.ShapeDtypeStruct((graph.symbol(), *example.shape[1:]), example.dtype)


@contextlib.contextmanager
def any_batch() -> Iterator[None]:
    """Raises a `UserError` where a function wants a batch of a certain length."""
    try:
        yield
    except jax.errors.InconclusiveDimensionOperation as e:
        why = str(e).splitlines()[0].rstrip(".")
        raise errors.UserError(
            f"ONNX export: the function takes no batch of any length: {why}; it may "
            "hand x.shape[0] to reshape or zeros, but not decide by it"
        ) from e


def walk(
    f: Callable[..., Any], params: Any, weights: Sequence[Const], example: Any, how: Any
) -> Walked:
    """Returns the graph of `f(params, x)`.

    Args:
      f: pure.
      params: a pytree of arrays.
      weights: what each leaf of `params` is, in the order of `jax.tree.leaves`.
      example: an input, or its shape and dtype; the batch is its first axis.
      how: `integers.Plan`.

    Raises:
      UserError: the program holds what has no rule, or what its rule does not take.
    """
    program = read(f, (params, batched(example)), {}, points=how.points)
    x = tensor(INPUT, program.leaves[-1].shape, example.dtype)
    walker = _Walker(graph.Graph(INPUT), Contract(how))
    outs = walker.run(program.block, [*weights, x], "")
    names = [OUTPUT] if len(outs) == 1 else [f"{OUTPUT}_{i}" for i in range(len(outs))]
    return Walked(walker.graph, [x], list(zip(names, outs, strict=True)))


class _Walker(NamedTuple):
    """Turns blocks into nodes of one graph."""

    graph: graph.Graph
    contract: Contract

    def run(self, block: Block, args: Sequence[Value], scope: str) -> list[Value]:
        """Returns the values of a block's outputs.

        Args:
          block: an open jaxpr and the sites in it.
          args: the values of its inputs.
          scope: name stack of the equation that it belongs to.
        """
        uses = collections.Counter(
            atom
            for atoms in (block.jaxpr.outvars, *(e.invars for e in block.jaxpr.eqns))
            for atom in atoms
            if not isinstance(atom, core.Literal)
        )
        env: dict[core.Var, Value] = {}

        def define(variables: Sequence[core.Var], values: Sequence[Value]) -> None:
            for variable, value in zip(variables, values, strict=True):
                # Two users must not each fold their own constants into a copy of it.
                if isinstance(value, Contraction) and uses[variable] > 1:
                    value = value.force(self.graph)
                env[variable] = value

        def value_of(atom: core.Var | core.Literal) -> Value:
            if isinstance(atom, core.Literal):
                return known(np.asarray(atom.val, atom.aval.dtype))
            return env[atom]

        define(block.jaxpr.constvars, [known(c) for c in block.consts])
        define(block.jaxpr.invars, args)
        for i, eqn in enumerate(block.jaxpr.eqns):
            own = str(eqn.source_info.name_stack)
            self.graph.scope = "/".join(part for part in (scope, own) if part)
            values = [value_of(atom) for atom in eqn.invars]
            define(eqn.outvars, self._step(eqn, block.steps.get(i), values))
        return [value_of(atom) for atom in block.jaxpr.outvars]

    def _step(self, eqn: core.JaxprEqn, step: Any, values: list[Value]) -> list[Value]:
        """Returns the results of one equation."""
        name, out = eqn.primitive.name, eqn.outvars[0].aval
        if name in flow.CALLS:
            body = eqn.params[flow.CALLS[name]]
            block = step[0] if step else Block(*flow.opened(body), {})
            return self.run(block, values, self.graph.scope)
        if not eqn.effects and all(isinstance(v, Const) for v in values):
            found = constants.fold(self.graph, eqn, values, out)
        elif isinstance(step, Site) and name == "add":
            found = sums.add(self.graph, self.contract.plan, step, values, out)
        elif isinstance(step, Site) and name in MEANS:
            x = means.rounded(self.graph, self.contract.plan, step, values[0])
            found = RULES[name](self.graph, eqn.params, [x], out)
        elif isinstance(step, Site):
            found = self.contract(self.graph, step, values, out)
        elif name in RULES:
            found = RULES[name](self.graph, eqn.params, values, out)
        elif name in ("scan", "while", "cond"):
            raise self.graph.fail(
                f"a {name} is control flow, of which the file would hold no integers",
                "write the loop or the choice out in Python (of a recurrent network: "
                "one cell a step), or serve the model with jax.export",
            )
        else:
            raise self.graph.fail(
                f"primitive {name!r} has no rule",
                "write that part with operations that have one (see "
                "lib/deploy/onnx_export), or serve the model with jax.export",
            )
        return found if isinstance(found, list) else [found]


def flat_constants(weights: Mapping[str, Const], params: Any) -> list[Const]:
    """Returns the weights in the order of the leaves of `params`.

    A leaf is found by its path, through dicts and the fields of products.
    """
    paths = jax.tree_util.tree_leaves_with_path(params)
    named = (jax.tree_util.keystr(p, simple=True, separator="/") for p, _ in paths)
    return [weights[name] for name in named]
