"""Products run factor by factor, and tied weights count once, in what is measured."""

import jax
import numpy as np
import pytest

from configs import common
from configs import evaluate as measuring
from experiments import evaluate
from lib import models, representations, tree
from lib.data import inputs
from lib.deploy import artifact
from tests.train import jobs

ABOUT = {
    "model": {"name": "mlp", "widths": [16, 16, 16]},
    "classes": 10,
    "shape": [8, 8, 1],
    "data": common.base().data.to_dict(),
    "inputs": inputs.to_label(jobs.NORMALISATION),
    "rules": [],
}


def low_rank(u, v):
    return representations.LowRank(representations.Dense(u), representations.Dense(v))


@pytest.mark.slow
def test_factors_and_ties(tmp_path):
    module = models.build("mlp", classes=10, widths=(16, 16, 16))
    params, _ = models.init(module, jax.random.key(0), (8, 8, 1))
    rng = np.random.default_rng(0)
    factors = [rng.normal(size=s).astype(np.float32) for s in ((64, 4), (4, 16))]
    frozen = tree.replace(
        jax.device_get(params),
        {
            "dense_0/kernel": low_rank(*factors),
            # Rank 16 of 16: twice the work, so it is multiplied out.
            "dense_1/kernel": low_rank(
                np.eye(16, dtype=np.float32), factors[0][:16].repeat(4, 1)
            ),
            "dense_2/kernel": representations.Tied("dense_1/kernel"),
        },
    )
    paths = [str(tmp_path / name) for name in ("factored.pare", "dense.pare")]
    artifact.save(paths[0], {"params": frozen}, ABOUT)
    artifact.save(paths[1], {"params": representations.thaw(frozen)}, ABOUT)

    config = measuring.get_config("smoke")
    config.paths = tuple(paths)
    found = evaluate.run(config, str(tmp_path))
    ours, dense = (found[path] for path in paths)
    assert dense["macs"] == 64 * 16 + 16 * 16 + 16 * 16 + 16 * 10
    assert dense["macs"] - ours["macs"] == 64 * 16 - 4 * (64 + 16)
    assert dense["params"] == dense["macs"] + 3 * 16 + 10
    # The factors of the first; those of the second, which is not smaller, once.
    stored = 4 * (64 + 16) + 2 * 16 * 16 + 16 * 10 + 3 * 16 + 10
    assert ours["params"] == stored
    assert abs(ours["loss"] - dense["loss"]) < 1e-3 * dense["loss"]
    assert abs(ours["accuracy"] - dense["accuracy"]) < 0.01
