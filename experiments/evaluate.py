"""Measures packed artifacts: accuracy over whole splits, size, MACs, latency.

`compress` runs this in a process of its own, so that what is measured is the file and
nothing that training left in memory.
"""

import functools
import json
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments import packing, recipe
from lib import errors, files, program, representations, tree
from lib.data import dataset, pipeline
from lib.deploy import measure
from lib.report import progress
from lib.train import evaluate, step


def run(config: Any, workdir: str) -> dict[str, Any]:
    """Measures each of `config.paths`; writes and returns `evaluation.json`."""
    if not config.paths:
        raise errors.UserError("evaluate: config.paths is empty; name an artifact")
    packed = {path: packing.load(path) for path in config.paths}
    # First of all, so that nothing is measured for a folder that cannot be written.
    files.write_json(pathlib.Path(workdir) / "config.json", config.to_dict())
    load = functools.cache(lambda key: _data(json.loads(key)))
    network = functools.cache(lambda key: _network(json.loads(key), config))
    found = {}
    for path, one in packed.items():
        about = {k: one.about[k] for k in ("data", "inputs")}
        data = load(json.dumps(about, sort_keys=True))
        found[path] = measured(pathlib.Path(path), one, data, network, config)
        progress.say(
            f"{path}: test accuracy {found[path]['accuracy']:.4f}, "
            f"{found[path]['file_bytes']:,} bytes"
        )
    files.write_json(pathlib.Path(workdir) / "evaluation.json", found)
    return found


class Programs(NamedTuple):
    """A network with what is compiled of it; artifacts that differ in weights share it.

    Attributes:
      module: the Linen module.
      plain: the module under the rules of its activations.
      network: the same, with weights that are products run factor by factor.
      split_metrics: (params, variables, ranges, split) -> metrics.
      logits: ((params, variables, ranges), stored examples [N, ...]) -> [N, classes].
    """

    module: Any
    plain: step.Network
    network: Callable[..., Any]
    split_metrics: Callable[..., dict[str, float]]
    logits: Callable[[Any, np.ndarray], jax.Array]


# What of an artifact's metadata decides how it is run.
_RUNS = ("model", "classes", "rules", "points", "inputs", "cut")


def _data(about: dict[str, Any]) -> dataset.Dataset:
    return recipe.load_data(about["data"], packing.inputs(about))


def _network(about: dict[str, Any], config: Any) -> Programs:
    about = {k: v for k, v in about.items() if v is not None}
    module = recipe.build_model(about["model"], about["classes"])
    plain = packing.network(about, module)
    network = program.run_factored(plain)
    prepare = pipeline.preparation(packing.inputs(about), None)

    @jax.jit
    def logits(weights, stored):
        batch = prepare(None, {"input": stored})
        return network(*weights, batch["input"])[0][0]

    split_metrics = evaluate.make(network, prepare, config.eval_batch_size)
    return Programs(module, plain, network, split_metrics, logits)


def alone(path: pathlib.Path, data: dataset.Dataset, config: Any) -> dict[str, Any]:
    """Returns what was measured of one artifact, in this process.

    Args:
      path: of the artifact.
      data: what it was trained on, with a test split or without.
      config: with the settings of measuring.
    """
    one = packing.load(path)
    return measured(path, one, data, lambda k: _network(json.loads(k), config), config)


def measured(
    path: pathlib.Path,
    one: packing.Packed,
    data: dataset.Dataset,
    network_for: Callable[[str], Programs],
    config: Any,
) -> dict[str, Any]:
    """Returns what was measured of one artifact.

    Of data without a test split, nothing but what is measured on it is missing.
    """
    key = json.dumps({k: one.about.get(k) for k in _RUNS}, sort_keys=True)
    module, plain, network, split_metrics, logits = network_for(key)
    packing.check(one, module, data.shape)
    # Products are multiplied out but where two small contractions are the cheaper.
    keep = program.keep_factors(plain)
    params = keep(one.frozen, one.variables, one.ranges, data.example)
    weights = (params, one.variables, one.ranges)
    tested = {}
    if data.test is not None:
        test = split_metrics(*weights, data.test)
        tested = {k: test[k] for k in ("accuracy", "loss", "count")}
    validation = split_metrics(*weights, data.validation)
    size = config.latency.batch_size
    stored = np.zeros((size, *data.stored.shape[1:]), data.stored.dtype)
    latency = measure.latency(
        logits,
        *jax.device_put((weights, stored)),
        repeats=config.latency.repeats,
        warmup=config.latency.warmup,
    )
    sites = program.sites(network)(*weights, data.example)
    leaves = [representations.of(x) for x in tree.flatten(one.frozen).values()]
    return {
        **tested,
        "validation_accuracy": validation["accuracy"],
        "validation_loss": validation["loss"],
        "file_bytes": path.stat().st_size,
        "params": sum(representations.params(x) for x in leaves),
        "nonzero": sum(representations.nonzero(x) for x in leaves),
        "macs": sum(site.macs for site in sites),
        "latency_ms": {
            "median": latency.median_ms,
            "low": latency.low_ms,
            "high": latency.high_ms,
            "n": latency.n,
            "batch": size,
        },
        "environment": measure.environment(),
    }
