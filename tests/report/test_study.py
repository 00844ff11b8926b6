"""The page of a search shows every trial, and its figures are what they say."""

import numpy as np
import pytest

from lib import files
from lib.report import study_page, study_plots
from tests.report.test_html import check
from tests.report.test_plots import texts

OBJECTIVES = [["validation_accuracy", "maximize"], ["file_bytes", "minimize"]]


def trial(number, values, bits, transforms, **more):
    settings = {"quantize.bits": bits, "pruned.transforms": transforms}
    return {
        "number": number,
        "state": "complete",
        "values": values,
        "settings": settings,
        "params": {**settings, "pruned.transforms": repr(transforms)},
        "why": "",
        **more,
    }


def result(objectives=OBJECTIVES):
    trials = [
        trial(0, [0.9, 9000.0], 2, ["prune"]),
        trial(1, [0.98, 30000.0], 8, ["prune", "quantize"]),
        trial(2, None, 4, ["<b>"], state="fail", why="a & b < c"),
        trial(3, [0.85, 9500.0], 3, ["prune"]),
    ]
    for one in trials:
        one["values"] = one["values"] and one["values"][: len(objectives)]
    best = {
        **{"number": 1, "values": trials[1]["values"], "test_accuracy": 0.9722},
        **{"settings": trials[1]["settings"], "config": "best/0001.py"},
    }
    return {
        "experiment": "tune",
        "config": {"tune": {"base": "b.py", "sampler": "tpe", "pruner": "none"}},
        "environment": {},
        "objectives": objectives,
        "fields": ["quantize.bits", "pruned.transforms"],
        "trials": trials,
        "front": [0, 1],
        "best": [best],
        "importance": {
            name: {"quantize.bits": 0.75, "pruned.transforms": 0.25}
            for name, _ in objectives
        },
    }


@pytest.mark.parametrize("objectives", [OBJECTIVES, OBJECTIVES[:1]])
def test_the_page_and_its_figures(objectives, tmp_path):
    made = files.plain(result(objectives))
    page = study_page.write(tmp_path, made).read_text()
    checker = check(page)
    assert "script" not in checker.tags and "<b>" not in page
    for told in ("97.22 %", "best/0001.py", "fail: a & b < c", "3 complete, 1 failed"):
        assert told in checker.text
    figures = {p.stem for p in tmp_path.glob("*.svg")}
    wanted = {"history", "importance", "parallel"}
    assert figures == wanted | ({"front"} if len(objectives) > 1 else set())


def test_a_search_of_one_trial_has_a_page_too(tmp_path):
    made = result() | {"importance": {name: {} for name, _ in OBJECTIVES}}
    made["trials"] = made["trials"][:1]
    checker = check(study_page.write(tmp_path, made).read_text())
    assert "Pareto front" in checker.text and "What mattered" not in checker.text


@pytest.mark.slow
def test_the_figures_show_the_values():
    made = result()
    drawn = study_plots.history(made["trials"], OBJECTIVES)
    accuracy, size = drawn.axes
    np.testing.assert_allclose(accuracy.lines[1].get_ydata(), [90, 98, 98])
    np.testing.assert_allclose(size.lines[1].get_ydata(), [9000, 9000, 9000])
    (axes,) = study_plots.front(made["trials"], OBJECTIVES, [0, 1]).axes
    np.testing.assert_allclose(axes.lines[0].get_ydata(), [85])
    np.testing.assert_allclose(axes.lines[1].get_xydata(), [[9000, 90], [30000, 98]])
    (axes, _) = study_plots.importance(made["importance"]).axes
    assert [bar.get_width() for bar in axes.patches] == [25, 75]
    found = texts(
        study_page.style.svg(
            study_plots.parallel(made["trials"], made["fields"], OBJECTIVES)
        )
    )
    assert found is not None


def test_places_on_an_axis():
    column = [1e-4, 1e-3, 1e-2, 1e-1, 1.0, 2e-4, 5e-2]
    at, ticks = study_plots.places(column)
    expected = (np.log10(column) + 4) / 4
    np.testing.assert_allclose(at, expected, atol=1e-12)
    assert ticks == [(0.0, "0.0001"), (1.0, "1")]
    at, ticks = study_plots.places([0, 10, 20, 30, 40, 50, 60])
    assert at == pytest.approx([i / 6 for i in range(7)])
    at, ticks = study_plots.places(["b", "a", "b"])
    assert at == [1.0, 0.0, 1.0] and ticks == [(0.0, "a"), (1.0, "b")]
    at, ticks = study_plots.places(["(128, 2)", "(32, 8)", "(64, 4)"])
    assert at == [1.0, 0.0, 0.5] and ticks[0] == (0.0, "(32, 8)")
    assert study_plots.places([3, 3])[0] == [0.0, 0.0]
    assert study_plots.places([True, False, True])[0] == [1.0, 0.0, 1.0]


def shown(pairs):
    """Returns the texts in the figure of trials whose two fields vary together."""
    trials = [
        {
            "values": [0.5 + i / 100],
            "params": {"x.size + x.steps": repr(pair)},
            "settings": dict(zip(("x.size", "x.steps"), pair, strict=True)),
        }
        for i, pair in enumerate(pairs)
    ]
    objectives = [["validation_accuracy", "maximize"]]
    drawn = study_plots.parallel(trials, ["x.size + x.steps"], objectives)
    return [note.get_text() for note in drawn.axes[0].texts][: len({*pairs})]


def test_labels_leave_room_for_the_next_axis():
    assert shown([(128, 2), (32, 8), (64, 4)]) == ["32", "64", "128"]
    assert shown([(8, 2), (8, 1)]) == ["(8, 1)", "(8, 2)"]  # the first says too little
    long = "abcdefghijklmnopqrstuvwxyz"
    assert shown([(8, long), (8, "a")]) == ["(8, 'a')", f"(8, '{long[:20]}\u2026"]


@pytest.mark.parametrize("way", ["maximize", "minimize"])
def test_what_is_far_worse_does_not_flatten_the_front(way):
    sign = 1 if way == "maximize" else -1
    values = [sign * v for v in (*np.linspace(0.95, 0.99, 20), 0.1)]
    objectives = [["validation_loss", way], ["macs", "minimize"]]
    trials = [trial(i, [v, 10.0 + i], 2, []) for i, v in enumerate(values)]
    (axes,) = study_plots.front(trials, objectives, [19]).axes
    low, high = sorted(sign * y for y in axes.get_ylim())
    assert 0.9 < low < 0.96 and 0.99 < high < 1.02
    assert "1 of 21 trials" in axes.get_title(loc="left")
    (axes,) = study_plots.front(trials[:20], objectives, [19]).axes
    assert "trials" not in axes.get_title(loc="left")
