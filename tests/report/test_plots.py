import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib import representations as reps
from lib.report import layer_plots, layers, plots, style

# Few distinct values, so that ties and equal points are common.
POINTS = st.lists(st.tuples(st.integers(1, 6), st.integers(0, 6)), max_size=12)


@given(POINTS)
def test_the_front_is_what_nobody_beats(points):
    def beaten(i):
        (cost, gain), others = points[i], points[:i] + points[i + 1 :]
        better = any(
            c <= cost and g >= gain and (c, g) != (cost, gain) for c, g in others
        )
        return better or points[i] in points[:i]

    naive = sorted(
        (i for i in range(len(points)) if not beaten(i)), key=lambda i: points[i]
    )
    assert plots.pareto(points) == naive


def points(*places):
    return [
        {"name": n, "file_bytes": b, "accuracy": a, "packed": n == "packed"}
        for n, b, a in places
    ]


def texts(svg):
    """Returns all text in an SVG, which has to be well-formed."""
    root = ElementTree.fromstring(svg)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    return "\n".join(
        e.text or "" for e in root.iter("{http://www.w3.org/2000/svg}text")
    )


def test_size_against_accuracy_labels_each_place_once():
    drawn = plots.size_accuracy(
        points(
            ("teacher", 1_066_440, 0.975),
            ("student", 200_000, 0.97),
            ("prune", 200_000, 0.97),
            ("packed", 19_390, 0.9722),
        )
    )
    text = texts(style.inline(drawn, "a", "alt"))
    for label in ("teacher", "student, prune", "packed", "19.4 kB, 97.22 %"):
        assert text.count(label) == 1
    assert "20 kB" in text and "1 MB" in text and "30 kB" not in text


@pytest.mark.parametrize(
    "places",
    [
        [("only", 5000, 0.5)],
        [("a", 5000, 0.5), ("b", 5000, 0.5)],
        [("$a_b$", 0, 0.0), ("<&>", 10**12, 1.0)],
    ],
)
def test_odd_points_are_drawn(places):
    text = texts(style.inline(plots.size_accuracy(points(*places)), "a", "alt"))
    for name, _, _ in places:
        assert name in text


def test_labels_do_not_cover_one_another():
    drawn = plots.size_accuracy(
        points(*((f"stage {i}", 1000 * 2**i, 0.9 + 0.002 * i) for i in range(8)))
    )
    boxes = [t.get_window_extent() for t in drawn.axes[0].texts]
    assert len(boxes) == 8
    for i, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[:i])


def test_curves_name_every_stage(samples):
    names = ["teacher", "student", "prune", "quantize", "fifth", "sixth"]
    curves = {n: samples.curves()["teacher"][: 1 + 5 * i] for i, n in enumerate(names)}
    curves["sixth"][0]["loss"] = float("nan")
    text = texts(style.inline(plots.training(curves), "a", "alt"))
    for name in [*names, "loss", "accuracy", "step"]:
        assert name in text


def test_a_long_curve_is_thinned_to_means():
    x, y = plots._thin(range(1000), [i % 2 for i in range(1000)])
    assert len(x) <= plots.POINTS and len(x) == len(y)
    np.testing.assert_allclose(x[0], np.mean(range(5)))
    np.testing.assert_allclose(y[0], 0.4)
    np.testing.assert_allclose(x[-1], np.mean(range(995, 1000)))


def test_layers_show_their_zeros(samples):
    described = samples.described()
    zero = 100 * (1 - described[0]["nonzero"] / 80)
    bars = texts(style.inline(layer_plots.sparsity(described), "a", "alt"))
    assert "hidden/kernel" in bars and "head/kernel" in bars
    assert f"{zero:.1f} %" in bars and "bias" not in bars
    bins = texts(style.inline(layer_plots.histograms(described), "b", "alt"))
    assert f"4 bits, {zero:.1f} % zeros left out" in bins


def test_only_the_largest_layers_are_drawn():
    described = layers.describe(
        {f"layer_{i:02}": {"kernel": np.ones((i + 1, 2))} for i in range(15)}
    )
    text = texts(style.inline(layer_plots.histograms(described), "a", "alt"))
    assert layer_plots.left_out(described, layer_plots.HISTOGRAMS) == 3
    assert "layer_02" not in text and "layer_03" in text and "layer_14" in text


def test_describe_counts_what_is_kept():
    values = np.array([[1.0, -2.0, 0.0], [3.0, 0.5, 4.0]], np.float32)
    mask = np.array([[True, True, True], [False, True, False]])
    two = reps.Codebook(np.array([[0, 1], [1, 1]], np.uint8), np.array([0.0, 2.0]))
    dense, shared = layers.describe(
        {"a": reps.sparse(mask, reps.Dense(values)), "b": two},
        {"a": values, "b": np.ones((3, 3))},
    )
    counts = dense.pop("histogram")
    assert dense == {
        "path": "a",
        "shape": [2, 3],
        "params": 6,
        "nonzero": 3,
        "bits": 32,
        "representation": "Sparse of Dense",
    }
    assert sum(counts["dense"]) == 5 and sum(counts["packed"]) == 3
    assert counts["edges"][0] == -4 and counts["edges"][-1] == 4
    assert (shared["bits"], shared["nonzero"]) == (1, 3)
    assert shared["histogram"]["dense"] is None  # another shape: nothing to compare


def test_a_layer_of_zeros_is_drawn():
    described = layers.describe({"a": {"kernel": np.zeros((3, 4))}})
    assert "100.0 % zeros" in texts(
        style.inline(layer_plots.histograms(described), "a", "alt")
    )


def test_saved_pictures(tmp_path, samples):
    drawn = layer_plots.sparsity(samples.described())
    assert style.save(drawn, tmp_path / "a.png") == (tmp_path / "a.png").stat().st_size
    data = (tmp_path / "a.png").read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n" and data[-8:-4] == b"IEND"
    assert int.from_bytes(data[16:20], "big") == 1500  # 7.5 inches of 200 dots
    first, second = tmp_path / "a.svg", tmp_path / "b.svg"
    for path in (first, second):
        style.save(layer_plots.sparsity(samples.described()), path)
    ElementTree.parse(first)
    assert first.read_bytes() == second.read_bytes()


def test_figures_of_a_page_share_no_ids_and_no_fixed_colours(samples):
    drawn = layer_plots.sparsity(samples.described())
    one, two = (style.inline(drawn, name, 'a "b" <c>') for name in ("one", "two"))
    ids = [
        {e.get("id") for e in ElementTree.fromstring(svg).iter() if e.get("id")}
        for svg in (one, two)
    ]
    assert ids[0] and not ids[0] & ids[1]
    assert "var(--accent)" in one and style.ACCENT not in one
    assert ElementTree.fromstring(one).get("aria-label") == 'a "b" <c>'


def test_a_script_without_a_font_does_no_harm():
    drawn = plots.size_accuracy(points(("\u6559\u5e2b", 5000, 0.5)))
    assert "\u6559\u5e2b" in texts(style.inline(drawn, "a", "alt"))
