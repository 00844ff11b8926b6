"""Files of integers against floats: what is refused before anything is written."""

import pytest

from configs.benchmarks import deploy as config_file
from experiments import clocks, deployment
from lib import errors


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"targets": ("packed",)}, "'packed' runs as JAX does"),
        ({"targets": ("onnx_int9",)}, "did you mean 'onnx_int8'"),
        ({"threads": (clocks.cores() + 1,)}, "this process may use"),
        ({"batch_sizes": ()}, "batch_sizes is numbers of at least 1"),
        ({"repeats": 0}, "repeats is at least 1"),
    ],
)
def test_what_cannot_be_timed_is_told_first(change, message, tmp_path):
    config = config_file.get_config("smoke")
    config.export.update(change)
    with pytest.raises(errors.UserError, match=message):
        deployment.run(config, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_unknown_model_is_told_first(tmp_path):
    config = config_file.get_config("smoke")
    config.names = ("mpl",)
    with pytest.raises(errors.UserError, match="did you mean 'mlp'"):
        deployment.run(config, tmp_path / "out")
