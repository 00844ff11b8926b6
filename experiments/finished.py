"""A finished run's stages, read from their artifacts, and what they say of examples."""

import pathlib

import jax
import numpy as np

from experiments import packing, recipe, stage, workdir
from lib import errors
from lib.data import dataset, pipeline, splits


def load(run: str, name: str, what: str) -> packing.Packed:
    """Returns the artifact of a stage.

    Args:
      run: the folder of a finished run.
      name: one of its stages.
      what: who asks, for messages.

    Raises:
      UserError: there is no such run or stage, or its artifact is damaged.
    """
    for key, value in (("run", run), ("a stage", name)):
        if not value:
            raise errors.UserError(f"{what}: {key} is empty; name a finished one")
    path = workdir.artifact_path(pathlib.Path(run), name)
    if path.parent.is_dir():  # else the artifact cannot be read, and says so
        stages = [p.stem for p in sorted(path.parent.glob("*.pare"))]
        errors.lookup(dict.fromkeys(stages), name, f"stage of {run}")
    return packing.load(path)


def data_of(one: packing.Packed) -> dataset.Dataset:
    """Returns the data set that a stage was trained on, with its own inputs."""
    return recipe.load_data(one.about["data"], packing.inputs(one.about))


def logits(one: packing.Packed, split: splits.Split, batch_size: int) -> np.ndarray:
    """Returns what a stage says of every example of a split, `[n, classes]`."""
    network, weights = stage.network_of(one)
    prepare = pipeline.preparation(packing.inputs(one.about), None)

    @jax.jit
    def said(weights, stored):
        given = prepare(None, {"input": stored})["input"]
        return network(*weights, given)[0][0]

    parts = [
        np.asarray(said(weights, raw["input"]))
        for raw in pipeline.eval_batches(split, batch_size)
    ]
    return np.concatenate(parts)[: len(split)]


def labels(split: splits.Split) -> np.ndarray:
    """Returns the classes of a split's examples, int `[n]`, in order."""
    return np.asarray(split.source.gather(np.arange(len(split)))["label"])
