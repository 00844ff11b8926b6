"""Activations on integer grids, straight through, chosen by rules over site names.

The range of a grid is calibrated and stays, or is trained (`trained_ranges.py`), or is
that of the values at each call (`rounding.py`).
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from lib import errors, numerics, tree
from lib.program import rounding
from lib.program.calibrate import Range, Ranges, extremes
from lib.program.interpreter import execute
from lib.program.meets import meetings
from lib.program.observe import why_unobserved
from lib.program.sites import Site, read

Settings = Mapping[str, Any]  # bits (may be traced), symmetric, and choices
Rule = tuple[str, Settings | None]  # a regular expression; None exempts what it takes
SETTINGS = ("bits", "symmetric")
# Settings that a rule may leave out: their values, the first where it does.
CHOICES = {"range": rounding.RANGES, "learn": rounding.LEARNED}


class Row(NamedTuple):
    """What the rules make of one contraction, for a report.

    Attributes:
      site: its name, or that of a part of the program that was not entered.
      primitive: what it is.
      macs: multiply-accumulates (`Site.macs`); 0 for a part that was not entered.
      rule: the pattern that took it, None if none did.
      operands: the sides that are rounded, of `lhs` and `rhs`.
      bits: of the grid, None where nothing is rounded.
      why: why it stays in float; or what to know of it, mostly nothing.
      range: where its range comes from, of `rounding.RANGES`; "" in float.
      learn: how its range is trained, of `rounding.LEARNED`.
      weight: path of the parameter that it contracts, as it is; "" if there is none.
    """

    site: str
    primitive: str
    macs: int
    rule: str | None
    operands: tuple[str, ...]
    bits: int | jax.Array | None
    why: str
    range: str = ""
    learn: str = ""
    weight: str = ""


def fake_quantize(
    f: Callable[..., Any],
    ranges: Ranges,
    rules: Sequence[Rule],
    *,
    on: bool | jax.Array = True,
    points: str = "inputs",
) -> Callable[..., Any]:
    """Returns `f` with the activations that enter its contractions rounded.

    Each activation (`Site.activations`) of a site that a rule covers is rounded by
    `numerics.fake_quant`, straight through and clipped to its range. Weights are left
    to the weight transforms.

    A rule's settings:

    - "bits": 2 to 8; may be traced.
    - "symmetric": True or False, of `numerics.grid`.
    - "range": "static" (without it), one range a tensor, from `ranges`; "dynamic", that
      of the tensor at each call; "token", one a row at each call: of a matmul a row of
      what is contracted, of a convolution an image. What is dynamic is not calibrated.
      It sees what the program sees: an example under vmap, a device's part under pmap.
    - "learn": "" (without it), the range is a constant; "pact", "lsq" or "lsq+": a
      static range passes derivatives as those papers have it (`rounding.apply`).
      DoReFa's activations (Zhou et al. 2016, arXiv 1606.06160, eq. 11) need neither:
      give every site the range (0, 1).

    Args:
      f: pure, `f(params, *args, **kwargs)`.
      ranges: `{site: {'lhs': (smallest, largest), 'rhs': ...}}` as `calibrate` returns
        them; may be traced. Arrays of shape `Site.scans`.
      rules: ordered `(pattern, settings)`; the first pattern found in a site's name
        takes it. Settings are a dict, or None, which leaves the site in float.
      on: bool scalar, may be traced: where False, nothing is rounded after all.
      points: of `POLICIES`: which operands are rounded.

    Raises:
      UserError: when the result is called: a rule takes no site, its settings are not
        valid, a covered site has no range or one of another shape, or a range names
        no site.
    """
    run = _quantized(f, ranges, rules, on, points, lambda *seen: None)

    @functools.wraps(f)
    def quantized(*args, **kwargs):
        return run(args, kwargs)[0]

    return quantized


def tracked(
    f: Callable[..., Any],
    ranges: Ranges,
    rules: Sequence[Rule],
    *,
    on: bool | jax.Array = True,
    points: str = "inputs",
) -> Callable[..., tuple[Any, Ranges]]:
    """Returns what `fake_quantize` of these does, that tells what it has seen.

    The second result has the extremes of what was rounded, in the form of `ranges`, for
    the static ranges that are not learned and can be observed.
    """

    def look(site, side, settings, x):
        moves = is_static(settings) and not settings.get("learn", "")
        return extremes(x) if moves and site.recordable else None

    run = _quantized(f, ranges, rules, on, points, look)

    @functools.wraps(f)
    def quantized(*args, **kwargs):
        return run(args, kwargs)

    return quantized


def is_static(settings: Settings | None) -> bool:
    """Returns whether a rule's settings need ranges that were calibrated."""
    return settings is not None and settings.get("range", "static") == "static"


