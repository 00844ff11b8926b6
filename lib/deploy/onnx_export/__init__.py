"""Traced programs as ONNX files: floats, or integers where activations are rounded.

The walk is over the jaxpr of a pure `f(params, x)`, so it sees what JAX computes, not
which library wrote it. Needs `requirements-deploy.txt`; nothing else of `lib` does.
"""

from lib.deploy.onnx_export.files import export, export_int8
from lib.deploy.onnx_export.runtime import contractions, operators, session

__all__ = ["contractions", "export", "export_int8", "operators", "session"]
