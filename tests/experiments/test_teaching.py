"""Who teaches a stage, through whole stages of a few steps on the digits."""

import dataclasses
import functools
import json
import pathlib
import shutil

import numpy as np
import pytest
from absl import flags
from ml_collections import config_flags

from configs import common
from experiments import (
    caching,
    check,
    packing,
    recipe,
    scoring,
    stage,
    teaching,
    workdir,
)
from lib import errors, tree
from lib.data import examples
from lib.report import metrics
from tests.train import jobs

# Compiled steps are most of the time: MLPs of a few units.
SMALL = {"one": (6,), "two": (4,), "pupil": (3,)}


@functools.cache
def digits():
    return recipe.load_data(common.base().data)


def config(stages=("one", "two", "pupil"), **changes):
    made = common.base(stages=stages)
    for name in stages:
        made[name] = common.stage(
            model=common.model("mlp", widths=SMALL[name], dropout=0.0),
            steps=4,
            **(changes if name == "pupil" else {}),
        )
    made.log_every = 2
    made.save_every = 2
    made.hint.pairs = (("dense_0", "dense_0"),)
    return made


def train(made, at, names=None, stop=lambda: False):
    """Trains the stages in a folder; returns {stage: its weights}."""
    check.settings(made)
    stages = check.stages(made, digits())
    at = workdir.claim(at, made)
    with metrics.MetricsWriter(at) as writer:
        for one in stages:
            if not workdir.record_path(at, one.name).exists():
                stage.train(made, digits(), one, at, writer, stop)
    return {n: packing.load(workdir.artifact_path(at, n)).params for n in made.stages}


def beside(at, other):
    """Returns a new folder with the teachers that are finished in another."""
    for folder, suffix in (("artifacts", "pare"), ("stages", "json")):
        (at / folder).mkdir(parents=True)
        for name in ("one", "two"):
            file = f"{folder}/{name}.{suffix}"
            shutil.copy(other / file, at / file)
    return at


def never(weights, batch):
    """A teacher that is not asked, because what it would say is on disk."""
    raise AssertionError


def curve(at, term):
    """Returns what a term of the last stage was, as training went."""
    lines = pathlib.Path(at, "metrics.jsonl").read_text().splitlines()

    found = [json.loads(line) for line in lines]
    return [one[term] for one in found if one["stage"] == "pupil" and term in one]


def refused(made, message):
    with pytest.raises(errors.UserError, match=message) as caught:
        check.settings(made)
        check.stages(made, digits())
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_two_teachers_one_cache_and_a_regressor(tmp_path):
    """The step gives the same whether both run in it or their logits are on disk."""
    both = dict(teacher=("one", "two"), objective=("distill",))
    first = tmp_path / "live"
    live = train(config(**both), first)
    made = config(**both, cache=10)
    cached = train(made, beside(tmp_path / "cached", first))
    jobs.close(cached["pupil"], live["pupil"], 1e-5)
    (file,) = (tmp_path / "cached" / "caches").iterdir()

    # A restart reads the file again, and so does another run that is told where.
    other = config(**both, cache=10, cache_path=str(file))
    folder = beside(tmp_path / "other", first)
    for settings, at in ((made, tmp_path / "cached"), (other, folder)):
        data = caching.cached(settings, "pupil", digits(), at, never, None)
        kept = data.train.source.fields["teacher_values"]
        assert kept.shape == (len(data.train), 10)
    # But not of another teacher.
    other.pupil = common.stage(teacher="one", cache=10, cache_path=str(file))
    with pytest.raises(errors.UserError, match="other logits: its teachers"):
        caching.cached(other, "pupil", digits(), folder, never, None)
    # It is known before that it is of these data; what is not, is told before, too.
    check.stages(other, digits())
    other.pupil.cache = 4
    refused(other, f"{file} caches other logits: its k is 10, expected 4")
    other.pupil.cache = 20  # of 10 classes
    check.stages(other, digits())
    fewer = digits()._replace(train=digits().validation)
    with pytest.raises(errors.UserError, match="its examples is 1221, expected 216"):
        check.stages(other, fewer)
    images = dict(digits().train.source.fields)
    images["input"] = images["input"][::-1]
    others = dataclasses.replace(digits().train, source=examples.Arrays(images))
    with pytest.raises(errors.UserError, match="its data is [0-9a-f]{64}, expected "):
        check.stages(other, digits()._replace(train=others))
    file.write_bytes(file.read_bytes()[:-100])
    refused(other, f"{file} is damaged")

    made = config(teacher=("one", "two"), objective=("distill", "hint"))
    made.hint.pairs = (("dense_0", "0/dense_0"), ("dense_0", "1/dense_0"))
    hinted = train(made, beside(tmp_path / "hinted", first))["pupil"]
    assert tree.flatten(hinted).keys() == tree.flatten(live["pupil"]).keys()
    assert all(value > 0 for value in curve(tmp_path / "hinted", "hint"))


