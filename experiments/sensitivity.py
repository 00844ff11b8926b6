"""How much each layer of a finished stage minds being compressed, alone.

Layer x strength curves of four techniques on validation data: strengths are traced, so
a technique is one program for all its cells. The rest of the network stays as it is;
nothing is fine-tuned.
"""

import re
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments import finished, packing, stage, workdir
from lib import errors, files, numerics, transforms, tree
from lib.data import pipeline, splits
from lib.deploy import measure
from lib.objectives import metrics
from lib.report import progress, results

NAME = "sensitivity.json"

# How many values a layer may share: indices have whole bits.
CLUSTERS = tuple(2**bits for bits in range(1, 17))

Weights = Mapping[str, jax.Array]


def pruned(weights: Weights, strength: Any, settings: Any) -> Weights:
    """Returns the weights without that fraction of the smallest."""
    t = transforms.prune(sparsity=strength, pattern=".", **settings.prune)
    return _through(t, weights)


def rounded(weights: Weights, strength: Any, settings: Any) -> Weights:
    """Returns the weights in that many bits."""
    t = transforms.quantize(bits=strength, pattern=".", **settings.quantize)
    return _through(t, weights)


def ranked(weights: Weights, strength: Any, settings: Any) -> Weights:
    """Returns the weights at that share of their smaller side as their rank.

    What `transforms.factorize` makes of them, with the rank as a mask over singular
    values, so that it may be traced.
    """
    del settings
    found = {}
    for path, w in weights.items():
        u, s, v = jnp.linalg.svd(w.reshape(-1, w.shape[-1]), full_matrices=False)
        kept = jnp.where(jnp.arange(s.size) < rank_of(strength, s.size), s, 0.0)
        found[path] = ((u * kept[None, :]) @ v).reshape(w.shape)
    return found


def rank_of(share: Any, side: int) -> jax.Array:
    """Returns the rank that a share of a layer's smaller side is, at least 1."""
    return jnp.maximum(1, jnp.rint(jnp.float32(share) * side))


def clustered(weights: Weights, strength: Any, settings: Any) -> Weights:
    """Returns the weights with at most that many values among them, layer by layer.

    What `transforms.share` makes of them, with places for as many values as the
    largest strength has, so that the number of those that are used may be traced.
    """
    how = settings.share
    key, most = jax.random.key(how.seed), max(settings.strengths.clusters)
    found = {}
    for path, w in weights.items():
        table, indices, _ = transforms.cluster(
            w.reshape(-1),
            jnp.int32(strength),
            key,
            how.iterations,
            most=most,
            start=how.start,
        )
        found[path] = table[indices].reshape(w.shape)
    return found


def _through(t: transforms.Transform, weights: Weights) -> Weights:
    """Returns what the network sees of the weights under a technique."""
    nested = tree.unflatten(dict(weights))
    return tree.flatten(t.decode(*t.encode(nested)))


# Technique -> (weights, strength, the config) -> weights. In the config, `strengths`
# has a tuple of the same name.
TECHNIQUES: dict[str, Callable[[Weights, Any, Any], Weights]] = {
    "sparsity": pruned,
    "bits": rounded,
    "rank": ranked,
    "clusters": clustered,
}


def run(config: Any, workdir_path: str) -> dict[str, Any]:
    """Measures every cell; writes and returns `sensitivity.json`."""
    check(config)
    one = finished.load(config.run, config.stage, "sensitivity")
    layers = layers_of(one, config)
    at = workdir.find(workdir_path, config)
    if (at / NAME).exists() and (at / results.PAGE).exists():
        progress.say(f"{at} is finished; this is what it measured")
        return show(files.read_json(at / NAME))
    data = finished.data_of(one)
    split = splits.may_choose(data.validation, "a sensitivity")
    workdir.claim(at, config)
    began = time.perf_counter()
    result = {
        "experiment": config.experiment,
        "config": config.to_dict(),
        "environment": measure.environment(),
        "examples": len(split),
        "layers": [
            {"path": path, "shape": list(w.shape), "params": int(w.size)}
            for path, w in layers.items()
        ],
        **measured(one, layers, split, config),
        "seconds": time.perf_counter() - began,
    }
    files.write_json(at / NAME, result)
    result = files.read_json(at / NAME)
    from lib.report import sensitivity  # matplotlib

    sensitivity.write(at, result)
    progress.say(f"report: {at / results.PAGE}")
    return show(result)


def check(config: Any) -> None:
    """Raises a `UserError` for strengths that no technique has."""
    if not config.techniques:
        raise errors.UserError(
            f"sensitivity: techniques is empty; valid: {', '.join(TECHNIQUES)}"
        )
    for name in config.techniques:
        errors.lookup(TECHNIQUES, name, "technique of a sensitivity")
        if not config.strengths[name]:
            raise errors.UserError(f"sensitivity: strengths.{name} is empty")
        for value in config.strengths[name]:
            if name == "bits":
                numerics.check_bits(value, "sensitivity: strengths.bits")
            elif name == "clusters":
                check_clusters(value)
            elif not 0 <= value <= 1 or (name == "rank" and not value):
                least = "above 0" if name == "rank" else "from 0"
                raise errors.UserError(
                    f"sensitivity: strengths.{name} are {least} to 1, got {value}"
                )
    if config.together < 1:
        raise errors.UserError(f"together is at least 1, got {config.together}")


