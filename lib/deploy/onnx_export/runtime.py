"""ONNX Runtime on the CPU: running an exported file, and what it made of it."""

import collections
import os
import pathlib
import tempfile
from typing import Any

from lib import errors
from lib.deploy.onnx_export import packages

# Operators that multiply matrices or convolve, in float and as integers.
FLOATS = ("Conv", "FusedConv", "NhwcFusedConv", "Gemm", "FusedGemm", "MatMul")
FLOATS += ("FusedMatMul", "ConvTranspose", "Einsum")
INTEGERS = ("QLinearConv", "QGemm", "QLinearMatMul", "MatMulIntegerToFloat")
INTEGERS += ("ConvInteger", "MatMulInteger", "DynamicQuantizeMatMul")
# With a weight of few bits and activations in float.
FEW_BITS = ("MatMulNBits",)

Path = str | os.PathLike[str]


def session(path: Path, *, threads: int = 1, optimized: Path | None = None) -> Any:
    """Returns an `onnxruntime.InferenceSession` on the CPU.

    Args:
      path: of the ONNX file.
      threads: that one call uses; spare ones do not spin between calls.
      optimized: where the graph that it really runs is written to, if anywhere.

    Raises:
      UserError: onnxruntime is not installed, or does not take the file.
    """
    ort = packages.require("onnxruntime")
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3  # that a written graph fits this machine only
    if optimized is not None:
        options.optimized_model_filepath = os.fspath(optimized)
    try:
        return ort.InferenceSession(
            os.fspath(path), options, providers=["CPUExecutionProvider"]
        )
    except Exception as e:  # its errors have no common base of their own
        raise errors.UserError(f"ONNX Runtime does not take {path}: {e}") from e


def nodes(path: Path) -> list[tuple[str, str]]:
    """Returns (operator, name) of each node of the graph that the runtime runs.

    A name begins with the scope that the node comes from, mostly.
    """
    onnx = packages.require("onnx")
    with tempfile.TemporaryDirectory() as folder:
        optimized = pathlib.Path(folder) / "optimized.onnx"
        session(path, optimized=optimized)
        graph = onnx.load(optimized).graph
    return [(node.op_type, node.name) for node in graph.node]


def operators(path: Path) -> collections.Counter[str]:
    """Returns how often each operator stands in the graph that the runtime runs.

    A file of integers is only faster than one of floats where its contractions are
    counted among `INTEGERS`: one that is counted among `FLOATS` converts its operands
    to float at every call.
    """
    return collections.Counter(op for op, _ in nodes(path))


def contractions(path: Path) -> tuple[int, int]:
    """Returns how many contractions the runtime runs in float, and as integers."""
    counted = operators(path)
    return sum(counted[op] for op in FLOATS), sum(counted[op] for op in INTEGERS)
