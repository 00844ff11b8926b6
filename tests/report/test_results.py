import copy
import json

import numpy as np
import pytest

from lib import errors
from lib.report import results


def change(result, path, value):
    """Returns a copy with the value at a path of keys replaced; ... removes it."""
    changed = copy.deepcopy(result)
    node = changed
    for key in path[:-1]:
        node = node[key]
    if value is ...:
        del node[path[-1]]
    else:
        node[path[-1]] = value
    return changed


def test_the_sample_is_valid(samples):
    results.validate(samples.result())


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (["experiment"], ..., r"^experiment is missing"),
        (["environment"], [], r"^environment is \[\], expected a dict"),
        (["stages"], {}, r"^stages is \{\}, expected a list"),
        (["stages"], [], r"^stages is empty"),
        (["stages", 1, "size", "nonzero"], ..., r"^stages\[1\].size.nonzero is missi"),
        (["stages", 1, "size", "params"], 2.0, r"^stages\[1\].size.params is 2.0, exp"),
        (["stages", 0, "size", "macs"], True, r"^stages\[0\].size.macs is True"),
        (["stages", 0, "size", "nonzero"], 266_611, "nonzero is more than params"),
        (["stages", 0, "steps"], -1, r"^stages\[0\].steps is -1, expected a whole"),
        (["stages", 0, "metrics", "accuracy"], 97.5, "expected a fraction between"),
        (["stages", 0, "metrics", "accuracy"], "nan", "accuracy is 'nan'"),
        (["stages", 2, "latency_ms", "batch"], ..., "latency_ms.batch is missing"),
        (["stages", 2, "latency_ms", "low"], 9.0, r"latency_ms.median is not from low"),
        (["stages", 2, "name"], "teacher", r"name 'teacher' stands there twice"),
        (["stages", 2, "baseline_ratio"], {"macs": "2x"}, "baseline_ratio.macs is"),
        (["artifacts", "packed", "bytes"], "19390", r"^artifacts.packed.bytes is '19"),
        (["artifacts", "packed", "latency_ms"], ..., "packed.latency_ms is missing"),
    ],
)
def test_validate_names_the_key(samples, path, value, message):
    with pytest.raises(ValueError, match=message):
        results.validate(change(samples.result(), path, value))


@pytest.mark.parametrize(
    "path",
    [
        ["stages", 0, "latency_ms"],
        ["stages", 0, "size", "macs"],
        ["artifacts", "packed", "accuracy"],
    ],
)
def test_null_says_not_measured(samples, path):
    results.validate(change(samples.result(), path, None))


def test_ratios_are_those_worked_out_by_hand(samples):
    stages = results.ratios(samples.result()["stages"])
    assert [s["name"] for s in stages] == ["teacher", "student", "prune"]
    assert stages[0]["baseline_ratio"] == {
        "file_bytes": 1.0,
        "params": 1.0,
        "nonzero": 1.0,
        "macs": 1.0,
        "latency": 1.0,
        "accuracy": 0.0,
    }
    assert stages[2]["baseline_ratio"] == pytest.approx(
        {
            "file_bytes": 5.3322,
            "params": 5.3322,
            "nonzero": 53.322,
            "macs": 5.345381526,
            "latency": 1.6,
            "accuracy": -1.0,
        }
    )


def test_ratios_that_mean_nothing_are_none(samples):
    stages = samples.result()["stages"]
    stages[1]["latency_ms"]["batch"] = 1  # not the batch of the first stage
    stages[1]["size"]["nonzero"] = 0
    stages[2]["latency_ms"] = None
    stages[2]["size"]["macs"] = None
    _, second, third = (s["baseline_ratio"] for s in results.ratios(stages))
    assert second["latency"] is None and second["nonzero"] is None
    assert third["latency"] is None and third["macs"] is None
    assert third["nonzero"] == pytest.approx(53.322)


def test_ratios_leave_their_argument_alone(samples):
    stages = samples.result()["stages"]
    results.ratios(stages)
    assert stages == samples.result()["stages"]


def test_written_results_come_back_with_ratios(samples, tmp_path):
    result = samples.result()
    result["stages"][0]["size"]["params"] = np.int64(266_610)
    result["stages"][0]["metrics"]["accuracy"] = np.float64(0.975)
    result["stages"][0]["metrics"]["worst"] = float("nan")
    result["config"]["stages"] = ("teacher", "student")
    written = results.write(tmp_path, result)
    assert results.read(tmp_path) == written
    assert written == json.loads((tmp_path / "result.json").read_text())
    ratio = written["artifacts"]["packed"]["baseline_ratio"]
    assert ratio["file_bytes"] == pytest.approx(1_066_440 / 19_390)
    assert ratio["accuracy"] == pytest.approx(-0.28)
    assert "baseline_ratio" not in result["artifacts"]["packed"]


def test_an_invalid_result_is_not_written(samples, tmp_path):
    with pytest.raises(ValueError, match="experiment is missing"):
        results.write(tmp_path, change(samples.result(), ["experiment"], ...))
    assert not list(tmp_path.iterdir())


def test_reading_an_altered_result_is_the_users_mistake(samples, tmp_path):
    results.write(tmp_path, samples.result())
    text = (tmp_path / "result.json").read_text()
    (tmp_path / "result.json").write_text(text.replace('"seconds"', '"secs"'))
    with pytest.raises(errors.UserError, match=r"stages\[0\].seconds is missing"):
        results.read(tmp_path)
