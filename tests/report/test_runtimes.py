"""The table of files in their runtimes, as text and in the report."""

from lib.report import html, results, runtimes
from tests.report import samples


def times(median, batch=8, threads=1):
    row = {"threads": threads, "batch": batch, "n": 9, "median": median}
    return row | {"low": median * 0.9, "high": median * 1.1}


def shipped(runtime, size, floats, integers, *rows):
    return {
        "path": f"artifacts/x.{size}",
        "bytes": size,
        "accuracy": 0.9722,
        "latency_ms": samples.latency(0.8),
        "runtime": runtime,
        "same_class_as_jax": 0.9972,
        "float_contractions": floats,
        "integer_contractions": integers,
        "peak_memory_bytes": 11_200_000,
        "times_ms": list(rows),
    }


def result():
    found = samples.result()
    found["artifacts"] |= {
        "whole": shipped("ONNX Runtime", 7_252, 3, 0, times(2.0), times(1.5, 8, 2)),
        "int8": shipped("ONNX Runtime", 1_843, 1, 2, times(0.5), times(0.4, 8, 2)),
    }
    found["verdicts"] = ["int8 <is> fast"]
    found["left_out"] = {"litert": "it is not installed"}
    return found


def test_the_table_is_what_was_measured():
    found = result()
    results.validate(found)
    lines = runtimes.lines(runtimes.timed(found))  # the packed file was not timed
    assert [line.split("  ")[0] for line in lines] == ["file", "whole", "int8"]
    assert "ms/batch of 8, 1 thread" in lines[0] and "8, 2 threads" in lines[0]
    told = lines[1].removeprefix("whole").split()
    assert told[:9] == "ONNX Runtime 7,252 97.22 99.72 0 of 3 11.2".split()
    assert told[9:] == ["2.00", "(1.80-2.20)", "1.50", "(1.35-1.65)"]
    assert "2 of 3" in lines[2]


def test_the_report_shows_it_and_says_what_is_missing():
    page = html.render(result(), samples.curves(), [], samples.coverage())
    assert "Where it runs, and how fast" in page
    assert "int8 &lt;is&gt; fast" in page
    assert "No litert: it is not installed" in page
    assert "<td>0.500 (0.450-0.550)</td>" in page
    bare = html.render(samples.result(), samples.curves(), [], samples.coverage())
    assert "Where it runs" not in bare


def test_memory_that_was_not_told_is_a_dash():
    found = result()
    found["artifacts"]["int8"]["peak_memory_bytes"] = None
    results.validate(found)
    assert "2 of 3 - 0.500" in " ".join(
        runtimes.lines(runtimes.timed(found))[2].split()
    )
