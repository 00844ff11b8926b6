"""A model, a config and a folder of the user's own, through the whole pipeline."""

import pytest

from lib.deploy import artifact
from lib.report import results
from tests.e2e import runs

MODEL = """
from flax import linen as nn


class Net(nn.Module):
    classes: int
    width: int = 16

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Dense(self.width)(x.reshape((len(x), -1))))
        return nn.Dense(self.classes)(x)
"""
CONFIG = """
from configs import common


def get_config(arg=""):
    config = common.base(stages=("dense", "small"))
    config.dense.model = dict(factory="mine.nets:Net", width=24)
    config.dense.update(steps=60, learning_rate=0.01)
    config.small.update(
        start="dense",
        transforms=("prune", "quantize"),
        program=("fake_quantize",),
        steps=40,
        learning_rate=0.01,
    )
    return common.smoke(config, steps=60)
"""


@pytest.mark.slow
def test_from_a_folder_outside_the_repository(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/nets.py").write_text(MODEL)
    (tmp_path / "config.py").write_text(CONFIG)
    runs.succeed(
        runs.command("run", config="config.py", prune__sparsity=0.8), cwd=tmp_path
    )
    path = tmp_path / "run/artifacts/small.pare"
    label = artifact.metadata(path)["model"]
    assert label == {"factory": "mine.nets:Net", "width": 24}
    dense, small = results.read(tmp_path / "run")["stages"]
    assert dense["size"]["params"] == 64 * 24 + 24 + 24 * 10 + 10
    assert small["size"]["nonzero"] < 0.25 * dense["size"]["params"]
    assert 4 * small["size"]["file_bytes"] < dense["size"]["file_bytes"]
    assert small["metrics"]["accuracy"] > 0.5
