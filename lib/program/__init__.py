"""The traced program: its contractions listed, observed, calibrated and rewritten.

Works on any pure `f(params, *args, **kwargs)`; the function knows nothing of it.
"""

from lib.program.calibrate import (
    Calibration,
    Ranges,
    calibrate,
    fixed,
    minmax,
    moving_average,
)
from lib.program.clipping import entropy, mse, percentile
from lib.program.factored import factored, keep_factors, run_factored
from lib.program.fake_quantize import (
    Row,
    Rule,
    coverage,
    fake_quantize,
    is_static,
    tracked,
)
from lib.program.inputs import accumulate, gram, inputs, square_norm, unfed
from lib.program.integer.coded import integer_params
from lib.program.integer.run_integer import (
    IntegerRow,
    integer_contractions,
    integers,
    run_integer,
)
from lib.program.observe import observe, unobserved
from lib.program.points import POLICIES
from lib.program.preserving.awq import awq
from lib.program.preserving.correct import correct_bias
from lib.program.preserving.equalize import equalize
from lib.program.preserving.fold import fold_batch_norm
from lib.program.preserving.links import Link, links
from lib.program.preserving.preserve import Change
from lib.program.preserving.reestimate import reestimate
from lib.program.preserving.smooth import smooth
from lib.program.rewrite import Handler, rewrite
from lib.program.sites import Missed, Site, missed, sites
from lib.program.trained_ranges import (
    Trained,
    first_ranges,
    next_ranges,
    settings_of,
    trained,
    with_trained,
)

CALIBRATIONS = {
    "minmax": minmax,
    "moving_average": moving_average,
    "percentile": percentile,
    "mse": mse,
    "entropy": entropy,
    "fixed": fixed,
}

__all__ = [
    "CALIBRATIONS",
    "Calibration",
    "Change",
    "Handler",
    "IntegerRow",
    "Link",
    "Missed",
    "POLICIES",
    "Ranges",
    "Row",
    "Rule",
    "Site",
    "Trained",
    "accumulate",
    "awq",
    "calibrate",
    "correct_bias",
    "coverage",
    "entropy",
    "equalize",
    "factored",
    "fake_quantize",
    "first_ranges",
    "fold_batch_norm",
    "fixed",
    "gram",
    "inputs",
    "integer_contractions",
    "integer_params",
    "integers",
    "is_static",
    "keep_factors",
    "links",
    "minmax",
    "missed",
    "moving_average",
    "mse",
    "next_ranges",
    "observe",
    "percentile",
    "reestimate",
    "rewrite",
    "run_factored",
    "settings_of",
    "run_integer",
    "sites",
    "smooth",
    "square_norm",
    "tracked",
    "trained",
    "unfed",
    "unobserved",
    "with_trained",
]