def coverage(
    f: Callable[..., Any], rules: Sequence[Rule], *, points: str = "inputs"
) -> Callable[..., list[Row]]:
    """Returns a function of f's arguments that lists what the rules make of f.

    One row for each site in program order, then one for each part that was not
    entered. Nothing is computed; arrays may be given as `jax.ShapeDtypeStruct`.
    """
    _check(rules)

    def listing(*args, **kwargs):
        program = read(f, args, kwargs, points=points)
        taken = _take(program.sites, rules)
        met = meetings(program, args[0])[0]
        rows = [
            _row(site, *taken.get(site.name, (None, None)))._replace(
                weight=met[site.name].path if site.name in met else ""
            )
            for site in program.sites
        ]
        return rows + [
            Row(part.name, part.primitive, 0, None, (), None, part.why)
            for part in program.missed
        ]

    return listing


def _quantized(
    f: Callable[..., Any],
    ranges: Ranges,
    rules: Sequence[Rule],
    on: bool | jax.Array,
    points: str,
    look: Callable[[Site, str, Settings, jax.Array], Range | None],
) -> Callable[..., tuple[Any, Ranges]]:
    """Returns (args, kwargs) -> f's result, rounded, and what `look` has recorded.

    Args:
      f: as for `fake_quantize`, as are `ranges`, `rules`, `on` and `points`.
      look: (site, side, settings, operand before it is rounded) -> what to record of
        it, or None.
    """
    _check(rules)

    def run(args, kwargs):
        program = read(f, args, kwargs, points=points)
        taken = {
            name: settings
            for name, (_, settings) in _take(program.sites, rules).items()
            if settings is not None
        }
        _check_names(ranges, program.sites)
        feeds = {
            site.name: {side: _range(ranges, site, side) for side in site.activations}
            for site in program.sites
            if is_static(taken.get(site.name))
        }

        def step(site, lhs, rhs, bind, feed):
            settings = taken.get(site.name)
            if settings is None:
                return bind(lhs, rhs), None
            operands, records = {"lhs": lhs, "rhs": rhs}, {}
            for side in site.activations:
                x = operands[side]
                records[side] = look(site, side, settings, x)
                bounds = (
                    feed[side]
                    if is_static(settings)
                    else rounding.seen(x, site, side, settings["range"])
                )
                rounded = rounding.apply(x, bounds, settings)
                operands[side] = rounded if on is True else jnp.where(on, rounded, x)
            found = {side: r for side, r in records.items() if r is not None}
            return bind(operands["lhs"], operands["rhs"]), found or None

        return execute(program, step, feeds)

    return run


def _row(site: Site, rule: str | None, settings: Settings | None) -> Row:
    why = ""
    if rule is None:
        why = "no rule takes it"
    elif settings is None:
        why = "its rule exempts it"
    elif not site.activations:
        weights = site.lhs_is_weight and site.rhs_is_weight
        why = "both operands are weights" if weights else "no operand is real float"
    if why:
        return Row(site.name, site.primitive, site.macs, rule, (), None, why)
    hint = why_unobserved(site) if is_static(settings) else ""
    return Row(
        site.name,
        site.primitive,
        site.macs,
        rule,
        site.activations,
        settings["bits"],
        hint and f"its range must be given by hand: {hint}",
        settings.get("range", "static"),
        settings.get("learn", ""),
    )


def _take(
    sites: Sequence[Site], rules: Sequence[Rule]
) -> dict[str, tuple[str, Settings | None]]:
    """Returns the rule that takes each site: its pattern and settings."""
    taken = tree.match([pattern for pattern, _ in rules], [s.name for s in sites])
    return {name: rules[i] for name, i in taken.items()}


def _check(rules: Sequence[Rule]) -> None:
    for pattern, settings in rules:
        where = f"rule {pattern!r}"
        if settings is None:
            continue
        for key, value in settings.items():
            errors.lookup(
                dict.fromkeys((*SETTINGS, *CHOICES)), key, f"setting of {where}"
            )
            if key in CHOICES:
                errors.lookup(dict.fromkeys(CHOICES[key]), value, f"{key} of {where}")
        for key in SETTINGS:
            if key not in settings:
                raise errors.UserError(f"{where}: {key} is not set")
        numerics.check_bits(settings["bits"], where)
        if not isinstance(settings["symmetric"], bool):
            raise errors.UserError(
                f"{where}: symmetric is True or False, got {settings['symmetric']!r}"
            )
        rounding.check(settings, where)


def _check_names(ranges: Ranges, sites: Sequence[Site]) -> None:
    names = [site.name for site in sites]
    for name in ranges:
        if name not in names:
            raise errors.UserError(
                f"range of {name!r}: no such site; {errors.hint(name, names)}"
            )


def _range(ranges: Ranges, site: Site, side: str) -> tuple[jax.Array, jax.Array]:
    """Returns the range of one operand as arrays, or raises a `UserError`."""
    if side not in ranges.get(site.name, {}):
        why = why_unobserved(site) or "calibrate first, or exempt the site with None"
        raise errors.UserError(
            f"site {site.name!r} is to be quantized but its {side} has no range; {why}"
        )
    smallest, largest = (jnp.asarray(x) for x in ranges[site.name][side])
    for bound in (smallest, largest):
        if bound.shape != site.scans:
            raise errors.UserError(
                f"range of {site.name!r} {side}: the scans around the site ask for "
                f"shape {site.scans}, got {bound.shape}"
            )
    return smallest, largest
