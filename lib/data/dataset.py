"""A data set as an experiment sees it: three splits and the pixels' normalisation."""

import math
from typing import NamedTuple

from lib import errors
from lib.data import normalise, sources, splits


class Dataset(NamedTuple):
    """What `load` returns.

    Attributes:
      name: as the config wrote it.
      train: the weights are fitted to it.
      validation: choices are made on it.
      test: results are measured on it.
      classes: labels lie in `[0, classes)`.
      shape: `(H, W, C)` of every image.
      normalisation: of the pixels; never from other splits than the training split.
    """

    name: str
    train: splits.Train
    validation: splits.Validation
    test: splits.Test
    classes: int
    shape: tuple[int, int, int]
    normalisation: normalise.Normalisation


def load(
    name: str,
    *,
    data_dir: str | None,
    validation_fraction: float,
    resident_bytes: int,
    image: str,
    label: str,
    test: str,
    normalisation: str = "measured",
) -> Dataset:
    """Returns a data set, split and measured.

    The test split is the set's official one. The validation split is a part of the
    official train split, drawn with a seed of its own (`splits.SEED`), so that it is
    the same in every run; with the classes in proportion, or, for a set that stays on
    disk, whose labels are not read beforehand, without.

    Args:
      name: a set of ours (`sources.SOURCES`) or any of TFDS's.
      data_dir: where prepared sets lie; None for TFDS's default.
      validation_fraction: of the official train split; in (0, 1).
      resident_bytes: a set whose pixels take no more than this is read into memory
        (`examples.Arrays`); a larger one stays on disk (`examples.Records`).
      image: the set's field that holds the image; nearly always "image".
      label: the set's field that holds the class; nearly always "label".
      test: the set's official test split; "test", or "validation" for a set such as
        ImageNet whose test labels are secret.
      normalisation: "measured" on the training split, or "imagenet", for weights that
        were trained so; see `normalise.NORMALISATIONS`.

    Raises:
      UserError: an unknown set, split, field or normalisation; a set that is not
        prepared; an empty split; images of differing shapes; labels out of range.
    """
    if test == "train":
        raise errors.UserError(f"data set {name!r}: its train split cannot be its test")
    measure = errors.lookup(
        normalise.NORMALISATIONS, normalisation, "normalisation of the pixels"
    )
    builder = sources.find(name, data_dir)
    fields = {"image": image, "label": label}
    fit = sources.split_of(builder, name, "train", **fields)
    measured = sources.split_of(builder, name, test, **fields)
    shape, classes = fit.table.shape, fit.table.classes
    if measured.table.shape != shape:
        raise errors.UserError(
            f"data set {name!r} has images of differing shapes: {shape} in its train "
            f"split, {measured.table.shape} in its {test} split"
        )
    held_out = splits.count(len(fit), validation_fraction, name)
    if (len(fit) + len(measured)) * math.prod(shape) <= resident_bytes:
        fit, measured = fit.read(), measured.read()
        kept, out = splits.stratified(fit.labels, held_out, splits.SEED)
    else:
        kept, out = splits.random(len(fit), held_out, splits.SEED)
    train = splits.Train(name, fit.select(kept), classes, shape)
    validation = splits.Validation(name, fit.select(out), classes, shape)
    return Dataset(
        name,
        train,
        validation,
        splits.Test(name, measured, classes, shape),
        classes,
        shape,
        measure(train),
    )
