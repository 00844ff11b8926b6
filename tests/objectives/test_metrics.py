import jax.numpy as jnp
import numpy as np

from lib.objectives import metrics


def _batch(logits, labels, size):
    """Returns one batch padded to `size` with NaN logits and weight 0."""
    pad = size - len(labels)
    return (jnp.pad(logits, ((0, pad), (0, 0)), constant_values=jnp.nan), {}), {
        "label": jnp.pad(jnp.asarray(labels), (0, pad)),
        "weight": jnp.pad(jnp.ones(len(labels)), (0, pad)),
    }


def test_sums_over_batches_are_those_of_the_split():
    from sklearn import metrics as reference

    rng = np.random.default_rng(0)
    logits = rng.normal(size=(23, 4)).astype(np.float32)
    labels = rng.integers(4, size=23)
    totals = {"correct": 0.0, "loss": 0.0, "count": 0.0}
    for start in range(0, 23, 5):
        part = slice(start, start + 5)
        sums = metrics.classification(*_batch(logits[part], labels[part], 5))
        assert sums.keys() == totals.keys()
        totals = {name: totals[name] + float(sums[name]) for name in totals}

    p = np.exp(logits.astype(np.float64))
    p /= p.sum(1, keepdims=True)
    assert totals["count"] == 23
    assert totals["correct"] == (logits.argmax(1) == labels).sum()
    want = reference.log_loss(labels, p, labels=range(4))
    np.testing.assert_allclose(totals["loss"] / 23, want, rtol=1e-5)


def test_literal_case():
    logits = jnp.log(jnp.array([[0.5, 0.25, 0.25], [0.5, 0.25, 0.25]]))
    batch = {"label": jnp.array([0, 2]), "weight": jnp.ones(2)}
    sums = metrics.classification((logits, {}), batch)
    assert sums["correct"] == 1
    assert sums["count"] == 2
    np.testing.assert_allclose(sums["loss"], 3 * np.log(2), rtol=1e-6)


def test_a_tie_goes_to_the_first_class():
    batch = {"label": jnp.array([0, 1]), "weight": jnp.ones(2)}
    assert metrics.classification((jnp.zeros((2, 3)), {}), batch)["correct"] == 1
