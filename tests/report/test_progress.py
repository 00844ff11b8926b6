import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from lib.report import progress

ROOT = Path(__file__).parents[2]


class Clock:
    """Seconds that pass when told to."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def run(total, seconds_a_step, start=0):
    clock = Clock()
    with progress.Progress("student", total, start, clock=clock) as bar:
        for step in range(start + 1, total + 1):
            clock.now += seconds_a_step
            bar.update(step, {"loss": 1 / step, "loss/l2": 0.0, "accuracy": 0.5})


def test_a_quick_stage_is_two_lines(capsys):
    run(1000, 0.001)
    assert capsys.readouterr().out.splitlines() == [
        "student: 1000 steps",
        "student: 1000 steps in 1.0 s, loss 0.001, accuracy 0.5",
    ]


def test_a_long_stage_has_a_line_each_tenth(capsys):
    run(100, 20.0)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in lines[1:-1]] == [
        f"{n}/100" for n in range(10, 100, 10)
    ]
    assert lines[1] == "student: 10/100  loss 0.1  0.05 steps/s  30:00 left"


def test_lines_are_at_least_ten_seconds_apart(capsys):
    run(100, 0.5)  # a tenth takes 5 seconds
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in lines[1:-1]] == [
        f"{n}/100" for n in (20, 40, 60, 80)
    ]


def test_a_resumed_stage_says_so(capsys):
    run(10, 0.1, start=6)
    assert capsys.readouterr().out.splitlines() == [
        "student: going on after step 6 of 10",
        "student: 4 steps in 0.4 s, loss 0.1, accuracy 0.5",
    ]


def test_a_stage_without_steps(capsys):
    run(0, 0.1)
    assert capsys.readouterr().out.splitlines() == [
        "student: 0 steps",
        "student: 0 steps in 0.0 s",
    ]


def test_an_exception_is_told_and_goes_on(capsys):
    with pytest.raises(KeyError):
        with progress.Progress("student", 10) as bar:
            bar.update(3, {"loss": 1.0})
            raise KeyError("x")
    assert capsys.readouterr().out.splitlines()[-1] == (
        "student: stopped at step 3 of 10"
    )


def test_notices_are_kept_as_they_are(capsys):
    line = "[bold] /a/path: " + "x" * 200
    progress.say(line)
    assert capsys.readouterr().out == line + "\n"


def test_a_terminal_has_a_bar_and_notices_above_it():
    code = (
        "import time\n"
        "from lib.report import progress\n"
        "with progress.Progress('st[u]dent', 50) as bar:\n"
        "    for step in range(50):\n"
        "        time.sleep(0.01)\n"
        "        bar.update(step + 1, {'loss': 0.125})\n"
        "        if step == 25: progress.say('a [notice]')\n"
    )
    main, child = pty.openpty()
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm"}
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=child, stderr=child, env=environment
    )
    os.close(child)
    seen = b""
    try:
        while part := os.read(main, 4096):
            seen += part
    except OSError:  # how Linux says that the other end was closed
        pass
    os.close(main)
    assert process.wait() == 0
    text = seen.decode()
    assert "st[u]dent" in text and "━" in text
    assert "loss 0.125" in text and "steps/s" in text and "left" in text
    assert "a [notice]" in text
    assert text.rstrip().endswith("loss 0.125")
    assert "st[u]dent: 50 steps in" in text
