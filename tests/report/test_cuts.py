"""What was removed, as the report tells and draws it."""

import xml.etree.ElementTree as ET

from lib.report import cuts, html, results
from tests.report import samples

GROUPS = [
    {"name": "conv", "size": 16, "kept": 8, "members": ["conv/kernel", "norm/scale"]},
    {"name": "dense<0>", "size": 10, "kept": 10, "members": ["dense/kernel"]},
]


def result(groups=GROUPS):
    found = samples.result()
    found["stages"][1]["cut"] = groups
    found["stages"][1]["metrics"]["masked_minus_small"] = 2.4e-7
    return found


def test_bars_are_as_long_as_groups_were_and_filled_as_far_as_kept():
    axes = cuts.picture(GROUPS).axes[0]
    whole, kept = ([bar.get_width() for bar in bars] for bars in axes.containers)
    assert (whole, kept) == ([16, 10], [8, 10])
    told = [text.get_text() for text in axes.texts]
    assert told == ["8 of 16", "in 2 weights", "10 of 10", "in 1 weight"]
    assert [t.get_text() for t in axes.get_yticklabels()] == ["conv", "dense<0>"]


def test_the_section_tells_the_proof():
    found = result()
    results.validate(found)
    text = cuts.section(found)
    assert "Removed before student" in text and "18 of 26 units are left" in text
    assert "differ by 2.4e-07 at the most" in text
    assert "dense&lt;0" in text and "dense<0>" not in text
    page = html.render(found, {}, [], {})
    assert text in page
    ET.fromstring(text[text.index("<svg") : text.index("</svg>") + 6])


def test_nothing_was_cut_nothing_is_told():
    assert cuts.section(samples.result()) == cuts.section(result([])) == ""


def test_many_groups_are_drawn_in_part():
    many = [{**GROUPS[0], "name": f"g{i}"} for i in range(cuts.BARS + 3)]
    assert "The last 3 groups are left out" in cuts.section(result(many))
    assert len(cuts.picture(many).axes[0].containers[0]) == cuts.BARS
