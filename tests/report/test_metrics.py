import math

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib import errors
from lib.report import metrics


def fill(workdir, stage, steps, start=0):
    with metrics.MetricsWriter(workdir) as writer:
        writer.begin(stage, start)
        for step in steps:
            writer.write(stage, step, {"loss": 1 / step})


def steps(workdir):
    found = metrics.read(workdir)
    return {stage: [r["step"] for r in records] for stage, records in found.items()}


def test_records_come_back_by_stage(tmp_path):
    with metrics.MetricsWriter(tmp_path) as writer:
        writer.begin("teacher")
        writer.write("teacher", 1, {"loss": np.float32(0.5), "loss/l2": 0.25})
        # Flushed: a reader sees it while the run goes on.
        assert steps(tmp_path) == {"teacher": [1]}
        writer.begin("student")
        writer.write("student", 10, {"loss": jnp.float32(2), "accuracy": 1})
    assert metrics.read(tmp_path) == {
        "teacher": [{"stage": "teacher", "step": 1, "loss": 0.5, "loss/l2": 0.25}],
        "student": [{"stage": "student", "step": 10, "loss": 2.0, "accuracy": 1.0}],
    }


def test_a_loss_that_is_not_finite_stays_what_it_was(tmp_path):
    with metrics.MetricsWriter(tmp_path) as writer:
        writer.write("a", 1, {"loss": float("nan"), "norm": float("inf")})
    (record,) = metrics.read(tmp_path)["a"]
    assert math.isnan(record["loss"]) and record["norm"] == math.inf
    assert "NaN" not in (tmp_path / "metrics.jsonl").read_text()


def test_a_resumed_stage_has_no_duplicates(tmp_path):
    fill(tmp_path, "teacher", range(1, 11))
    fill(tmp_path, "student", range(1, 8))
    fill(tmp_path, "student", range(6, 11), start=5)
    assert steps(tmp_path) == {
        "teacher": list(range(1, 11)),
        "student": list(range(1, 11)),
    }


def test_a_stage_begun_again_starts_from_nothing(tmp_path):
    fill(tmp_path, "teacher", [1, 2])
    fill(tmp_path, "student", [1, 2, 3])
    fill(tmp_path, "student", [1])
    assert steps(tmp_path) == {"teacher": [1, 2], "student": [1]}


def test_going_back_to_an_earlier_stage_drops_the_later_ones(tmp_path):
    fill(tmp_path, "teacher", [10, 20, 30])
    fill(tmp_path, "student", [10])
    fill(tmp_path, "teacher", [20, 30], start=10)
    assert steps(tmp_path) == {"teacher": [10, 20, 30]}


@given(
    st.lists(st.integers(1, 12), min_size=1, max_size=3), st.data(), st.integers(0, 60)
)
def test_a_killed_and_resumed_log_equals_an_undisturbed_one(
    tmp_path_factory, lengths, data, cut
):
    workdir = tmp_path_factory.mktemp("run")
    names = [f"s{i}" for i in range(len(lengths))]
    whole = {n: list(range(1, m + 1)) for n, m in zip(names, lengths, strict=True)}
    log = workdir / "metrics.jsonl"
    lines = [
        f'{{"stage": "{n}", "step": {s}, "loss": 1.0}}\n'
        for n in names
        for s in whole[n]
    ]
    text = "".join(lines)
    log.write_text(text[: max(0, len(text) - cut)])  # killed within a line
    left = steps(workdir)
    stage = data.draw(st.integers(0, len(names) - 1))
    if any(left.get(n) != whole[n] for n in names[:stage]):
        stage = next(i for i, n in enumerate(names) if left.get(n) != whole[n])
    start = data.draw(st.integers(0, len(left.get(names[stage], []))))
    with metrics.MetricsWriter(workdir) as writer:
        for name in names[stage:]:
            first = start if name == names[stage] else 0
            writer.begin(name, first)
            for step in whole[name][first:]:
                writer.write(name, step, {"loss": 1.0})
    assert log.read_text() == text


def test_a_torn_last_line_is_left_out_and_written_over(tmp_path):
    fill(tmp_path, "a", [1, 2])
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"stage": "a", "st')
    assert steps(tmp_path) == {"a": [1, 2]}
    fill(tmp_path, "a", [3], start=2)
    assert steps(tmp_path) == {"a": [1, 2, 3]}


def test_a_damaged_line_is_named(tmp_path):
    fill(tmp_path, "a", [1, 2, 3])
    path = tmp_path / "metrics.jsonl"
    path.write_text(path.read_text().replace('"step": 2', '"stop": 2'))
    with pytest.raises(errors.UserError, match="metrics.jsonl is damaged: line 2"):
        metrics.read(tmp_path)


def test_nothing_trained_is_nothing_read(tmp_path):
    assert metrics.read(tmp_path) == {}


def test_reserved_names_are_refused(tmp_path):
    with metrics.MetricsWriter(tmp_path) as writer:
        with pytest.raises(ValueError, match="cannot be named 'step'"):
            writer.write("a", 1, {"step": 2})


def test_a_workdir_that_is_a_file_is_one_line(tmp_path):
    (tmp_path / "work").write_text("")
    with pytest.raises(errors.UserError, match="cannot write .*work/metrics.jsonl"):
        metrics.MetricsWriter(tmp_path / "work")


def test_tensorboard_gets_the_same_numbers(tmp_path):
    from tensorboardX.proto import event_pb2

    fill(tmp_path, "teacher", [1, 2, 4])
    (path,) = (tmp_path / "events" / "teacher").iterdir()
    data, seen = path.read_bytes(), []
    while data:  # a record: length u64, its crc u32, the event, its crc u32
        length = int.from_bytes(data[:8], "little")
        event = event_pb2.Event.FromString(data[12 : 12 + length])
        seen += [(event.step, v.tag, v.simple_value) for v in event.summary.value]
        data = data[12 + length + 4 :]
    assert seen == [(1, "loss", 1.0), (2, "loss", 0.5), (4, "loss", 0.25)]
