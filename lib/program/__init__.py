"""The traced program: its contractions listed, observed, calibrated and rewritten.

Works on any pure `f(params, *args, **kwargs)`; the function knows nothing of it.
"""

from lib.program.calibrate import (
    Calibration,
    Ranges,
    calibrate,
    minmax,
    moving_average,
)
from lib.program.clipping import entropy, mse, percentile
from lib.program.factored import factored, keep_factors, run_factored
from lib.program.fake_quantize import Row, Rule, coverage, fake_quantize
from lib.program.inputs import accumulate, gram, inputs, square_norm, unfed
from lib.program.observe import observe, unobserved
from lib.program.rewrite import Handler, rewrite
from lib.program.sites import Missed, Site, missed, sites

CALIBRATIONS = {
    "minmax": minmax,
    "moving_average": moving_average,
    "percentile": percentile,
    "mse": mse,
    "entropy": entropy,
}

__all__ = [
    "CALIBRATIONS",
    "Calibration",
    "Handler",
    "Missed",
    "Ranges",
    "Row",
    "Rule",
    "Site",
    "accumulate",
    "calibrate",
    "coverage",
    "entropy",
    "factored",
    "fake_quantize",
    "gram",
    "inputs",
    "keep_factors",
    "minmax",
    "missed",
    "moving_average",
    "mse",
    "observe",
    "percentile",
    "rewrite",
    "run_factored",
    "sites",
    "square_norm",
    "unfed",
    "unobserved",
]