def check_clusters(value: Any) -> None:
    """Raises a `UserError` unless indices of whole bits tell so many values apart."""
    whole = isinstance(value, int) and not isinstance(value, bool)
    if not whole or value not in CLUSTERS:
        raise errors.UserError(
            "sensitivity: strengths.clusters are powers of two from "
            f"{min(CLUSTERS)} to {max(CLUSTERS)}, got {value}"
        )


def layers_of(one: packing.Packed, config: Any) -> dict[str, np.ndarray]:
    """Returns {path: weight} of the leaves that are tried; see `matched`."""
    return matched(tree.flatten(one.params), config)


def matched(flat: Mapping[str, Any], config: Any) -> dict[str, Any]:
    """Returns those of {path: weight}, or shapes of weights, that are tried.

    Raises:
      UserError: the pattern matches nothing, or what is no matrix or kernel.
    """
    found = {path: flat[path] for path in tree.match((config.pattern,), flat)}
    for path, w in found.items():
        if w.ndim < 2:
            raise errors.UserError(
                f"sensitivity: {path} has shape {tuple(w.shape)}, expected matrices or "
                "kernels of convolutions; aim by pattern"
            )
    return found


def measured(
    one: packing.Packed,
    layers: Mapping[str, np.ndarray],
    split: splits.Validation | splits.Train,
    config: Any,
) -> dict[str, Any]:
    """Returns {"base": metrics, "curves": {technique: {"strengths", metrics}}}.

    Metrics are accuracy and loss; those of curves are lists `[layers][strengths]`.
    """
    network, (params, variables, ranges) = stage.network_of(one)
    prepare = pipeline.preparation(packing.inputs(one.about), None)
    batches = [*pipeline.eval_batches(split, config.eval_batch_size)]
    given = jax.device_put((params, variables, ranges))

    def sums(params, variables, ranges, raw):
        batch = prepare(None, raw)
        outputs, _ = network(params, variables, ranges, batch["input"])
        return metrics.classification(outputs, batch)

    def cell_of(technique):
        make = TECHNIQUES[technique]

        def cell(place, strength, given, raw):
            """Returns sums with layer `place` at a strength, the others as they are."""
            params, variables, ranges = given
            flat = tree.flatten(params)
            own = {path: flat[path] for path in layers}
            changed = make(own, strength, config)
            chosen = {
                path: jnp.where(place == i, changed[path], own[path])
                for i, path in enumerate(own)
            }
            return sums(tree.replace(params, chosen), variables, ranges, raw)

        return cell

    base = _means([jax.jit(sums)(*given, raw) for raw in batches])
    curves = {}
    for technique in config.techniques:
        strengths = np.asarray(config.strengths[technique], np.float32)
        places, values = (
            x.reshape(-1)
            for x in np.meshgrid(np.arange(len(layers)), strengths, indexing="ij")
        )
        cells = _cells(cell_of(technique), places, values, given, batches, config)
        shape = (len(layers), len(strengths))
        curves[technique] = {
            "strengths": list(config.strengths[technique]),
            **{k: np.reshape(v, shape).tolist() for k, v in cells.items()},
        }
    return {"base": {k: float(v) for k, v in base.items()}, "curves": curves}


def _cells(
    cell: Callable,
    places: np.ndarray,
    values: np.ndarray,
    given: Any,
    batches: list[Any],
    config: Any,
) -> dict[str, np.ndarray]:
    """Returns metrics, `[cells]` each; `config.together` cells go side by side."""
    together = min(config.together, len(places))
    if together == 1:
        one = jax.jit(cell)
        parts = [
            _means([one(i, s, given, raw) for raw in batches])
            for i, s in zip(places, values, strict=True)
        ]
        return {k: np.stack([p[k] for p in parts]) for k in parts[0]}
    many = jax.jit(jax.vmap(cell, in_axes=(0, 0, None, None)))
    parts = []
    for start in range(0, len(places), together):
        # One shape, one program: the last group is filled up.
        group = np.minimum(np.arange(start, start + together), len(places) - 1)
        found = [many(places[group], values[group], given, raw) for raw in batches]
        parts.append(_means(found))
    return {k: np.concatenate([p[k] for p in parts])[: len(places)] for k in parts[0]}


def _means(parts: list[dict[str, jax.Array]]) -> dict[str, np.ndarray]:
    """Returns accuracy and loss of the sums over batches."""
    total = {
        k: np.sum([np.asarray(p[k], np.float64) for p in parts], axis=0)
        for k in parts[0]
    }
    return {
        "accuracy": total["correct"] / total["count"],
        "loss": total["loss"] / total["count"],
    }


def show(result: dict[str, Any]) -> dict[str, Any]:
    """Prints a table a technique: points lost by layer and strength."""
    from lib.report import rows

    base = result["base"]["accuracy"]
    progress.say(
        f"{result['config']['stage']}: {100 * base:.2f} % of {result['examples']:,} "
        "validation examples; points by layer and strength:"
    )
    for technique, curve in result["curves"].items():
        lines = [[technique, *(f"{s:g}" for s in curve["strengths"])]]
        for layer, found in zip(result["layers"], curve["accuracy"], strict=True):
            name = re.sub("/kernel$", "", layer["path"])
            lines.append([name, *(f"{100 * (a - base):+.2f}" for a in found)])
        progress.say(rows.text(lines))
    return result
