"""What a stage rounds its activations by: rules, ranges that are calibrated, when."""

from typing import Any

from experiments import scoring
from lib import errors, program
from lib.data import dataset
from lib.train import step

PROGRAMS = ("fake_quantize",)  # techniques on activations, by name

# The settings of config.fake_quantize that each calibration takes.
CALIBRATED_BY = {
    "minmax": (),
    "moving_average": ("decay",),
    "percentile": ("percent",),
    "mse": ("bits", "symmetric"),
    "entropy": ("bits", "symmetric"),
    "fixed": ("bounds",),
}


def rules(config: Any, stage: Any) -> tuple:
    """Returns the rules by which a stage's activations are rounded; () for none."""
    for name in stage.program:
        errors.lookup(dict.fromkeys(PROGRAMS), name, "technique on activations")
    if "fake_quantize" not in stage.program:
        return ()
    settings = config.fake_quantize
    kept = {"symmetric": settings.symmetric}
    if settings.range != "static":
        kept["range"] = settings.range
    if settings.learn:
        kept["learn"] = settings.learn
    for rule in settings.rules:
        if len(rule) != 2:
            raise errors.UserError(
                f"fake_quantize.rules is pairs (pattern, bits), got {rule!r}"
            )
    pairs = settings.rules or ((settings.pattern, settings.bits),)
    return tuple((pattern, {"bits": bits, **kept}) for pattern, bits in pairs)


def rounding(config: Any, stage: Any) -> step.Rounding:
    """Returns when and on which ranges a stage rounds its activations."""
    settings = config.fake_quantize
    if not 0 <= settings.begin <= 1:
        raise errors.UserError(
            "fake_quantize.begin is a share of the stage's steps, from 0 to 1, got "
            f"{settings.begin}"
        )
    if not settings.shrink >= 0:
        raise errors.UserError(
            f"fake_quantize.shrink is at least 0, got {settings.shrink}"
        )
    if settings.track and not 0 < settings.decay < 1:
        raise errors.UserError(
            "fake_quantize.track needs a decay above 0 and below 1, got "
            f"{settings.decay}"
        )
    if "fake_quantize" not in stage.program:
        return step.Rounding()
    if settings.track and (settings.learn or settings.range != "static"):
        raise errors.UserError(
            "fake_quantize.track follows static ranges that are not learned; clear it, "
            "or learn and range"
        )
    if settings.shrink and not settings.learn:
        raise errors.UserError(
            "fake_quantize.shrink is a penalty on learned ranges; set learn or clear it"
        )
    if settings.points != "inputs" and (settings.track or settings.learn):
        raise errors.UserError(
            f"fake_quantize: with points {settings.points!r} operands share ranges, "
            "which track and learn would move apart; clear both, or set points to "
            "'inputs'"
        )
    return step.Rounding(
        begin=round(settings.begin * stage.steps),
        track=settings.decay if settings.track else 0.0,
        shrink=settings.shrink,
    )


def freeze_norm(stage: Any) -> int | None:
    """Returns the first step that leaves batch norm's statistics; None for none."""
    if not 0 <= stage.freeze_norm <= 1:
        raise errors.UserError(
            "freeze_norm is a share of the stage's steps, from 0 to 1, got "
            f"{stage.freeze_norm}"
        )
    return None if stage.freeze_norm == 1 else round(stage.freeze_norm * stage.steps)


def calibration(settings: Any, bits: int | None = None) -> program.Calibration:
    """Returns the calibration that `config.fake_quantize` asks for.

    `bits`, where given, are those of the rule it is for.
    """
    make = errors.lookup(program.CALIBRATIONS, settings.calibration, "calibration")
    options = {name: settings[name] for name in CALIBRATED_BY[settings.calibration]}
    if bits is not None and "bits" in options:
        options["bits"] = bits
    return make(**options)


def calibrate(
    config: Any,
    network: step.Network,
    params: Any,
    variables: Any,
    data: dataset.Dataset,
    batch_size: int,
) -> program.Ranges:
    """Returns the ranges of the network's activations over training batches.

    Those of each call are not among them; where every range is, nothing is computed.
    """
    settings = config.fake_quantize
    strengths = {s["bits"] for _, s in network.rules if program.is_static(s)}
    if strengths and "bits" not in CALIBRATED_BY[settings.calibration]:
        strengths = {None}  # one pass serves all
    ranges: program.Ranges = {}
    for bits in sorted(strengths, key=str):
        batches = scoring.batches(config, data, batch_size, settings.batches)
        images = ((variables, batch["input"]) for batch in batches)
        how = calibration(settings, bits)
        found = program.calibrate(
            network.apply,
            params,
            images,
            how,
            points=network.points,
            train=False,
            key=None,
        )
        for site, sides in found.items():
            kept = program.settings_of(site, network.rules)
            if program.is_static(kept) and bits in (None, kept["bits"]):
                ranges[site] = sides
    return ranges
