"""Functions with their weights -> ONNX files."""

import os
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from lib import errors, files, program, representations
from lib.deploy.onnx_export import fused, integers, nbits, packages, spelt
from lib.deploy.onnx_export.values import Tensor, known
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
    points: str = "inputs",
    factored: bool = False,
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
      rules: for `program.fake_quantize`; sites with a rule of None stay in float. With
        bits=8 and symmetric=False rounding is one operator, else two.
      points: of `program.POLICIES`, as the ranges are calibrated. With "adds" residual
        additions are integers too where their result is rounded; with "means" all of
        a convolutional network is that ends in a mean over its places.
      factored: export `program.run_factored(f)`: weights that are products of factors
        run factor by factor where that is less work (`program.factored` says). The
        ranges are those of that function, on `program.keep_factors(f)(frozen, x)`.
      path: as for `export`.

    Returns:
      The length of the file in bytes.

    Raises:
      UserError: as `export` and `fake_quantize`; or rules or weights are others than
        integer kernels take.
    """
    params = representations.thaw(frozen)
    if factored:
        one = jax.ShapeDtypeStruct((1, *example.shape[1:]), example.dtype)
        params = program.keep_factors(f)(frozen, one)
        f = program.run_factored(f)
    with any_batch():
        plan = integers.plan(f, params, batched(example), ranges, rules, points)
    weights = flat_constants(integers.constants(frozen), params)
    walked = _walked(f, params, weights, example, plan)
    spelt.spell(walked.graph, {getattr(x, "name", "") for _, x in walked.outputs})
    return _write(walked, path)


def export_weight_only(
    f: Callable[..., Any],
    frozen: representations.Frozen,
    example: Any,
    *,
    accuracy: int = 4,
    path: Path,
) -> int:
    """Writes `f` with the weights of its matrix products in 4 or 8 bits.

    What is `Quantized` to at most 4 bits is stored in 4, else in 8, as the operator
    `MatMulNBits` of ONNX Runtime reads it; scales may be of the tensor, of channels, or
    of groups of 16, 32, 64, 128 or 256. Weights of convolutions, and what fits no
    blocks, are floats. A `Quantized` table that rows are gathered from is int8.

    Args:
      f: pure, `f(params, x)`.
      frozen: nested dict of representations, what `params` is frozen to.
      example: as for `export`.
      accuracy: 4 lets the runtime round activations to 8 bits, each block for itself,
        which is faster; 1 keeps them in float32.
      path: as for `export`.

    Returns:
      The length of the file in bytes.

    Raises:
      UserError: as `export`; or accuracy is another number, or nothing is Quantized.
    """
    if accuracy not in (1, 4):
        raise errors.UserError(f"ONNX export: accuracy is 1 or 4, got {accuracy}")
    params = representations.thaw(frozen)
    made = nbits.constants(frozen)
    if not any(weight.blocks for weight in made.values()):
        raise errors.UserError(
            "ONNX export: no weight is stored as Quantized; quantize some, or export "
            "floats"
        )
    plan = integers.Plan({}, accuracy=accuracy)
    return _write(_walked(f, params, flat_constants(made, params), example, plan), path)


def _walked(*args: Any) -> Walked:
    """Returns the graph with all of it there, its known patterns joined."""
    with any_batch():
        walked = walk(*args)
    outputs = [(name, walked.graph.force(x)) for name, x in walked.outputs]
    fused.fuse(walked.graph)
    # What was joined has users no more, and `spelt` looks at who uses what.
    walked.graph.prune([x.name for _, x in outputs if isinstance(x, Tensor)])
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
