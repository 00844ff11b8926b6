"""Programs as StableHLO files: run by JAX alone, the library and Flax not needed.

What `jax.export` writes, with the batch left open and lowered for several platforms at
once, and a checksum behind it. Arrays that a function holds are written as they are:
int8 codes take a byte a weight, packed ones half of that, as long as they become floats
when it runs (`program.run_integer` sees to that). Wherever JAX is, this runs the file:

    from jax import export
    with open(path, "rb") as file:
        program = export.deserialize(bytearray(file.read()))
    y = program.call(x)

JAX promises that files can be read for at least six months after they were written.
"""

import os
import pathlib
import re
import zlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
from jax import export as jax_export

from lib import errors, files, program, representations

Path = str | os.PathLike[str]
PLATFORMS = ("cpu", "cuda", "tpu")
_KNOWN = (*PLATFORMS, "rocm")
_MARK = b"PARE"  # stands before the checksum, where JAX's reader does not look


def export(
    f: Callable[[Any], Any],
    example: Any,
    *,
    path: Path,
    platforms: Sequence[str] = PLATFORMS,
) -> int:
    """Writes `f(x)` as a StableHLO file; returns its length in bytes.

    The file computes what `jax.jit(f)` does, on the same platform to the last bit.

    Args:
      f: pure, of one array; what it closes over is written into the file.
      example: an array, or its shape and dtype. The length of its first axis, the
        batch, does not matter: the file takes any.
      path: missing folders are made; a file of that name is replaced in one step.
      platforms: where the file shall run, of "cpu", "cuda", "tpu", "rocm".

    Raises:
      UserError: the program wants a batch of a certain length, a platform is not
        known, or the file cannot be written.
    """
    if not platforms:
        raise errors.UserError(
            f"StableHLO export: platforms is empty; valid: {', '.join(_KNOWN)}"
        )
    for name in platforms:
        errors.lookup(dict.fromkeys(_KNOWN), name, "platform")
    # What is wrong with `f` itself is told as it is.
    jax.eval_shape(f, jax.ShapeDtypeStruct(example.shape, example.dtype))
    (batch,) = jax_export.symbolic_shape("batch")
    x = jax.ShapeDtypeStruct((batch, *example.shape[1:]), example.dtype)
    make = jax_export.export(jax.jit(f), platforms=list(platforms))
    try:
        content = bytes(make(x).serialize())
    except (jax.errors.InconclusiveDimensionOperation, TypeError, ValueError) as e:
        first = str(e).strip().partition("\n")[0]
        raise errors.UserError(
            "StableHLO export: the program wants a batch of a certain length, expected "
            f"one that takes any: {first}"
        ) from e
    return files.write_bytes(path, content + _MARK + _checksum(content))


def export_integer(
    f: Callable[..., Any],
    frozen: representations.Frozen,
    example: Any,
    *,
    ranges: program.Ranges,
    rules: Sequence[program.Rule],
    path: Path,
    points: str = "inputs",
    platforms: Sequence[str] = PLATFORMS,
) -> int:
    """Writes `program.run_integer(f, ranges, rules)` of frozen weights; their codes
    stay integers in the file, two to a byte where they have 4 bits or fewer.

    Args:
      f: the program without its rounding, `f(params, x)`.
      frozen: nested dict of representations, what `params` is frozen to.
      example: as for `export`.
      ranges: of the activations; {} if none are rounded.
      rules: as for `program.fake_quantize`; () leaves all activations in float, so
        that weights become floats when the program runs.
      path: as for `export`.
      points: as for `program.fake_quantize`.
      platforms: as for `export`.

    Raises:
      UserError: as `export` and `program.fake_quantize`.
    """
    run = program.run_integer(f, ranges, rules, points=points)
    params = program.integer_params(frozen)
    return export(lambda x: run(params, x), example, path=path, platforms=platforms)


class Loaded(NamedTuple):
    """A StableHLO file that was read.

    Attributes:
      exported: what `jax.export.deserialize` returns.
      run: its `call`, jitted.
    """

    exported: jax_export.Exported
    run: Callable[[Any], Any]

    def __call__(self, x: Any) -> Any:
        """Returns what the program computes of `x`."""
        return self.run(x)


def load(path: Path) -> Loaded:
    """Reads a file of `export`.

    Raises:
      UserError: it is missing, damaged, no such file, or was not made for the
        platform that JAX runs on here.
    """
    try:
        whole = pathlib.Path(path).read_bytes()
    except OSError as e:
        raise errors.UserError(f"cannot read {path}: {e.strerror or e}") from e
    content, mark, checksum = whole[:-8], whole[-8:-4], whole[-4:]
    if mark != _MARK or _checksum(content) != checksum:
        raise errors.UserError(
            f"{path} is damaged, or no StableHLO file of `stablehlo.export`"
        )
    exported = jax_export.deserialize(bytearray(content))
    here = jax.default_backend()
    here = "cuda" if here == "gpu" else here
    if here not in exported.platforms:
        raise errors.UserError(
            f"{path} was exported for {', '.join(exported.platforms)}; here is {here}"
        )
    return Loaded(exported, jax.jit(exported.call))


def contractions(path: Path) -> tuple[int, int]:
    """Returns how many contractions of a file are of floats, and of integers."""
    floats = integers = 0
    for function in load(path).exported.mlir_module().split("func.func"):
        # One that is lowered for each platform stands there as often, word for word.
        for line in set(function.splitlines()):
            if re.search(r"stablehlo\.(dot_general|convolution)\b", line):
                operands = re.findall(r"tensor<[^>]*?(\w+)>", line.rpartition(" : ")[2])
                narrow = all(kind.endswith("i8") for kind in operands[:2])
                integers, floats = integers + narrow, floats + (not narrow)
    return floats, integers


def _checksum(content: bytes) -> bytes:
    return zlib.crc32(content).to_bytes(4, "little")
