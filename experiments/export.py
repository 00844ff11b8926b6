"""Writes a stage's artifact as ONNX files and measures those: accuracy, bytes, time."""

import functools
import importlib.metadata
import pathlib
import time
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments import packing, recipe, workdir
from lib import errors, files, models, program
from lib.data import dataset, pipeline
from lib.deploy import measure, onnx_export
from lib.report import progress
from lib.train import step

HEADS = ("file", "bytes", "accuracy %", "as JAX %", "float", "integer")
FLOAT, INT8 = "onnx", "int8.onnx"  # what follows the stage's name


def run(config: Any, workdir_: str) -> dict[str, Any]:
    """Exports `config.stage` of `config.run`; writes and returns `export.json`."""
    one, network = _load(config)
    at = pathlib.Path(workdir_)
    # First of all, so that nothing is computed for a folder that cannot be written.
    files.write_json(at / "config.json", config.to_dict())
    data = recipe.load_data(one.about["data"])
    models.check(network.module, one.params, one.variables, data.shape)
    paths, why = write(at, config.stage, one, network, data.shape)
    for name in paths:
        progress.say(f"wrote {at / name}")
    if why:
        progress.say(f"no {config.stage}.{INT8}: {why}")
    found = {
        name: measured(at / name, network.logits(one, rounded), data, config)
        for name, rounded in paths.items()
    }
    times = timed({name: at / name for name in paths}, data, config.latency)
    for name, latency in times.items():
        found[name]["latency_ms"] = latency
    result = {
        "run": str(config.run),
        "stage": config.stage,
        "files": found,
        "int8_left_out": why,
        "environment": measure.environment()
        | {p: importlib.metadata.version(p) for p in ("onnx", "onnxruntime")},
    }
    files.write_json(at / "export.json", result)
    for line in lines(found):
        print(line)
    return result


class Network(NamedTuple):
    """What an artifact's label builds.

    Attributes:
      module: the Linen module.
      rules: by which its activations are rounded.
      prepare: (None, raw batch) -> batch, without augmentation.
    """

    module: Any
    rules: tuple
    prepare: Any

    def plain(self, variables: Any):
        """Returns (params, pixels [N, H, W, C]) -> logits, nothing of it rounded.

        Weights among the params that are products are run factor by factor.
        """
        return functools.partial(self._run, (), variables, {})

    def _run(self, rules, variables, ranges, params, pixels):
        network = program.run_factored(
            step.Network(models.make_apply(self.module), rules)
        )
        images = self.prepare(None, {"image": pixels})["image"]
        return network(params, variables, ranges, images)[0][0]

    def kept(self, one: packing.Packed, shape: tuple[int, ...]) -> Any:
        """Returns the params, as products where two small contractions are cheaper."""
        network = step.Network(models.make_apply(self.module))
        example = jax.ShapeDtypeStruct((1, *shape), np.float32)
        return program.keep_factors(network)(one.frozen, one.variables, {}, example)

    def logits(self, one: packing.Packed, rounded: bool):
        """Returns pixels -> logits by JAX, with the activations rounded or not."""
        rules = self.rules if rounded else ()
        run = jax.jit(functools.partial(self._run, rules))
        return lambda pixels: run(one.variables, one.ranges, one.params, pixels)


def _load(config: Any) -> tuple[packing.Packed, Network]:
    """Returns the artifact that the config names, and its network."""
    for key in ("run", "stage"):
        if not config[key]:
            raise errors.UserError(
                f"export: config.{key} is empty; name a finished one"
            )
    path = workdir.artifact_path(pathlib.Path(config.run), config.stage)
    if path.parent.is_dir():  # else the artifact cannot be read, and says so
        stages = [p.stem for p in sorted(path.parent.glob("*.pare"))]
        errors.lookup(dict.fromkeys(stages), config.stage, f"stage of {config.run}")
    one = packing.load(path)
    return one, Network(
        recipe.build_model(one.about["model"], one.about["classes"]),
        packing.rules(one.about),
        pipeline.preparation(packing.normalisation(one.about), None),
    )


