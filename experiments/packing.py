"""What a stage leaves: one artifact with weights, statistics, ranges and a label."""

import pathlib
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments import shrinking
from lib import errors, models, representations, shrink, tree
from lib.data import inputs as data_inputs
from lib.deploy import artifact
from lib.train import step

# What the label of an artifact tells: enough to build and feed its model.
LABEL = ("model", "classes", "shape", "data", "inputs", "rules")


class Packed(NamedTuple):
    """An artifact as it was read back.

    Attributes:
      params: nested dict of dense weights.
      variables: the model's other collections.
      ranges: of activations, `{site: {side: (smallest, largest)}}`.
      frozen: the params as representations.
      about: the label, with the keys of `LABEL`.
    """

    params: Any
    variables: Any
    ranges: Any
    frozen: Any
    about: dict[str, Any]


def save(
    path: pathlib.Path, recipe: step.Recipe, state: step.State, about: dict[str, Any]
) -> int:
    """Freezes a trained state and writes its artifact; returns the bytes written."""
    frozen = recipe.transform.freeze(
        jax.device_get(step.trained(state)), jax.device_get(state.codec)
    )
    variables, ranges = jax.device_get((state.variables, state.ranges))
    path.parent.mkdir(parents=True, exist_ok=True)
    return artifact.save(path, tree_of(frozen, variables, ranges), about)


def tree_of(frozen: Any, variables: Any, ranges: Any) -> dict[str, Any]:
    """Returns what files hold of a network, as one frozen tree."""
    flat = {  # a site's name holds slashes: its path in the artifact
        f"{site}/{side}": np.stack(bounds)
        for site, sides in ranges.items()
        for side, bounds in sides.items()
    }
    return {"params": frozen, "variables": variables, "ranges": tree.unflatten(flat)}


def load(path: str | pathlib.Path) -> Packed:
    """Reads an artifact back.

    Raises:
      UserError: it is missing, damaged, or was not written by a run.
    """
    return packed(artifact.load(path), artifact.metadata(path), path)


def packed(whole: dict[str, Any], about: dict[str, Any], path: Any) -> Packed:
    """Returns what `tree_of` made a tree of; `path` is where it was, for messages.

    Raises:
      UserError: it was not written by a run.
    """
    if "normalisation" in about:  # artifacts of before there was text
        about = {**about, "inputs": {"kind": "image", **about["normalisation"]}}
    lacks = [key for key in LABEL if key not in about]
    if lacks:
        raise errors.UserError(
            f"artifact {path} is not of a run: its label lacks {', '.join(lacks)}"
        )
    ranges: dict[str, dict[str, Any]] = {}
    for name, bounds in tree.flatten(whole.get("ranges", {})).items():
        site, _, side = name.rpartition("/")
        values = representations.materialize(bounds)
        ranges.setdefault(site, {})[side] = (values[0], values[1])
    return Packed(
        params=representations.thaw(whole["params"]),
        variables=representations.thaw(whole.get("variables", {})),
        ranges=ranges,
        frozen=whole["params"],
        about=about,
    )


def network(about: dict[str, Any], module: Any) -> step.Network:
    """Returns the network of an artifact whose model was built."""
    # Ranges that were learned are what they are by now.
    rules = tuple(
        (pattern, settings and {k: v for k, v in settings.items() if k != "learn"})
        for pattern, settings in about["rules"]
    )
    # Artifacts of before there were policies round the inputs of contractions.
    apply = shrinking.resized(models.make_apply(module), cut(about))
    return step.Network(apply, rules, about.get("points", "inputs"))


def cut(about: dict[str, Any]) -> shrink.Plan:
    """Returns what was cut off the weights of an artifact."""
    return shrink.from_plain(about["cut"]) if about.get("cut") else shrinking.NONE


def check(one: Packed, module: Any, shape: Any) -> None:
    """Raises a `UserError` unless the weights, before any cut, fit model and inputs."""
    weights = {"params": one.params, "variables": one.variables}
    dtype = inputs(one.about).DTYPE
    models.check(
        module, **shrink.full(cut(one.about), weights), shape=shape, dtype=dtype
    )


def inputs(about: dict[str, Any]) -> data_inputs.Inputs:
    """Returns what makes inputs of stored examples for the model of an artifact."""
    return data_inputs.from_label(about["inputs"])
