"""A data set as an experiment sees it: three splits, and what makes inputs of them."""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import jax

from lib import errors
from lib.data import images, inputs, parts, sources, splits
from lib.data.sources import chosen
from lib.data.table import tables
from lib.data.text import texts


class Dataset(NamedTuple):
    """What `load` returns.

    Attributes:
      name: as the config wrote it.
      train: the weights are fitted to it.
      validation: choices are made on it.
      test: results are measured on it; None where nothing may be, as in a search.
      classes: labels lie in `[0, classes)`.
      shape: of one input; for an image (H, W, C).
      inputs: what makes inputs of stored examples; fitted to the training split only.
      names: of the classes; label i is `names[i]`.
      counts: what was missing, cut or unknown, in words -> how often. Only what did
        happen is there.
      features: of a table, what its inputs were chosen from, in order:
        `{"name", "score", "kept"}`; a score is None where nothing was chosen.
    """

    name: str
    train: splits.Train
    validation: splits.Validation
    test: splits.Test | None
    classes: int
    shape: tuple[int, ...]
    inputs: inputs.Inputs
    names: tuple[str, ...] = ()
    counts: Mapping[str, int] = MappingProxyType({})
    features: Sequence[Mapping[str, Any]] = ()

    @property
    def example(self) -> jax.ShapeDtypeStruct:
        """A batch of one input, as shape and dtype."""
        return jax.ShapeDtypeStruct((1, *self.shape), self.inputs.DTYPE)

    @property
    def stored(self) -> jax.ShapeDtypeStruct:
        """A batch of one stored example, as shape and dtype."""
        one = self.inputs.stored(self.shape)
        return jax.ShapeDtypeStruct((1, *one.shape), one.dtype)


# Kind -> (opened source, names of its splits, **settings) -> the fields of a `Dataset`
# after its name.
KINDS: dict[str, Callable[..., Any]] = {
    "image": images.load,
    "table": tables.load,
    "text": texts.load,
}
# Kind -> the settings that it alone takes.
SETTINGS: dict[str, tuple[str, ...]] = {
    "image": (
        *("image", "normalisation", "image_shape", "resize_by", "resample"),
        "kept_bytes",
    ),
    "table": ("table", "fitted"),
    "text": ("text", "fitted"),
}


def _every_setting() -> set[str]:
    return {name for names in SETTINGS.values() for name in names}


def own(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Returns `load`'s settings without those that only other kinds of data take.

    It is what the label of an artifact keeps.

    Args:
      settings: with a `kind` that `load` has accepted.
    """
    others = _every_setting().difference(SETTINGS[settings["kind"]])
    return {k: v for k, v in settings.items() if k not in others}


def load(
    name: str,
    *,
    kind: str = "image",
    data_dir: str | None,
    train: str = "train",
    validation: str = "",
    test: str,
    validation_fraction: float,
    test_fraction: float = 0.2,
    label: str,
    resident_bytes: int,
    only: Sequence[str] = (),
    corrupt: str = "error",
    **settings: Any,
) -> Dataset:
    """Returns a data set, split and prepared.

    Args:
      name: see `sources.find`.
      kind: of the data, a key of `KINDS`.
      data_dir: where prepared sets lie; None for TFDS's default.
      train: the set's official train split.
      validation: an official one, or "" to draw `validation_fraction` of the train
        split, the same examples in every run.
      test: the official one ("validation" for a set such as ImageNet whose test labels
        are secret), or "" to draw `test_fraction` of the train split.
      validation_fraction: in (0, 1), of the train split.
      test_fraction: in (0, 1), of the train split.
      label: the field that holds the class; nearly always "label".
      resident_bytes: examples that take no more than this are read into memory.
      only: names of the classes that are kept, in their new order; () for all.
      corrupt: what becomes of images in folders that cannot be read; see
        `folders.CORRUPT`.
      **settings: of the kinds; each takes its own (`SETTINGS`). One of them is
        `fitted`: the inputs of an artifact, for kinds that store what these made.

    Raises:
      UserError: an unknown set, kind, setting, split or field; a set that is not
        prepared; an empty split; examples that are not as the kind wants them.
    """
    make = errors.lookup(KINDS, kind, "kind of data")
    for setting in settings:  # one of no kind would be left out without a word
        errors.lookup(dict.fromkeys(_every_setting()), setting, "setting of data")
    names = parts.Names(train, validation, test, validation_fraction, test_fraction)
    taken = {k: v for k, v in settings.items() if k in SETTINGS[kind]}
    common = dict(label=label, resident_bytes=resident_bytes)
    opened = sources.find(name, data_dir, train=train, corrupt=corrupt)
    if only:
        opened = chosen.only(opened, label, only)
    return Dataset(name, *make(opened, names, **common, **taken))