def contrasting(**changes):
    """A config whose contrastive term depends on nothing but two counts."""
    made = config(objective=("cross_entropy", "crd"), teacher="one", **changes)
    made.crd.update(pairs=(("logits", "logits"),), negatives="all", size=2)
    made.crd.temperature = 1e9  # all vectors are alike
    return made


def contrast(examples, batch):
    """What the term is then: each of a batch against its N others, both ways.

    h = M / (M + N) of its own, and as much of each other one.
    """
    others = batch - 1
    h = examples / (examples + others)
    return -2 * (np.log(h) + others * np.log(1 - h))


@pytest.mark.slow
def test_the_contrastive_term_counts_the_examples_of_the_run(tmp_path):
    made = contrasting(batch_size=16)
    train(made, tmp_path)
    wanted = contrast(len(digits().train), 16)
    np.testing.assert_allclose(curve(tmp_path, "crd"), wanted, rtol=1e-4)


@pytest.mark.slow
def test_techniques_measure_with_the_count_of_the_run():
    made = contrasting()
    made.pupil.objective = ("crd",)
    made.crd.weight = 1.0
    data, logits = digits(), np.eye(8, 10, dtype=np.float32)
    scene = scoring.scene(
        made,
        made.pupil,
        data,
        lambda *args, **options: ((logits, {}), None),
        ({}, {}, {}),
        lambda taught, batch: (logits, {}),
    )
    batch = {"input": None, "weight": np.ones(8, np.float32), "key": None}
    found = scene.loss({}, batch)
    np.testing.assert_allclose(found, contrast(len(data.train), 8), rtol=1e-4)


@pytest.mark.slow
def test_a_stage_is_taught_by_its_own_average(tmp_path):
    made = config(
        ("pupil",), teacher="self", ema=0.5, objective=("cross_entropy", "distill")
    )
    train(made, tmp_path)
    found = curve(tmp_path, "distill")
    assert len(found) == 2 and 0 <= found[0] < found[1]


def typed(default, written):
    """Returns the pupil's settings, whose teacher a command line overrides."""
    made, found = config(), flags.FlagValues()
    with made.pupil.ignore_type():
        made.pupil.teacher = default
    argv = ["run.py", f"--config.pupil.teacher={written}"]
    config_flags.DEFINE_config_dict("config", made, flag_values=found, sys_argv=argv)
    found(argv)
    return found.config.pupil


@pytest.mark.parametrize(
    ("written", "several"),
    [
        ("", ()),
        ("one", ("one",)),
        ("one,two", ("one", "two")),
        ("two, one", ("two", "one")),
        ("('one','two')", ("one", "two")),
        ('("one", "two",)', ("one", "two")),
        ("['one', 'two']", ("one", "two")),
        ("one,two,one", ("one", "two", "one")),
    ],
)
@pytest.mark.parametrize("default", ["", "one", ("one", "two")])
def test_a_command_line_names_one_teacher_or_several(default, written, several):
    """Whatever the config has there; as run.py parses it."""
    pupil = typed(default, written)
    assert teaching.names(pupil) == several and not teaching.itself(pupil)
    teaching.check("pupil", pupil, ("one", "two"))


