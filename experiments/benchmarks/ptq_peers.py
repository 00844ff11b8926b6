"""Other libraries' post-training quantization of the same weights, as files.

Each peer is given the float network, its weights and the images to calibrate on, leaves
a file, and is measured by what it computes from the images of the test split.
"""

import functools
import logging
import pathlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from lib import models
from lib.deploy import onnx_export
from lib.train import step


class Job(NamedTuple):
    """What all peers start from.

    Attributes:
      module: the Linen module.
      params: its weights, float32.
      variables: its other collections.
      batches: normalised training images, float32 `[B, H, W, C]` each.
      at: the folder for their files.
    """

    module: nn.Module
    params: Any
    variables: Any
    batches: Sequence[np.ndarray]
    at: pathlib.Path


class Made(NamedTuple):
    """What a peer made of it.

    Attributes:
      logits: normalised images `[B, H, W, C]` -> `[B, classes]`.
      path: the file that holds all of it.
    """

    logits: Callable[[np.ndarray], np.ndarray]
    path: pathlib.Path


class _Reader:
    """Calibration batches as ONNX Runtime asks for them.

    A range of one batch at a time keeps its histograms from holding every activation
    of every image at once.
    """

    def __init__(self, batches: Sequence[np.ndarray]) -> None:
        self._batches = batches
        self._range = iter(range(len(batches)))

    def __len__(self) -> int:
        return len(self._batches)

    def set_range(self, start_index: int, end_index: int) -> None:
        self._range = iter(range(start_index, end_index))

    def get_next(self) -> dict[str, np.ndarray] | None:
        at = next(self._range, None)
        return None if at is None else {"input": self._batches[at]}


def float_file(job: Job) -> Made:
    """Returns our own export in float32, which ONNX Runtime's quantizer starts from."""
    path = job.at / "float32.onnx"
    network = step.Network(models.make_apply(job.module))

    def logits(params, images):
        return network(params, job.variables, {}, images)[0][0]

    example = jax.ShapeDtypeStruct(job.batches[0].shape, np.float32)
    onnx_export.export(logits, job.params, example, path=path)
    return run_file(path)


def run_file(path: pathlib.Path) -> Made:
    """Returns an ONNX file as ONNX Runtime runs it."""
    session = onnx_export.session(path)
    return Made(lambda images: session.run(None, {"input": images})[0], path)


def onnx_runtime(job: Job, *, calibration: str, bits: int = 8) -> Made:
    """Returns `quantize_static`'s file: QDQ, weights per channel, uint8 activations.

    Args:
      job: of which `float_file` is preprocessed as its documentation says (batch norm
        is folded), then quantized.
      calibration: "MinMax", "Entropy" or "Percentile" (its 99.999 %).
      bits: of weights, 8 or 4.
    """
    from onnxruntime import quantization
    from onnxruntime.quantization import shape_inference

    logging.getLogger().setLevel(logging.ERROR)
    source = float_file(job).path
    folded = job.at / "float32.folded.onnx"
    shape_inference.quant_pre_process(
        str(source), str(folded), skip_symbolic_shape=True
    )
    path = job.at / f"onnxruntime.{calibration.lower()}.{bits}.onnx"
    quantization.quantize_static(
        str(folded),
        str(path),
        _Reader(job.batches),
        quant_format=quantization.QuantFormat.QDQ,
        per_channel=True,
        activation_type=quantization.QuantType.QUInt8,
        weight_type={8: quantization.QuantType.QInt8, 4: quantization.QuantType.QInt4}[
            bits
        ],
        calibrate_method=getattr(quantization.CalibrationMethod, calibration),
        extra_options={"CalibStridedMinMax": 1},
    )
    return run_file(path)


def qwix(job: Job, *, weights: str, activations: str | None, static: bool) -> Made:
    """Returns `qwix.PtqProvider`'s network, all contractions, its weights as msgpack.

    Args:
      job: of which the batches are read only for static ranges.
      weights: qwix's type of weights.
      activations: its type of activations; None leaves them in float.
      static: activations have one range, from the batches; else, its default, each
        image has a range of its own at each call.
    """
    import flax.serialization
    import qwix as library

    kept = {"act_static_scale": static} if activations else {}
    rule = library.QuantizationRule(
        module_path=".*", weight_qtype=weights, act_qtype=activations, **kept
    )
    params, variables = jax.tree.map(jnp.asarray, (job.params, job.variables))
    stats = _stats(library, rule, job, params, variables) if static else {}
    network = library.quantize_model(job.module, library.PtqProvider([rule]))
    start = functools.partial(network.init, train=False)
    shapes = jax.eval_shape(start, jax.random.key(0), job.batches[0][:1])
    quantized = library.quantize_params(params, shapes["params"], stats)
    collections = {"params": quantized, **variables}
    path = job.at / f"qwix.{weights}.{activations}.{static}.msgpack"
    path.write_bytes(flax.serialization.to_bytes(collections))
    collections = flax.serialization.from_bytes(collections, path.read_bytes())

    @jax.jit
    def logits(images):
        return network.apply(collections, images, train=False)[0]

    return Made(logits, path)


def _stats(library: Any, rule: Any, job: Job, params: Any, variables: Any) -> Any:
    """Returns qwix's statistics of activations over the batches."""
    watched = library.quantize_model(job.module, library.QtProvider([rule]))
    collections = {"params": params, **variables}
    for images in job.batches:
        _, new = watched.apply(collections, images, train=False, mutable="quant_stats")
        collections |= new
    return collections["quant_stats"]


Kind = tuple[str, str, Callable[[Job], Made]]  # title, bits, how it is made

PEERS: dict[str, Kind] = {
    "float": ("Pare, float32 ONNX", "float", float_file),
    "ort_minmax": (
        "ONNX Runtime quantize_static, MinMax",
        "W8A8",
        functools.partial(onnx_runtime, calibration="MinMax"),
    ),
    "ort_entropy": (
        "ONNX Runtime quantize_static, Entropy",
        "W8A8",
        functools.partial(onnx_runtime, calibration="Entropy"),
    ),
    "ort_percentile": (
        "ONNX Runtime quantize_static, Percentile",
        "W8A8",
        functools.partial(onnx_runtime, calibration="Percentile"),
    ),
    "ort_int4": (
        "ONNX Runtime quantize_static, MinMax",
        "W4A8",
        functools.partial(onnx_runtime, calibration="MinMax", bits=4),
    ),
    "qwix_int8": (
        "qwix PtqProvider, a range an image",
        "W8A8",
        functools.partial(qwix, weights="int8", activations="int8", static=False),
    ),
    "qwix_static": (
        "qwix PtqProvider, static ranges",
        "W8A8",
        functools.partial(qwix, weights="int8", activations="int8", static=True),
    ),
    "qwix_int4": (
        "qwix PtqProvider, a range an image",
        "W4A8",
        functools.partial(qwix, weights="int4", activations="int8", static=False),
    ),
    "qwix_weights": (
        "qwix PtqProvider, weights alone",
        "W4A32",
        functools.partial(qwix, weights="int4", activations=None, static=False),
    ),
}
