"""Post-training quantization, ours and others', of the same weights on one set."""

import importlib.metadata
import pathlib
import time
from typing import Any

import jax
import numpy as np

from experiments import compress, packing, recipe, scoring, stage, targets, workdir
from experiments.benchmarks import ptq_peers
from lib import errors, files
from lib.data import dataset, pipeline
from lib.deploy import measure, onnx_export
from lib.diagnosis import paired
from lib.report import progress

NAME = "benchmark.json"
PAGE = "BENCHMARKS.md"
OURS = "ours"  # the folder of our own run, which may be there already
HEADS = (
    *("method", "bits", "accuracy %", "file bytes"),
    *("class as float %", "right alone: Pare, it", "p"),
)
PACKAGES = ("onnx", "onnxruntime", "qwix")


def run(config: Any, workdir_path: str) -> dict[str, Any]:
    """Quantizes by all contenders; writes and returns `benchmark.json`.

    Leaves `BENCHMARKS.md` beside it, a table to be copied.
    """
    check(config)
    at = workdir.claim(workdir_path, config)
    if (at / NAME).exists() and (at / PAGE).exists():
        progress.say(f"{at} is finished; this is what it measured")
        return show(files.read_json(at / NAME))
    compress.run(config.ours, str(at / OURS))
    data = recipe.load_data(config.ours.data)
    rows = ours(config, data, at)
    job = start(config, data, at)
    if config.integers:
        rows.append(in_integers(config, data, at))
    for name in config.peers:
        kind = ptq_peers.PEERS[name]
        rows.append(peer(name, kind, job, data, config.ours.eval_batch_size))
        progress.say(" | ".join(cells(rows[-1])[:4]))
    compare(rows)
    result = {
        "experiment": config.experiment,
        "config": config.to_dict(),
        "environment": environment(),
        "rows": rows,
    }
    files.write_json(at / NAME, result)
    files.write_text(at / PAGE, markdown(result))
    return show(files.read_json(at / NAME))


def check(config: Any) -> None:
    """Raises a `UserError` for peers or stages that are not there."""
    for name in config.peers:
        errors.lookup(ptq_peers.PEERS, name, "peer")
    if config.integers:
        targets.check(("onnx_int8",), "config.integers")
    stages = dict.fromkeys(config.ours.stages)
    named = [name for name, _, _ in config.rows]
    for name in (config.dense, *named, *filter(None, (config.integers,))):
        errors.lookup(stages, name, "stage of config.ours")


def ours(config: Any, data: dataset.Dataset, at: pathlib.Path) -> list[dict[str, Any]]:
    """Returns the rows of our own stages, each measured from its packed file."""
    rows = []
    for name, title, bits in config.rows:
        path = workdir.artifact_path(at / OURS, name)
        network, bound = stage.network_of(packing.load(path))
        made = ptq_peers.Made(
            jax.jit(lambda x, f=network, b=bound: f(*b, x)[0][0]), path
        )
        found = measured(made, data, config.ours.eval_batch_size)
        rows.append({"name": name, "title": title, "bits": bits, "absent": "", **found})
    return rows


def start(config: Any, data: dataset.Dataset, at: pathlib.Path) -> ptq_peers.Job:
    """Returns what the peers start from: our float stage, our calibration images."""
    one = packing.load(workdir.artifact_path(at / OURS, config.dense))
    batches = scoring.batches(config.ours, data, config.batch_size, config.batches)
    return ptq_peers.Job(
        module=recipe.build_model(one.about["model"], one.about["classes"]),
        params=one.params,
        variables=one.variables,
        batches=[np.asarray(batch["input"]) for batch in batches],
        at=at,
    )


def in_integers(config: Any, data: dataset.Dataset, at: pathlib.Path) -> dict[str, Any]:
    """Returns the row of a stage as an int8 file that ONNX Runtime runs."""
    one = packing.load(workdir.artifact_path(at / OURS, config.integers))
    module = recipe.build_model(one.about["model"], one.about["classes"])
    rounded = packing.network(one.about, module)
    plain = rounded._replace(rules=())

    def logits(params, images):
        return plain(params, one.variables, {}, images)[0][0]

    path = at / f"{config.integers}.int8.onnx"
    onnx_export.export_int8(
        logits,
        one.frozen,
        data.example,
        ranges=one.ranges,
        rules=rounded.rules,
        points=rounded.points,
        path=path,
    )
    found = measured(ptq_peers.run_file(path), data, config.ours.eval_batch_size)
    titles = {name: (title, bits) for name, title, bits in config.rows}
    title, bits = titles[config.integers]
    title = f"{title}: int8 file in ONNX Runtime"
    return {"name": path.name, "title": title, "bits": bits, "absent": "", **found}


