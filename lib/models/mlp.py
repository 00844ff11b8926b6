"""The multi-layer perceptron; with its default widths, LeNet-300-100."""

import jax
from flax import linen as nn

from lib.models import checks
from lib.models.dropout import Dropout


class MLP(nn.Module):
    """Dense layers with relu on rows or flattened images (LeCun et al. 1998).

    Layers: `dense_0`, `dense_1`, ..., `logits`; with `norm` also `norm_0`, ...,
    `norm_logits`, batch norm (arXiv 1502.03167) before each relu and of the logits.
    Features: `dense_i` `[B, widths[i]]`, after relu and before dropout.

    Attributes:
      classes: number of logits.
      widths: units of each hidden layer; their number is the depth. With () the model
        is softmax regression.
      dropout: fraction of each hidden layer's units dropped in training, in [0, 1).
      norm: batch norm behind each dense layer, which then has no bias.
      momentum: what batch norm's running statistics keep at each step, in [0, 1).
      axis_name: the pmap axis over which batch statistics are averaged; None where
        the step sees the whole batch. Set by `models.bind_axis`.
    """

    classes: int
    widths: tuple[int, ...] = (300, 100)
    dropout: float = 0.0
    norm: bool = False
    momentum: float = 0.9
    axis_name: str | None = None

    def __post_init__(self):
        """Raises a `UserError` for a field out of its range."""
        checks.counts(self, "classes")
        checks.widths(self, least=0)
        checks.fractions(self, "dropout", "momentum")
        checks.flags(self, "norm")
        super().__post_init__()

    @nn.compact
    def __call__(
        self, x: jax.Array, *, train: bool
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Returns logits `[B, classes]` of `[B, F]`, or of images `[B, H, W, C]`."""
        checks.rows_or_images(self, x)
        features = {}
        x = x.reshape((x.shape[0], -1))
        for i, width in enumerate(self.widths):
            name = f"dense_{i}"
            x = nn.Dense(width, use_bias=not self.norm, name=name)(x)
            x = features[name] = nn.relu(self._normed(x, f"norm_{i}", train))
            x = Dropout(self.dropout, deterministic=not train)(x)
        x = nn.Dense(self.classes, use_bias=not self.norm, name="logits")(x)
        return self._normed(x, "norm_logits", train), features

    def _normed(self, x: jax.Array, name: str, train: bool) -> jax.Array:
        if not self.norm:
            return x
        return nn.BatchNorm(
            use_running_average=not train,
            momentum=self.momentum,
            axis_name=self.axis_name,
            name=name,
        )(x)
