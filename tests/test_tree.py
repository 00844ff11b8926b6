"""Paths of nested dicts and ordered rules over them."""

import re

import hypothesis
import hypothesis.strategies as st
import pytest

from lib import errors, tree

NAMES = st.text("abcXYZ_019.-", min_size=1, max_size=4)
TREES = st.recursive(
    st.integers() | st.none() | st.tuples(st.integers()),
    lambda child: st.dictionaries(NAMES, child, min_size=1, max_size=4),
    max_leaves=12,
).filter(lambda t: isinstance(t, dict))

PATHS = ["enc/Dense_0/kernel", "enc/Dense_0/bias", "enc/Dense_1/kernel", "head/kernel"]


def walk(node, names=()):
    """Yields (names, leaf), the naive way."""
    if isinstance(node, dict):
        for name, child in node.items():
            yield from walk(child, (*names, name))
    else:
        yield names, node


@hypothesis.given(TREES)
def test_flatten_is_the_walk_and_unflatten_its_inverse(params):
    flat = tree.flatten(params)
    assert list(flat.items()) == [("/".join(n), leaf) for n, leaf in walk(params)]
    assert tree.unflatten(flat) == params
    for path, leaf in flat.items():
        assert tree.get(params, path) is leaf


@hypothesis.given(TREES, st.data())
def test_replace_changes_only_what_it_names(params, data):
    flat = tree.flatten(params)
    chosen = data.draw(st.sets(st.sampled_from(sorted(flat))))
    new = tree.replace(params, {path: ("new", path) for path in chosen})
    expected = {p: ("new", p) if p in chosen else x for p, x in flat.items()}
    assert tree.flatten(new) == expected
    assert tree.flatten(params) == flat


def test_literal_tree():
    params = {"b": {"kernel": 1, "bias": 2}, "a": 3, "nothing": {}}
    assert tree.flatten(params) == {"b/kernel": 1, "b/bias": 2, "a": 3}
    assert list(tree.flatten(params)) == ["b/kernel", "b/bias", "a"]
    assert tree.unflatten({"b/kernel": 1, "b/bias": 2, "a": 3}) == {
        "b": {"kernel": 1, "bias": 2},
        "a": 3,
    }
    assert tree.get(params, "b") == {"kernel": 1, "bias": 2}
    assert tree.replace(params, {"b": 4}) == {"b": 4, "a": 3, "nothing": {}}
    assert tree.replace(params, {"a": {"u": 5, "v": 6}})["a"] == {"u": 5, "v": 6}


@pytest.mark.parametrize("key", ["a/b", "", 3, None])
def test_keys_that_no_path_could_name(key):
    with pytest.raises(TypeError, match=re.escape(f"got {key!r}")):
        tree.flatten({"fine": {key: 1}})


@pytest.mark.parametrize(
    ("patterns", "took"),
    [
        (["kernel"], {PATHS[0]: 0, PATHS[2]: 0, PATHS[3]: 0}),
        (["head", "kernel"], {PATHS[0]: 1, PATHS[2]: 1, PATHS[3]: 0}),
        (["Dense_1", "^enc", "."], dict(zip(PATHS, (1, 1, 0, 2), strict=True))),
        (["bias$", "(^|/)kernel$"], dict(zip(PATHS, (1, 0, 1, 1), strict=True))),
    ],
)
def test_first_match_wins(patterns, took):
    assert tree.match(patterns, PATHS) == took


@hypothesis.given(
    st.lists(st.sampled_from(["enc", "head", "kernel", "bias", "_0", "."]), max_size=3)
)
def test_match_is_the_loop(patterns):
    naive = {}
    for path in reversed(PATHS):
        for i in reversed(range(len(patterns))):
            if re.search(patterns[i], path):
                naive[path] = i
    if set(naive.values()) == set(range(len(patterns))):
        took = tree.match(patterns, iter(PATHS))
        assert took == naive
        assert list(took) == [p for p in PATHS if p in naive]
    else:
        with pytest.raises(errors.UserError):
            tree.match(patterns, PATHS)


def message(patterns, paths=PATHS):
    with pytest.raises(errors.UserError) as e:
        tree.match(patterns, paths)
    assert "\n" not in str(e.value)
    return str(e.value)


def test_rule_without_a_match_names_the_nearest_paths():
    text = message(["kernel", "hed/kernl"])
    assert text.startswith("rule 'hed/kernl' matches nothing; nearest of 4: ")
    assert text.split("of 4: ")[1].split(", ")[0] == "head/kernel"


def test_rule_like_no_path_lists_the_first():
    assert message(["zzzz"]) == (
        "rule 'zzzz' matches nothing; nearest of 4: " + ", ".join(PATHS[:3])
    )
    assert message(["kernel"], []).startswith("rule 'kernel' matches nothing")


def test_shadowed_rule():
    text = message(["kernel", "head/kernel", "bias"])
    assert text.startswith("rule 'head/kernel' only matches what earlier rules took")


def test_invalid_regular_expression():
    text = message(["kernel", "(bias"])
    assert text.startswith("pattern '(bias' is no regular expression: ")
