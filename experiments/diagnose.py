"""Whether a stage overfits or underfits, how it is known, and what to try.

Learning curves over data and model size, and bias and variance over bootstraps along
ladders of settings. What differs in data and seed alone trains side by side, so every
rung is one program. Judged on validation data; the test split is not touched.
"""

import time
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from experiments import check, populations, programs, recipe, remedies, workdir
from lib import errors, files, models, tree
from lib.data import dataset, subsets
from lib.deploy import measure
from lib.diagnosis import bias_variance, fit
from lib.report import progress, results

NAME = "diagnosis.json"


def run(config: Any, workdir_path: str) -> dict[str, Any]:
    """Measures, judges and advises; writes and returns `diagnosis.json`."""
    check_settings(config)
    at = workdir.find(workdir_path, config)
    if (at / NAME).exists() and (at / results.PAGE).exists():
        progress.say(f"{at} is finished; this is what it found")
        return show(files.read_json(at / NAME))
    data = recipe.load_data(config.data)
    workdir.claim(at, config)
    result = {
        "experiment": config.experiment,
        "config": config.to_dict(),
        "environment": measure.environment(),
        **diagnosed(config, data),
    }
    files.write_json(at / NAME, result)
    result = files.read_json(at / NAME)
    from lib.report import diagnosis  # matplotlib

    diagnosis.write(at, result)
    progress.say(f"report: {at / results.PAGE}")
    return show(result)


def check_settings(config: Any) -> None:
    """Raises a `UserError` for what cannot be measured."""
    settings = config.diagnose
    check.settings(config)
    populations.check(config, settings, "diagnose")
    known = [name.replace("/", ".") for name in tree.flatten(config.to_dict())]
    for field, values in (settings.sizes, *settings.ladders):
        if field not in known:
            raise errors.UserError(
                f"diagnose: unknown field {field!r}; {errors.hint(field, known)}"
            )
        if len(values) < 2:
            raise errors.UserError(
                f"diagnose: {field} has a ladder of at least 2 values, got {values}"
            )
        for value in values:
            now = _changed(config, field, value)
            populations.check(now, settings, field)
    if _own(config) not in settings.sizes[1]:
        raise errors.UserError(
            f"diagnose.sizes: expected {settings.sizes[0]}={_own(config)}, which is "
            f"judged, among the values, got {settings.sizes[1]}"
        )
    if not settings.seeds or settings.bootstraps < 2:
        raise errors.UserError(
            "diagnose: expected at least one of seeds and 2 bootstraps, got "
            f"{settings.seeds} and {settings.bootstraps}"
        )
    shares = settings.fractions
    ordered = all(a < b for a, b in zip((0.0, *shares), shares, strict=False))
    if not shares or not ordered or shares[-1] != 1:
        raise errors.UserError(
            f"diagnose.fractions rise from above 0 to 1, got {shares}"
        )


def _own(config: Any) -> Any:
    """Returns the size of the model that is judged."""
    return tree.get(config.to_dict(), config.diagnose.sizes[0].replace(".", "/"))


def _changed(config: Any, field: str, value: Any) -> Any:
    return programs.changed(config, {field: value})


def diagnosed(config: Any, data: dataset.Dataset) -> dict[str, Any]:
    """Returns the curves, the ladders, the verdict and the remedies."""
    settings, began = config.diagnose, time.perf_counter()
    pool = subsets.pool(data, "a diagnosis")
    true = pool.label
    pool = subsets.noisy(pool, settings.wrong_labels, data.classes, config.seed)
    by_model, ladders = [], []
    compiled: dict[str, populations.Population] = {}

    def trained_of(now: Any) -> populations.Population:
        """Returns the program of a config; curves and ladders meet in some."""
        key = repr(files.plain(now.to_dict()))
        if key not in compiled:
            compiled[key] = populations.Population(now, settings.stage, data, pool)
        return compiled[key]

    trained = trained_of(config)
    _, first = data_runs(config, pool)
    form = trained.chosen(settings.form, first, settings.together)
    by_data = over_data(config, trained, pool, form)
    progress.say(
        f"{len(by_data)} sizes of the data: {time.perf_counter() - began:.1f} s"
    )
    field, values = settings.sizes
    for value in values:
        now = _changed(config, field, value)
        runs = [populations.Run(pool.train, seed) for seed in settings.seeds]
        logits = trained_of(now).logits(runs, settings.together, form)
        point = curve_point(logits, [pool.train] * len(runs), pool)
        by_model.append({"value": value, "size": _params(now, data), **point})
    progress.say(f"{len(values)} models: {time.perf_counter() - began:.1f} s")
    for field, values in settings.ladders:
        rungs = []
        for value in values:
            trained = trained_of(_changed(config, field, value))
            rungs.append({"value": value, **rung(config, trained, pool, true, form)})
        ladders.append({"field": field, "rungs": rungs})
        progress.say(f"{field}: {time.perf_counter() - began:.1f} s")
    verdict = fit.judge(
        [_point(p) for p in by_data],
        [_point(p) for p in by_model],
        list(settings.sizes[1]).index(_own(config)),
        len(pool.validation),
        fit.Thresholds(**settings.thresholds),
    )
    advice = remedies.of(config, settings.stage, verdict, settings.sizes)
    return {
        "seconds": time.perf_counter() - began,
        "examples": {"train": len(pool.train), "validation": len(pool.validation)},
        "verdict": verdict.kind,
        "evidence": list(verdict.evidence),
        "remedies": [one._asdict() for one in advice],
        "by_data": by_data,
        "by_model": by_model,
        "ladders": ladders,
    }


