"""Cases that overfit and underfit by design are told so, and what to try parses."""

import shlex
import sys

import numpy as np
import pytest
from absl import flags
from ml_collections import config_flags

from configs import diagnose as config_file
from experiments import diagnose, remedies
from lib import errors
from lib.data import dataset, examples, normalise, splits
from lib.diagnosis import fit
from lib.report import diagnosis

WIDTHS = "dense.model.widths"


def config_of(own, other, **stage):
    config = config_file.get_config("smoke")
    config.dense.model.widths = own
    config.dense.batch_size = 16
    config.dense.learning_rate = 1e-2
    config.dense.update(stage)
    config.diagnose.sizes = (WIDTHS, (own, other))
    config.diagnose.ladders = ()
    config.diagnose.fractions = (0.25, 0.5, 1.0)
    config.diagnose.form = "sequential"
    return config


def data_of(label, train=80, validation=400, seed=0):
    """Images of noise; `label(images in [-1, 1], rng)` says their classes."""
    rng = np.random.default_rng(seed)

    def part(kind, count):
        images = rng.integers(0, 256, (count, 4, 4, 1), np.uint8)
        classes = label(images.reshape(count, 16) / 127.5 - 1, rng).astype(np.int32)
        source = examples.Arrays({"input": images, "label": classes})
        return kind("toy", source, 2, (4, 4, 1))

    return dataset.Dataset(
        "toy",
        part(splits.Train, train),
        part(splits.Validation, validation),
        part(splits.Test, 2),
        2,
        (4, 4, 1),
        normalise.Normalisation((127.5,), (73.6,)),
    )


def noisy(x, rng):
    """A line, and a quarter of the labels are wrong: nothing more can be learnt."""
    return (x[:, 0] + x[:, 1] > 0) ^ (rng.random(len(x)) < 0.25)


def product(x, rng):
    """No line is better than chance."""
    return x[:, 0] * x[:, 1] > 0


@pytest.mark.slow
def test_what_overfits_and_underfits_by_design_is_told_so():
    # It holds every wrong label, and a line is as good.
    over = config_of((64,), (), steps=400)
    found = diagnose.diagnosed(over, data_of(noisy))
    assert found["verdict"] == fit.OVERFITS
    assert np.mean(found["by_data"][-1]["train_accuracy"]) > 0.99
    tried = [one["override"] for one in found["remedies"]]
    assert '--config.dense.model.widths="()"' in tried
    assert "--config.dense.model.dropout=0.3" in tried
    # A line, shown a product.
    under = config_of((), (64,), steps=300)
    found = diagnose.diagnosed(under, data_of(product, train=640))
    assert found["verdict"] == fit.UNDERFITS
    assert '--config.dense.model.widths="(64,)"' in [
        one["override"] for one in found["remedies"]
    ]


@pytest.mark.slow
def test_a_run_leaves_a_page_and_says_the_same_again(tmp_path, capsys):
    config = config_file.get_config("smoke")
    config.dense.steps = 4
    config.diagnose.sizes = (WIDTHS, ((8,), (2,)))
    config.dense.model.widths = (8,)
    config.diagnose.form = "sequential"
    result = diagnose.run(config, tmp_path)
    (ladder,) = result["ladders"]
    for rung in ladder["rungs"]:
        parts = rung["squared"]
        assert parts["error"] == pytest.approx(parts["bias"] + parts["variance"])
    page = (tmp_path / "report.html").read_text()
    assert f"dense: {result['verdict']}." in page
    assert "the test split was not touched" in page
    assert page.count("<svg") == 2
    for point in result["by_data"]:
        held_out, train = np.mean(point["accuracy"]), np.mean(point["train_accuracy"])
        assert (
            f"<td>{100 * held_out:.2f}</td><td>{100 * (held_out - train):+.2f}" in page
        )
    assert page == diagnosis.render(result)
    assert diagnose.run(config, tmp_path) == result
    assert "is finished" in capsys.readouterr().out


@pytest.mark.parametrize("kind", [fit.OVERFITS, fit.UNDERFITS, fit.STARVED, fit.FITS])
@pytest.mark.parametrize("changed", [False, True])
def test_every_remedy_is_an_override_that_parses(kind, changed, monkeypatch):
    config = config_file.get_config()
    if changed:
        config.dense.model.dropout = 0.5
        config.dense.weight_decay = 0.01
        config.dense.augment = ("flip",)
    place = 0 if changed else None
    verdict = fit.Verdict(kind, (), place, place)
    found = remedies.of(config, "dense", verdict, config.diagnose.sizes)
    assert bool(found) == (kind != fit.FITS)
    words = [word for one in found for word in shlex.split(one.override)]
    values = flags.FlagValues()
    monkeypatch.setattr(sys, "argv", ["run.py", *words])  # it looks there, too
    config_flags.DEFINE_config_dict("config", config, flag_values=values)
    before = config.to_dict()
    assert values(sys.argv) == ["run.py"]  # every word was taken
    assert (config.to_dict() != before) == bool(found)
    assert len(words) == len(found)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stage": "dens"}, "unknown stage of diagnose 'dens'"),
        ({"fractions": (0.5, 0.2, 1.0)}, "fractions rise from above 0 to 1"),
        ({"fractions": (0.5,)}, "fractions rise from above 0 to 1"),
        ({"sizes": (WIDTHS, ((64,), (0,)))}, "widths"),
        ({"together": 0}, "together is at least 1, got 0"),
        ({"bootstraps": 1}, "2 bootstraps, got"),
        ({"ladders": (("dense.weight_decy", (0, 1)),)}, "dense.weight_decay"),
        ({"ladders": (("dense.weight_decay", (0,)),)}, "at least 2 values"),
        ({"sizes": (WIDTHS, ((8,), (4,)))}, "expected dense.model.widths=.* among"),
    ],
)
def test_a_bad_setting_is_one_line_before_any_compute(changes, message, tmp_path):
    config = config_file.get_config("smoke")
    for key, value in changes.items():
        config.diagnose[key] = value
    with pytest.raises(errors.UserError, match=message):
        diagnose.run(config, tmp_path / "new")
    assert not (tmp_path / "new").exists()
