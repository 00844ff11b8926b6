"""Where a stage starts: fresh weights, an earlier stage's, or a file's."""

import numpy as np
import pytest

from configs import common
from experiments import check, packing, stage, workdir
from lib import errors, tree
from lib.models import foreign
from lib.report import metrics
from tests.experiments import test_preparing
from tests.models import test_foreign

DATA = test_preparing.DATA


def config(weights):
    made = common.base(stages=("only",))
    made.only = common.stage(
        model=common.model("resnet", depth=8, widths=(2, 3, 4)),
        weights=str(weights),
        steps=0,
        batch_size=8,
    )
    return made


def weights(tmp_path, **shapes):
    theirs = test_foreign.theirs_of(classes=DATA.classes, channels=1, **shapes)
    return test_foreign.saved(tmp_path, theirs)


def test_a_stage_starts_from_a_file(tmp_path):
    path = weights(tmp_path)
    made = config(path)
    (one,) = check.stages(made, DATA)
    at = workdir.claim(tmp_path / "run", made)
    with metrics.MetricsWriter(at) as writer:
        stage.train(made, DATA, one, at, writer, lambda: False)
    packed = packing.load(workdir.artifact_path(at, "only"))
    wanted = foreign.load(path, one.module, DATA.shape)
    for found, theirs in zip((packed.params, packed.variables), wanted, strict=True):
        for name, x in tree.flatten(theirs).items():
            np.testing.assert_array_equal(tree.get(found, name), x)


def test_what_does_not_fit_is_told_before_anything_runs(tmp_path):
    with pytest.raises(errors.UserError, match="does not fit ResNet"):
        check.stages(config(weights(tmp_path, blocks=2)), DATA)
    with pytest.raises(errors.UserError, match="cannot read .*absent.npz"):
        check.stages(config(tmp_path / "absent.npz"), DATA)
    both = common.base(stages=("dense", "only"))
    both.only.update(start="dense", weights="x.npz")
    with pytest.raises(errors.UserError, match="'dense' and from weights 'x.npz'"):
        check.settings(both)
