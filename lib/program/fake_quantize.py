"""Activations on integer grids, straight through, chosen by rules over site names."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from lib import errors, numerics, tree
from lib.program.calibrate import Ranges
from lib.program.interpreter import execute
from lib.program.observe import why_unobserved
from lib.program.sites import Site, read

Settings = Mapping[str, Any]  # bits (may be traced) and symmetric
Rule = tuple[str, Settings | None]  # a regular expression; None exempts what it takes
SETTINGS = ("bits", "symmetric")


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
    """

    site: str
    primitive: str
    macs: int
    rule: str | None
    operands: tuple[str, ...]
    bits: int | jax.Array | None
    why: str


def fake_quantize(
    f: Callable[..., Any], ranges: Ranges, rules: Sequence[Rule]
) -> Callable[..., Any]:
    """Returns `f` with the activations that enter its contractions rounded.

    Each activation (`Site.activations`) of a site that a rule covers is rounded per
    tensor by `numerics.fake_quant`, straight through and clipped to its range. Weights
    are left to the weight transforms.

    Args:
      f: pure, `f(params, *args, **kwargs)`.
      ranges: `{site: {'lhs': (smallest, largest), 'rhs': ...}}` as `calibrate` returns
        them; may be traced. Arrays of shape `Site.scans`.
      rules: ordered `(pattern, settings)`; the first pattern found in a site's name
        takes it. `settings` is `{'bits': 8, 'symmetric': False}`, or None, which
        leaves the site in float. `bits` may be traced.

    Raises:
      UserError: when the result is called: a rule takes no site, its settings are not
        valid, a covered site has no range or one of another shape, or a range names
        no site.
    """
    _check(rules)

    @functools.wraps(f)
    def quantized(*args, **kwargs):
        program = read(f, args, kwargs)
        settings = {
            name: settings
            for name, (_, settings) in _take(program.sites, rules).items()
        }
        _check_names(ranges, program.sites)
        feeds = {
            site.name: {side: _range(ranges, site, side) for side in site.activations}
            for site in program.sites
            if settings.get(site.name) is not None
        }

        def step(site, lhs, rhs, bind, feed):
            operands = {"lhs": lhs, "rhs": rhs}
            for side, bounds in (feed or {}).items():
                operands[side] = _round(operands[side], *bounds, settings[site.name])
            return bind(operands["lhs"], operands["rhs"]), None

        return execute(program, step, feeds)[0]

    return quantized


def coverage(f: Callable[..., Any], rules: Sequence[Rule]) -> Callable[..., list[Row]]:
    """Returns a function of f's arguments that lists what the rules make of f.

    One row for each site in program order, then one for each part that was not
    entered. Nothing is computed; arrays may be given as `jax.ShapeDtypeStruct`.
    """
    _check(rules)

    def listing(*args, **kwargs):
        program = read(f, args, kwargs)
        taken = _take(program.sites, rules)
        rows = [
            _row(site, *taken.get(site.name, (None, None))) for site in program.sites
        ]
        return rows + [
            Row(part.name, part.primitive, 0, None, (), None, part.why)
            for part in program.missed
        ]

    return listing


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
    hint = why_unobserved(site)
    return Row(
        site.name,
        site.primitive,
        site.macs,
        rule,
        site.activations,
        settings["bits"],
        hint and f"its range must be given by hand: {hint}",
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
        for key in settings:
            errors.lookup(dict.fromkeys(SETTINGS), key, f"setting of {where}")
        for key in SETTINGS:
            if key not in settings:
                raise errors.UserError(f"{where}: {key} is not set")
        numerics.check_bits(settings["bits"], where)
        if not isinstance(settings["symmetric"], bool):
            raise errors.UserError(
                f"{where}: symmetric is True or False, got {settings['symmetric']!r}"
            )


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


def _round(
    x: jax.Array, smallest: jax.Array, largest: jax.Array, settings: Settings
) -> jax.Array:
    """Returns `x` rounded onto the grid of its range."""
    bits, symmetric = settings["bits"], settings["symmetric"]
    return numerics.fake_quant(
        x, numerics.grid(smallest, largest, bits, symmetric=symmetric)
    )
