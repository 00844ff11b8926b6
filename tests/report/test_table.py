import sys

import pytest

from lib.report import table, verdict


def test_every_number_stands_at_80_columns(samples):
    lines = table.text(samples.result(), 80).splitlines()
    assert all(len(line) <= 80 and line.isascii() for line in lines)
    assert "ms/batch" in lines[0] and "of 64" in lines[1]
    body = [line.split() for line in lines[3:]]
    assert body == [
        "teacher 97.50 - 267k 267k 1.07 MB 266k 0.800 - -".split(),
        "student 97.00 -0.50 50.0k 50.0k 200 kB 49.8k 0.400 5.33x 2.00x".split(),
        "prune 96.50 -1.00 50.0k 5.00k 200 kB 49.8k 0.500 5.33x 1.60x".split(),
        "packed 97.22 -0.28 50.0k 5.00k 19.4 kB 49.8k 0.800 55.0x 1.00x".split(),
    ]


def test_wide_has_all_digits(samples):
    lines = table.text(samples.result(), 100).splitlines()
    assert all(len(line) <= 100 for line in lines)
    assert (
        lines[3].split()
        == "teacher 97.50 - 266,610 266,610 1,066,440 266,200 0.800 - -".split()
    )


@pytest.mark.parametrize("width", [80, 100, 140])
def test_long_names_are_folded_never_cut(samples, width):
    names = ("teacher", "finetune_with_activations", "p" * 60)
    text = table.text(samples.result(names), width)
    letters = "".join(line.split(" ")[0] for line in text.splitlines()[3:])
    assert "".join(names) in letters
    assert "\u2026" not in text


def test_batch_sizes_that_differ_stand_in_the_cells(samples):
    result = samples.result()
    result["stages"][1]["latency_ms"]["batch"] = 1
    text = table.text(result, 100)
    assert "0.400 @1" in text and "0.800 @64" in text
    student = next(x for x in text.splitlines() if x.startswith("student"))
    assert student.split()[-1] == "-"


def test_what_was_not_measured_is_a_dash(samples):
    result = samples.result()
    del result["artifacts"]["packed"]["size"]
    result["artifacts"]["packed"].update(accuracy=None, latency_ms=None)
    packed = table.text(result, 80).splitlines()[-1].split()
    assert packed == [
        "packed",
        "-",
        "-",
        "-",
        "-",
        "19.4",
        "kB",
        "-",
        "-",
        "55.0x",
        "-",
    ]


def test_show_is_plain_where_there_is_no_terminal(samples, capsys):
    assert not sys.stdout.isatty()
    table.show(samples.result())
    assert capsys.readouterr().out == table.text(samples.result(), 100)


def test_markdown(samples):
    lines = table.markdown(samples.result(("a|b", "student", "prune"))).splitlines()
    assert lines[0].startswith("| stage | acc. % | points | params | nonzero | file |")
    assert lines[1] == "| --- |" + " ---: |" * 9
    assert lines[2].startswith(r"| a\|b | 97.50 | - | 267k |")
    assert lines[-1] == (
        "| packed | 97.22 | -0.28 | 50.0k | 5.00k | 19.4 kB | 49.8k | 0.800 "
        "| 55.0x | 1.00x |"
    )


def test_the_verdict_in_plain_words(samples):
    assert verdict.sentence(samples.result()) == (
        "The packed file is 55.0x smaller than teacher's (19.4 kB against 1.07 MB) "
        "and 0.28 points less accurate (97.22 % against 97.50 %); on this machine it "
        "is not measurably faster (1.00x)."
    )


def test_the_verdict_does_not_hide_a_loss(samples):
    result = samples.result()
    packed = result["artifacts"]["packed"]
    packed.update(bytes=2_132_880, accuracy=0.975, latency_ms=samples.latency(3.2))
    assert verdict.sentence(result) == (
        "The packed file is 2.00x larger than teacher's (2.13 MB against 1.07 MB) and "
        "just as accurate (97.50 %); on this machine it is slower (0.25x the speed)."
    )
    packed.update(accuracy=0.98, latency_ms=samples.latency(0.2))
    assert "0.50 points more accurate" in verdict.sentence(result)
    assert verdict.sentence(result).endswith("on this machine it is 4.00x as fast.")


def test_the_verdict_without_artifacts(samples):
    result = samples.result()
    result["artifacts"] = {}
    assert verdict.sentence(result).startswith("The file of prune is 5.33x smaller")
    result["stages"] = result["stages"][:1]
    assert verdict.sentence(result) == (
        "Teacher is the only stage: there is nothing to compare."
    )
