"""Weights that were trained elsewhere, as a model's own params and variables.

Each model that others have published weights for has layouts (`lib.models.layouts`):
which of their names stands for which of ours. Every weight of the model has to be
there, of the right shape, and nothing may be left over, but for what is named: half a
network is no network.
"""

import pathlib
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import linen as nn

from lib import errors, models, tree
from lib.models import layouts, matching, readers
from lib.models.layouts import base


def load(
    path: str | pathlib.Path,
    module: nn.Module,
    shape: Sequence[int],
    dtype: Any = np.float32,
    *,
    fresh: str = "",
    unused: str = "",
    layers: Sequence[int] = (),
    key: jax.Array | None = None,
) -> tuple[tree.Tree, tree.Tree]:
    """Returns `(params, variables)` of a model, from a file of another library.

    Kernels come in our order of axes: convolutions `[out, in, h, w]` become
    `[h, w, in, out]`, dense ones `[out, in]` become `[in, out]`.

    Args:
      path: `.th`, `.pt`, `.pth` or `.bin` of PyTorch (read without it, tensors only),
        `.safetensors`, `.msgpack` of Flax, or an `.npz` with such names; the
        `.index.json` of a file in parts; a folder as Hugging Face lays it out, or a
        name of its hub.
      module: a model whose class is in `layouts.LAYOUTS`, or any whose own paths are
        the names of the file.
      shape: of one input, as for `models.init`.
      dtype: of the input.
      fresh: regular expression of the model's paths (`logits/kernel`) that keep their
        fresh values, whatever the file holds; "" for none.
      unused: regular expression of the file's names that the model has no use for; ""
        for none.
      layers: whose blocks become the model's blocks 0, 1, ...; () for its own.
      key: of the fresh values; not read where `fresh` is "".

    Raises:
      UserError: the file is missing, damaged or of another kind; there is no layout for
        the model; a weight is missing, left over or of another shape; a pattern takes
        nothing.
    """
    one = _open(path, module, _wanted(module, shape, dtype), fresh, unused, layers)
    flat: dict[str, Any] = {}
    if one.match.fresh:
        own = models.init(module, key, shape, dtype)
        own = tree.flatten({"params": own[0], **own[1]})
        flat.update({path: own[path] for path in one.match.fresh})
    for ours, part in one.parts.items():
        value = part.convert(one.entries[part.name].read())
        flat[ours] = np.array(value, one.wanted[ours].dtype, order="C")
    flat = {path: flat[path] for path in one.wanted}
    variables = dict(tree.unflatten(flat))
    return variables.pop("params"), variables


def fit(
    path: str | pathlib.Path,
    module: nn.Module,
    shape: Sequence[int],
    dtype: Any = np.float32,
    *,
    fresh: str = "",
    unused: str = "",
    layers: Sequence[int] = (),
) -> matching.Match:
    """Returns how a file fits a model; arguments and errors as of `load`.

    Only names and shapes are compared, and of a safetensors file only they are read.
    """
    return _open(
        path, module, _wanted(module, shape, dtype), fresh, unused, layers
    ).match


def match(
    names: Iterable[str],
    module: nn.Module,
    shape: Sequence[int],
    dtype: Any = np.float32,
    *,
    fresh: str = "",
    unused: str = "",
    layers: Sequence[int] = (),
) -> matching.Match:
    """Returns which of a file's names stand for which weights of a model.

    Args:
      names: of the file; a leading "module.", which PyTorch's DataParallel puts there,
        and counters of batches do not count.
      module: as of `load`.
      shape: of one input, as for `models.init`.
      dtype: of the input.
      fresh: as of `load`.
      unused: as of `load`.
      layers: as of `load`.

    Raises:
      UserError: there is no layout for the model, or a pattern takes nothing.
    """
    wanted = _wanted(module, shape, dtype)
    return matching.matched(list(names), module, wanted, fresh, unused, layers)[0]


class _Opened(NamedTuple):
    entries: readers.Entries
    match: matching.Match
    parts: dict[str, base.Part]  # path of ours -> name of theirs in the file
    wanted: dict[str, jax.ShapeDtypeStruct]


def _open(
    path: str | pathlib.Path,
    module: nn.Module,
    wanted: dict[str, jax.ShapeDtypeStruct],
    fresh: str,
    unused: str,
    layers: Sequence[int],
) -> _Opened:
    """Returns a file that was found to fit."""
    file = readers.locate(path)
    entries = readers.read(file)
    found, parts, layout = matching.matched(
        entries, module, wanted, fresh, unused, layers
    )
    if found.ours or found.theirs:
        asked = len(wanted) - len(found.fresh)
        raise errors.UserError(
            f"{file} does not fit {type(module).__name__}: {len(found.names)} of "
            f"{asked} weights are there, it lacks {matching.few(found.ours)}, and "
            f"{matching.few(found.theirs)} of it would be left over; name in `fresh` "
            "what is to stay fresh, and in `unused` what is to be left out"
        )
    for ours, part in parts.items():
        stored = entries[part.name].shape
        try:
            got = part.convert(np.broadcast_to(np.float32(0), stored)).shape
        except (IndexError, ValueError):
            got = f"none of an array of shape {stored}"
        if got != wanted[ours].shape:
            raise errors.UserError(
                f"{file}: expected {part.name!r} to give {ours!r} of shape "
                f"{wanted[ours].shape}, got {got}"
            )
    for name, of in layout.copies.items():
        _check_copy(file, entries, layout, name, of)
    _check_fields(file, module, layout)
    return _Opened(entries, found, parts, wanted)


def _check_copy(
    file: pathlib.Path,
    entries: readers.Entries,
    layout: layouts.Layout,
    name: str,
    of: str,
) -> None:
    """Raises a `UserError` where an array that is to repeat another does not."""
    there = matching.there_by(entries, layout)
    if name in there and of in there:
        two = entries[there[name]], entries[there[of]]
        if not np.array_equal(*(one.read() for one in two)):
            raise errors.UserError(
                f"{file}: expected {there[name]!r} to be equal to {there[of]!r}, with "
                "which this model ties it"
            )


def _check_fields(
    file: pathlib.Path, module: nn.Module, layout: layouts.Layout
) -> None:
    """Raises a `UserError` where the `config.json` beside tells of another model."""
    config = readers.about(file)
    if config is None or layout.fields is None:
        return
    try:
        fields = layout.fields(config)
    except KeyError as e:
        raise errors.UserError(
            f"{file.parent}/config.json is none of {layout.family}: it lacks {e}"
        ) from e
    for field, value in fields.items():
        if getattr(module, field) != value:
            raise errors.UserError(
                f"{type(module).__name__}.{field}: expected {value!r}, as "
                f"{file.parent}/config.json says, got {getattr(module, field)!r}"
            )


def _wanted(
    module: nn.Module, shape: Sequence[int], dtype: Any
) -> dict[str, jax.ShapeDtypeStruct]:
    """Returns shapes and dtypes of a model's weights, `{collection/path: ...}`."""
    key = jax.eval_shape(lambda: jax.random.key(0))
    params, variables = jax.eval_shape(
        lambda k: models.init(module, k, shape, dtype), key
    )
    return tree.flatten({"params": params, **variables})
