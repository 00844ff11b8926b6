"""The comparison tells who did what, and who could not and why."""

import functools

import jax
import numpy as np
import pytest

from configs.benchmarks import ptq as config_file
from experiments import benchmark_ptq
from experiments.benchmarks import ptq_peers
from lib import errors, models
from lib.data import dataset, examples, normalise, splits
from lib.models import resnet

SHAPE = (8, 8, 1)


def parts_of(images, labels):
    source = examples.Arrays({"input": images, "label": labels})
    kinds = (splits.Train, splits.Validation, splits.Test)
    return [kind("made", source, 3, SHAPE) for kind in kinds]


def made_data():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (21, *SHAPE), np.uint8)
    labels = rng.integers(0, 3, 21).astype(np.int32)
    plain = normalise.Normalisation((100.0,), (50.0,))
    return dataset.Dataset("made", *parts_of(images, labels), 3, SHAPE, plain)


def test_accuracy_counts_every_test_image_once(tmp_path):
    data = made_data()
    path = tmp_path / "file"
    path.write_bytes(b"seven b")
    pixels = data.test.source.fields["input"]
    seen = []

    def logits(images):
        """Right for the images of even number, read off their pixels."""
        rows = []
        for image in images:
            whole = np.rint(image * 50 + 100).astype(np.uint8)
            (number,) = np.flatnonzero((pixels == whole).all((1, 2, 3)))
            seen.append(int(number))
            label = (data.test.source.fields["label"][number] + number % 2) % 3
            rows.append(np.eye(3)[label])
        return np.asarray(rows)

    found = benchmark_ptq.measured(ptq_peers.Made(logits, path), data, 8)
    guess, right = found.pop("guess"), found.pop("right")
    assert found == {"accuracy": 11 / 21, "file_bytes": 7}
    labels, numbers = data.test.source.fields["label"], np.arange(21)
    np.testing.assert_array_equal(guess, (labels + numbers % 2) % 3)
    np.testing.assert_array_equal(right, numbers % 2 == 0)
    assert sorted(set(seen)) == list(range(21))


def test_a_peer_that_cannot_says_why():
    def refuses(job):
        raise ValueError("no int4 here\nand more")

    def lacks(job):
        import a_package_that_is_not_there  # noqa: F401

    peers = {"refuses": ("A", "W4A8", refuses), "lacks": ("B", "W8A8", lacks)}
    data = made_data()
    rows = [benchmark_ptq.peer(n, kind, None, data, 8) for n, kind in peers.items()]
    assert [benchmark_ptq.cells(row) for row in rows] == [
        ["A", "W4A8", "ValueError: no int4 here", "-", "-", "-", "-"],
        ["B", "W8A8", "not installed: a_package_that_is_not_there", *"----"],
    ]


def test_rows_are_compared_with_the_float_network_and_with_the_first_of_their_bits():
    labels = np.zeros(8, int)
    given = {
        "float": ("float", [0, 0, 0, 0, 0, 0, 1, 2]),
        "ours": ("W8A8", [0, 0, 0, 0, 0, 0, 2, 1]),
        "better": ("W8A8", [0, 0, 0, 0, 0, 0, 0, 1]),
        "worse": ("W8A8", [1, 1, 1, 0, 0, 0, 2, 0]),
        "alone": ("W4A8", [0, 0, 0, 0, 1, 1, 1, 1]),
    }
    rows = [
        {"name": name, "bits": bits, "guess": guess, "right": guess == labels}
        for name, (bits, guess) in (
            (n, (b, np.asarray(g))) for n, (b, g) in given.items()
        )
    ]
    rows.append({"name": "absent", "bits": "W8A8"})
    benchmark_ptq.compare(rows)
    same = {row["name"]: row["as_float"] for row in rows}
    assert same == dict(
        float=1.0, ours=6 / 8, better=6 / 8, worse=3 / 8, alone=5 / 8, absent=None
    )
    tests = {row["name"]: row["paired"] for row in rows}
    none = dict.fromkeys(("float", "ours", "alone", "absent"))
    # Of 1 throw either side has 1: p is 1. Of 4, 3 to 1 or more uneven: 10 of 16.
    assert tests == {
        **none,
        "better": {"first": 0, "second": 1, "p": 1.0},
        "worse": {"first": 3, "second": 1, "p": pytest.approx(10 / 16)},
    }
    assert not any("guess" in row or "right" in row for row in rows)


def test_the_table_holds_what_was_measured():
    row = {"title": "C", "bits": "W8A8", "absent": ""}
    row |= {"accuracy": 0.91725, "file_bytes": 1234567, "as_float": 0.9938}
    row["paired"] = {"first": 31, "second": 12, "p": 0.00512}
    about = {"date": "2026-01-02", "cpu": "a CPU", "cores": 2, "jax": "1.0"}
    about |= {"onnx": "2.0", "onnxruntime": "3.0", "qwix": None}
    config = {"title": "T", "batches": 3, "batch_size": 100}
    page = benchmark_ptq.markdown(
        {"rows": [row], "environment": about, "config": config}
    )
    assert "| C | W8A8 | 91.72 | 1,234,567 | 99.38 | 31, 12 | 0.0051 |\n" in page
    assert "the same 300 images" in page and "qwix" not in page
    assert "2026-01-02 on a CPU, 2 cores" in page


def test_names_are_checked_before_anything_runs(tmp_path):
    config = config_file.get_config("smoke")
    config.peers = ("ort_minmaks",)
    with pytest.raises(errors.UserError, match="unknown peer.*'ort_minmax'"):
        benchmark_ptq.run(config, tmp_path / "run")
    config = config_file.get_config("smoke")
    config.integers = "w8a9"
    with pytest.raises(errors.UserError, match="stage of config.ours 'w8a9'.*'w8a8'"):
        benchmark_ptq.run(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_the_peers_start_from_the_float_network(tmp_path):
    """Both compute nearly what the float network does; 8 bits are not exact."""
    module = resnet.ResNet(classes=3, depth=8, widths=(3, 4, 5))
    params, variables = models.init(module, jax.random.key(0), SHAPE)
    images = np.random.default_rng(1).normal(size=(16, *SHAPE)).astype(np.float32)
    batches = [images[:8], images[8:]]
    job = ptq_peers.Job(module, params, variables, batches, tmp_path)
    apply = jax.jit(functools.partial(models.make_apply(module), train=False, key=None))
    (want, _), _ = apply(params, variables, images)
    made = ptq_peers.PEERS["float"][2](job)
    np.testing.assert_allclose(made.logits(images), want, atol=1e-4)
    spread = np.abs(want).max()
    for name in ("ort_minmax", "ort_percentile"):
        made = ptq_peers.PEERS[name][2](job)
        off = np.abs(made.logits(images) - want).max() / spread
        assert 0 < off < 0.3
        assert made.path.parent == tmp_path
