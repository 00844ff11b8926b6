"""What a user sees while a stage runs: a bar on a terminal, a few lines elsewhere."""

import functools
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

from lib.report import formats

LINE_SECONDS = 10.0  # without a terminal: no two lines closer than this
LINE_FRACTION = 0.1  # nor closer than this part of the stage
DRAW_SECONDS = 0.1  # reading a loss waits for the device, so the bar does it rarely


@functools.cache
def console():
    """Returns the one console that bars, notices and tables are printed on."""
    from rich.console import Console

    return Console(highlight=False)


def on_terminal() -> bool:
    """Returns whether standard output is a terminal."""
    return sys.stdout.isatty()


def say(line: str) -> None:
    """Prints one line, above the bar where there is one."""
    if on_terminal():
        console().print(line, markup=False, soft_wrap=True)
    else:
        print(line, flush=True)


class Progress:
    """Shows how far a stage is; a context manager.

    On a terminal: a bar with the loss, steps a second and the time left, replaced by
    one line at the end. Elsewhere: a line at the start, one each 10 % or 10 seconds,
    whichever is rarer, and one at the end.
    """

    def __init__(
        self,
        stage: str,
        total_steps: int,
        start_step: int = 0,
        *,
        clock: Callable[[], float] = time.monotonic,
    ):
        """Takes the steps of the whole stage and those that a checkpoint has done."""
        self.stage, self.total, self.start = stage, total_steps, start_step
        self._clock = clock
        self._step = start_step
        self._metrics: Mapping[str, Any] = {}
        self._bar = self._task = None

    def __enter__(self) -> "Progress":
        """Draws the bar or the first line."""
        self._began = self._last_draw = self._last_line = self._clock()
        self._last_line_step = self.start
        self._first: tuple[int, float] | None = None
        if on_terminal():
            self._open_bar()
        elif self.start:
            say(f"{self.stage}: going on after step {self.start} of {self.total}")
        else:
            say(f"{self.stage}: {self.total} steps")
        return self

    def _open_bar(self) -> None:
        from rich import progress

        self._bar = progress.Progress(
            progress.TextColumn("[bold]{task.description}", markup=True),
            progress.BarColumn(bar_width=24),
            progress.TextColumn("{task.fields[text]}", markup=False),
            console=console(),
            transient=True,
        )
        self._task = self._bar.add_task(
            self.stage.replace("[", r"\["),
            total=max(self.total, 1),
            completed=self.start,
            text="compiling",
        )
        self._bar.start()

    def update(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Tells that `step` steps are done; cheap enough for every step.

        Args:
          step: steps of the stage that are done.
          metrics: name -> scalar, "loss" among them; device arrays are only read
            when they are shown.
        """
        now = self._clock()
        if self._first is None:  # the first step compiles, so the rate starts after it
            self._first = (step, now)
        self._step, self._metrics = step, metrics
        if self._bar is not None:
            if now - self._last_draw >= DRAW_SECONDS or step >= self.total:
                self._last_draw = now
                self._bar.update(self._task, completed=step, text=self._text(now))
        elif (
            step < self.total
            and now - self._last_line >= LINE_SECONDS
            and step - self._last_line_step >= LINE_FRACTION * self.total
        ):
            self._last_line, self._last_line_step = now, step
            say(f"{self.stage}: {self._text(now)}")

    def _rate(self, now: float) -> float | None:
        step, when = self._first or (self._step, now)
        if self._step > step and now > when:
            return (self._step - step) / (now - when)
        return None

    def _text(self, now: float) -> str:
        parts = [f"{self._step}/{self.total}"]
        if "loss" in self._metrics:
            parts.append(f"loss {formats.scalar(float(self._metrics['loss']))}")
        rate = self._rate(now)
        if rate:
            parts.append(f"{formats.scalar(float(f'{rate:.3g}'))} steps/s")
            left = max(self.total - self._step, 0) / rate
            parts.append(f"{formats.duration(left)} left")
        return "  ".join(parts)

    def __exit__(self, kind, *_) -> None:
        """Puts one line in place of the bar; says where it was left before its end."""
        now = self._clock()
        if self._bar is not None:
            self._bar.stop()
        if kind is not None or self._step < self.total:
            say(f"{self.stage}: stopped at step {self._step} of {self.total}")
            return
        took = formats.duration(now - self._began)
        shown = [
            f"{name.replace('_', ' ')} {formats.scalar(float(value))}"
            for name, value in self._metrics.items()
            if "/" not in name
        ]
        done = f"{self.stage}: {self._step - self.start} steps in {took}"
        say(", ".join([done, *shown[:4]]))
