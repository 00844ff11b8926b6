"""Many workers, one study: who is alive, and what the dead have left.

A worker writes its host, its process and the time, again and again, beside the trial
that it runs. A trial whose worker has not done so for `stale` seconds, or whose process
is gone from this host, is failed, and another one with the same values takes its place
and its folder, so it goes on from the checkpoint. Clocks of hosts have to agree to
within a part of `stale`.

The first trial of a folder is its root; those that go on for it carry its number.
"""

import os
import socket
import threading
import time
from collections.abc import Sequence
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

WORKER, BEAT, ROOT, ERROR = "worker", "beat", "root", "error"
BEATS = 6  # in the time after which a worker is held for dead


def me() -> list[Any]:
    """Returns [host, process id] of this worker."""
    return [socket.gethostname(), os.getpid()]


class Beat:
    """Says that this worker is alive, from a thread, while it runs trials.

    Attributes:
      taken: set once another worker has taken a trial: this one was held for dead.
    """

    def __init__(self, trials: Sequence[optuna.Trial], stale: float):
        """Signs the trials."""
        self.taken = threading.Event()
        self._trials, self._every = trials, stale / BEATS
        self._end = threading.Event()
        for trial in trials:
            trial.set_user_attr(WORKER, me())
            trial.set_user_attr(BEAT, time.time())
        self._thread = threading.Thread(target=self._go, daemon=True)

    def _go(self) -> None:
        while not self._end.wait(self._every):
            try:
                for trial in self._trials:
                    trial.set_user_attr(BEAT, time.time())
            except optuna.exceptions.UpdateFinishedTrialError:
                self.taken.set()
                return

    def __enter__(self) -> "Beat":
        """Begins."""
        self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        """Ends."""
        self._end.set()
        self._thread.join()


def alive(trial: FrozenTrial, stale: float, now: float) -> bool:
    """Returns whether the worker of a running trial is, called between own trials.

    Args:
      trial: what the study knows of it.
      stale: seconds of silence after which it is dead.
      now: seconds since the epoch.
    """
    if WORKER not in trial.user_attrs or BEAT not in trial.user_attrs:
        return now - trial.datetime_start.timestamp() <= stale
    host, process = trial.user_attrs[WORKER]
    if [host, process] == me():
        return False
    if host == socket.gethostname() and not _runs(process):
        return False
    return now - trial.user_attrs[BEAT] <= stale


def _runs(process: int) -> bool:
    if os.name == "nt":  # where signal 0 would end it
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def root(trial: FrozenTrial) -> int:
    """Returns the number of the trial that this one is or goes on for."""
    return trial.user_attrs[ROOT] if ROOT in trial.user_attrs else trial.number


def rank(trials: Sequence[FrozenTrial], number: int) -> int:
    """Returns how many roots there are before a root, in any worker's eyes the same."""
    return sum(ROOT not in t.user_attrs and t.number < number for t in trials)


def revive(study: optuna.Study, total: int, stale: float, tries: int) -> None:
    """Fails the trials of dead workers, and lines up what goes on for them.

    Args:
      study: of all workers.
      total: roots that count.
      stale: see `alive`.
      tries: trials of a root after which it is given up.
    """
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        if not alive(trial, stale, time.time()):
            try:
                study.tell(trial.number, state=TrialState.FAIL)
            except (ValueError, optuna.exceptions.UpdateFinishedTrialError):
                pass  # another worker was quicker
    for number, parts in _of_roots(study, total).items():
        if not all(map(_lost, parts)) or len(parts) >= tries:
            continue
        most = max(parts, key=lambda t: len(t.params))
        study.enqueue_trial(most.params, user_attrs={ROOT: number})


def _lost(trial: FrozenTrial) -> bool:
    """Returns whether a trial ended by no fault of its own."""
    return trial.state == TrialState.FAIL and ERROR not in trial.user_attrs


def _of_roots(study: optuna.Study, total: int) -> dict[int, list[FrozenTrial]]:
    """Returns the trials of each of the first `total` roots."""
    trials = study.get_trials(deepcopy=False)
    roots = [t.number for t in trials if ROOT not in t.user_attrs][:total]
    parts: dict[int, list[FrozenTrial]] = {number: [] for number in roots}
    for trial in trials:
        if root(trial) in parts:
            parts[root(trial)].append(trial)
    return parts


def superfluous(study: optuna.Study, trial: optuna.Trial, total: int) -> bool:
    """Returns whether a trial is one that another worker has begun as well.

    That is a root beyond the total, or a second one that goes on for the same root.
    """
    parts = _of_roots(study, total)
    mine = trial.user_attrs[ROOT] if ROOT in trial.user_attrs else trial.number
    if mine not in parts:
        return True
    return any(t.number < trial.number and not _lost(t) for t in parts[mine])


def next_step(study: optuna.Study, total: int, tries: int) -> str:
    """Returns what a worker does now: "try", "wait" for others, or "end"."""
    parts = _of_roots(study, total)
    every = [t for some in parts.values() for t in some]
    if len(parts) < total or any(t.state == TrialState.WAITING for t in every):
        return "try"
    running = any(t.state == TrialState.RUNNING for t in every)
    lost = any(all(map(_lost, p)) and len(p) < tries for p in parts.values())
    return "wait" if running or lost else "end"


def ended(study: optuna.Study, total: int) -> list[FrozenTrial]:
    """Returns the last trial of each root, in the order of roots."""
    parts = _of_roots(study, total)
    kept = []
    for number in sorted(parts):
        whole = [t for t in parts[number] if not _lost(t)]
        kept.append(min(whole or parts[number], key=lambda t: t.number))
    return kept
