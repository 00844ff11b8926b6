"""Soft weight-sharing: a mixture of Gaussians pulls the weights into a few clusters.

`code`: `{"w"}` of each leaf; the mixture's `{"means", "log_precisions", "logits"}`
stand beside the weights of the first leaf by path. One mixture serves all leaves, as in
the paper; `select` gives those of each rule their own. `state`: the penalty's strength,
and the component of each weight once the weights have collapsed. `decode`: the weights,
later the means of their components (Ullrich et al. 2017, arXiv 1702.04008).

The mixture lives in the code and no further, so weights collapse within the stage that
trained it.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from lib import errors, representations, schedules
from lib.transforms import base

_MOST = 256  # components, as the index of one is a byte


def log_joint(w: jax.Array, mixture: dict, zero: float) -> jax.Array:
    """Returns `log pi_j + log N(w; mu_j, 1 / lambda_j)`, `[n, components]`.

    Args:
      w: `[n]` float32.
      mixture: `means`, `log_precisions` and `logits`, of `components - 1`, of
        `components` and of `components - 1` float32. Component 0 has mean 0.
      zero: pi_0, the mixing proportion of component 0.
    """
    means = jnp.concatenate([jnp.zeros(1), mixture["means"]])
    rest = jnp.log1p(-zero) + jax.nn.log_softmax(mixture["logits"])
    log_pi = jnp.concatenate([jnp.log(zero) + jnp.zeros(1), rest])
    log_precisions = mixture["log_precisions"]
    level = log_pi + (log_precisions - jnp.log(2 * jnp.pi)) / 2
    distance = jnp.square(w[:, None] - means[None, :])
    return level[None, :] - distance * jnp.exp(log_precisions)[None, :] / 2


def log_prior(mixture: dict, spread: tuple, zero_spread: tuple) -> jax.Array:
    """Returns the log density of the precisions, up to a constant.

    Sum of `(a - 1) log lambda - b lambda`: each precision is Gamma(a, b), which keeps
    a component from closing in on a single weight.

    Args:
      mixture: as in `log_joint`.
      spread: (shape a, rate b) of the components but the first.
      zero_spread: (shape a, rate b) of component 0.
    """
    log_precisions = mixture["log_precisions"]
    shapes, rates = (
        jnp.full(log_precisions.shape, rest, jnp.float32).at[0].set(first)
        for first, rest in zip(zero_spread, spread, strict=True)
    )
    return jnp.sum((shapes - 1) * log_precisions - rates * jnp.exp(log_precisions))


def _initial(weights: base.Leaves, components: int) -> dict[str, jax.Array]:
    """Returns a mixture with even means over the range of the weights."""
    most = jnp.max(jnp.stack([jnp.max(jnp.abs(w)) for w in weights.values()]))
    most = jnp.maximum(most.astype(jnp.float32), 1e-3)  # all of them may be 0
    deviation = most / (components - 1)  # half of the distance between means, nearly
    return {
        "means": most * jnp.linspace(-1.0, 1.0, components - 1),
        "log_precisions": jnp.broadcast_to(-2 * jnp.log(deviation), (components,)),
        "logits": jnp.zeros(components - 1),
    }


def soft_share(
    *,
    strength: schedules.Strength,
    components: int,
    zero: float,
    spread: tuple[float, float],
    zero_spread: tuple[float, float],
    collapse: int,
    pattern: str = base.KERNELS,
) -> base.Transform:
    """Adds `-strength * log p(weights, precisions)` to the loss; collapses at a step.

    The weights are drawn towards the means of a mixture of Gaussians, which is trained
    with them (arXiv 1702.04008, eqs. 2 and 3). Component 0 has mean 0 and a fixed
    share of the weights. After `collapse` steps each weight becomes the mean of the
    component most likely to have made it (section 4.2), of component 0 exactly 0; the
    penalty ends, and the rest of the stage trains the means. The paper merges
    components that overlap before that; here a component that gets no weights simply
    stays empty. The paper also trains the mixture at rates of its own; here the
    optimiser's rate is everything's.

    The loss is a mean over examples, so `strength` is the paper's tau (0.005) divided
    by the number of training examples.

    Args:
      strength: of the penalty, at least 0; a number, a schedule, or a traced value.
      components: 2 to 256, the zero component among them; the paper has 17.
      zero: mixing proportion of the zero component, above 0 and below 1.
      spread: (shape, rate) of the Gamma prior of the precisions; the authors' code has
        (250, 0.1), a deviation of 0.02.
      zero_spread: that of the zero component; the authors' code has (5000, 2).
      collapse: steps taken before the weights collapse; 0 for never, and then, as in a
        stage that ends before, the weights freeze as they are.
      pattern: regular expression over paths of the leaves to share.

    Raises:
      UserError: a value out of its range; at `encode`, a pattern that matches nothing.
    """
    traced = callable(strength) or isinstance(strength, jax.core.Tracer)
    for name, value, valid, needed in (
        ("strength", strength, traced or strength >= 0, "at least 0"),
        ("components", components, 2 <= components <= _MOST, f"from 2 to {_MOST}"),
        ("zero", zero, 0 < zero < 1, "above 0 and below 1"),
        ("spread", spread, _pair(spread), "(shape, rate), both above 0"),
        ("zero_spread", zero_spread, _pair(zero_spread), "(shape, rate), both above 0"),
        ("collapse", collapse, collapse >= 0, "at least 0 steps"),
    ):
        if not valid:
            raise errors.UserError(f"soft_share: {name} is {needed}, got {value}")

    def mixture(codes) -> dict[str, jax.Array]:
        return {k: x for k, x in codes[min(codes)].items() if k != "w"}

    def now(step) -> jax.Array:
        return jnp.asarray(schedules.at(strength, step), jnp.float32)

    def encode(weights):
        codes = {p: {"w": w} for p, w in weights.items()}
        codes[min(codes)].update(_initial(weights, components))
        states = {
            p: {
                "strength": now(0),
                "collapsed": jnp.zeros((), bool),
                "component": jnp.zeros(w.shape, jnp.uint8),
            }
            for p, w in weights.items()
        }
        return codes, states

    def centroids(codes) -> jax.Array:
        return jnp.concatenate([jnp.zeros(1), mixture(codes)["means"]])

    def decode(codes, states):
        means = centroids(codes)

        def one(w, state):
            shared = means.astype(w.dtype)[state["component"]]
            return jnp.where(state["collapsed"], shared, w)

        return {p: one(c["w"], states[p]) for p, c in codes.items()}

    def penalty(codes, states):
        found, mixed = 0.0, mixture(codes)
        for path in sorted(codes):
            w = codes[path]["w"].reshape(-1).astype(jnp.float32)
            found += jnp.sum(jax.nn.logsumexp(log_joint(w, mixed, zero), axis=1))
        state = states[min(states)]
        scale = jnp.where(state["collapsed"], 0, state["strength"])
        return -scale * (found + log_prior(mixed, spread, zero_spread))

    def update(codes, states, signals):
        mixed = mixture(codes)

        def assigned(path):
            w = codes[path]["w"]
            flat = w.reshape(-1).astype(jnp.float32)
            best = jnp.argmax(log_joint(flat, mixed, zero), axis=1).astype(jnp.uint8)
            # What is zero stays zero, however narrow another component has become.
            return jnp.where(w == 0, jnp.uint8(0), best.reshape(w.shape))

        def one(path, state):
            return {
                "strength": now(signals.step),
                "collapsed": state["collapsed"] | at_last,
                "component": lax.cond(
                    at_last, lambda _: assigned(path), lambda c: c, state["component"]
                ),
            }

        at_last = signals.step + 1 == collapse
        return {path: one(path, state) for path, state in states.items()}

    def freeze(leaves, states):
        if not bool(states[min(states)]["collapsed"]):
            return {p: parts["w"] for p, parts in leaves.items()}
        means = representations.materialize(leaves[min(leaves)]["means"])
        frozen = {}
        for path, parts in leaves.items():
            dtype = representations.materialize(parts["w"]).dtype
            values = np.concatenate([np.zeros(1, np.float32), means]).astype(dtype)
            component = np.asarray(states[path]["component"])
            book = representations.Codebook(component, values)
            frozen[path] = representations.sparse(component != 0, book)
        return frozen

    kind = "schedule" if callable(strength) else strength
    return base.on_leaves(
        f"soft_share(strength={kind}, components={components})",
        pattern,
        encode,
        decode,
        freeze,
        update if collapse or callable(strength) else None,
        penalty=penalty,
    )


def _pair(value) -> bool:
    return len(value) == 2 and min(value) > 0
