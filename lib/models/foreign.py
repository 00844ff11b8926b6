"""Weights that were trained elsewhere, as a model's own params and variables.

Each model that others have published weights for has layouts (`lib.models.layouts`):
which of their names stands for which of ours. Every weight of the model has to be
there, of the right shape, and nothing may be left over, but for what is named: half a
network is no network.
"""

import pathlib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import linen as nn

from lib import errors, models, tree
from lib.models import layers as blocks
from lib.models import layouts, readers
from lib.models.layouts import base
from lib.models.readers import flax_file


class Match(NamedTuple):
    """How the names of a file fit a model.

    Attributes:
      names: {path of ours: name of theirs}, for each weight that was found.
      ours: paths of the model that the file has nothing for.
      theirs: names of the file that the model has no use for.
      fresh: paths of the model that keep their fresh values, as was asked for.
      unused: names of the file that are left out, as was asked for.
      family: of the layout by which they fit.
    """

    names: dict[str, str]
    ours: list[str]
    theirs: list[str]
    fresh: list[str] = []
    unused: list[str] = []
    family: str = ""

    def told(self) -> str:
        """Returns what was matched and what was left on either side, in one line."""
        return (
            f"{len(self.names)} weights come from it ({self.family}); fresh: "
            f"{_few(self.fresh)}; unused: {_few(self.unused)}"
        )


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
) -> Match:
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
) -> Match:
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
    return _matched(list(names), module, wanted, fresh, unused, layers)[0]


class _Opened(NamedTuple):
    entries: readers.Entries
    match: Match
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
    found, parts, layout = _matched(entries, module, wanted, fresh, unused, layers)
    if found.ours or found.theirs:
        asked = len(wanted) - len(found.fresh)
        raise errors.UserError(
            f"{file} does not fit {type(module).__name__}: {len(found.names)} of "
            f"{asked} weights are there, it lacks {_few(found.ours)}, and "
            f"{_few(found.theirs)} of it would be left over; name in `fresh` what is "
            "to stay fresh, and in `unused` what is to be left out"
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


def _matched(
    names: Iterable[str],
    module: nn.Module,
    wanted: Mapping[str, Any],
    fresh: str,
    unused: str,
    layers: Sequence[int],
) -> tuple[Match, dict[str, base.Part], layouts.Layout]:
    """Returns how names fit, where each weight is, and by which layout."""
    named = type(module).__name__
    candidates = (*layouts.LAYOUTS.get(named, ()), layouts.OWN)
    tried = []
    for layout in candidates:
        there = _there(names, layout)
        parts = {
            path: _place(layout, blocks.source(path, layers), module) for path in wanted
        }
        tried.append((sum(p.name in there for p in parts.values()), there, parts))
    best = max(range(len(tried)), key=lambda i: tried[i][0])
    count, there, parts = tried[best]
    if not count:  # nothing of it is known at all
        errors.lookup(layouts.LAYOUTS, named, "layout of foreign weights")
    layout = candidates[best]
    kept = _taken(fresh, {p: p.partition("/")[2] for p in wanted}, "fresh")
    used = {part.name for part in parts.values()} | set(layout.copies)
    if layers:
        used |= _other_blocks(layout, module, wanted, there)
    left = [there[name] for name in there if name not in used]
    dropped = _taken(unused, {name: name for name in left}, "unused")
    found = {
        path: base.Part(there[part.name], _spelt(there[part.name], part, layout))
        for path, part in parts.items()
        if part.name in there and path not in kept
    }
    taken = {part.name for part in found.values()}
    aside = [there[n] for n in there if n in used and n not in layout.copies]
    one = Match(
        {path: part.name for path, part in found.items()},
        [path for path in wanted if path not in found and path not in kept],
        [name for name in left if name not in dropped],
        kept,
        [*dropped, *(name for name in aside if name not in taken)],
        layout.family,
    )
    return one, found, layout


def _there(names: Iterable[str], layout: layouts.Layout) -> dict[str, str]:
    """Returns {name as the layout has it: name in the file}, of what holds weights."""
    there: dict[str, str] = {}
    for name in names:
        short = name if layout is layouts.OWN else flax_file.torch_name(name)
        for prefix in ("module.", *layout.prefixes):
            short = short.removeprefix(prefix)
        for old, new in layout.endings.items():
            if short.endswith(old):
                short = short.removesuffix(old) + new
        if not short.endswith(_COUNTER) and not re.search(layout.buffers, short):
            there[short if short not in there else name] = name
    return there


_COUNTER = "num_batches_tracked"


def _place(layout: layouts.Layout, path: str, module: nn.Module) -> base.Part:
    """Returns where a weight of ours is, with what makes it ours."""
    found = layout.place(path, module)
    if isinstance(found, base.Part):
        return found
    return base.Part(found, base.usual(path))


def _spelt(name: str, part: base.Part, layout: layouts.Layout) -> base.Convert:
    """Returns the conversion of an array whose file may have Flax's order of axes."""
    if layout is layouts.OWN or not name.endswith("/kernel"):
        return part.convert
    return lambda value: part.convert(base.unkernel(value))


def _other_blocks(
    layout: layouts.Layout,
    module: nn.Module,
    wanted: Iterable[str],
    there: Mapping[str, str],
) -> set[str]:
    """Returns the names of all blocks of the file, whether a model takes them or not.

    Blocks are counted until none of the next one's names is there.
    """
    inside = [path for path in wanted if blocks.number(path) is not None]
    found: set[str] = set()
    for block in range(len(there)):
        paths = [blocks.renumbered(path, block) for path in inside]
        names = {_place(layout, path, module).name for path in paths}
        if not names & there.keys():
            break
        found |= names
    return found


def _taken(pattern: str, texts: Mapping[str, str], setting: str) -> list[str]:
    """Returns the keys whose texts a pattern is found in; "" takes none."""
    if not pattern:
        return []
    compiled = tree.compile_pattern(pattern)
    taken = [key for key, text in texts.items() if compiled.search(text)]
    if not taken:
        near = errors.nearest(pattern, texts.values()) or list(texts.values())[:3]
        raise errors.UserError(
            f"{setting} {pattern!r} matches nothing; nearest of {len(texts)}: "
            f"{', '.join(near) or 'none'}"
        )
    return taken


def _check_copy(
    file: pathlib.Path,
    entries: readers.Entries,
    layout: layouts.Layout,
    name: str,
    of: str,
) -> None:
    """Raises a `UserError` where an array that is to repeat another does not."""
    there = _there(entries, layout)
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


def _few(names: list[str]) -> str:
    shown = ", ".join(names[:3]) or "nothing"
    return f"{shown} and {len(names) - 3} more" if len(names) > 3 else shown