def write(
    at: pathlib.Path,
    stage: str,
    one: packing.Packed,
    network: Network,
    shape: tuple[int, ...],
) -> tuple[dict[str, bool], str]:
    """Returns {file written: its activations are rounded}, and why there is no int8."""
    f = network.plain(one.variables)
    example = jax.ShapeDtypeStruct((1, *shape), np.uint8)
    name = f"{stage}.{FLOAT}"
    onnx_export.export(f, network.kept(one, shape), example, path=at / name)
    if not network.rules:
        return {name: False}, "the stage rounds no activations"
    whole = f"{stage}.{INT8}"
    try:
        onnx_export.export_int8(
            f,
            one.frozen,
            example,
            ranges=one.ranges,
            rules=network.rules,
            path=at / whole,
        )
    except errors.UserError as e:
        return {name: False}, str(e)
    return {name: False, whole: True}, ""


def measured(
    path: pathlib.Path, logits: Any, data: dataset.Dataset, config: Any
) -> dict[str, Any]:
    """Returns what a file does with the whole test split, beside what JAX does."""
    session = onnx_export.session(path)
    correct = same = count = 0
    worst = 0.0
    for raw in pipeline.eval_batches(data.test, config.eval_batch_size):
        kept = raw["weight"] > 0
        (found,) = session.run(None, {"input": raw["image"]})
        expected = np.asarray(logits(raw["image"]))
        guess = found.argmax(-1)
        correct += int((guess == raw["label"])[kept].sum())
        same += int((guess == expected.argmax(-1))[kept].sum())
        worst = max(worst, float(np.abs(found - expected)[kept].max()))
        count += int(kept.sum())
    floats, integers = onnx_export.contractions(path)
    return {
        "file_bytes": path.stat().st_size,
        "accuracy": correct / count,
        "same_class_as_jax": same / count,
        "largest_difference_to_jax": worst,
        "count": count,
        "float_contractions": floats,
        "integer_contractions": integers,
    }


def timed(
    paths: dict[str, pathlib.Path], data: dataset.Dataset, settings: Any
) -> dict[str, dict[str, Any]]:
    """Returns {file: {batch size: its latency}}, one thread, the files in turn."""
    sessions = {name: onnx_export.session(path) for name, path in paths.items()}
    found: dict[str, dict[str, Any]] = {name: {} for name in paths}
    for size in settings.batch_sizes:
        rows = next(pipeline.eval_batches(data.test, size))
        times: dict[str, list[float]] = {name: [] for name in paths}
        for i in range(settings.warmup + settings.repeats):
            for name, session in sessions.items():
                start = time.perf_counter_ns()
                session.run(None, {"input": rows["image"]})
                if i >= settings.warmup:
                    times[name].append((time.perf_counter_ns() - start) / 1e6)
        for name, taken in times.items():
            low, median, high = np.percentile(taken, [25, 50, 75]).tolist()
            found[name][str(size)] = {
                "median": median,
                "low": low,
                "high": high,
                "n": len(taken),
            }
    return found


def lines(found: dict[str, dict[str, Any]]) -> list[str]:
    """Returns the table: a line for each file; times as median (quartiles) in ms."""
    sizes = list(next(iter(found.values()))["latency_ms"])
    table = [(*HEADS, *(f"ms/batch of {size}" for size in sizes))]
    for name, one in found.items():
        times = [one["latency_ms"][size] for size in sizes]
        table.append(
            (
                name,
                f"{one['file_bytes']:,}",
                f"{100 * one['accuracy']:.2f}",
                f"{100 * one['same_class_as_jax']:.2f}",
                str(one["float_contractions"]),
                str(one["integer_contractions"]),
                *(f"{t['median']:.3f} ({t['low']:.3f}-{t['high']:.3f})" for t in times),
            )
        )
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return [
        "  ".join(
            f"{text:>{width}}" if i else f"{text:<{width}}"
            for i, (text, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in table
    ]
