"""Ranges that leave extremes out, searched in one streaming histogram.

A few outliers widen a grid for all other values. Three ways to say which to give up;
each a `Calibration` whose statistic is `histogram.Histogram`. What they find is
float32 and at most a bin off (`histogram.BINS`), and contains 0 but for `percentile`.
"""

import jax
import jax.numpy as jnp
from jax import lax

from lib import errors, numerics
from lib.program import histogram
from lib.program.calibrate import Calibration, Range
from lib.program.histogram import BINS, Histogram

_BATCH = 16  # candidates that are judged at once
_TRACE = 1e-4  # of a value, where Q has none
_STEPS = (1 / 16, 1 / 128, 1 / 1024)  # of the shares that the affine search tries
_REACH = 8  # steps on each side of the best share so far


def percentile(*, percent: float | jax.Array) -> Calibration:
    """Returns the calibration that leaves out the outermost values of each end.

    At most `100 - percent` % of the values lie above the range and as many below it;
    zeros count. Each end is NumPy's percentile by the method "inverted_cdf", of x above
    and of -x below, moved outwards to the next border of a bin but not beyond the
    extreme: 100 is `minmax`.

    Args:
      percent: in (50, 100], such as 99.99 (Wu et al. 2020, arXiv 2004.09602, who take
        it of magnitudes). May be traced, in float32: 99.99 is then 0.04 % off in what
        is left out.

    Raises:
      UserError: percent is not in (50, 100].
    """
    traced = isinstance(percent, jax.core.Tracer)
    if not traced and not 50 < percent <= 100:
        raise errors.UserError(
            f"percentile: percent is more than 50 and at most 100, got {percent}"
        )
    # float32 rounds: a share of the values that is a whole number is to count as one.
    beyond = (100 - percent) / 100 * (1 + 2**-20)

    def ranges(h: Histogram) -> Range:
        limbs, zero = histogram.line(h, folded=False)
        counts = jnp.insert(histogram.whole(limbs), zero, histogram.whole(h.zeros))
        # Seen from either end: the values further out than each bin and those in it.
        further = jnp.cumsum(jnp.stack([counts, counts[::-1]]), axis=1)
        few = further <= beyond * jnp.sum(counts)
        # The bins in order: BINS negative ones, the zeros, BINS positive ones. What is
        # left begins behind the last bin that can go, at its border away from zero.
        left = jnp.sum(few, axis=1) - BINS
        ends = jnp.where(left > 0, left - 1, left) * jnp.float32([1, -1])
        smallest, largest = jnp.clip(ends * histogram.width(h), h.smallest, h.largest)
        return smallest, largest

    return Calibration(histogram.count, histogram.merge, ranges)


def mse(*, bits: int | jax.Array, symmetric: bool) -> Calibration:
    """Returns the calibration whose grid rounds what was seen with the least error.

    The mean squared error of `numerics.fake_quant` on the grid of the range, rounding
    and clipping together, is integrated over the histogram in closed form, with the
    values of a bin spread evenly over it. Of equals the widest wins.

    Symmetric, `[-t, t]`: t is the best of all borders of bins. Affine: pairs of shares
    of the two extremes, each 0 to 1, first in steps of 1/16, then around the best in
    steps of 1/128 and of 1/1024; so a local minimum may be taken for the least.

    Args:
      bits: of the grid, 2 to 8; may be traced.
      symmetric: of the grid, as in `numerics.grid`.

    Raises:
      UserError: bits is not a whole number from 2 to 8.
    """
    numerics.check_bits(bits, "mse")

    def ranges(h: Histogram) -> Range:
        limbs, zero = histogram.line(h, folded=symmetric)
        counts = histogram.whole(limbs)
        shares = counts / jnp.maximum(jnp.sum(counts), 1)
        borders = jnp.arange(counts.size + 1, dtype=jnp.float32) - zero
        low, high = histogram.ends(h)  # all in widths of a bin, so nothing overflows

        def error(ends):
            grid = numerics.grid(*ends, bits, symmetric=symmetric)
            found = jnp.sum(shares * _rounding(borders, grid))
            return jnp.where(ends[1] > ends[0], found, jnp.inf)

        if symmetric:
            most = jnp.maximum(-low, high)
            tried = jnp.minimum(jnp.arange(BINS, 0.0, -1), most)
            smallest, largest = _best(error, (-tried, tried))
        else:

            def narrow(best, step):
                around = jnp.arange(_REACH, -_REACH - 1, -1) * step
                first, second = (jnp.clip(b + around, 0, 1) for b in best)
                first = jnp.repeat(first, around.size)
                second = jnp.tile(second, around.size)
                return _best(
                    lambda s: error((s[0] * low, s[1] * high)), (first, second)
                ), None

            middle = jnp.float32(0.5), jnp.float32(0.5)
            (first, second), _ = lax.scan(narrow, middle, jnp.float32(_STEPS))
            smallest, largest = first * low, second * high
        return smallest * histogram.width(h), largest * histogram.width(h)

    return Calibration(histogram.count, histogram.merge, ranges)


