"""The kinds of file that a stage's artifact becomes, each with the runtime it runs in.

Every file takes examples as they are stored (images as `uint8 [N, H, W, C]`) and gives
logits.
"""

import functools
import importlib
import importlib.metadata
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments import packing, recipe
from lib import errors, program
from lib.data import pipeline
from lib.deploy import litert, onnx_export, safetensors_file, stablehlo
from lib.train import step

Run = Callable[[np.ndarray], np.ndarray]  # stored examples -> logits


class Model(NamedTuple):
    """An artifact with the functions that it stands for.

    Attributes:
      packed: the artifact as it was read back.
      module: the Linen module.
      network: the module with the rules by which its activations are rounded.
      prepare: (None, raw batch) -> batch, without augmentation.
    """

    packed: packing.Packed
    module: Any
    network: step.Network
    prepare: Any

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one input, without the axis of the batch; (H, W, C) of an image."""
        return tuple(self.packed.about["shape"])

    @property
    def example(self) -> jax.ShapeDtypeStruct:
        """A batch of one stored example."""
        one = packing.inputs(self.packed.about).stored(self.shape)
        return jax.ShapeDtypeStruct((1, *one.shape), one.dtype)

    def plain(self, params: Any, pixels: Any) -> Any:
        """Returns logits, nothing of the activations rounded.

        Weights among the params that are products are run factor by factor.
        """
        return self._run(self.network._replace(rules=()), {}, params, pixels)

    @property
    def rounding(self) -> dict[str, Any]:
        """How activations are rounded, as exporters take it."""
        network = self.network
        ranges = self.packed.ranges
        return dict(ranges=ranges, rules=network.rules, points=network.points)

    def kept(self) -> Any:
        """Returns the params, as products where two small contractions are cheaper."""
        network = self.network._replace(rules=())
        one = self.packed
        dtype = packing.inputs(one.about).DTYPE
        example = jax.ShapeDtypeStruct((1, *self.shape), dtype)
        return program.keep_factors(network)(one.frozen, one.variables, {}, example)

    def logits(self, *, rounded: bool) -> Run:
        """Returns the network in JAX, with its activations rounded or not."""
        network = self.network if rounded else self.network._replace(rules=())
        run = jax.jit(functools.partial(self._run, network))
        one = self.packed
        return lambda pixels: np.asarray(run(one.ranges, one.params, pixels))

    def _run(self, network, ranges, params, pixels):
        run = program.run_factored(network)
        images = self.prepare(None, {"input": pixels})["input"]
        return run(params, self.packed.variables, ranges, images)[0][0]


def load(path: pathlib.Path) -> Model:
    """Returns the model of an artifact."""
    return _model(packing.load(path))


def _model(one: packing.Packed) -> Model:
    module = recipe.build_model(one.about["model"], one.about["classes"])
    prepare = pipeline.preparation(packing.inputs(one.about), None)
    model = Model(one, module, packing.network(one.about, module), prepare)
    packing.check(one, module, model.shape)
    return model


class Target(NamedTuple):
    """One kind of file.

    Attributes:
      suffix: what follows the stage's name in the file's.
      runtime: what runs it, for the report.
      packages: that writing and running it takes, as they are imported.
      install: the file of requirements that names them.
      rounded: whether it rounds activations as the stage does.
      against: the target of floats whose speed it is compared with; "" for floats.
      write: (model, path, some images) -> None; an error says why there is no file.
      open: (path, threads) -> pixels -> logits.
      contractions: path -> how many run in float, and as integers.
    """

    suffix: str
    runtime: str
    packages: tuple[str, ...]
    install: str
    rounded: bool
    against: str
    write: Callable[[Model, pathlib.Path, np.ndarray], Any]
    open: Callable[[pathlib.Path, int], Run]
    contractions: Callable[[pathlib.Path], tuple[int, int]]


def _write_packed(model: Model, path: pathlib.Path, images: np.ndarray) -> None:
    """Writes nothing: the run has left it there."""


def _open_packed(path: pathlib.Path, threads: int) -> Run:
    del threads  # XLA takes the cores that its process may use
    return load(path).logits(rounded=True)


def _in_float(model: Model) -> tuple[int, int]:
    """Returns how many contractions JAX runs in float, and as integers: none."""
    return len(program.sites(model.plain)(model.packed.params, model.example)), 0


def _write_onnx(model: Model, path: pathlib.Path, images: np.ndarray) -> None:
    del images
    onnx_export.export(model.plain, model.kept(), model.example, path=path)


def _write_onnx_int8(model: Model, path: pathlib.Path, images: np.ndarray) -> None:
    _rounded(model)
    frozen, how = model.packed.frozen, model.rounding
    onnx_export.export_int8(model.plain, frozen, model.example, path=path, **how)
    # An integer file with contractions of floats is slower than one of floats.
    onnx_export.verify(path, model.plain, frozen, images, **how)


def _rounded(model: Model) -> None:
    if not model.network.rules:
        raise errors.UserError("the stage rounds no activations")


def _open_onnx(path: pathlib.Path, threads: int) -> Run:
    session = onnx_export.session(path, threads=threads)
    return lambda pixels: session.run(None, {"input": pixels})[0]


def _write_stablehlo(model: Model, path: pathlib.Path, images: np.ndarray) -> None:
    del images
    run = functools.partial(model.plain, model.kept())
    stablehlo.export(run, model.example, path=path)


def _write_stablehlo_integer(
    model: Model, path: pathlib.Path, images: np.ndarray
) -> None:
    del images
    frozen, how = model.packed.frozen, model.rounding
    stablehlo.export_integer(model.plain, frozen, model.example, path=path, **how)


def _open_stablehlo(path: pathlib.Path, threads: int) -> Run:
    del threads  # XLA takes the cores that its process may use
    run = stablehlo.load(path)
    return lambda pixels: np.asarray(run(pixels))


def _write_safetensors(model: Model, path: pathlib.Path, images: np.ndarray) -> None:
    del images
    one = model.packed
    whole = packing.tree_of(one.frozen, one.variables, one.ranges)
    safetensors_file.save(path, whole, one.about)


def _read_safetensors(path: pathlib.Path) -> Model:
    whole, about = safetensors_file.load(path), safetensors_file.metadata(path)
    return _model(packing.packed(whole, about, path))


def _open_safetensors(path: pathlib.Path, threads: int) -> Run:
    del threads
    return _read_safetensors(path).logits(rounded=True)


def _write_litert(model: Model, path: pathlib.Path, images: np.ndarray) -> None:
    run = functools.partial(model.plain, model.kept())
    litert.export(run, images[:1], path=path)


def _write_litert_int8(model: Model, path: pathlib.Path, images: np.ndarray) -> None:
    _rounded(model)
    litert.export_int8(
        model.plain,
        model.packed.frozen,
        images[:1],
        path=path,
        batches=[images],
        **model.rounding,
    )


def _open_litert(path: pathlib.Path, threads: int) -> Run:
    return litert.session(path, threads=threads)


_JAX = dict(runtime="JAX", packages=(), install="requirements.txt")
_STABLEHLO = dict(**_JAX, open=_open_stablehlo, contractions=stablehlo.contractions)
_LITERT = dict(
    runtime="LiteRT",
    packages=("litert_converter", "ai_edge_litert"),
    install="requirements-litert.txt",
    open=_open_litert,
    contractions=litert.contractions,
)
_ONNX = dict(
    runtime="ONNX Runtime",
    packages=("onnx", "onnxruntime"),
    install="requirements-deploy.txt",
    open=_open_onnx,
    contractions=onnx_export.contractions,
)

TARGETS = {
    "packed": Target(
        suffix="pare",
        rounded=True,
        against="",
        write=_write_packed,
        open=_open_packed,
        contractions=lambda path: _in_float(load(path)),
        **_JAX,
    ),
    "onnx_float32": Target(
        suffix="onnx", rounded=False, against="", write=_write_onnx, **_ONNX
    ),
    "onnx_int8": Target(
        suffix="int8.onnx",
        rounded=True,
        against="onnx_float32",
        write=_write_onnx_int8,
        **_ONNX,
    ),
    "stablehlo_float32": Target(
        suffix="float32.stablehlo",
        rounded=False,
        against="",
        write=_write_stablehlo,
        **_STABLEHLO,
    ),
    "stablehlo": Target(
        suffix="stablehlo",
        rounded=True,
        against="stablehlo_float32",
        write=_write_stablehlo_integer,
        **_STABLEHLO,
    ),
    "safetensors": Target(
        suffix="safetensors",
        runtime="JAX",
        packages=("safetensors",),
        install="requirements-deploy.txt",
        rounded=True,
        against="",
        write=_write_safetensors,
        open=_open_safetensors,
        contractions=lambda path: _in_float(_read_safetensors(path)),
    ),
    "litert_float32": Target(
        suffix="tflite", rounded=False, against="", write=_write_litert, **_LITERT
    ),
    "litert_int8": Target(
        suffix="int8.tflite",
        rounded=True,
        against="litert_float32",
        write=_write_litert_int8,
        **_LITERT,
    ),
}


def versions(names: Any) -> dict[str, str]:
    """Returns {package: version} of what writes and runs some targets."""
    found = importlib.metadata.packages_distributions()
    return {
        package: importlib.metadata.version(found[package][0])
        for name in names
        for package in TARGETS[name].packages
    }


def check(names: Any, setting: str) -> None:
    """Raises a `UserError` for a name that is no target, or lacks its packages."""
    for name in names:
        target = errors.lookup(TARGETS, name, f"target of {setting}")
        for package in target.packages:
            try:
                importlib.import_module(package)
            except ImportError as e:
                raise errors.UserError(
                    f"{setting}: {name} needs {package}, which cannot be imported "
                    f"({e}); pip install -r {target.install}"
                ) from e