def peer(
    name: str,
    kind: ptq_peers.Kind,
    job: ptq_peers.Job,
    data: dataset.Dataset,
    batch_size: int,
) -> dict[str, Any]:
    """Returns one peer's row; where it takes no part, `absent` says why."""
    title, bits, make = kind
    row = {"name": name, "title": title, "bits": bits, "absent": ""}
    try:
        found = measured(make(job), data, batch_size)
    except ImportError as e:
        found = {"absent": f"not installed: {e.name}"}
    except Exception as e:  # what a peer raises is part of the comparison
        found = {"absent": f"{type(e).__name__}: {(str(e).splitlines() or [''])[0]}"}
    return {"accuracy": None, "file_bytes": None, **row, **found}


def measured(
    made: ptq_peers.Made, data: dataset.Dataset, batch_size: int
) -> dict[str, Any]:
    """Returns accuracy over the whole test split, and the length of the file.

    And `guess` and `right`, an array over the images each, for `compare`.
    """
    prepare = pipeline.preparation(data.inputs, None)
    guess, right = [], []
    for raw in pipeline.eval_batches(data.test, batch_size):
        kept = raw["weight"] > 0
        images = np.asarray(prepare(None, raw)["input"])
        guess.append(np.asarray(made.logits(images)).argmax(-1)[kept])
        right.append(guess[-1] == raw["label"][kept])
    right = np.concatenate(right)
    return {
        "accuracy": int(right.sum()) / len(data.test),
        "file_bytes": made.path.stat().st_size,
        "guess": np.concatenate(guess),
        "right": right,
    }


def compare(rows: list[dict[str, Any]]) -> None:
    """Puts comparisons of the same images into the rows, in place of the guesses.

    `as_float`: the share of images that are given the class of the first row.
    `paired`: McNemar's test between the first row of the same bits and this one; None
    in that first row.
    """
    first: dict[str, np.ndarray] = {}
    floats = rows[0]["guess"]
    for row in rows:
        guess, right = row.pop("guess", None), row.pop("right", None)
        row["as_float"] = row["paired"] = None
        if guess is None:
            continue
        row["as_float"] = float((guess == floats).mean())
        if row["bits"] in first:
            row["paired"] = paired.mcnemar(first[row["bits"]], right)._asdict()
        first.setdefault(row["bits"], right)


def environment() -> dict[str, Any]:
    """Returns the machine, the versions, and the day."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = None
    date = time.strftime("%Y-%m-%d", time.gmtime())
    return {**measure.environment(), **versions, "date": date}


def cells(row: dict[str, Any]) -> list[str]:
    """Returns the texts of one row of the table."""
    if row["absent"]:
        return [row["title"], row["bits"], row["absent"], *("-",) * (len(HEADS) - 3)]
    accuracy, size = f"{100 * row['accuracy']:.2f}", f"{row['file_bytes']:,}"
    same, test = row.get("as_float"), row.get("paired")
    return [
        *(row["title"], row["bits"], accuracy, size),
        "-" if same is None else f"{100 * same:.2f}",
        f"{test['first']}, {test['second']}" if test else "-",
        f"{test['p']:.2g}" if test else "-",
    ]


def markdown(result: dict[str, Any]) -> str:
    """Returns the page; every number in it comes from `result`."""
    about, config = result["environment"], result["config"]
    versions = ", ".join(f"{k} {about[k]}" for k in PACKAGES if about[k])
    images = config["batches"] * config["batch_size"]
    lines = [
        f"# {config['title']}",
        "",
        "    python run.py --config=configs/benchmarks/ptq.py --workdir=DIR",
        "",
        f"Measured {about['date']} on {about['cpu']}, {about['cores']} cores; JAX "
        f"{about['jax']}, {versions}.",
        "",
        f"All start from the same float32 weights, calibrate on the same {images:,} "
        "images of the train split, and are measured on every image of the test split "
        "from the file whose bytes stand beside. `right alone` counts the images that "
        "the first method of the same bits has right and this one has not, and the "
        "other way round; `p` is McNemar's exact test of the two counts.",
        "",
        "| " + " | ".join(HEADS) + " |",
        "| --- | --- | " + " | ".join(["---:"] * (len(HEADS) - 2)) + " |",
        *("| " + " | ".join(cells(row)) + " |" for row in result["rows"]),
    ]
    return "\n".join(lines) + "\n"


def show(result: dict[str, Any]) -> dict[str, Any]:
    """Prints the page and returns the result."""
    print(markdown(result))
    return result
