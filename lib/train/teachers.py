"""Who teaches: one network, several, or logits that came with the batch."""

from collections.abc import Callable, Sequence
from typing import Any

import jax

from lib import errors
from lib.data import teacher_cache
from lib.train.network import Network

# (weights, prepared batch) -> (logits, features)
Teacher = Callable[[Any, Any], Any]


def one(network: Network) -> Teacher:
    """Returns the teacher whose weights are a network's (params, variables, ranges)."""

    def teach(weights: Any, batch: Any) -> Any:
        return network(*weights, batch["input"])[0]

    return teach


def several(networks: Sequence[Network]) -> Teacher:
    """Returns the teacher of the mean of logits (You et al. 2017, KDD, eq. 6).

    The paper averages softened outputs; the mean of logits is their geometric mean,
    whatever the temperature. Features are those of all, as `i/name` for the network i.
    The weights are a tuple of the networks' own.

    The teacher raises a `UserError`, when traced, if the logits differ in shape.
    """

    def teach(weights: Any, batch: Any) -> Any:
        pairs = zip(networks, weights, strict=True)
        outputs = [one(network)(own, batch) for network, own in pairs]
        shapes = [logits.shape for logits, _ in outputs]
        if len(set(shapes)) > 1:
            raise errors.UserError(
                f"several teachers: expected logits of one shape, got {shapes}"
            )
        mean = sum(logits for logits, _ in outputs) / len(outputs)
        features: dict[str, jax.Array] = {
            f"{i}/{name}": x
            for i, (_, own) in enumerate(outputs)
            for name, x in own.items()
        }
        return mean, features

    return teach


def cached(classes: int) -> Teacher:
    """Returns the teacher whose logits come with the batch; it has no features.

    Its weights are None. See `teacher_cache.dense`.
    """

    def teach(weights: Any, batch: Any) -> Any:
        del weights
        return teacher_cache.dense(batch, classes), {}

    return teach
