"""Activations and weights as integers: Q/DQ pairs that ONNX Runtime fuses.

Each rounded activation passes a Q/DQ pair (`rounding.py`), and its weight
is a DequantizeLinear of int8 codes, one scale a channel. The runtime makes an integer
kernel of DequantizeLinear, contraction, QuantizeLinear; whatever does not match that
pattern runs in float, and slower than a float file. So: activations are uint8, weights
int8, biases int32 of scale `input * weight`, and a convolution whose result is not
rounded is spelt out (`spelt.py`).
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from lib import errors, numerics, program, representations, tree
from lib.deploy.onnx_export import rounding
from lib.deploy.onnx_export.graph import Graph
from lib.deploy.onnx_export.rounding import Affine, Dynamic
from lib.deploy.onnx_export.values import Codes, Const

_PRODUCTS = (
    representations.LowRank,
    representations.Tucker,
    representations.CP,
    representations.Sum,
)
_MOST_BIAS = 2.0**30  # of int32, with room for the sum that it is added to


class Plan(NamedTuple):
    """Which operands are rounded, and how.

    Attributes:
      grids: {(site, "lhs" or "rhs"): grid}.
      points: the policy by which the sites are named.
      accuracy: accuracy_level of MatMulNBits.
    """

    grids: Mapping[tuple[str, str], Affine | Dynamic]
    points: str = "inputs"
    accuracy: int = 0

    def rounded(
        self, graph: Graph, site: program.Site, side: str, name: str
    ) -> tuple[str, Affine | Dynamic | None]:
        """Returns an operand's name behind its Q/DQ pair, and its grid.

        Both are what they were, and None, where the operand is not rounded.
        """
        grid = self.grids.get((site.name, side))
        if grid is None:
            return name, None
        return rounding.point(graph, name, grid)


def plan(
    f: Any,
    params: Any,
    example: Any,
    ranges: program.Ranges,
    rules: Sequence[program.Rule],
    points: str,
) -> Plan:
    """Returns what `program.fake_quantize` with these arguments rounds, as grids.

    Raises:
      UserError: as `fake_quantize`; or a rule asks for a range that no file holds, or
        no site is rounded.
    """
    # It judges rules and ranges; nothing is computed.
    rounded = program.fake_quantize(f, ranges, rules, points=points)
    jax.eval_shape(rounded, params, example)
    grids = {}
    for row in program.coverage(f, rules, points=points)(params, example):
        settings = next((s for pattern, s in rules if pattern == row.rule), None)
        for side in row.operands:
            grids[row.site, side] = _grid(row, settings, ranges, side)
    if not grids:
        raise errors.UserError(
            "ONNX export: the rules round no activation; export floats instead"
        )
    return Plan(grids, points)


def _grid(
    row: program.Row, settings: Any, ranges: program.Ranges, side: str
) -> Affine | Dynamic:
    """Returns the grid of one operand."""
    bits, symmetric = settings["bits"], settings["symmetric"]
    where = settings.get("range", "static")
    if where == "dynamic" and bits == 8 and not symmetric:
        return Dynamic()
    if where != "static":
        raise errors.UserError(
            f"ONNX export: rule {row.rule!r} rounds {row.site} on a {where} range, "
            f"bits={bits}, symmetric={symmetric}; the runtime takes static ranges, or "
            "dynamic ones with bits=8 and symmetric=False"
        )
    low, high = (np.asarray(bound) for bound in ranges[row.site][side])
    if low.ndim:
        raise errors.UserError(
            f"ONNX export: {row.site} has a range for each of {low.size} turns of a "
            "scan; write the loop out in Python"
        )
    return rounding.affine(numerics.grid(low, high, bits, symmetric=symmetric))


def constants(frozen: representations.Frozen) -> dict[str, Const]:
    """Returns {path: weight}, with its codes where they are whole int8."""
    flat = {path: representations.of(x) for path, x in tree.flatten(frozen).items()}
    found = {}
    for path, rep in flat.items():
        while isinstance(rep, representations.Tied):
            rep = flat[rep.path]
        found.update(_parts(path, path, rep))
        array = representations.materialize(rep)
        codes, why = _codes(rep)
        found[path] = Const(array, array.shape, codes, f"({path}) {why}")
    return found


def _parts(path: str, of: str, rep: representations.Representation) -> dict[str, Const]:
    """Returns {path: weight} of the factors and summands of a weight, at any depth."""
    found = {}
    if isinstance(rep, _PRODUCTS):
        for name in rep.__dataclass_fields__:
            part = getattr(rep, name)
            array = representations.materialize(representations.of(part))
            codes, why = _codes(representations.of(part))
            below = f"{path}/{name}"
            found[below] = Const(array, array.shape, codes, f"({name} of {of}) {why}")
            found.update(_parts(below, of, part))
    return found


def _codes(rep: representations.Representation) -> tuple[Codes | None, str]:
    """Returns the codes of a weight; or None and what it is instead."""
    mask = True
    if isinstance(rep, representations.Sparse):
        mask, rep = np.asarray(rep.mask), rep.values
    if not isinstance(rep, representations.Quantized):
        return None, f"is stored as {type(rep).__name__}"
    if rep.group:
        return None, f"has a scale for each group of {rep.group}"
    whole, scale = np.asarray(rep.codes, np.int32), np.asarray(rep.scale, np.float32)
    if rep.zero_point is not None:  # of 7 bits or fewer, none is needed
        whole = whole - np.asarray(rep.zero_point, np.int32)
        if np.abs(whole).max(initial=0) > 127:
            return None, "has an affine grid with codes beyond int8"
    lengths = (1,) * (whole.ndim - scale.ndim) + scale.shape
    whole = np.where(mask, whole, 0)  # an affine code below a mask is no zero
    return Codes(whole.astype(np.int8), scale.reshape(lengths)), ""


def codes(site: program.Site, weight: Const, channels: Sequence[int]) -> Codes:
    """Returns what the weight of a site with rounded input is made of.

    Args:
      site: the contraction.
      weight: what it meets its input with.
      channels: axes of the weight that are free: along others, the scale is one.
    """
    found, why = weight.codes, weight.why
    if found is not None:
        varies = [i for i, n in enumerate(found.scale.shape) if n > 1]
        if set(varies) <= set(channels):
            return found
        why = "has more than one scale a channel"
    raise errors.UserError(
        f"ONNX export: the input of {site.name} is rounded but its weight {why}; "
        "quantize it with symmetric=True and granularity 'channel' or 'tensor', or "
        "exempt the site with a rule of None"
    )


def weights(
    graph: Graph,
    grid: Affine | Dynamic,
    made: Codes,
    axis: int,
    factor: np.ndarray,
    bias: np.ndarray | None,
) -> list[str]:
    """Returns the names of the weight and, if there is one, of the bias.

    Args:
      graph: to add to.
      grid: of the input.
      made: codes as the operator takes them; one scale a channel.
      axis: of the codes, that of the channels.
      factor: what each channel is multiplied by; may be negative or 0.
      bias: of each channel, or None.
    """
    whole, scale = made.codes, made.scale.astype(np.float64) * factor
    lengths = [1] * whole.ndim
    lengths[axis] = -1
    # Symmetric codes have their opposites; a scale has to be positive.
    whole = np.where(scale.reshape(lengths) < 0, -whole, whole)
    scale = np.abs(scale)
    least = np.full_like(scale, 2 * np.finfo(np.float32).tiny)
    known = isinstance(grid, Affine)
    if (
        bias is not None and known
    ):  # it must fit int32 in steps of the input's times this scale
        least = np.maximum(least, np.abs(bias) / (_MOST_BIAS * float(grid.scale)))
    shrunk = scale < least
    ratio = np.where(shrunk, scale / least, 1.0)
    whole = np.rint(whole * ratio.reshape(lengths)).astype(np.int8)
    scale = np.where(shrunk, least, scale).astype(np.float32)
    s = graph.array(scale)
    zeros = graph.array(np.zeros(scale.shape, np.int8))
    names = [graph.node("DequantizeLinear", graph.array(whole), s, zeros, axis=axis)]
    if bias is not None and not known:
        names.append(graph.array(bias, np.float32))
    elif bias is not None:
        steps = grid.scale * scale  # in float32, as the runtime has it
        s = graph.array(steps)
        b = graph.array(np.rint(bias / steps.astype(np.float64)).astype(np.int32))
        zeros = graph.array(np.zeros(scale.shape, np.int32))
        names.append(graph.node("DequantizeLinear", b, s, zeros, axis=0))
    return names
