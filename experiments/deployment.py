"""Times models with fresh weights as files of floats and of integers.

Leaves `deployment.json` and `DEPLOYMENT.md`.
"""

import pathlib
from typing import Any

import jax
import numpy as np

from experiments import (
    clocks,
    packing,
    recipe,
    shipping,
    shrinking,
    targets,
    workdir,
)
from experiments.benchmarks import deployment_page
from lib import errors, files, models, program, shrink, transforms
from lib.data import inputs, normalise, pipeline
from lib.deploy import measure
from lib.report import progress, speed
from lib.shrink import scores
from lib.train import step

CLASSES = 10


def run(config: Any, workdir_: str) -> dict[str, Any]:
    """Writes each model's files, compares and times them; returns the result."""
    settings = config.export
    targets.check(settings.targets, "config.export.targets")
    shipping.check_times(settings)
    for kind in settings.targets:
        if kind in ("packed", "safetensors"):
            raise errors.UserError(
                f"deployment: {kind!r} runs as JAX does and has nothing to compare; "
                "leave it out of config.export.targets"
            )
    for name in config.names:
        errors.lookup(config.models, name, "model of config.models")
    at = workdir.claim(workdir_, config)
    found = {}
    for name in config.names:
        progress.say(f"{name}: quantizing and writing")
        made = model(config.models[name], config.examples)
        found[name] = _measured(name, made, config, at)
    result = {
        "experiment": config.experiment,
        "config": config.to_dict(),
        "environment": measure.environment()
        | targets.versions(settings.targets)
        | {"load": list(measure.load())},
        "models": found,
    }
    files.write_json(at / "deployment.json", result)
    result = files.read_json(at / "deployment.json")
    files.write_text(at / "DEPLOYMENT.md", deployment_page.markdown(result))
    print(deployment_page.markdown(result))
    return result


def model(settings: Any, examples: int, fraction: float = 0.0) -> targets.Model:
    """Returns a model with fresh weights in 8 bits, calibrated on random images.

    Args:
      settings: of the model.
      examples: images to calibrate on.
      fraction: of the units of each group that are removed first.
    """
    shape = tuple(settings.shape)
    module = recipe.build_model(settings.model, CLASSES)
    params, variables = models.init(module, jax.random.key(0), shape)
    apply, plan = models.make_apply(module), shrinking.NONE
    if fraction:
        plan = _cut(apply, params, variables, shape, fraction)
        small = shrink.cut(plan, {"params": params, "variables": variables})
        params, variables = small["params"], small["variables"]
        apply = shrinking.resized(apply, plan)
    normalisation = normalise.Normalisation((127.5,) * shape[-1], (64.0,) * shape[-1])
    prepare = pipeline.preparation(normalisation, None)
    quantized = transforms.quantize(bits=8)
    code, state = quantized.encode(params)
    params = quantized.decode(code, state)
    rules = ((".", {"bits": 8, "symmetric": False}),)
    network = step.Network(apply, rules, settings.points)
    batch = prepare(None, {"input": pixels(shape, examples)})["input"]
    ranges = program.calibrate(
        network.apply,
        params,
        [(variables, batch)],
        program.minmax(),
        points=settings.points,
        train=False,
        key=None,
    )
    about = {
        "model": settings.model.to_dict(),
        "classes": CLASSES,
        "shape": list(shape),
        "inputs": inputs.to_label(normalisation),
        "cut": plan.plain(),
    }
    frozen = quantized.freeze(jax.device_get(code), jax.device_get(state))
    packed = packing.Packed(
        *jax.device_get((params, variables, ranges)), frozen=frozen, about=about
    )
    return targets.Model(packed, module, network, prepare)


def _cut(apply, params, variables, shape, fraction) -> shrink.Plan:
    """Returns the plan that removes the units of least L1 norm from each group."""
    weights = {"params": params, "variables": variables}
    images = jax.ShapeDtypeStruct((1, *shape), np.float32)
    f = shrinking.logits(step.Network(apply))
    groups = shrink.groups(f)(weights, images)
    norms = scores.norm(groups, weights)
    return shrink.make(groups, shrink.by_fraction(groups, norms, [(".", fraction)]))


def pixels(shape: tuple[int, ...], count: int) -> np.ndarray:
    """Returns `count` random images."""
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (count, *shape), dtype=np.uint8)


def same_class(
    made: targets.Model, target: targets.Target, path: pathlib.Path, images: np.ndarray
) -> float:
    """Returns the share of images that a file gives the class that JAX gives."""
    output = target.open(path, 1)(images)
    expected = made.logits(rounded=target.rounded)(images)
    return float(np.mean(output.argmax(-1) == expected.argmax(-1)))


def _measured(
    name: str, made: targets.Model, config: Any, at: pathlib.Path
) -> dict[str, Any]:
    """Returns what was found of each file of one model."""
    settings = config.export
    images = pixels(made.shape, max(config.examples, *settings.batch_sizes))
    entries, left_out, paths = {}, {}, {}
    for kind in settings.targets:
        target = targets.TARGETS[kind]
        path = at / "artifacts" / f"{name}.{target.suffix}"
        try:
            target.write(made, path, images)
        except (errors.RunError, errors.UserError) as e:
            left_out[kind] = str(e)
            progress.say(f"no {path.name}: {e}")
            continue
        floats, integers = target.contractions(path)
        entries[kind] = {
            "runtime": target.runtime,
            "bytes": path.stat().st_size,
            "same_class_as_jax": same_class(made, target, path, images),
            "float_contractions": floats,
            "integer_contractions": integers,
        }
        paths[kind] = (kind, path)
    times = clocks.times(
        paths,
        [images[:size] for size in settings.batch_sizes],
        threads=settings.threads,
        repeats=settings.repeats,
        warmup=settings.warmup,
    )
    for kind, entry in entries.items():
        entry["times_ms"] = times[kind]
    against = {kind: targets.TARGETS[kind].against for kind in entries}
    return {
        "artifacts": entries,
        "left_out": left_out,
        "against": against,
        "verdicts": speed.verdicts(entries, against),
    }
