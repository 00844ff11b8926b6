"""A small convolutional network with batch norm."""

import jax
import jax.numpy as jnp
from flax import linen as nn

from lib.models import checks, pooling
from lib.models.dropout import Dropout


class CNN(nn.Module):
    """Stages of [conv 3x3, batch norm, relu], 2x2 max pooling between the stages.

    The last stage is averaged over its places, then a dense layer gives the logits.
    Batch norm (arXiv 1502.03167) uses the batch's mean and biased variance in
    training, and keeps `running = momentum * running + (1 - momentum) * batch`
    in the collection `batch_stats`; it sees every image of a batch, whatever its
    weight.

    Layers: `conv_s_d` (no bias) and `norm_s_d` for stage s and its layer d, `logits`.
    Features: `stage_s` `[B, h, w, widths[s]]`, after the stage's last relu, and
    `pooled` `[B, widths[-1]]`, before dropout.

    Attributes:
      classes: number of logits.
      widths: channels of each stage.
      depth: convolutions in each stage.
      dropout: fraction of the pooled channels dropped in training, in [0, 1).
      momentum: what the running statistics keep at each step, in [0, 1).
      axis_name: the pmap axis over which batch statistics are averaged; None where
        the step sees the whole batch. Set by `models.bind_axis`.
    """

    classes: int
    widths: tuple[int, ...] = (32, 64, 128)
    depth: int = 1
    dropout: float = 0.0
    momentum: float = 0.9
    axis_name: str | None = None

    def __post_init__(self):
        """Raises a `UserError` for a field out of its range."""
        checks.counts(self, "classes", "depth")
        checks.widths(self, least=1)
        checks.fractions(self, "dropout", "momentum")
        super().__post_init__()

    @nn.compact
    def __call__(
        self, images: jax.Array, *, train: bool
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Returns logits `[B, classes]` and features of images `[B, H, W, C]`."""
        checks.images(self, images, least=2 ** (len(self.widths) - 1))
        features = {}
        x = images
        for s, width in enumerate(self.widths):
            if s > 0:
                x = pooling.max_pool(x)
            for d in range(self.depth):
                # Batch norm's own bias follows: one here would change nothing.
                x = nn.Conv(width, (3, 3), use_bias=False, name=f"conv_{s}_{d}")(x)
                norm = nn.BatchNorm(
                    use_running_average=not train,
                    momentum=self.momentum,
                    axis_name=self.axis_name,
                    name=f"norm_{s}_{d}",
                )
                x = nn.relu(norm(x))
            features[f"stage_{s}"] = x
        x = features["pooled"] = jnp.mean(x, axis=(1, 2))
        x = Dropout(self.dropout, deterministic=not train)(x)
        return nn.Dense(self.classes, name="logits")(x), features
