"""Stages that begin with layers of an earlier stage, or of weights from outside."""

import numpy as np
import pytest

from configs import common
from experiments import check, packing, stage, workdir
from lib import errors, tree
from lib.models import layers
from lib.report import metrics
from tests.experiments import test_preparing

DATA = test_preparing.DATA


def config(**student):
    made = common.base(stages=("teacher", "student"))
    model = dict(width=8, heads=2, expansion=2, patch=2)
    made.teacher = common.stage(
        model=common.model("transformer", layers=3, **model), steps=0, batch_size=8
    )
    made.student = common.stage(
        model=common.model("transformer", layers=2, **model),
        start="teacher",
        layers=(0, 2),
        steps=0,
        batch_size=8,
    )
    made.student.update(student)
    return made


def run(made, at):
    at = workdir.claim(at, made)
    with metrics.MetricsWriter(at) as writer:
        for one in check.stages(made, DATA):
            stage.train(made, DATA, one, at, writer, lambda: False)
    return [packing.load(workdir.artifact_path(at, name)) for name in made.stages]


def same(found, wanted):
    found, wanted = tree.flatten(found), tree.flatten(wanted)
    assert found.keys() == wanted.keys()
    for path, leaf in wanted.items():
        np.testing.assert_array_equal(found[path], leaf)


@pytest.mark.slow
def test_a_student_begins_with_layers_of_its_teacher(tmp_path, capsys):
    made = config()
    teacher, student = run(made, tmp_path / "run")
    same(student.params, layers.take(teacher.params, (0, 2)))
    assert student.about["model"]["layers"] == 2
    assert workdir.origin(made, "student") == "student"
    told = "".join(capsys.readouterr())
    assert "blocks 0, 2 of teacher become its own; fresh: nothing" in told

    # Out of a file, with another head.
    path = tmp_path / "own.npz"
    np.savez(path, **tree.flatten(teacher.params))
    made = config(start="", weights=str(path), layers=(1, 1), fresh="^logits/")
    _, student = run(made, tmp_path / "other")
    want = layers.take(teacher.params, (1, 1))
    assert (student.params["logits"]["kernel"] != want["logits"]["kernel"]).any()
    for one in (student.params, want):
        del one["logits"]
    same(student.params, want)
    assert "fresh: params/logits/bias" in "".join(capsys.readouterr())


@pytest.mark.parametrize(
    ("student", "message"),
    [
        (dict(start=""), "student.layers are of a stage or of weights; set"),
        (dict(layers=(), fresh="^a"), "student.fresh is what weights or layers do not"),
        (dict(unused="^a"), "student.unused is of weights from outside"),
        (dict(layers=(0, -1)), "expected numbers of blocks, from 0"),
        (dict(layers=(0, 1, 2)), "each of the model's 2 blocks"),
        (dict(layers=(0, 3)), "expected blocks of 0, 1, 2, got 3"),
        (dict(model=dict(heads=4)), "Transformer.heads=2, as of the model whose"),
    ],
)
def test_what_does_not_fit_is_told_before_anything_runs(student, message):
    made = config(**student)
    with pytest.raises(errors.UserError, match=message):
        check.settings(made)
        check.stages(made, DATA)


def test_layers_of_a_stage_that_was_cut_are_refused():
    made = config()
    made.teacher.prepare = ("shrink",)
    with pytest.raises(errors.UserError, match="a stage that nothing was cut off"):
        check.stages(made, DATA)
