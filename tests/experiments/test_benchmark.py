"""The benchmark compares like with like: same batches, same losses, same order."""

import ast
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.benchmarks import step as config_file
from experiments import benchmark
from experiments.benchmarks import contenders, document, plain, rounds
from lib import errors, models

ROOT = pathlib.Path(__file__).parents[2]


def small(*names, **changes):
    config = config_file.get_config("smoke")
    config.models = names
    config.update(changes)
    return config


def job(config, steps):
    module = models.build("mlp", classes=10, widths=(16,))
    params, variables = models.init(module, jax.random.key(0), (8, 8, 1))
    rng = np.random.default_rng(0)
    data = {
        "input": jnp.asarray(rng.integers(0, 256, (64, 8, 8, 1), dtype=np.uint8)),
        "label": jnp.asarray(rng.integers(0, 10, 64, dtype=np.int32)),
    }
    return contenders.Job(module, params, variables, data, config, steps, False)


def test_the_yardstick_knows_nothing_of_pare():
    source = pathlib.Path(plain.__file__).read_text(encoding="utf-8")
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            imported = [name.name for name in node.names]
        elif isinstance(node, ast.ImportFrom):
            imported = [node.module]
        else:
            continue
        tops = {name.split(".")[0] for name in imported}
        assert tops <= {"collections", "jax", "optax", "typing"}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mlp", "cnn", "transformer"])
def test_dense_training_has_the_losses_of_the_yardstick(name):
    found = benchmark.model(small(name, contenders=("plain", "dense")), name)
    by_hand, ours = (np.asarray(row["losses"]) for row in found["rows"])
    assert len(ours) == 3 and len(set(ours)) == 3
    np.testing.assert_allclose(ours, by_hand, rtol=1e-4)
    assert found["steps_per_call"] == (1 if name == "cnn" else 10)


@pytest.mark.slow
def test_masks_follow_the_schedule_while_it_is_timed():
    steps = 40
    config = small("mlp")
    contender = contenders.pruned(job(config, steps))
    index = np.zeros((1, 32), np.int32)
    state, removed = contender.state, []
    for _ in range(steps):
        state, _ = contender.run(state, index)
        (masks,) = state.codec
        removed.append({p: int((~m).sum()) for p, m in masks.items()})
    for t in range(steps):
        last = t // 10 * 10
        wanted = np.float32(0.9 * (1 - (1 - last / (2 * steps)) ** 3))
        for path, size in (("dense_0/kernel", 1024), ("logits/kernel", 160)):
            assert removed[t][path] == int(np.rint(wanted * size))
    assert len({r["dense_0/kernel"] for r in removed}) == 4


@pytest.mark.slow
def test_quantized_training_rounds_and_learns():
    contender = contenders.quantized(job(small("mlp"), 40))
    assert set(contender.state.ranges) == {"MLP/dense_0", "MLP/logits"}
    index = np.arange(32, dtype=np.int32).reshape(1, 32)
    state, losses = contender.state, []
    for _ in range(40):
        state, metrics = contender.run(state, index)
        losses.append(float(metrics["loss"][0]))
    assert losses[-1] < 0.8 * losses[0]
    exact = contenders.hand_written(job(small("mlp"), 40))
    _, metrics = exact.run(exact.state, index)
    assert losses[0] != float(metrics["loss"][0])
    assert losses[0] == pytest.approx(float(metrics["loss"][0]), rel=0.05)


def test_each_round_gives_all_the_same_batches_in_rotating_order():
    seen = []

    def recorder(name):
        def run(state, index):
            seen.append((name, index.tolist()))
            return state + 1, {"loss": jnp.arange(3.0) + state}

        return contenders.Contender(run, 0)

    times = rounds.compare(
        {name: recorder(name) for name in "abc"},
        rounds=3,
        warmup=1,
        calls=2,
        call=3,
        batch_size=5,
        examples=7,
        seed=0,
    )
    order = [name for name, _ in seen[::2]]
    assert "".join(order) == "abc" + "bca" + "cab" + "abc"
    assert [name for name, _ in seen[1::2]] == order
    batches = {name: [b for n, b in seen if n == name] for name in "abc"}
    assert batches["a"] == batches["b"] == batches["c"]
    assert len(batches["a"]) == 8
    assert np.asarray(batches["a"]).shape == (8, 3, 5)
    assert {i for b in batches["a"] for row in b for i in row} == set(range(7))
    for name in "abc":
        assert times[name].wall.shape == times[name].cpu.shape == (3,)
        assert (times[name].wall > 0).all()
        # The loss of the last step of each round's second call.
        assert times[name].losses.tolist() == [3.0, 5.0, 7.0, 9.0]


