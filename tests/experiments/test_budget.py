"""Searches in worlds that are written down, verdicts, and a budget as it is run."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs import budget as config_file
from experiments import budget, recipe
from experiments.allocation import Choice
from experiments.budgeting import search, settings, stages, verdict
from lib import errors, files


def config_of(**changes):
    config = config_file.get_config("smoke")
    config.budget.update(changes)
    return config


def limits(bytes=1000, milliseconds=0.0, points=1.0, **more):
    own = {"bytes": bytes, "milliseconds": milliseconds, "points": points}
    return config_of(**own, **more).budget


def times(median, low=None, high=None):
    low, high = low or 0.9 * median, high or 1.1 * median
    return {"median": median, "low": low, "high": high, "n": 30, "batch": 256}


def attempt(size, points, median=None):
    timed = None if median is None else times(median)
    return {"stage": "x", "bytes": size, "points": points, "latency_ms": timed}


# Files are `size` bytes longer than packing each layer says, and lose `points`.
FRONT = [Choice(n, 10.0 - i, (i,)) for i, n in enumerate((500, 700, 900, 1100, 2000))]


@pytest.mark.parametrize(
    ("longer", "points", "tried", "met"),
    [
        (0, {}, [2], True),  # 900 and what is there anyway are within 1000
        (60, {}, [2, 1], True),  # 1020: the next has at most 20 less
        (0, {2: 3.0, 3: 2.0, 4: 0.5}, [2, 3, 4], False),  # 1.5 times the bytes, twice
        (0, dict.fromkeys(range(5), 9.0), [2, 3, 4], False),  # the largest is tried
        (600, {}, [2, 0], False),  # the smallest is too long
    ],
)
def test_choices_of_bytes_until_one_meets(longer, points, tried, met):
    """What is tried, and in which order, by hand."""
    own = limits(bytes=1000, growth=1.5, attempts=4)
    seen = []

    def measure(number, choice):
        assert number == len(seen)
        seen.append(choice.options[0])
        return attempt(60 + longer + choice.bytes, points.get(choice.options[0], 0.0))

    found = search.over_bytes([FRONT], 60, measure, own)
    assert seen == tried
    assert verdict.meets(found[-1], own) is met


def test_no_more_attempts_than_asked_for():
    own = limits(bytes=1000, attempts=1)
    found = search.over_bytes([FRONT], 60, lambda n, c: attempt(2000, 0), own)
    assert len(found) == 1


OTHER = [Choice(n, 20.0, (10 + i,)) for i, n in enumerate((600, 900, 1200, 1300))]


@pytest.mark.parametrize(
    ("points", "attempts", "tried"),
    [
        ({2: 1.0}, 6, [2]),  # met by the first that fits
        ({11: 0.5}, 6, [2, 11]),  # by the other, of as many bytes
        ({}, 6, [2, 11, 3, 13, 4]),  # 1.5 times the bytes, both; the largest of all
        ({}, 3, [2, 11, 3]),
        ({3: 1.0}, 6, [2, 11, 3, 13]),  # 160 too long; 160 less was tried
    ],
)
def test_fronts_take_turns_at_as_many_bytes(points, attempts, tried):
    own = limits(bytes=1000, growth=1.5, attempts=attempts)
    seen = []

    def measure(number, choice):
        place = choice.options[0]
        seen.append(place)
        return attempt(60 + choice.bytes, points.get(place, 2.0))

    found = search.over_bytes([FRONT, OTHER], 60, measure, own)
    assert seen == tried and len(found) == len(tried)


# Cut -> (milliseconds, points) of what was trained there, and which cuts are visited.
@pytest.mark.parametrize(
    ("start", "world", "visited"),
    [
        (1, {1: (0.9, 0.5)}, [1]),  # met
        (2, {0: (3.0, 0.0), 1: (2.0, 0.5), 2: (0.9, 4.0)}, [2, 1]),  # nearest at 1
        (2, {0: (3.0, 0.0), 1: (2.0, 2.0), 2: (0.9, 4.0)}, [2, 1, 0]),  # the dense one
        (1, {1: (1.1, 0.2), 2: (0.9, 0.4)}, [1, 2]),  # it took longer than it did
        (1, {1: (1.1, 0.2), 2: (0.9, 4.0)}, [1, 2]),  # and is not gone back to
        (2, {2: (1.2, 0.1)}, [2]),  # there is no larger cut
    ],
)
def test_cuts_until_one_is_fast_and_close_enough(start, world, visited):
    own = limits(bytes=0, milliseconds=1.0)
    seen = []

    def at(place):
        seen.append(place)
        median, points = world[place]
        return [attempt(500, points, median)]

    tried = search.over_cuts(start, 3, at, own)
    assert seen == visited and len(tried) == len(visited)
    met = any(m <= 1 and p <= 1 for m, p in (world[i] for i in visited))
    assert verdict.meets(tried[verdict.best(tried, own)], own) is met


def test_a_file_that_is_too_long_is_not_cut_further():
    own = limits(bytes=400, milliseconds=1.0)
    tried = search.over_cuts(1, 3, lambda _: [attempt(500, 0.0, 0.9)], own)
    assert len(tried) == 1


ATTEMPTS = st.lists(
    st.builds(
        attempt,
        st.integers(1, 2000),
        st.integers(-2, 4).map(float),
        st.integers(1, 30).map(lambda x: x / 10),
    ),
    min_size=1,
    max_size=6,
)
LIMITS = st.sampled_from([(1000, 0.0), (0, 1.5), (1000, 1.5)])


@given(ATTEMPTS, LIMITS)
def test_the_best_meets_if_any_does_and_else_is_nearest(tried, of):
    own = {"bytes": of[0], "milliseconds": of[1], "points": 1.0}
    met = [
        (not of[0] or one["bytes"] <= of[0])
        and (not of[1] or one["latency_ms"]["median"] <= of[1])
        and one["points"] <= 1
        for one in tried
    ]
    assert [verdict.meets(one, own) for one in tried] == met
    place = verdict.best(tried, own)
    assert met[place] is any(met)
    for one in tried:  # nothing that keeps the points is smaller and faster
        if not met[place] and one["points"] <= 1:
            chosen = tried[place]
            assert chosen["points"] <= 1
            assert not (
                one["bytes"] < chosen["bytes"]
                and one["latency_ms"]["median"] < chosen["latency_ms"]["median"]
            )


def told(tried, smallest=100, rungs=(), **limits):
    own = {"bytes": 1000, "milliseconds": 0.0, "points": 1.0, **limits}
    chosen = verdict.best(tried, own)
    return verdict.sentence(
        {
            "config": {"budget": own},
            "tried": tried,
            "chosen": chosen,
            "ladder": [{"channels": c, "latency_ms": times(m)} for c, m in rungs],
            "smallest": smallest,
            "met": verdict.meets(tried[chosen], own),
        }
    )


def test_a_budget_is_met_or_the_nearest_point_is_told():
    met = told([attempt(1000, 1.0)])
    assert met == (
        "met: 1,000 bytes, 1.00 points lost in validation, of at most 1,000 bytes and "
        "1 points"
    )
    over = told([attempt(990, 3.0), attempt(1500, 0.5), attempt(2200, -0.2)])
    assert over.startswith("not met, at most 1,000 bytes and 1 points: ")
    assert "the best of what fits has 3.00 points lost" in over
    assert "the nearest point is 1,500 bytes, 0.50 points lost" in over
    none = told([attempt(1200, 5.0), attempt(1800, 4.0)], smallest=1190)
    assert "even the smallest choice takes about 1,190 bytes" in none
    assert "the nearest point is 1,800 bytes, 4.00 points lost" in none


def test_milliseconds_are_told_with_their_spread():
    only = {"bytes": 0, "milliseconds": 2.0, "smallest": None}
    rungs = [(0.0, 4.0), (0.5, 1.5)]
    met = told([attempt(900, 0.5, 1.5)], rungs=rungs, **only)
    assert met == (
        "met: 1.50 ms (half of 30 from 1.35 to 1.65, batch 256), 900 bytes, "
        "0.50 points lost in validation, of at most 2 ms and 1 points"
    )
    close = told([attempt(900, 0.5, 1.9)], rungs=rungs, **only)
    assert close.startswith("met: ") and "on both sides of the limit" in close
    lost = told([attempt(900, 3.0, 1.5), attempt(1500, 0.0, 4.0)], rungs=rungs, **only)
    assert lost.startswith("not met, at most 2 ms and 1 points: the best of what fits ")
    assert "has 3.00 points lost; the nearest point is 4.00 ms" in lost
    assert "even with" not in lost
    slow = told([attempt(900, 0.0, 3.0)], rungs=[(0.0, 4.0), (0.75, 3.0)], **only)
    assert "even with 75 % of channels cut it takes 3.00 ms (half of 30" in slow
    assert "the nearest point is 3.00 ms" in slow and "fits" not in slow


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bytes": -1}, "expected bytes, milliseconds and points from 0"),
        ({"attempts": 0}, "attempts from 1, got"),
        ({"bytes": 0, "milliseconds": 0.0}, "both 0, which is no limit; give one"),
        ({"growth": 1.0}, "budget.growth is above 1"),
        ({"stage": "smal"}, "unknown stage of a budget 'smal'"),
        ({"stage": "dense"}, "starts from 'dense' and its transforms are \\(\\)"),
        ({"channels": (0.5, 0.25)}, "above 0 and below 1, the least first"),
        ({"channels": (0.0, 0.5)}, "above 0 and below 1, the least first"),
        ({"channels": ()}, "channels is empty, but milliseconds"),
        ({"sensitivity": {"strengths": {"bits": (1,)}}}, "from 2 to 8, got 1"),
        ({"sensitivity": {"strengths": {"clusters": (3,)}}}, "powers of two .* got 3"),
        ({"sensitivity": {"techniques": ("size",)}}, "unknown technique .* 'size'"),
        ({"sensitivity": {"pattern": "kernl"}}, "rule 'kernl' matches nothing"),
    ],
)
def test_a_bad_setting_is_one_line_before_any_compute(changes, message, tmp_path):
    with pytest.raises(errors.UserError, match=message):
        budget.run(config_of(**changes), tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"small.transforms": ("prune",)},
            "as the budget chooses them, got 'dense' an",
        ),
        ({"small.prepare": ("shrink",)}, "take 'shrink' out of small.prepare"),
        ({"cut.prepare": ()}, "cut.prepare removes channels, so 'shrink' is in it"),
        ({"shrink.rules": (("dense", 0.5),)}, "clear shrink.rules and shrink.budget"),
        ({"shrink.budget": "macs"}, "clear shrink.rules and shrink.budget"),
        ({"share.scope": "global"}, "share.scope is 'leaf', got 'global'"),
        ({"factorize.residual": True}, "clear factorize.weighting and factorize.resid"),
        ({"prune.end": 1.0, "prune.every": 19}, "prune: updates every 19 steps"),
    ],
)
def test_settings_that_do_not_go_with_a_budget(changes, message, tmp_path):
    config = config_of()
    config.update_from_flattened_dict(changes)
    with pytest.raises(errors.UserError, match=message):
        budget.run(config, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_stages_that_no_limit_asks_for_are_not_looked_at():
    """A model of which nothing can be removed may have a budget of bytes."""
    asked = {(9, 0.0): ("dense", "small"), (0, 1.0): ("dense", "cut")}
    asked[9, 1.0] = ("dense", "cut", "small")
    for (size, milliseconds), names in asked.items():
        config = config_of(bytes=size, milliseconds=milliseconds)
        assert stages.needed(config).stages == names
    config = config_of(milliseconds=0.0)
    config.shrink.rules = (("nothing", 0.5),)
    settings.limits(config)
    settings.fits(config, recipe.load_data(config.data))


@pytest.mark.slow
def test_a_budget_of_milliseconds_and_bytes_is_sought_in_cuts_and_layers(tmp_path):
    config = config_of(bytes=1500)  # fast enough is nothing
    config.budget.sensitivity.techniques = ("bits",)
    result = budget.run(config, tmp_path)
    assert [one["channels"] for one in result["ladder"]] == [0.0, 0.5]
    (one,) = result["tried"]
    assert one["stage"] == "small_1_0" and one["channels"] == 0.5
    assert one["bytes"] == (tmp_path / "artifacts" / "small_1_0.pare").stat().st_size
    assert one["latency_ms"]["n"] == config.latency.repeats
    assert abs(one["bytes"] - one["expected_bytes"]) < 60
    assert not result["met"] and one["bytes"] <= 1500
    said = verdict.sentence(result)
    assert said.startswith("not met, at most 0.001 ms, 1,500 bytes and 1 points: even ")
    before, after = (
        files.read_json(tmp_path / "stages" / f"{name}.json")["cut"]
        for name in ("dense", "cut_1")
    )
    assert not before and {(g["size"], g["kept"]) for g in after} == {(16, 8)}
    assert budget.run(config, tmp_path) == result  # it is finished
