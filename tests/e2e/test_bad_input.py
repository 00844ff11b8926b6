"""A user's mistake is one line, exit code 2, told before anything is computed."""

import json
import re
import shutil

import pytest

from tests.e2e import runs

pytestmark = pytest.mark.slow


def check(done, *told, trained=False):
    """Asserts that one line on standard error tells what is wrong."""
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("\n") == 1 and done.stderr.startswith("error: ")
    for part in told:
        assert part in done.stderr
    if not trained:  # no stage had begun
        assert not re.search(r": \d+ steps", done.stdout), done.stdout


FLAGS = {
    "unknown config key": (
        ["--config.prune.sparsitty=0.9"],
        ("'prune.sparsitty'", "did you mean 'sparsity'?", "valid: batches, "),
    ),
    "unknown section": (["--config.prun.every=2"], ("'prun.every'", "'prune'?")),
    "key below a number": (["--config.seed.x=1"], ("'seed.x'",)),
    "unknown flag": (["--workdri=x"], ("'workdri'", "Did you mean: workdir")),
    "not a flag": (["extra"], ("unexpected argument 'extra'", "begin with --")),
    "unknown model field": (
        ["--config.teacher.model.widht=3"],
        ("'teacher.model.widht'", "did you mean 'widths'? valid: dropout, name"),
    ),
    "text for a number": (
        ["--config.teacher.steps=many"],
        ("--config.teacher.steps=many", "invalid literal"),
    ),
    "number for a tuple": (
        ["--config.stages=3"],
        ("stage 3 has no settings", "valid: pruned, "),
    ),
}


@pytest.mark.parametrize("name", FLAGS)
def test_flags(name, tmp_path):
    flags, told = FLAGS[name]
    done = runs.refused(runs.command(tmp_path / "run", flags=flags))
    check(done, *told)
    assert not (tmp_path / "run").exists()


CONFIGS = {
    "configs/quickstar.py": ("no config file", "did you mean 'configs/quickstart.py'?"),
    "nowhere/x.py": ("no config file 'nowhere/x.py'", "configs/quickstart.py"),
    "pyproject.toml": ("no config file 'pyproject.toml'",),
    "configs": ("no config file 'configs'",),
    "configs/quickstart.py:smok": ("unknown variant 'smok'", "valid: smoke"),
    "configs/evaluate.py:fast": ("unknown variant 'fast'", "valid: smoke"),
    None: ("--config is missing; see python run.py --help",),
}


@pytest.mark.parametrize("config", CONFIGS)
def test_config_files(config, tmp_path):
    check(runs.refused(runs.command(tmp_path / "run", config)), *CONFIGS[config])


