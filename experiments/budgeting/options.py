"""What each layer may become, what that takes in a file, and what it costs.

An option is a few named strengths, `{"sparsity": 0.9, "bits": 3}`; `{}` leaves a layer
as it is. It takes what the layer takes when it is packed so, and costs what each of its
strengths adds to the validation loss, alone.
"""

import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from experiments import allocation, packing, sensitivity
from lib import transforms, tree
from lib.data import splits
from lib.deploy import artifact
from lib.transforms import ranks

# Strength -> the technique on weights that it is of, in the order of a chain.
CHAIN = {
    "rank": "factorize",
    "sparsity": "prune",
    "clusters": "share",
    "bits": "quantize",
}

Strengths = dict[str, float]  # of one layer


class Layers(NamedTuple):
    """What the knapsack chooses from.

    Attributes:
      weights: {path: weight} of the layers.
      strengths: one list a layer, an entry an option.
      options: the same places: bytes and cost.
      overhead: bytes of the file that no choice changes.
    """

    weights: Mapping[str, np.ndarray]
    strengths: list[list[Strengths]]
    options: list[list[allocation.Option]]
    overhead: int


def forms(techniques: Sequence[str]) -> list[tuple[str, ...]]:
    """Returns which strengths stand together in an option.

    Sparsity and bits; clusters, whose values stay in float; rank, with its factors in
    so many bits. Of these, those among `techniques`, keys of `sensitivity.TECHNIQUES`.
    """
    every = [("sparsity", "bits"), ("clusters",)]
    if "rank" in techniques:
        every.append(("rank", "bits"))
    own = [tuple(name for name in form if name in techniques) for form in every]
    return [form for form in own if form]


def settings_of(config: Any) -> Any:
    """Returns the settings that `sensitivity` takes, as the chain will have them."""
    settings = config.copy_and_resolve_references()
    with settings.unlocked():
        settings.update(config.budget.sensitivity.to_dict())
        for name, kept in (
            ("prune", ("score", "shape")),
            ("quantize", ("symmetric", "granularity", "range")),
            ("share", ("start", "iterations", "seed")),
        ):
            settings[name] = {key: config[name][key] for key in kept}
    return settings


def bits_of(clusters: int) -> int:
    """Returns the bits of an index of so many values, a power of two."""
    return int(clusters).bit_length() - 1


# Strength -> (value, settings) -> the technique, aimed at all it is given.
MAKE: dict[str, Callable[[Any, Any], transforms.Transform]] = {
    "rank": lambda value, settings: transforms.factorize(rank=value, pattern="."),
    "sparsity": lambda value, settings: transforms.prune(
        sparsity=value, pattern=".", **settings.prune
    ),
    "clusters": lambda value, settings: transforms.share(
        bits=bits_of(value), pattern=".", **settings.share
    ),
    "bits": lambda value, settings: transforms.quantize(
        bits=value, pattern=".", **settings.quantize
    ),
}


def packed_bytes(settings: Any, path: str, w: np.ndarray, strengths: Strengths) -> int:
    """Returns what a layer takes in a file, packed so.

    Args:
      settings: as `settings_of` returns them.
      path: of the layer.
      w: its weight.
      strengths: an option.
    """
    made = [
        MAKE[name](strengths[name], settings) for name in CHAIN if name in strengths
    ]
    t = transforms.chain(*made)
    frozen = t.freeze(*t.encode(tree.unflatten({path: w})))
    return len(artifact.pack(frozen)) - len(artifact.pack({}))


def offered(settings: Any, w: Any) -> list[dict[str, tuple[float, float]]]:
    """Returns the options of a layer: {name: (strength, place on its curve)} each.

    Of ranks only those at which the factors hold no more than the layer, each once.

    Args:
      settings: as `settings_of` returns them.
      w: its weight, or shape and dtype.
    """
    rows, columns = int(np.prod(w.shape[:-1])), w.shape[-1]
    own: dict[str, list[tuple[float, int]]] = {}
    for name in settings.techniques:
        listed = [(value, i) for i, value in enumerate(settings.strengths[name])]
        if name == "rank":
            side, most = min(rows, columns), ranks.largest(rows, columns)
            whole = [(int(sensitivity.rank_of(x, side)), i) for x, i in listed]
            first = {rank: i for rank, i in reversed(whole) if rank <= most}
            listed = sorted(first.items())
        own[name] = listed
    found: list[dict[str, tuple[float, int]]] = [{}]
    for form in forms(settings.techniques):
        some: list[dict[str, tuple[float, int]]] = [{}]
        for name in form:
            some = [{**one, name: pair} for one in some for pair in own[name]]
        found += some
    return found


def priced(
    settings: Any, weights: Mapping[str, np.ndarray], found: Mapping[str, Any]
) -> tuple[list[list[Strengths]], list[list[allocation.Option]]]:
    """Returns the strengths of each layer's options, and what these take and cost.

    Args:
      settings: as `settings_of` returns them.
      weights: {path: weight} of the layers.
      found: their curves, as `sensitivity.measured` returns them.
    """
    base = found["base"]["loss"]
    added = {
        name: np.maximum(np.array(curve["loss"]) - base, 0.0)  # [layers, strengths]
        for name, curve in found["curves"].items()
    }
    strengths, options = [], []
    for row, (path, w) in enumerate(weights.items()):
        places = offered(settings, w)
        strengths.append([{k: v for k, (v, _) in one.items()} for one in places])
        options.append(
            [
                allocation.Option(
                    packed_bytes(settings, path, w, chosen),
                    float(sum(added[k][row, i] for k, (_, i) in one.items())),
                )
                for chosen, one in zip(strengths[-1], places, strict=True)
            ]
        )
    return strengths, options


def layers_of(config: Any, path: pathlib.Path, split: splits.Validation) -> Layers:
    """Returns the layers of a packed file with what each option takes and costs.

    Args:
      config: of the run.
      path: of the file.
      split: that losses are measured on.
    """
    settings, one = settings_of(config), packing.load(path)
    weights = sensitivity.layers_of(one, settings)
    found = sensitivity.measured(one, weights, split, settings)
    listed = {row.path: row.nbytes for row in artifact.listing(path)}
    taken = sum(listed[f"params/{name}"] for name in weights)
    overhead = path.stat().st_size - taken
    return Layers(weights, *priced(settings, weights, found), overhead)


def fronts(layers: Layers) -> list[list[allocation.Choice]]:
    """Returns the choices that no other beats: of all options, then of one kind alone.

    Costs are those before anything learns again, and not every kind gets as much of
    them back: weights still move from level to level of a grid, but stay in the cluster
    they are in. On the digits the cheapest choice of all lost 1.39 points after it
    learned, where that of sparsity and bits, of as many bytes, lost 0.46. The kind is
    the first that there is: sparsity and bits, where they are tried.
    """
    every = allocation.front(layers.options)
    kinds = {name: None for own in layers.strengths for one in own for name in one}
    first, *more = forms([*kinds]) or [()]
    if not more:
        return [every]
    places = [
        [i for i, one in enumerate(own) if set(one) <= set(first)]
        for own in layers.strengths
    ]
    some = [
        [own[i] for i in kept] for own, kept in zip(layers.options, places, strict=True)
    ]
    alone = [
        choice._replace(
            options=tuple(
                kept[i] for kept, i in zip(places, choice.options, strict=True)
            )
        )
        for choice in allocation.front(some)
    ]
    return [every, alone]