def data_runs(
    config: Any, pool: subsets.Pool
) -> tuple[list[int], list[populations.Run]]:
    """Returns the sizes of the parts of the training examples, and the runs on them."""
    settings, runs = config.diagnose, []
    sizes = [max(1, round(share * len(pool.train))) for share in settings.fractions]
    for seed in settings.seeds:
        sets = subsets.growing(pool.train, pool.label, sizes, seed)
        runs += [populations.Run(members, seed) for members in sets]
    return sizes, runs


def over_data(
    config: Any, trained: populations.Population, pool: subsets.Pool, form: str
) -> list[dict[str, Any]]:
    """Returns a point for each share of the training examples; one population."""
    sizes, runs = data_runs(config, pool)
    logits = trained.logits(runs, config.diagnose.together, form)
    points = []
    for i, size in enumerate(sizes):
        mine = slice(i, None, len(sizes))
        members = [one.members for one in runs[mine]]
        points.append({"size": size, **curve_point(logits[mine], members, pool)})
    return points


def curve_point(
    logits: np.ndarray, members: Sequence[np.ndarray], pool: subsets.Pool
) -> dict[str, Any]:
    """Returns accuracy and loss, learnt from and held out, a list over runs each."""
    point: dict[str, list[float]] = {}
    for said, learnt in zip(logits, members, strict=True):
        for prefix, part in (("train_", learnt), ("", pool.validation)):
            found = populations.judged(said[part], pool.label[part])
            for key, value in found.items():
                point.setdefault(f"{prefix}{key}", []).append(value)
    return point


def rung(
    config: Any,
    trained: populations.Population,
    pool: subsets.Pool,
    true: np.ndarray,
    form: str,
) -> dict[str, Any]:
    """Returns bias and variance of one setting, on validation data.

    Against the `true` labels of the pool, whatever the models learnt from.
    """
    settings = config.diagnose
    drawn = subsets.bootstraps(pool.train, settings.bootstraps, config.seed)
    runs = [populations.Run(one, config.seed + i) for i, one in enumerate(drawn)]
    logits = trained.logits(runs, settings.together, form)[:, pool.validation]
    labels = true[pool.validation]
    shares = np.asarray(jax.nn.softmax(logits, axis=-1))
    hot = np.eye(shares.shape[-1])[labels]
    return {
        "squared": bias_variance.squared(shares, hot)._asdict(),
        "zero_one": bias_variance.zero_one(logits.argmax(-1), labels)._asdict(),
    }


def _params(config: Any, data: dataset.Dataset) -> int:
    module = recipe.build_model(config[config.diagnose.stage].model, data.classes)
    key = jax.eval_shape(lambda: jax.random.key(0))
    params, _ = jax.eval_shape(
        lambda k: models.init(module, k, data.shape, data.inputs.DTYPE), key
    )
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def _point(point: dict[str, Any]) -> fit.Point:
    train, held_out = (np.mean(point[k]) for k in ("train_accuracy", "accuracy"))
    return fit.Point(point["size"], 1 - float(train), 1 - float(held_out))


def show(result: dict[str, Any]) -> dict[str, Any]:
    """Prints the verdict, its evidence and what to try."""
    progress.say(f"verdict: {result['verdict']}")
    for line in result["evidence"]:
        progress.say(f"  {line}")
    for one in result["remedies"]:
        progress.say(f"try {one['override']}  ({one['why']})")
    return result
