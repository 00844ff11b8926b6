"""The speed verdict: literal sentences, and who is compared with whom."""

from lib.report import speed

AGAINST = {"float": "", "int8": "float", "packed": ""}


def entry(*medians, size=1000, counts=(0, 3), spread=0.1, threads=(1,)):
    """An artifact timed at batches of 1 and 64 for each number of threads."""
    rows = [
        {
            "threads": n,
            "batch": batch,
            "median": ms,
            "low": ms * (1 - spread),
            "high": ms * (1 + spread),
            "n": 9,
        }
        for n in threads
        for batch, ms in zip((1, 64), medians, strict=True)
    ]
    return {
        "runtime": "ONNX Runtime",
        "bytes": size,
        "times_ms": rows,
        "float_contractions": counts[0],
        "integer_contractions": counts[1],
    }


def test_a_gain_everywhere_needs_no_reason():
    entries = {"float": entry(2.0, 40.0, size=4000), "int8": entry(1.0, 10.0)}
    assert speed.verdicts(entries, AGAINST) == [
        "int8 against float in ONNX Runtime, 1 thread: 2.00x as fast at batch 1, "
        "4.00x as fast at batch 64; file 4.00x smaller"
    ]


def test_what_is_no_gain_says_so_and_why():
    whole = entry(1.0, 40.0, size=500)
    near = speed.sentence("int8", entry(1.05, 10.0), "float", whole, 1)
    assert "no gain here (0.95x) at batch 1, 4.00x as fast at batch 64" in near
    assert "file 2.00x larger" in near and "small batches" in near
    slower = speed.sentence("int8", entry(2.0, 80.0), "float", whole, 1)
    assert "slower, 0.50x the speed at batch 1" in slower
    assert "integer kernels no faster" in slower
    floats = entry(2.0, 80.0, counts=(3, 0))
    assert "run in float: only" in speed.sentence("i", floats, "float", whole, 1)
    mixed = entry(2.0, 80.0, counts=(2, 1))
    assert "2 of its 3 contractions run in float" in speed.sentence(
        "int8", mixed, "float", whole, 1
    )


def test_one_sentence_for_each_number_of_threads_and_none_without_floats():
    twice = {k: entry(2.0, 40.0, threads=(1, 2)) for k in ("float", "int8", "packed")}
    found = speed.verdicts(twice, AGAINST)
    assert [s.split(":")[0].split(", ")[1] for s in found] == ["1 thread", "2 threads"]
    del twice["float"]
    assert speed.verdicts(twice, AGAINST) == []
