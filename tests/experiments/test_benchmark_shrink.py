"""The benchmark of networks with channels removed: its page, and what it refuses."""

import pytest

from configs.benchmarks import shrink
from experiments import benchmark_shrink
from experiments.benchmarks import shrink_page
from lib import errors
from lib.models.imagenet_resnet import DEPTHS


def entry(kind, fraction, size, *medians):
    times = [
        {"threads": 1, "batch": batch, "n": 9, "median": m, "low": m, "high": m}
        | {"cpu": 2 * m}
        for batch, m in zip((1, 32), medians, strict=True)
    ]
    return {
        "kind": kind,
        "fraction": fraction,
        "bytes": size,
        "same_class_as_jax": 1.0,
        "times_ms": times,
    }


def test_each_file_is_compared_with_the_whole_floats_of_its_runtime():
    entries = {
        "onnx_float32": entry("onnx_float32", 0.0, 1000, 1.0, 8.0),
        "onnx_int8 less 50%": entry("onnx_int8", 0.5, 100, 0.5, 1.0),
        "stablehlo_float32 less 50%": entry("stablehlo_float32", 0.5, 9, 1.0, 1.0),
    }
    (told,) = shrink_page.gains(entries)
    assert told == (
        "onnx_int8 less 50% against onnx_float32: 2.00x at batch 1 (2.00x by CPU "
        "time), 8.00x at batch 32 (8.00x by CPU time); 10.0x smaller"
    )
    about = {"cpu": "a CPU", "python": "3.11", "jax": "0.10.2", "load": [0.5]}
    page = shrink_page.markdown(
        {
            "environment": about,
            "config": {"export": {"repeats": 9}},
            "models": {"small": entries},
            "analysis": {
                "net": dict(groups=2, params=1234, seconds=0.5, slowest=0.75, n=5)
            },
        }
    )
    row = "| onnx_int8 less 50% | 100 | 100.00 | 0.500 (0.500 to 0.500) | 1.00"
    assert row in page
    assert "Finding the 2 groups of net (1,234 parameters)" in page


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"names": ("deploid",)}, "did you mean 'deployed'"),
        ({"analyse": ("ResNet-5",)}, "did you mean 'ResNet-50'"),
    ],
)
def test_unknown_networks_are_errors_before_anything_is_written(
    change, message, tmp_path
):
    config = shrink.get_config("smoke")
    config.update(change)
    with pytest.raises(errors.UserError, match=message):
        benchmark_shrink.run(config, str(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_the_networks_that_are_analysed_are_those_they_are_called_after():
    for name, settings in benchmark_shrink.ANALYSED.items():
        bottleneck, blocks = DEPTHS[settings["depth"]]
        assert bottleneck and f"ResNet-{3 * sum(blocks) + 2}" == name
