"""A stage's techniques on weights, chained; strengths follow their schedules."""

from typing import Any, NamedTuple

import jax
import numpy as np

from experiments import scoring
from lib import errors, schedules, transforms


class Chain(NamedTuple):
    """A stage's techniques on weights.

    Attributes:
      transform: the chain.
      settled: the first step count after which no schedule moves any more.
    """

    transform: transforms.Transform
    settled: int


def build(config: Any, stage: Any, given: scoring.Given | None = None) -> Chain:
    """Returns the chain of a stage's techniques, each with its settings at the top.

    Args:
      config: the whole config.
      stage: the stage's settings.
      given: what was measured for them, as `scoring.measure` returns it.
    """
    parts, settled = [], 0
    for name in stage.transforms:
        errors.lookup(transforms.TECHNIQUES, name, "technique")
        options = scoring.arguments(name, config[name], (given or {}).get(name))
        rules = options.pop("rules", ())
        if rules:
            part, end = _ruled(name, options, rules, stage.steps)
        else:
            part, end = _technique(name, options, stage.steps)
        parts.append(part)
        settled = max(settled, end)
    return Chain(transforms.chain(*parts), settled)


def _ruled(name: str, options: dict[str, Any], rules: Any, steps: int):
    """Returns a technique at other strengths by rules, `((pattern, strength), ...)`."""
    strength, aimed, settled = transforms.RULED[name], [], 0
    for rule in rules:
        if len(rule) != 2:
            raise errors.UserError(
                f"{name}.rules is pairs (pattern, {strength}), got {rule!r}"
            )
        # The rule picks the leaves; the first that matches takes one.
        chosen = {**options, strength: rule[1], "pattern": "."}
        part, end = _technique(name, chosen, steps)
        aimed.append((rule[0], part))
        settled = max(settled, end)
    return transforms.select(aimed), settled


def _technique(name: str, options: dict[str, Any], steps: int):
    """Returns a technique, and the step count after which it does not move any more."""
    if "schedule" in options:
        options, settled = _scheduled(name, options, steps)
    else:
        options, settled = _in_steps(name, options, steps)
    return transforms.TECHNIQUES[name](**options), settled


def _in_steps(name: str, options: dict[str, Any], steps: int):
    """Returns the options with shares of the stage as steps, and the end."""
    shares = {k: options[k] for k in ("begin", "end") if k in options}
    if not all(0 <= share <= 1 for share in shares.values()):
        raise errors.UserError(
            f"{name}: begin and end are shares of the stage's steps, from 0 to 1, got "
            f"{shares}"
        )
    whole = {k: round(share * steps) for k, share in shares.items()}
    return {**options, **whole}, whole.get("end", 0)


def _scheduled(name: str, options: dict[str, Any], steps: int):
    """Returns a technique's arguments with its strength as a schedule, and its end."""
    kind = options.pop("schedule")
    initial, begin, end = (options.pop(k) for k in ("initial", "begin", "end"))
    if not kind:
        return options, 0
    if not steps:
        raise errors.UserError(
            f"{name}.schedule={kind!r} moves as training goes, but the stage has "
            f"steps=0; set {name}.schedule=''"
        )
    make = errors.lookup(schedules.SCHEDULES, kind, "schedule")
    if not 0 <= begin <= end <= 1:
        raise errors.UserError(
            f"{name}: begin and end are shares of the stage's steps with "
            f"0 <= begin <= end <= 1, got {begin} and {end}"
        )
    strength, every = transforms.STRENGTHS[name], options.get("every", 1)
    final = options[strength]
    traced = isinstance(final, jax.Array)  # in a sweep, which judges them itself
    # A schedule hides its values from the technique: let it judge the plain numbers.
    for value in () if traced else (initial, final):
        transforms.TECHNIQUES[name](**{**options, strength: value})
    schedule = make(
        initial=initial,
        final=final,
        begin=round(begin * steps),
        end=round(end * steps),
    )
    if traced:
        return {**options, strength: schedule}, steps
    updates = np.arange(0, steps, every)
    with jax.ensure_compile_time_eval():  # in a sweep of other settings, all is traced
        moving = updates[np.asarray(schedule(updates)) != np.float32(final)]
    if updates[-1] in moving:
        raise errors.UserError(
            f"{name}: updates every {every} steps until step {round(end * steps)} do "
            f"not complete {strength}={final} in a stage of {steps} steps; "
            "lower end or every"
        )
    # The update after the last one that still moves completes it.
    last = int(moving[-1]) + every if moving.size else 0
    return {**options, strength: schedule}, last + 1
