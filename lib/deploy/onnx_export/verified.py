"""An exported file against the program it came from: its results and its operators."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from lib import errors, program, representations
from lib.deploy.onnx_export import runtime
from lib.program.points import MEANS

# What contractions, residual sums and means become, as integers and in float.
_CONTRACTIONS = (runtime.INTEGERS, (*runtime.FLOATS, *runtime.FEW_BITS))
_SUMS = (("QLinearAdd",), ("Add",))
_MEANS = (
    ("QLinearGlobalAveragePool", "QLinearAveragePool"),
    ("GlobalAveragePool", "AveragePool", "ReduceSum"),
)


class Row(NamedTuple):
    """How the runtime computes one site.

    Attributes:
      site: its name.
      primitive: what it is.
      macs: multiply-accumulates of one run (`program.Site.macs`).
      planned: whether the rules round all of its operands that are activations.
      operators: what the runtime made of it, contractions and sums only.
      integer: whether that is an integer operator.
      why: why it may be one of float although it is planned; empty where it may not.
    """

    site: str
    primitive: str
    macs: int
    planned: bool
    operators: tuple[str, ...]
    integer: bool
    why: str


class Verified(NamedTuple):
    """What was found of a file.

    Attributes:
      rows: one for each site, in program order.
      largest: greatest difference between the two results, as a share of the greatest
        magnitude that the program gives.
      mean: mean difference, as the same share.
      agreement: share of the rows of the first result along its last axis, of which
        the greatest element is the same.
    """

    rows: list[Row]
    largest: float
    mean: float
    agreement: float


def verify(
    path: runtime.Path,
    f: Callable[..., Any],
    params: Any,
    inputs: Any,
    *,
    ranges: program.Ranges | None = None,
    rules: Sequence[program.Rule] = (),
    points: str = "inputs",
    factored: bool = False,
    mean: float = 0.01,
    agreement: float = 0.97,
) -> Verified:
    """Runs a file in ONNX Runtime and compares it with the program it came from.

    Args:
      path: of the file that one of the exports wrote.
      f: as it was exported, without its rounding: `f(params, x)`.
      params: as `export` takes them; or frozen, as the other exports do.
      inputs: `[N, ...]`, some examples; a hundred or more, as `agreement` is a share.
      ranges: as exported; None for a file of floats.
      rules: as exported.
      points: as exported.
      factored: as exported.
      mean: the greatest mean difference, see `Verified`.
      agreement: the least agreement, see `Verified`.

    Raises:
      RunError: a contraction whose operands are rounded runs in float, or the results
        differ; the message names the contractions, or says by how much.
      UserError: onnx or onnxruntime is not installed or does not take the file.
    """
    if factored:
        params = program.keep_factors(f)(params, inputs)
        f = program.run_factored(f)
    else:
        params = _dense(params)
    rounded = (
        f if ranges is None else program.fake_quantize(f, ranges, rules, points=points)
    )
    expected = [
        np.asarray(x) for x in jax.tree.leaves(jax.jit(rounded)(params, inputs))
    ]
    found = runtime.session(path).run(None, {"input": np.asarray(inputs)})
    rows = _rows(path, f, params, inputs, rules, points)
    floats = [r for r in rows if r.planned and not r.integer and not r.why]
    if floats:
        listed = ", ".join(
            f"{r.site} ({' and '.join(r.operators) or 'not found'})" for r in floats
        )
        raise errors.RunError(
            f"{path}: ONNX Runtime does not compute in integers what is rounded: "
            f"{listed}; exempt it with a rule of None, or change what stands around it"
        )
    return _compared(path, rows, expected, found, mean, agreement)


def _dense(params: Any) -> Any:
    """Returns params with arrays for leaves."""
    kinds = representations.Representation
    leaves = jax.tree.leaves(params, is_leaf=lambda x: isinstance(x, kinds))
    frozen = any(isinstance(x, kinds) for x in leaves)
    return representations.thaw(params) if frozen else params


def _compared(path, rows, expected, found, mean, agreement) -> Verified:
    """Returns what was found, or raises where the results differ by more."""
    shares = []
    for one, other in zip(found, expected, strict=True):
        if one.shape != other.shape or one.dtype != other.dtype:
            raise errors.RunError(
                f"{path}: it gives {one.dtype}{list(one.shape)} where the program "
                f"gives {other.dtype}{list(other.shape)}"
            )
        scale = max(float(np.abs(other).max(initial=0)), np.finfo(np.float32).tiny)
        off = np.abs(one.astype(np.float64) - other.astype(np.float64)) / scale
        shares.append(
            (float(off.max(initial=0)), float(off.mean()) if off.size else 0.0)
        )
    same = found[0].argmax(-1) == expected[0].argmax(-1) if found[0].ndim else True
    result = Verified(
        rows,
        max(largest for largest, _ in shares),
        max(average for _, average in shares),
        float(np.mean(same)),
    )
    if not result.mean <= mean or result.agreement < agreement:
        raise errors.RunError(
            f"{path}: it differs from the program by {result.mean:.3g} of the largest "
            f"result in the mean (at most {mean:g}), and has the same greatest element "
            f"in {result.agreement:.1%} (at least {agreement:.1%})"
        )
    return result


def _rows(path, f, params, inputs, rules, points) -> list[Row]:
    sites = program.sites(f, points=points)(params, inputs)
    listed = program.coverage(f, rules, points=points)(params, inputs) if rules else []
    took = {row.site: set(row.operands) for row in listed}
    nodes = runtime.nodes(path)
    rows = []
    for site in sites:
        whole, floats = _operators(site)
        made = [op for op, name in nodes if _scope(name) == site.name]
        operators = tuple(op for op in made if op in (*whole, *floats))
        rows.append(
            Row(
                site.name,
                site.primitive,
                site.macs,
                bool(took.get(site.name)) and took[site.name] == set(site.activations),
                operators,
                bool(operators) and set(operators) <= set(whole),
                _why(site),
            )
        )
    return rows


def _operators(site: program.Site) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Returns what a site may become, as integers and in float."""
    if site.primitive == "add":
        return _SUMS
    return _MEANS if site.primitive in MEANS else _CONTRACTIONS


def _scope(name: str) -> str:
    """Returns the scope in the name of one of the runtime's nodes."""
    return name.removeprefix("fused ").rpartition("/")[0]


def _why(site: program.Site) -> str:
    """Returns why the runtime may compute a site in float; empty if it may not."""
    if site.primitive == "add":
        return "a sum is of integers only where its result is rounded too"
    if site.primitive in MEANS:
        return "a mean is of integers only of all places, and if it is rounded too"
    if site.params.get("feature_group_count", 1) > 1:
        return "no integer kernel convolves in groups where the result is not rounded"
    return ""