def entropy(*, bits: int | jax.Array, symmetric: bool) -> Calibration:
    """Returns the calibration that keeps most of the distribution (TensorRT's).

    Migacz 2017 ("8-bit Inference with TensorRT", GTC), in the variant of NVIDIA's
    pytorch-quantization. For each border t of a bin, P is the histogram up to t with
    the outliers added to its last bin; Q is the histogram up to t without them, merged
    into the levels and spread again evenly over those bins of each level that are not
    empty. The t of the least KL(P || Q) is the threshold, of equals the largest. Bin i
    of n belongs to level `i * levels // n`; there are at least as many bins as levels,
    unless the extreme has fewer.

    Where this differs: a last bin of outliers alone counts as 1e-4 of a value in Q, as
    in MXNet (the original's infinite divergence keeps a lone outlier in the range);
    exact zeros are left out of P and Q (the original overwrites the bin they lie in
    with its neighbour); every t is tried (the original starts from 128 bins); and there
    are BINS / 2 to BINS bins up to the extreme, by where it lies below its power of 2.

    Symmetric: magnitudes in `2**(bits - 1)` levels, the range is `[-t, t]`. Affine: the
    values from -t to t, but not beyond the extremes, in `2**bits` levels, each side's
    outliers added to its own end; for values of one sign, NVIDIA's unsigned case.

    Args:
      bits: of the grid, 2 to 8; may be traced.
      symmetric: of the grid, as in `numerics.grid`.

    Raises:
      UserError: bits is not a whole number from 2 to 8.
    """
    numerics.check_bits(bits, "entropy")

    def ranges(h: Histogram) -> Range:
        limbs, zero = histogram.line(h, folded=symmetric)
        levels = jnp.left_shift(1, jnp.asarray(bits, jnp.int32) - int(symmetric))
        low, high = histogram.ends(h)
        least, most = (low, high) if not symmetric else (0.0, jnp.maximum(-low, high))
        bins = [jnp.ceil(jnp.abs(x)).astype(jnp.int32) for x in (least, most)]
        divergence = _divergences(limbs, zero, bins, levels)
        (threshold,) = _best(lambda t: divergence(t[0]), (jnp.arange(BINS, 0, -1),))
        threshold = threshold.astype(jnp.float32)
        if symmetric:
            largest = jnp.minimum(threshold, most)
            smallest = -largest
        else:
            smallest, largest = (
                jnp.maximum(-threshold, low),
                jnp.minimum(threshold, high),
            )
        return smallest * histogram.width(h), largest * histogram.width(h)

    return Calibration(histogram.count, histogram.merge, ranges)


def _best(cost, candidates):
    """Returns the first of the candidates, a tuple of vectors, of the least cost."""
    costs = lax.map(cost, candidates, batch_size=_BATCH)
    return tuple(x[jnp.argmin(costs)] for x in candidates)


def _rounding(borders: jax.Array, grid: numerics.Grid) -> jax.Array:
    """Returns the mean squared error of a grid on values even between two borders.

    With u = x / scale, n(u) the nearest code less the zero point and r = u - n(u), the
    integral of r**2 is n / 12 + r**3 / 3, within the grid and beyond it.

    Args:
      borders: float32 `[bins + 1]`, rising by 1.
      grid: its fields are scalars.
    """
    u = borders / grid.scale
    code = jnp.clip(
        jnp.round(u), grid.low - grid.zero_point, grid.high - grid.zero_point
    )
    r = u - code
    a, b = r[:-1], r[1:]
    whole = (code[1:] - code[:-1]) / 12
    # b**3 - a**3 loses digits where both are large.
    integral = whole + (b - a) * (b * b + a * b + a * a) / 3
    return integral * grid.scale**3


def _divergences(limbs: jax.Array, zero: int, bins, levels: jax.Array):
    """Returns t -> KL(P || Q) in nats, for thresholds of t bins on each side of zero.

    Args:
      limbs: counts in order, uint32 `[2, n]`.
      zero: the place before which the negative bins end.
      bins: how many bins there are to the least value and to the greatest.
      levels: int32, what the bins are merged into.
    """
    counts = histogram.whole(limbs)
    occupied = (counts > 0).astype(jnp.uint32)
    # Whole numbers up to each border: their differences are exact, modulo 2**32.
    summed = jnp.cumsum(jnp.concatenate([limbs, occupied[None]]), axis=1)
    summed = jnp.pad(summed, ((0, 0), (1, 0)))
    place = jnp.arange(counts.size)
    total = jnp.maximum(jnp.sum(counts), 1)

    def divergence(t):
        first = zero - jnp.minimum(t, bins[0])
        length = zero + jnp.minimum(t, bins[1]) - first
        inside = (place >= first) & (place < first + length)
        p = jnp.where(inside, counts, 0)
        kept = jnp.maximum(jnp.sum(p), 1)
        # The bins of a level lie between whole numbers of bins.
        some = jnp.maximum(length, 1)
        level = jnp.where(inside, (place - first) * levels // some, 0)
        start, end = (first - (-(level + i) * some // levels) for i in (0, 1))
        within = summed[:, end] - summed[:, start]
        q = jnp.where(occupied > 0, histogram.whole(within[:2]) / within[2], 0)
        below = jnp.where(place < first, counts, 0)
        above = jnp.where(place >= first + length, counts, 0)
        p = p + jnp.where(place == first, jnp.sum(below), 0)
        p = p + jnp.where(place == first + length - 1, jnp.sum(above), 0)
        ratio = (p / total) / (jnp.maximum(q, _TRACE) / kept)
        terms = jnp.where(p > 0, p / total * jnp.log(ratio), 0)
        coarse = (length >= levels) | (t >= jnp.maximum(*bins))
        return jnp.where(coarse, jnp.sum(terms), jnp.inf)

    return divergence
