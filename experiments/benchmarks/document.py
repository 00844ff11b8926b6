"""What was measured, as `BENCHMARKS.md` and as text for a terminal."""

from collections.abc import Mapping
from typing import Any

from lib.report import formats

COMMAND = "python run.py --config=configs/benchmarks/step.py --workdir=DIR"

HEADS = (
    "contender",
    "ms/step",
    "ratio",
    "quartiles",
    "CPU ratio",
    "to a step a call",
    "bound",
)

NAMES = {
    "plain": "plain, scanned",
    "stepwise": "plain, a step a call",
    "dense": "Pare, dense",
    "prune": "Pare, prune",
    "quantize": "Pare, quantize",
    "qwix": "qwix",
    "aqt": "AQT",
}


def cells(model: Mapping[str, Any]) -> list[list[str]]:
    """Returns the texts of one model's table, a list a contender."""
    body = []
    for row in model["rows"]:
        name = NAMES[row["name"]]
        if row["absent"]:
            body.append([name, row["absent"], *[formats.MISSING] * 5])
            continue
        ratio, stepwise, bound = row["ratio"], row["stepwise_ratio"], row["bound"]
        body.append(
            [
                name,
                formats.milliseconds(row["ms"]["median"]),
                f"{ratio['median']:.3f}",
                f"{ratio['low']:.3f} to {ratio['high']:.3f}",
                f"{row['cpu_ratio']['median']:.3f}",
                f"{stepwise['median']:.3f}" if stepwise else formats.MISSING,
                f"{bound:.2f}" if bound else formats.MISSING,
            ]
        )
    return body


def about(model: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    """Returns one line on what was run."""
    call = model["steps_per_call"]
    how = "one step a call" if call == 1 else f"{call} steps a call (lax.scan)"
    return (
        f"{model['parameters']:,} parameters, batch {config['batch_size']}, {how}, "
        f"{config['rounds']} rounds of {model['steps']} steps"
    )


def text(result: Mapping[str, Any]) -> str:
    """Returns all tables in plain text, columns aligned."""
    lines = []
    for model in result["models"]:
        lines += ["", f"{model['title']}: {about(model, result['config'])}"]
        table = [list(HEADS), *cells(model)]
        widths = [max(len(row[i]) for row in table) for i in range(len(HEADS))]
        for row in table:
            padded = [c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True)]
            lines.append("  ".join([row[0].ljust(widths[0]), *padded]).rstrip())
    return "\n".join(lines[1:]) + "\n"


METHOD = """\
How long a training step takes, as a ratio to a loop written by hand in plain JAX,
Flax and optax (`experiments/benchmarks/plain.py`), in the same process, on the same
batches. `pip install -r requirements-bench.txt` puts qwix and AQT beside it; both run
in that same loop.

Each round gives every contender the same number of steps, in an order that rotates.
`ratio` is the median over the rounds of the contender's time over the plain loop's
time in the same round, by the wall clock: what disturbs a machine comes in bursts, so
neighbours in time are compared, and the median leaves out the rounds that a burst hit
on one side only. `quartiles` are of the same ratios, `CPU ratio` is the same median
over the CPU time of the process, `ms/step` is a median too.

The yardstick is written twice: as careful authors do where it pays, with many steps in
one call (`plain, scanned`; `ratio` and `CPU ratio` are to this one), and as nearly all
loops are written, a jitted step a call from Python (`plain, a step a call`; the column
of that name is the median ratio to it, and `bound` is what we aim at there).

Every contender trains with AdamW at {learning_rate:g} and weight decay
{weight_decay:g} on kernels, without clipping, on random images that lie on the device,
gathered by index inside the step, and returns loss and accuracy. Dense training has
the losses of the plain loop. `prune`: cubic schedule towards {sparsity:.0%},
magnitudes layer by layer, masks updated every {every} steps and moving in every round.
`quantize`: 8-bit weights per channel and 8-bit activations on calibrated ranges, at
every contraction. qwix: int8 weights and activations, all contractions. AQT: the same
in dense layers; the two matmuls of attention itself stay in float, and it has no
convolution. A program with a convolution runs one step a call, because XLA's CPU
convolutions are several times slower inside a scan; the others run as many as Pare's
own loop takes.

A dense layer at batch 32 is bound by memory: gradient, optimiser and matmuls pass over
the weights about a dozen times, so each pass that a technique adds shows. Convolutions
and tokens use a weight often enough to hide it.
"""


def markdown(result: Mapping[str, Any]) -> str:
    """Returns the page; every number in it comes from `result`."""
    config, environment = result["config"], result["environment"]
    load = environment["load"]
    versions = ", ".join(
        f"{name} {environment[name]}"
        for name in ("python", "jax", "jaxlib", "flax", "optax", "qwix", "aqtp")
        if environment[name]
    )
    lines = [
        "# Step time",
        "",
        f"    {COMMAND}",
        "",
        f"- Measured {environment['date']} on {environment['cpu']}, "
        f"{environment['cores']} cores, device {environment['device']}.",
        f"- {versions}.",
        f"- Load average before and after: {load[0]:.1f} and {load[1]:.1f}; above "
        f"{environment['cores']}, others were using the machine.",
        "",
        *METHOD.format(**config).splitlines(),
    ]
    for model in result["models"]:
        lines += ["", f"## {model['title']}", "", f"{about(model, config)}.", ""]
        lines.append("| " + " | ".join(HEADS) + " |")
        lines.append("| --- |" + " ---: |" * (len(HEADS) - 1))
        lines += ["| " + " | ".join(row) + " |" for row in cells(model)]
    return "\n".join(lines) + "\n"
