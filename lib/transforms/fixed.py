"""Leaves that are not trained: frozen features, as in transfer learning.

`code`: {} (nothing), `state`: the weights, `decode`: the weights. What is not in the
code has no slot in the optimiser, and neither weight decay nor penalties nor averages
reach it.
"""

from lib import representations
from lib.transforms import base


def fixed(*, pattern: str) -> base.Transform:
    """Leaves weights as they are (Yosinski et al. 2014, arXiv 1411.1792, "frozen").

    In a chain it fixes the code of the techniques before it: in
    `chain(quantize(bits=4), fixed(pattern=p))` the latent weights under p, whose leaves
    freeze to 4 bits; in `chain(factorize(...), fixed(pattern="kernel/u$"))` one factor.
    A later technique does not see fixed leaves.

    Args:
      pattern: regular expression over paths of the leaves to fix. With "." nothing at
        all is trained.

    Raises:
      UserError: at `encode`, for a pattern that matches nothing.
    """

    def encode(weights):
        return {p: {} for p in weights}, dict(weights)

    def decode(codes, weights):
        del codes
        return weights

    def freeze(leaves, weights):
        del leaves
        return {p: representations.of(w) for p, w in weights.items()}

    return base.on_leaves("fixed", pattern, encode, decode, freeze)
