"""Which names of a file stand for which weights of a model, by a layout."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from flax import linen as nn

from lib import errors, tree
from lib.models import layers as blocks
from lib.models import layouts
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
            f"{few(self.fresh)}; unused: {few(self.unused)}"
        )


def matched(
    names: Iterable[str],
    module: nn.Module,
    wanted: Mapping[str, Any],
    fresh: str,
    unused: str,
    layers: Sequence[int],
) -> tuple[Match, dict[str, base.Part], layouts.Layout]:
    """Returns how names fit, where each weight is, and by which layout.

    Args:
      names: of the file.
      module: the model.
      wanted: its weights by `collection/path`.
      fresh: as of `foreign.load`.
      unused: as of `foreign.load`.
      layers: as of `foreign.load`.

    Raises:
      UserError: no layout knows any name, a pattern takes nothing, or there is not a
        layer for each block.
    """
    if layers:
        blocks.check_count(wanted, layers)
    named = type(module).__name__
    candidates = (*layouts.LAYOUTS.get(named, ()), layouts.OWN)
    tried = []
    for layout in candidates:
        there = there_by(names, layout)
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


def there_by(names: Iterable[str], layout: layouts.Layout) -> dict[str, str]:
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


def few(names: list[str]) -> str:
    """Returns the first names of a list, and how many more there are."""
    shown = ", ".join(names[:3]) or "nothing"
    return f"{shown} and {len(names) - 3} more" if len(names) > 3 else shown
