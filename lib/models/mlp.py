"""The multi-layer perceptron; with its default widths, LeNet-300-100."""

import jax
from flax import linen as nn

from lib.models import checks


class MLP(nn.Module):
    """Dense layers with relu on flattened images (LeCun et al. 1998, LeNet-300-100).

    Layers: `dense_0`, `dense_1`, ..., `logits`.
    Features: `dense_i` `[B, widths[i]]`, after relu and before dropout.

    Attributes:
      classes: number of logits.
      widths: units of each hidden layer; their number is the depth. With () the model
        is softmax regression.
      dropout: fraction of each hidden layer's units dropped in training, in [0, 1).
    """

    classes: int
    widths: tuple[int, ...] = (300, 100)
    dropout: float = 0.0

    def __post_init__(self):
        """Raises a `UserError` for a field out of its range."""
        checks.counts(self, "classes")
        checks.widths(self, least=0)
        checks.fractions(self, "dropout")
        super().__post_init__()

    @nn.compact
    def __call__(
        self, images: jax.Array, *, train: bool
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Returns logits `[B, classes]` and features of images `[B, H, W, C]`."""
        checks.images(self, images, least=1)
        features = {}
        x = images.reshape((images.shape[0], -1))
        for i, width in enumerate(self.widths):
            name = f"dense_{i}"
            x = features[name] = nn.relu(nn.Dense(width, name=name)(x))
            x = nn.Dropout(self.dropout, deterministic=not train)(x)
        return nn.Dense(self.classes, name="logits")(x), features
