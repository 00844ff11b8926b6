"""Times models beside themselves with channels removed, in every runtime, in turn.

Leaves `shrink.json` and `SHRINK.md`.
"""

import pathlib
import statistics
import time
from typing import Any

import jax
import numpy as np

from experiments import clocks, deployment, shipping, targets, workdir
from experiments.benchmarks import shrink_page
from lib import errors, files, models, shrink
from lib.deploy import measure
from lib.report import progress

ANALYSES = 5  # that are timed of each network
CLASSES = 1000
# name -> settings of the network, of images of ImageNet.
ANALYSED = {
    "ResNet-50": {"name": "imagenet_resnet", "depth": 50},
    "ResNet-152": {"name": "imagenet_resnet", "depth": 152},
}


def run(config: Any, workdir_: str) -> dict[str, Any]:
    """Writes the files, times all of them in one process; returns the result."""
    settings = config.export
    targets.check(settings.targets, "config.export.targets")
    for name in config.names:
        errors.lookup(config.models, name, "model of config.models")
    for name in config.analyse:
        errors.lookup(ANALYSED, name, "network to analyse")
    shipping.check_times(settings)
    at = workdir.claim(workdir_, config)
    result = {
        "experiment": config.experiment,
        "config": config.to_dict(),
        "models": {name: _measured(name, config, at) for name in config.names},
        "analysis": {name: _analysis(name, config.side) for name in config.analyse},
        "environment": measure.environment()
        | targets.versions(settings.targets)
        | {"load": list(measure.load())},
    }
    files.write_json(at / "shrink.json", result)
    result = files.read_json(at / "shrink.json")
    files.write_text(at / "SHRINK.md", shrink_page.markdown(result))
    print(shrink_page.markdown(result))
    return result


def _measured(name: str, config: Any, at: pathlib.Path) -> dict[str, Any]:
    """Returns what was found of each file of one model, whole and cut."""
    settings = config.export
    paths, entries = {}, {}
    for fraction in (0.0, *config.fractions):
        made = deployment.model(config.models[name], config.examples, fraction)
        images = deployment.pixels(made.shape, max(settings.batch_sizes))
        for kind in settings.targets:
            target = targets.TARGETS[kind]
            file = f"{name}_less_{round(100 * fraction)}.{target.suffix}"
            path = at / "artifacts" / file
            path.parent.mkdir(parents=True, exist_ok=True)
            target.write(made, path, images)
            called = f"{kind} less {fraction:.0%}" if fraction else kind
            entries[called] = {
                "kind": kind,
                "fraction": fraction,
                "bytes": path.stat().st_size,
                "same_class_as_jax": deployment.same_class(made, target, path, images),
            }
            paths[called] = (kind, path)
            progress.say(f"wrote {path}")
    times = clocks.times(
        paths,
        [images[:size] for size in settings.batch_sizes],
        threads=settings.threads,
        repeats=settings.repeats,
        warmup=settings.warmup,
    )
    return {called: entries[called] | {"times_ms": times[called]} for called in entries}


def _analysis(name: str, side: int) -> dict[str, Any]:
    """Returns how long it takes to find the groups of a network, traced anew."""
    module = models.build(classes=CLASSES, **ANALYSED[name])
    shape = (side, side, 3)
    images = jax.ShapeDtypeStruct((1, *shape), np.float32)
    params, variables = jax.eval_shape(
        lambda: models.init(module, jax.random.key(0), shape)
    )
    weights = {"params": params, "variables": variables}
    apply = models.make_apply(module)

    def f(weights, images):
        return apply(**weights, images=images, train=False, key=None)[0][0]

    seconds = []
    for _ in range(ANALYSES):
        begun = time.perf_counter()
        groups = shrink.groups(f)(weights, images)
        seconds.append(time.perf_counter() - begun)
    params = jax.tree.leaves(weights["params"])
    return {
        "groups": len(groups.groups),
        "params": sum(int(np.prod(x.shape)) for x in params),
        "seconds": statistics.median(seconds),
        "slowest": max(seconds),
        "n": ANALYSES,
    }
