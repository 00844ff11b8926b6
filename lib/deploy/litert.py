"""LiteRT files (`.tflite`) for phones and small devices, without TensorFlow.

`jax.export` writes StableHLO, `litert-converter` makes a flatbuffer of it, and
`ai-edge-litert` runs that. An optional extra: `requirements-litert.txt`.

The batch is fixed: with an open one, LiteRT leaves its fast kernels. `session` cuts
what it is given into batches of the file's length.
"""

import os
import pathlib
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

import jax
import numpy as np
from jax import export as jax_export

from lib import errors, files, program, representations
from lib.deploy import composites, extras, pooled

Path = str | os.PathLike[str]
CONTRACTIONS = (
    "BATCH_MATMUL",
    "CONV_2D",
    "CONV_3D",
    "DEPTHWISE_CONV_2D",
    "FULLY_CONNECTED",
    "TRANSPOSE_CONV",
)


def require(module: str) -> ModuleType:
    """Returns a module of LiteRT, or raises a `UserError` that says what to install."""
    return extras.require(module, "LiteRT", "requirements-litert.txt")


def export(f: Callable[[Any], Any], example: Any, *, path: Path) -> int:
    """Writes `f(x)` as a LiteRT file of floats; returns its length in bytes.

    Args:
      f: pure, of one array; what it closes over is written into the file.
      example: an array, or its shape and dtype, the batch included, which is fixed.
      path: missing folders are made; a file of that name is replaced in one step.

    Raises:
      UserError: LiteRT is not installed or does not take the program, or the file
        cannot be written.
    """
    return files.write_bytes(path, _converted(f, example, quantized=False))


def export_int8(
    f: Callable[..., Any],
    frozen: representations.Frozen,
    example: Any,
    *,
    ranges: program.Ranges,
    rules: Sequence[program.Rule],
    path: Path,
    points: str = "inputs",
    batches: Sequence[Any] = (),
) -> int:
    """Writes `fake_quantize(f, ranges, rules)` with our scales; returns its length.

    Activations are int8: what rounds to `code` on our affine grid has `code - 128` in
    the file. LiteRT contracts integers only where the result is rounded as well. Where
    nothing does, as before a GELU or behind the last layer, `batches` gives it a range;
    without them such a layer runs in float. `simulated` is what the file computes.

    Args:
      f: the program without its rounding, `f(params, x)`.
      frozen: nested dict of representations, what `params` is frozen to. A weight
        that meets a rounded activation is `Quantized`, with one scale a channel or
        one in all, symmetric, or affine with 7 bits at most.
      example: as for `export`.
      ranges: of the activations, as `program.calibrate` returns them.
      rules: for `program.fake_quantize`, static with bits=8; sites with a rule of None
        stay in float.
      path: as for `export`.
      points: as for `program.fake_quantize`.
      batches: arrays like the example, of any length but all of one; none leaves
        results as they are.

    Raises:
      UserError: as `export` and `fake_quantize`; or rules or weights are others than
        integer kernels take.
    """
    require("litert_converter")
    run = simulated(
        f,
        frozen,
        example,
        ranges=ranges,
        rules=rules,
        points=points,
        batches=batches,
    )
    return files.write_bytes(path, _converted(run, example, quantized=True))


def simulated(
    f: Callable[..., Any],
    frozen: representations.Frozen,
    example: Any,
    **how: Any,
) -> Callable[[Any], Any]:
    """Returns what a file of `export_int8` computes, in JAX: x -> its output.

    `x` has the shape of the example. Arguments and errors as `export_int8`.
    """
    example = jax.ShapeDtypeStruct(example.shape, example.dtype)
    return composites.composed(f, frozen, example, **how).run


def _converted(f: Callable[[Any], Any], example: Any, *, quantized: bool) -> bytes:
    converter = require("litert_converter.converter_api_ext")
    ir = require("litert_converter.mlir.ir")
    passes = require("litert_converter.mlir.passmanager")
    x = jax.ShapeDtypeStruct(example.shape, example.dtype)
    text = jax_export.export(jax.jit(pooled.pooled(f)), platforms=["cpu"])(
        x
    ).mlir_module()
    context = ir.Context()
    converter.prepare_mlir_context(context)
    with context, ir.Location.unknown():
        module = ir.Module.parse(text)
        config = converter.ConvertToTFLConfig()
        config.strict_qdq_mode = quantized  # else composites are lost, or refused
        try:
            converter.run_convert_to_tfl_passes(module, passes.PassManager(), config)
            return bytes(converter.export_flatbuffer_to_bytes(module.operation))
        except (RuntimeError, ValueError, ir.MLIRError) as e:
            first = str(e).strip().partition("\n")[0]
            raise errors.UserError(
                f"LiteRT export: the converter does not take the program: {first}"
            ) from e


def session(path: Path, *, threads: int = 1) -> Callable[[Any], np.ndarray]:
    """Returns x -> the file's output, for any number of examples.

    Args:
      path: of a LiteRT file with one input and one output.
      threads: that one call uses.

    Raises:
      UserError: LiteRT is not installed, or the file is missing or none that it takes.
    """
    runtime = require("ai_edge_litert.interpreter")
    content = _content(path)
    try:
        interpreter = runtime.Interpreter(model_content=content, num_threads=threads)
        interpreter.allocate_tensors()
    except (ValueError, RuntimeError) as e:
        raise errors.UserError(f"LiteRT does not take {path}: {e}") from e
    (given,), (found,) = (
        interpreter.get_input_details(),
        interpreter.get_output_details(),
    )
    batch = int(given["shape"][0])

    def one(x: np.ndarray) -> np.ndarray:
        interpreter.set_tensor(given["index"], x)
        interpreter.invoke()
        return interpreter.get_tensor(found["index"])

    def run(x: Any) -> np.ndarray:
        x = np.asarray(x)
        missing = -len(x) % batch
        padded = np.concatenate([x, np.zeros((missing, *x.shape[1:]), x.dtype)])
        parts = [one(padded[i : i + batch]) for i in range(0, len(padded), batch)]
        return np.concatenate(parts)[: len(x)] if parts else one(padded)[:0]

    return run


def operators(path: Path) -> list[tuple[str, str]]:
    """Returns (operator, type of its result) in the file's order: `("CONV_2D", "INT8")`

    Raises:
      UserError: LiteRT is not installed, or the file cannot be read.
    """
    schema = require("litert_converter.schema_py_generated")
    model = schema.ModelT.InitFromPackedBuf(_content(path), 0)
    names = _names(schema.BuiltinOperator)
    types = _names(schema.TensorType)
    return [
        (
            names[model.operatorCodes[op.opcodeIndex].builtinCode],
            types[graph.tensors[op.outputs[0]].type],
        )
        for graph in model.subgraphs
        for op in graph.operators
    ]


def contractions(path: Path) -> tuple[int, int]:
    """Returns how many contractions of a file are of floats, and of integers."""
    kinds = [kind for name, kind in operators(path) if name in CONTRACTIONS]
    return len(kinds) - kinds.count("INT8"), kinds.count("INT8")


def _names(enum: Any) -> dict[int, str]:
    return {v: k for k, v in vars(enum).items() if isinstance(v, int)}


def _content(path: Path) -> bytes:
    try:
        return pathlib.Path(path).read_bytes()
    except OSError as e:
        raise errors.UserError(f"cannot read {path}: {e.strerror or e}") from e