def test_ratios_are_taken_within_a_round():
    """A burst that slows two whole rounds tenfold does not show in the ratio."""
    plain_ms = np.array([1.0, 1.0, 10.0, 10.0, 1.0])
    times = {
        "plain": rounds.Times(plain_ms, plain_ms, np.zeros(5)),
        "dense": rounds.Times(1.5 * plain_ms, 2 * plain_ms, np.zeros(5)),
    }
    found = benchmark.row("dense", {"dense": 1.03}, times, {})
    assert found["ratio"] == {"median": 1.5, "low": 1.5, "high": 1.5, "n": 5}
    assert found["cpu_ratio"]["median"] == 2.0
    assert found["ms"] == {"median": 1.5, "low": 1.5, "high": 15.0, "n": 5}
    assert found["bound"] == 1.03
    assert found["stepwise_ratio"] is None
    assert benchmark.row("plain", {}, times, {})["bound"] is None
    stepwise = rounds.Times(3 * plain_ms, plain_ms, np.zeros(5))
    found = benchmark.row("dense", {}, times | {"stepwise": stepwise}, {})
    assert found["stepwise_ratio"] == {"median": 0.5, "low": 0.5, "high": 0.5, "n": 5}


def result_of(rows):
    model = {"name": "mlp", "title": "MLP", "parameters": 1210, "rows": rows}
    model |= {"steps": 10, "steps_per_call": 1}
    config = {"batch_size": 32, "rounds": 2, "learning_rate": 1e-3}
    config |= {"weight_decay": 1e-4, "sparsity": 0.9, "every": 10}
    machine = {"cpu": "a CPU", "cores": 2, "device": "cpu", "platform": "Linux"}
    machine |= {"date": "2026-01-02", "load": [0.5, 2.0], "qwix": None, "aqtp": None}
    machine |= dict.fromkeys(("python", "jax", "jaxlib", "flax", "optax"), "1.0")
    return {"models": [model], "config": config, "environment": machine}


def test_the_page_tells_who_took_no_part():
    numbers = {"median": 1.25, "low": 1.0, "high": 1.5, "n": 2}
    rows = [
        {"name": "dense", "absent": "", "ms": numbers, "ratio": numbers}
        | {"cpu_ratio": numbers, "bound": 1.03}
        | {"stepwise_ratio": {"median": 0.75, "low": 0.7, "high": 0.8, "n": 2}},
        {"name": "qwix", "absent": "not installed"},
    ]
    page = document.markdown(result_of(rows))
    assert (
        "| Pare, dense | 1.25 | 1.250 | 1.000 to 1.500 | 1.250 | 0.750 | 1.03 |\n"
        in page
    )
    assert "| qwix | not installed | - | - | - | - | - |\n" in page
    assert "1,210 parameters, batch 32, one step a call, 2 rounds of 10 steps" in page
    assert "2026-01-02 on a CPU, 2 cores" in page and "0.5 and 2.0" in page
    shown = document.text(result_of(rows)).splitlines()
    row = "Pare, dense 1.25 1.250 1.000 to 1.500 1.250 0.750 1.03"
    assert shown[2].split() == row.split()


@pytest.mark.slow
def test_a_run_leaves_its_numbers_and_a_page(tmp_path, capsys):
    config = small("mlp", contenders=("plain", "dense"))
    result = benchmark.run(config, tmp_path / "run")
    on_disk = json.loads((tmp_path / "run" / "benchmark.json").read_text())
    assert on_disk == result
    (model,) = result["models"]
    assert [row["name"] for row in model["rows"]] == ["plain", "dense"]
    assert model["rows"][0]["ratio"] == {"median": 1, "low": 1, "high": 1, "n": 2}
    assert model["parameters"] == 64 * 16 + 16 + 16 * 10 + 10
    page = (tmp_path / "run" / "BENCHMARKS.md").read_text()
    assert f"{model['rows'][1]['ratio']['median']:.3f}" in page
    first = capsys.readouterr().out
    assert benchmark.run(config, tmp_path / "run") == result
    again = capsys.readouterr().out
    assert "is finished" in again and first.endswith(again.partition("\n")[2])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"contenders": ("plain", "qwicks")}, "unknown contender 'qwicks'"),
        ({"contenders": ("dense",)}, "'plain' is what the others are compared with"),
        ({"rounds": 0}, "rounds is at least 1, got 0"),
        ({"examples": 8}, "examples is at least batch_size, got 8 and 32"),
        ({"every": 3}, "mlp.steps is a multiple of every=3"),
        ({"models": ("mlp", "mpl")}, "model 'mpl' has no settings"),
    ],
)
def test_bad_settings_are_refused_before_anything_is_written(
    changes, message, tmp_path
):
    with pytest.raises(errors.UserError, match=message):
        benchmark.run(small("mlp", **changes), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_config_s_bounds_are_of_contenders():
    config = config_file.get_config()
    assert set(config.bounds) <= set(config.contenders) <= set(contenders.CONTENDERS)
    assert set(contenders.CONTENDERS) == set(document.NAMES)
    assert benchmark.check(config) is None
