"""Which techniques may follow which on one leaf, and what to do instead.

Nearly every order has a meaning. The few that have none stand in `REFUSED`.
"""

from collections.abc import Mapping, Sequence

from lib import errors

# Said of techniques that set weights to 0 for them to grow from there.
_GROWS = (
    "what comes back, comes back at 0, and would be removed again before it learns; "
    "put the technique that removes first: the other then moves within what it keeps"
)

_CODEBOOKS = (
    "it would make one of the layers' codebooks, not of their weights; put tie first, "
    "or share with scope='global'"
)

_PRODUCT = (
    "it would round the product, which is then stored in full; put quantize after, and "
    "it rounds the factors"
)

# What rounds weights as they are trained, and once, as it is encoded.
_ROUNDS = ("quantize", "lsq", "dorefa", "levels", "binary_connect")
_ROUNDS_ONCE = ("gptq", "adaround")

_ROUNDED = (
    "it would be rounded twice, to two grids; leave one of the two out, or aim them at "
    "different leaves"
)

_MADE_UP = (
    "what it changes to make up for what it removes would be rounded to the nearest; "
    "put sparsegpt first"
)

# What techniques that come last train beside the weights.
_TRAINED_BESIDE = {
    "l0": "gates",
    "lsq": "steps",
    "soft_share": "mixture",
    "variational": "variances",
}


def _last(earlier: str, later: str) -> str:
    return (
        f"it would take {earlier}'s {_TRAINED_BESIDE[earlier]} for weights, too; put "
        f"{later} first, or {earlier} in a stage before"
    )


# What treats each layer's copy of a tied weight on its own, so that they come apart.
_EACH_COPY = (
    *("prune", "keep", "soft_movement", "rigl", "set", "acdc", "ste", "sr_ste"),
    *("sparsegpt", "proximal", "l0", "variational", "soft_share", "quantize"),
    *("factorize", "tucker", "cp", "lora", "lsq", "dorefa"),
    *("levels", "binary_connect"),
    *("gptq", "adaround"),
)

# What sets weights to 0, for good or for a while.
_REMOVES = (
    *("prune", "keep", "soft_movement", "rigl", "set", "acdc", "ste", "sr_ste"),
    *("sparsegpt", "proximal", "l0", "variational", "soft_share"),
)

# What works by moving weights.
_MOVES = ("rigl", "set", "acdc", "proximal", "soft_share")

# (earlier, later) technique on one leaf -> why that has no meaning, and what has.
REFUSED: dict[tuple[str, str], str] = {
    **{
        (first, "tie"): "it would treat each layer's copy on its own, and they would "
        f"no longer be one; tie first: chain(tie(...), {first}(...))"
        for first in _EACH_COPY
    },
    **{
        (first, "fixed"): f"{first} works by moving weights, and fixed ones do not "
        "move; leave one of the two out, or aim them at different leaves"
        for first in _MOVES
    },
    ("acdc", "keep"): _GROWS,
    ("acdc", "prune"): _GROWS,
    ("acdc", "sparsegpt"): _GROWS,
    ("rigl", "keep"): _GROWS,
    ("rigl", "prune"): _GROWS,
    ("rigl", "sparsegpt"): _GROWS,
    ("set", "keep"): _GROWS,
    ("set", "prune"): _GROWS,
    ("set", "sparsegpt"): _GROWS,
    **{("dorefa", later): _PRODUCT for later in ("factorize", "tucker", "cp")},
    **{
        ("dorefa", later): "dorefa has no 0 among its levels: what is removed from "
        f"the weights below would come back; put {later} first"
        for later in _REMOVES
    },
    **{
        (rounds, later): _PRODUCT.replace("quantize", rounds)
        for rounds in ("levels", "binary_connect")
        for later in ("factorize", "tucker", "cp")
    },
    **{
        (first, later): _GROWS
        for first in ("acdc", "rigl", "set")
        for later in _ROUNDS_ONCE
    },
    **{(a, b): _ROUNDED for a in _ROUNDS for b in _ROUNDS if a != b},
    **{
        pair: _ROUNDED
        for once in _ROUNDS_ONCE
        for other in (*_ROUNDS_ONCE, *_ROUNDS)
        for pair in ((once, other), (other, once))
    },
    **{(once, "sparsegpt"): _MADE_UP for once in _ROUNDS_ONCE},
    **{
        (once, product): _PRODUCT.replace("quantize", once)
        for once in _ROUNDS_ONCE
        for product in ("factorize", "tucker", "cp")
    },
    ("quantize", "factorize"): _PRODUCT,
    ("quantize", "tucker"): _PRODUCT,
    ("quantize", "cp"): _PRODUCT,
    ("share", "tie"): _CODEBOOKS,
    ("product", "tie"): _CODEBOOKS,
    **{
        (earlier, later): _last(earlier, later)
        for earlier in _TRAINED_BESIDE
        for later in (*_EACH_COPY, "share", "product")
    },
}


def name(how: str) -> str:
    """Returns the technique's name of what `plan` lists, as prune of "prune(0.9)"."""
    return how.split("(")[0]


def check(steps: Sequence[Mapping[str, str]]) -> None:
    """Raises a `UserError` for an order without a meaning.

    Args:
      steps: for each technique of a chain, {path that it takes: how it treats it}. A
        later path that lies below an earlier one is part of the same leaf.
    """
    for i, earlier in enumerate(steps):
        for later in steps[i + 1 :]:
            for path, how in later.items():
                for above, before in earlier.items():
                    if path != above and not path.startswith(f"{above}/"):
                        continue
                    for first in before.split(", "):
                        why = REFUSED.get((name(first), name(how)))
                        if why:
                            raise errors.UserError(
                                f"{path}: {name(first)} before {name(how)}: {why}"
                            )