@pytest.mark.parametrize("default", ["", "one", ("one", "two")])
def test_a_command_line_names_the_stage_itself(default):
    pupil = typed(default, "self")
    assert teaching.itself(pupil) and teaching.names(pupil) == ()


def test_teachers_that_cannot_be_are_named():
    for teacher in ("one,tow", "('one', 'tow')", ("one", "tow")):
        refused(
            config(teacher=teacher),
            "pupil.teacher 'tow' is no earlier stage; did you mean 'two'",
        )
    refused(config(teacher="self,one"), "pupil.teacher 'self' is no earlier stage")
    refused(config(teacher="self"), "set pupil.ema above 0")
    refused(config(objective=("dkd",)), "pupil: term 'dkd' needs a teacher")


def test_caches_that_cannot_be_are_named():
    refused(config(cache=-1), "pupil.cache is at least 0")
    refused(config(cache_path="x"), "pupil.cache_path is set, but pupil.cache is 0")
    refused(config(cache=3), "pupil.teacher is ''")
    refused(config(cache=3, teacher="self", ema=0.9), "pupil.teacher is 'self'")
    objective = ("cross_entropy", "hint")
    made = config(cache=3, teacher="one", objective=objective)
    refused(made, "term 'hint' reads the teacher's features, .*set pupil.cache=0")
    made = config(cache=3, teacher="one", augment=("mixup",))
    refused(made, "mixup mixes examples, .*set pupil.cache=0")


def test_where_no_cache_can_be_written_is_told_before_anything_runs(tmp_path):
    (tmp_path / "file").write_text("mine")
    made = config(cache=3, teacher="one")
    for path, message in (
        ("/proc/pare/x", "cannot write /proc/pare/x: "),
        (str(tmp_path / "file" / "x"), "cannot write .*/file/x: Not a directory"),
        (str(tmp_path), "cannot write .*: it is a folder, expected a file"),
    ):
        made.pupil.cache_path = path
        refused(made, message)
    made.pupil.cache_path = str(tmp_path / "new" / "x")
    check.stages(made, digits())
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_two_stages_with_one_file_are_taught_alike(tmp_path):
    made = config(cache=3, teacher="one", cache_path=str(tmp_path / "x"))
    made.two = made.pupil.copy_and_resolve_references()
    check.stages(made, digits())
    made.two.cache = 4
    refused(made, "pupil.cache_path is that of two, .*: 3 of one, and 4 of one; give")
    made.two.cache = made.pupil.cache = 10
    made.pupil.cache = 12  # all 10, too
    check.stages(made, digits())
    made.pupil.teacher = "one,two"
    refused(made, "pupil.cache_path is that of two, .*: 10 of one, two, and 10 of one;")


def test_features_that_do_not_fit_are_told_before_anything_runs():
    made = config(teacher="one", objective=("hint",))
    made.hint.pairs = (("dense_1", "dense_0"),)
    refused(made, "the student has no feature 'dense_1'; did you mean 'dense_0'")
    made = config(teacher="one", objective=("hidden",))
    made.hidden.update(pairs=(("dense_0", "dense_0"),), projection="identity")
    refused(made, r"'dense_0' \(1, 3\) .* 'dense_0' \(1, 6\) do not fit: widths differ")
    refused(
        config(teacher="one", objective=("dkd",), augment=("cutmix",)), "mixes them"
    )


def test_shapes_that_fit_pass():
    made = config(teacher=("one", "two"), objective=("hint", "crd", "dist"))
    made.hint.pairs = (("dense_0", "1/dense_0"),)
    made.crd.pairs = (("logits", "logits"),)
    check.settings(made)
    assert len(check.stages(made, digits())) == 3


def test_a_teacher_in_a_config_is_one_name_or_several():
    assert common.stage().teacher == ""
    assert common.stage(teacher="one").teacher == "one"
    several = common.stage(teacher=("one", "two"))
    assert several.teacher == "one,two" and several.is_locked
    with pytest.raises(TypeError):
        several.steps = "many"
    np.testing.assert_equal(several.cache, 0)
