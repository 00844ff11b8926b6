"""Traced programs as ONNX files: floats, integers, or weights alone in few bits.

`verify` runs a file and tells what of it the runtime computes in integers.

The walk is over the jaxpr of a pure `f(params, x)`, so it sees what JAX computes, not
which library wrote it. Needs `requirements-deploy.txt`; no other part of `lib.deploy`
knows of ONNX.
"""

from lib.deploy.onnx_export.files import export, export_int8, export_weight_only
from lib.deploy.onnx_export.runtime import contractions, operators, session
from lib.deploy.onnx_export.verified import Row, Verified, verify

__all__ = [
    "Row",
    "Verified",
    "contractions",
    "export",
    "export_int8",
    "export_weight_only",
    "operators",
    "session",
    "verify",
]