# Settings -> what the line says. They are told by the code that knows what is valid.
SETTINGS = {
    "experiment": (
        {"experiment": "compres"},
        ("unknown experiment 'compres'; did you mean 'compress'?",),
    ),
    "technique": (
        {"pruned__transforms": "('prun',)"},
        ("unknown technique 'prun'; did you mean 'prune'? valid: acdc, adaround, ",),
    ),
    "technique on activations": (
        {"quantized__program": "('fake_quantise',)"},
        ("'fake_quantise'; did you mean 'fake_quantize'?",),
    ),
    "term": (
        {"teacher__objective": "('cross_entropi',)"},
        ("unknown term 'cross_entropi'; did you mean 'cross_entropy'? valid: ",),
    ),
    "no term": ({"teacher__objective": "()"}, ("needs at least one term",)),
    "data set": ({"data__name": "digit"}, ("data set 'digit'; did you mean 'digits'",)),
    "model": (
        {"teacher__model__name": "mpl"},
        ("unknown model 'mpl'; did you mean 'mlp'? valid: cnn, decoder, ",),
    ),
    "field of another model": (
        {"teacher__model__name": "transformer"},
        ("of model 'transformer'", "valid: "),
    ),
    "optimizer": ({"student__optimizer": "adam"}, ("'adam'; did you mean 'adamw'?",)),
    "augmentation": (
        {"teacher__augment": "('shfit',)"},
        ("'shfit'; did you mean 'shift'? valid: colour, crop, cutmix, ",),
    ),
    "schedule": ({"prune__schedule": "cubi"}, ("'cubi'; did you mean 'cubic'?",)),
    "parallel mode": ({"parallel": "pmpa"}, ("'pmpa'; did you mean 'pmap'?",)),
    "sparsity of 1.5": ({"prune__sparsity": 1.5}, ("from 0 to 1, got 1.5",)),
    "first sparsity of -1": ({"prune__initial": -1.0}, ("from 0 to 1, got -1.0",)),
    "9 bits": ({"quantize__bits": 9}, ("from 2 to 8, got 9",)),
    "9 bits of activations": ({"fake_quantize__bits": 9}, ("from 2 to 8, got 9",)),
    "pattern of no weight": (
        {"prune__pattern": "kernal"},
        ("rule 'kernal' matches nothing; nearest of 6: ", "logits/kernel"),
    ),
    "pattern of no site": (
        {"fake_quantize__pattern": "conv"},
        ("rule 'conv' matches nothing; nearest of 3: ",),
    ),
    "pattern that is none": (
        {"prune__pattern": "(kernel"},
        ("pattern '(kernel' is no regular expression",),
    ),
    "no stage": ({"stages": "()"}, ("config.stages is empty",)),
    "unknown stage": (
        {"stages": "('teacher', 'prund')"},
        ("'prund' has no settings; did you mean 'pruned'?",),
    ),
    "setting as a stage": ({"stages": "('seed',)"}, ("stage 'seed' has no settings",)),
    "stage that stands twice": (
        {"stages": "('teacher', 'teacher')"},
        ("stage 'teacher' stands twice",),
    ),
    "teacher that comes later": (
        {"student__teacher": "quantized"},
        ("student.teacher 'quantized' is no earlier stage", "valid: teacher"),
    ),
    "start that is not there": (
        {"pruned__start": "studnet"},
        ("'studnet' is no earlier stage; did you mean 'student'?",),
    ),
    "term without a teacher": (
        {"student__teacher": ""},
        ("student: term 'distill' needs a teacher", "earlier stages: teacher"),
    ),
    "empty batch": ({"teacher__batch_size": 0}, ("batch_size 0 does not split",)),
    "no step": ({"teacher__steps": -1}, ("teacher.steps is at least 0, got -1",)),
    "width of 0": ({"teacher__model__widths": "(0,)"}, ("MLP.widths", "got (0,)")),
    "learning rate of 0": ({"pruned__learning_rate": 0.0}, ("above 0, got 0.0",)),
    "schedule that does not end": (
        {"prune__end": 1.0},
        ("do not complete sparsity=0.9 in a stage of 20 steps", "lower end or every"),
    ),
    "schedule out of the stage": ({"prune__end": 1.5}, ("0 <= begin <= end <= 1",)),
    "images of another size": (
        {"teacher__model__name": "lenet5", "teacher__model__widths": "(2, 2, 2)"},
        ("LeNet5",),
    ),
    "empty split": ({"data__validation_fraction": 0.0001}, ("split of data set",)),
    "no calibration": ({"fake_quantize__batches": 0}, ("at least 1, got 0",)),
    "no timed batch": ({"latency__repeats": 0}, ("repeats", "got 0")),
    "negative seed": ({"seed": -1}, ("seed is at least 0, got -1",)),
    "seed that is too large": ({"seed": 2**31}, ("below 2**31, got 2147483648",)),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_settings(name, tmp_path):
    settings, told = SETTINGS[name]
    workdir = tmp_path / "run"
    check(runs.refused(runs.command(workdir, **settings)), *told)
    # So that, once mended, the same command may use the folder.
    assert not workdir.exists()


def test_a_batch_that_the_devices_do_not_share(tmp_path):
    flag = "--xla_force_host_platform_device_count=3"
    env = {**runs.environment(), "XLA_FLAGS": flag}
    done = runs.run(runs.command(tmp_path / "run"), env=env)
    check(done, "batch_size 32 does not split evenly over 3 devices")


def test_no_workdir():
    check(runs.refused(runs.command(None)), "--workdir is missing; see python run.py")


@pytest.mark.parametrize("name", ["file", "file/run"])
def test_a_workdir_that_is_a_file(name, tmp_path):
    (tmp_path / "file").write_text("mine")
    check(
        runs.refused(runs.command(tmp_path / name)), "cannot write ", f"{name}/config"
    )
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("config", [runs.SMOKE, "configs/evaluate.py:smoke"])
def test_a_workdir_that_cannot_be_written(config, smoke):
    """Below /proc nobody makes a folder, root neither."""
    path = str(smoke[0] / "artifacts" / "pruned.pare")
    paths = {"paths": f"({path!r},)"} if "evaluate" in config else {}
    done = runs.refused(runs.command("/proc/pare", config, **paths))
    check(done, "cannot write /proc/pare/")
    assert "accuracy" not in done.stdout


def test_a_damaged_config_of_a_run(smoke, tmp_path):
    for number, content in enumerate(["", "{", '{"a": 1}', "[]", '{"a/b": 1}', "null"]):
        workdir = tmp_path / str(number)
        workdir.mkdir()
        (workdir / "config.json").write_text(content)
        check(runs.refused(runs.command(workdir)), f"{workdir}")
        assert [p.name for p in workdir.iterdir()] == ["config.json"]
        assert (workdir / "config.json").read_text() == content


def test_a_damaged_result(smoke, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(smoke[0], workdir)
    path = workdir / "result.json"
    for change in (lambda t: t[:1000], lambda t: t.replace('"accuracy"', '"acuracy"')):
        path.write_text(change((smoke[0] / "result.json").read_text()))
        check(runs.refused(runs.command(workdir)), f"{path} is damaged: ")


def damaged(path, how):
    content = bytearray(path.read_bytes())
    if how == "cut":
        content = content[: len(content) // 2]
    elif how == "altered":
        content[len(content) // 2] ^= 1
    elif how == "empty":
        content = b""
    elif how == "something else":
        content = b"no artifact at all\n" * 9
    path.write_bytes(content)


@pytest.mark.parametrize("how", ["cut", "altered", "empty", "something else"])
def test_evaluate_refuses_a_damaged_artifact(how, smoke, tmp_path):
    good = smoke[0] / "artifacts" / "teacher.pare"
    bad = tmp_path / "bad.pare"
    shutil.copy(smoke[0] / "artifacts" / "quantized.pare", bad)
    damaged(bad, how)
    done = runs.refused(
        runs.command(
            tmp_path / "out", "configs/evaluate.py", paths=(str(good), str(bad))
        )
    )
    check(done, f"artifact {bad}")
    assert "accuracy" not in done.stdout  # not even of the good one


@pytest.mark.parametrize(
    "paths, told",
    [
        ("('/nowhere/x.pare',)", "cannot read artifact /nowhere/x.pare"),
        ("()", "config.paths is empty"),
        ("('/tmp',)", "cannot read artifact /tmp"),
    ],
)
def test_evaluate_needs_artifacts(paths, told, tmp_path):
    done = runs.refused(
        runs.command(tmp_path / "out", "configs/evaluate.py", paths=paths)
    )
    check(done, told)


def test_evaluate_refuses_an_artifact_of_something_else(tmp_path):
    """Sound, but not written by a run: it does not say which model it is of."""
    import numpy as np

    from lib.deploy import artifact

    path = tmp_path / "other.pare"
    artifact.save(path, {"params": {"w": np.ones(3, np.float32)}}, {"mine": 1})
    done = runs.run(
        runs.command(tmp_path / "out", "configs/evaluate.py", paths=(str(path),))
    )
    check(done, f"artifact {path}", "model")


@pytest.mark.parametrize("how", ["cut", "altered", "deleted"])
def test_an_artifact_of_a_finished_stage_that_was_changed(how, smoke, tmp_path):
    """The later stages start from it, or learn from it, so they must not go on."""
    workdir = tmp_path / "run"
    shutil.copytree(smoke[0], workdir)
    for name in ("result.json", "stages/pruned.json", "stages/quantized.json"):
        (workdir / name).unlink()
    path = workdir / "artifacts" / "student.pare"
    damaged(path, how) if how != "deleted" else path.unlink()
    before = runs.artifacts(workdir)
    check(runs.refused(runs.command(workdir)), f"artifact {path}")
    assert runs.artifacts(workdir) == before


def test_an_artifact_that_was_changed_before_it_was_measured(smoke, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(smoke[0], workdir)
    (workdir / "result.json").unlink()
    path = workdir / "artifacts" / "teacher.pare"
    damaged(path, "altered")
    done = runs.run(runs.command(workdir))
    check(done, "the packed files could not be measured: ", f"artifact {path}")
    assert not (workdir / "result.json").exists()


def test_damaged_records(smoke, tmp_path):
    """A torn last line is what a power cut leaves; any other is told."""
    workdir = tmp_path / "run"
    shutil.copytree(smoke[0], workdir)
    (workdir / "result.json").unlink()
    path = workdir / "metrics.jsonl"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0][:-5], *lines[1:]]) + "\n")
    check(runs.refused(runs.command(workdir)), f"{path} is damaged: line 1 ")
    path = workdir / "stages" / "pruned.json"
    (workdir / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    path.write_text('{"name": ')
    check(runs.refused(runs.command(workdir)), f"{path} is damaged")


def test_a_run_that_diverges_says_where(tmp_path):
    """It cannot go on: exit code 1, one line, and the checkpoint before is kept."""
    workdir = tmp_path / "run"
    first = runs.command(
        workdir, stages="('teacher',)", teacher__learning_rate=1e30, teacher__clip=0.0
    )
    done = runs.run(first)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1 and done.stderr.startswith("error: ")
    for told in ("at step ", "terms: ", "first leaf: ", "there is no checkpoint yet"):
        assert told in done.stderr
    assert json.loads((workdir / "config.json").read_text())["seed"] == 0
    assert not (workdir / "artifacts").exists()
