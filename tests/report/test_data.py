"""The section on data: told where there is something to tell, and escaped."""

from lib.report import data


def test_counts_and_features_are_told():
    features = [
        {"name": "age", "score": 0.25, "kept": True},
        {"name": "<job>", "score": 0.5, "kept": True},
        {"name": "height", "score": 0.75, "kept": False},
    ]
    counts = {"age: missing in train": 1234}
    text = data.section({"data": {"counts": counts, "features": features}})
    assert "age: missing in train" in text and "1,234" in text
    assert "2 of 3 features are kept" in text and "&lt;job&gt;" in text
    places = [text.index(name) for name in ("&lt;job&gt;", ">age<", ">height<")]
    assert places == sorted(places)  # the best first, what is left out last


def test_there_is_no_section_without_anything_to_tell():
    assert data.section({}) == ""
    assert data.section({"data": {"counts": {}, "features": []}}) == ""


def test_features_without_scores_keep_their_order():
    features = [{"name": n, "score": None, "kept": True} for n in ("b", "a")]
    text = data.section({"data": {"counts": {}, "features": features}})
    assert text.index(">b<") < text.index(">a<")
