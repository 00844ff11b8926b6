"""A grid of settings: one program, and the same numbers in every form of running it."""

import json

import jax
import numpy as np
import pytest

from configs.benchmarks import sweep as config_file
from experiments import programs, recipe, sweep
from experiments.benchmarks import sweep_page
from lib import errors, models
from lib.train import step


def small(**changes):
    config = config_file.get_config("smoke")
    config.swept.model.widths = (16,)
    config.swept.steps = 12
    for key, value in changes.items():
        config.sweep[key] = value
    return config


@pytest.mark.slow
def test_every_form_finds_the_same_and_compiles_once(tmp_path, capsys):
    forms = ("sequential", "vmapped", "compiled")
    result = sweep.run(small(form="sequential", compare=forms), tmp_path)
    assert result["compiled_seconds"] == {}
    assert json.loads((tmp_path / "sweep.json").read_text()) == result
    assert set(result["seconds"]) == set(forms) and len(result["runs"]) == 4
    for one in result["runs"]:
        kernels = 64 * 16 + 16 * 10
        removed = round(one["prune.sparsity"] * 64 * 16) + round(
            one["prune.sparsity"] * 160
        )
        # Biases are not pruned; a few weights round to zero.
        assert 0 < one["nonzero"] <= kernels - removed + 26
    page = (tmp_path / "SWEEP.md").read_text()
    assert "| 0.9 | 8 |" in page and "one program, all runs side by side" in page
    assert sweep.run(small(form="sequential", compare=forms), tmp_path) == result
    assert "is finished" in capsys.readouterr().out


def test_the_page_has_the_times_of_what_is_compiled():
    seconds = {"sequential": 9.0, "sharded": 3.0}
    again = {"sequential": [4.0, 5.0, 8.0], "sharded": [1.0, 2.0, 2.5]}
    rows = sweep_page.times({"seconds": seconds, "compiled_seconds": again})
    assert [row[-1] for row in rows[1:]] == [
        "5.00 (4.00 to 8.00)",
        "2.00 (1.00 to 2.50)",
    ]


@pytest.mark.slow
def test_a_member_is_the_run_that_one_would_write(tmp_path):
    config = small()
    data = recipe.load_data(config.data)
    job = sweep.Job(config, data, sweep.settings_of(config))
    args = job.resident, job.held_out
    swept = job.forms["sequential"](job.members, *args)
    vmapped = job.forms["vmapped"](job.members, *args)
    for (settings, seed), one, other, member in zip(
        sweep.settings_of(config), swept, vmapped, job.members, strict=True
    ):
        now = programs.changed(config, settings)
        module = recipe.build_model(now.swept.model, 10)
        network = step.Network(models.make_apply(module))
        made, _ = recipe.build(now, now.swept, network, None, data.inputs, data.classes)
        params, variables = models.init(module, jax.random.key(seed), data.shape)
        state = step.init(made, params, variables, {})
        fixed = step.Fixed(np.int32(seed), job.resident, None)

        def take(resident, rows):
            batch = {k: v[rows["index"]] for k, v in resident.items()}
            return {**batch, "weight": np.ones(32, np.float32)}

        advance = jax.jit(
            lambda s, r, f, made=made, take=take: step.advance(made, take, s, r, f)
        )
        losses = []
        for i in range(12):
            rows = jax.tree.map(lambda r, i=i: r[i], member.rows)
            state, metrics = advance(state, rows, fixed)
            losses.append(metrics["loss"])
        np.testing.assert_allclose(one.losses, losses, rtol=2e-4)
        np.testing.assert_allclose(other.losses, losses, rtol=2e-4)


def test_augmentations_are_swept_and_what_is_held_out_is_left_as_it_is():
    config = small(fields=("flip.probability",), grid=((0.0, 0.5),))
    config.swept.augment = ("flip", "mixup")
    data = recipe.load_data(config.data)
    job = sweep.Job(config, data, sweep.settings_of(config))
    run = programs.run_of(programs.parts(config, config.sweep.stage, data))
    given = job.members[0], job.resident, job.held_out
    found = jax.eval_shape(run, *given)
    assert found.losses.shape == (12,)


def test_data_on_disk_are_refused(tmp_path):
    config = small()
    config.data.resident_bytes = 0
    with pytest.raises(errors.UserError, match="'digits' is larger than data.resident"):
        sweep.run(config, tmp_path / "new")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"form": "vmaped"}, "unknown form of a sweep 'vmaped'; did you mean"),
        ({"compare": ("serial",)}, "unknown form of a sweep 'serial'"),
        ({"fields": ("prune.sparsty", "quantize.bits")}, "prune.sparsity"),
        ({"fields": ("prune.sparsity",)}, "one tuple of values for each"),
        ({"grid": ((0.5, 1.5), (2,))}, "from 0 to 1, got 1.5"),
        ({"grid": ((0.5,), (9,))}, "from 2 to 8, got 9"),
        ({"seeds": ()}, "sweep.seeds is empty"),
        ({"repeats": 1, "compare": ("compiled",)}, "0 with form 'compiled', got 1"),
    ],
)
def test_a_bad_grid_is_one_line(changes, message, tmp_path):
    with pytest.raises(errors.UserError, match=message):
        sweep.run(small(**changes), tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_forms_that_begin_otherwise_are_an_error():
    losses = np.linspace(2, 1, 10).reshape(2, 5)
    sweep.same(losses, losses * (1 + 5e-3), "vmapped", "compiled")
    other = losses.copy()
    other[1, 3] *= 1.05
    with pytest.raises(errors.RunError, match="run 1 has a loss of .* at step 3"):
        sweep.same(losses, other, "vmapped", "compiled")


def test_patience_without_a_best_is_refused(tmp_path):
    config = small()
    config.swept.patience = 2
    with pytest.raises(errors.UserError, match="patience needs swept.use='best'"):
        sweep.run(config, tmp_path / "out")


@pytest.mark.parametrize(
    "change", [{"weights": "x.npz"}, {"prepare": ("equalize",)}, {"freeze_norm": 0.5}]
)
def test_what_a_sweep_would_leave_out_is_refused(change, tmp_path):
    config = small()
    config.swept.update(change)
    with pytest.raises(errors.UserError, match="starts afresh"):
        sweep.run(config, tmp_path / "out")
    assert not (tmp_path / "out").exists()
