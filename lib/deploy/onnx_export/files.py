"""Functions with their weights -> ONNX files."""

import os
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from lib import errors, files, program, representations
from lib.deploy.onnx_export import fused, integers, packages, spelt
from lib.deploy.onnx_export.values import known
from lib.deploy.onnx_export.walk import Walked, any_batch, batched, flat_constants, walk

Path = str | os.PathLike[str]


def export(f: Callable[..., Any], params: Any, example: Any, *, path: Path) -> int:
    """Writes `f(params, x)` as an ONNX file of floats; returns its length in bytes.

    The file takes one input, `input`, and gives `output`, or `output_0`, `output_1`,
    ... if `f` returns several arrays. The first axis of the input may have any length.

    Args:
      f: pure; what it closes over is written into the file too.
      params: a pytree of arrays, written as initialisers.
      example: an array, or its shape and dtype. The length of its first axis, the
        batch, does not matter.
      path: missing folders are made; a file of that name is replaced in one step.

    Raises:
      UserError: the program holds something that has no rule or wants a batch of a
        certain length, `onnx` is not installed, or the file cannot be written.
    """
    params = jax.tree.map(np.asarray, params)  # a number would be no argument
    weights = [known(x) for x in jax.tree.leaves(params)]
    return _write(_walked(f, params, weights, example, integers.Plan({})), path)


def export_int8(
    f: Callable[..., Any],
    frozen: representations.Frozen,
    example: Any,
    *,
    ranges: program.Ranges,
    rules: Sequence[program.Rule],
    path: Path,
) -> int:
    """Writes `fake_quantize(f, ranges, rules)` with integer contractions.

    Activations are uint8 on the grids of `numerics.grid`, as `fake_quantize` rounds
    them; weights are the int8 codes that `frozen` holds. ONNX Runtime divides where
    JAX multiplies by the inverse, and adds in another order, so now and then a value
    is rounded to the neighbouring code.

    Args:
      f: the program without its rounding, `f(params, x)`.
      frozen: nested dict of representations, what `params` is frozen to. A weight
        that meets a rounded activation is `Quantized`, with one scale a channel or
        one in all, symmetric or affine with 7 bits at most; a mask over it does not
        matter.
      example: as for `export`.
      ranges: of the activations, as `program.calibrate` returns them.
      rules: for `program.fake_quantize`, with bits=8 and symmetric=False; sites with a
        rule of None stay in float.
      path: as for `export`.

    Returns:
      The length of the file in bytes.

    Raises:
      UserError: as `export` and `fake_quantize`; or rules or weights are others than
        integer kernels take.
    """
    params = representations.thaw(frozen)
    with any_batch():
        plan = integers.plan(f, params, batched(example), ranges, rules)
    weights = flat_constants(integers.constants(frozen), params)
    walked = _walked(f, params, weights, example, plan)
    spelt.spell(walked.graph, {getattr(x, "name", "") for _, x in walked.outputs})
    return _write(walked, path)


def _walked(*args: Any) -> Walked:
    """Returns the graph with all of it there, its known patterns joined."""
    with any_batch():
        walked = walk(*args)
    outputs = [(name, walked.graph.force(x)) for name, x in walked.outputs]
    fused.fuse(walked.graph)
    return walked._replace(outputs=outputs)


def _write(walked: Walked, path: Path) -> int:
    onnx = packages.require("onnx")
    model = walked.graph.model(walked.inputs, walked.outputs)
    content = model.SerializeToString()
    try:
        packages.require("onnx.checker").check_model(content, full_check=True)
    except onnx.checker.ValidationError as e:
        raise errors.UserError(f"ONNX export: the graph is not valid: {e}") from e
    return files.write_bytes(path, content)
